/*
 * unmap: an area goes, with all its tables, while a device uses it. Claims I1, I3, I5, I6 (with ADE), I11, I12.
 *
 * Bounds and what is left out: machine/take-away.pml; the area is all four pages. Defects: TABLE_FREED_EARLY, IH_ON_NON_LEAF,
 * INVALIDATION_BEFORE_CHANGE, and those of machine/remapping-unit.pml.
 */
#define FIRST 0
#define LAST  3
#ifndef LEAF_LEVEL
#define LEAF_LEVEL 1
#endif
#include "machine/take-away.pml"
#include "machine/unmap-area.pml"

inline takeAway() { unmapAreaAndFlush() }

#include "machine/take-away-run.pml"
