/*
 * paired: map and unmap come in pairs, so that what was mapped as one goes as one: for one page the whole area is unmapped. The
 * neighbours fault (I4 is not claimed). Bounds and what is left out: machine/take-away.pml; the area is all four pages.
 */
#include "machine/take-away.pml"
#include "machine/unmap-area.pml"

inline takeAway() { unmapAreaAndFlush() }

#include "machine/take-away-run.pml"
