/*
 * break-before-make: the leaf is cleared and invalidated, then what is left of it is mapped back in small leaves. In between the neighbours
 * fault, and when memory is short they stay unmapped (I4 is not claimed). Bounds and what is left out: machine/take-away.pml; one
 * leaf.
 */
#include "machine/take-away.pml"
#include "machine/whole-leaf.pml"

/* Leaves for the old leaf's pages that are not taken, in a private sub-tree, which then takes the place of nothing. */
inline mapRest() {
  lower = 0;
  allocate(child);
  if
  :: child != NONE && level == 3 -> allocate(lower)
  :: else
  fi;
  if
  :: child != NONE && lower != NONE ->
     d_step {
       if
       :: level == 3 ->
          cpu[child * 2] = ATTRIBUTES(e) | PS | (ADDRESS(e) << 6);
          cpu[child * 2 + 1] = ATTRIBUTES(e) | PS | ((ADDRESS(e) + 2) << 6);
          cpu[WORD(child, FIRST, 2)] = POINTER(lower);
          cpu[WORD(lower, FIRST ^ 1, 1)] = ATTRIBUTES(e) | ((ADDRESS(e) + (FIRST ^ 1)) << 6)
       :: else -> cpu[WORD(child, FIRST ^ 1, 1)] = ATTRIBUTES(e) | ((ADDRESS(e) + (FIRST & 1 ^ 1)) << 6)
       fi
     }
     FLUSH(child);
     if :: lower != 0 -> FLUSH(lower) :: else fi;
     cpu[WORD(table, FIRST, level)] = POINTER(child);
     FLUSH(table)
  :: child != NONE && lower == NONE -> owner[child] = FREE
  :: else
  fi
}

inline takeAway() {
  clearLeaves(FIRST, LAST);
  invalidate(first, last, 1, 0);
  mapRest()
}

#include "machine/take-away-run.pml"
