/*
 * naive: the recursive clear of Linux 6.1 to 6.5. At a level whose entry the range does not cover whole it goes down, without a look at
 * PS, and takes the frame of a leaf for a table: guest data is read as entries (I3). HOLDS ends there; what it clears in the
 * guest's memory is not followed. Bounds: machine/take-away.pml.
 */
#define HITLESS
#include "machine/take-away.pml"

inline takeAway() {
  level = 3;
  table = ROOT;
  do
  :: level > 1 && PRESENT(cpu[WORD(table, FIRST, level)]) && LAST - FIRST + 1 < SPAN(level) ->
     d_step {
       table = ADDRESS(cpu[WORD(table, FIRST, level)]);
       level--;
       HOLDS(3, table < TABLES && owner[table] == IN_USE)
     }
  :: else -> break
  od;
  cpu[WORD(table, FIRST, level)] = 0;
  invalidate(FIRST, LAST, 1, 0)
}

#include "machine/take-away-run.pml"
