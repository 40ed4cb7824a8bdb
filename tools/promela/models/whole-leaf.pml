/*
 * whole-leaf: the large leaf that the range touches goes, whole, and is invalidated. The neighbours fault (I4 is not claimed).
 * Bounds and what is left out: machine/take-away.pml.
 */
#include "machine/take-away.pml"
#include "machine/whole-leaf.pml"

inline takeAway() {
  clearLeaves(FIRST, LAST);
  invalidate(first, last, 1, 0)
}

#include "machine/take-away-run.pml"
