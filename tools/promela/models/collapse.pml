/*
 * collapse: small leaves become a large one again while a device uses them. The entry that leads to the table is replaced by the leaf, which has the OR
 * of the A and D bits below, by one compare-and-swap; the whole range is invalidated with IH = 0. Until that is complete hardware
 * may go on with the old table and set D in it: these late bits go to the leaf before the table is freed. No page may fault.
 *
 * TO_LEVEL 2: the table of the first two pages; 3: all, over a table and a leaf of level 2. Bounds and what is left out:
 * machine/take-away.pml. Claims I3, I4, I5, I6, I12. Defects: COLLAPSE_WHILE_WALKER_HOLDS_OLD_TABLE, LATE_BITS_LOST, IH_ON_NON_LEAF.
 */
#define LEAF_LEVEL 1
#ifndef TO_LEVEL
#define TO_LEVEL 2
#endif
#define MAY_FAULT(page) false
#include "machine/take-away.pml"

/* The OR of A and D in the leaves of the tables. */
inline foldBits() {
  bits = (cpu[lower * 2] | cpu[lower * 2 + 1]) & (A | D);
  if
  :: child != lower -> bits = bits | (cpu[child * 2 + 1] & (A | D))
  :: else
  fi
}

inline freeOldTables() {
  freeTable(lower);
  if
  :: child != lower -> freeTable(child)
  :: else
  fi
}

proctype host() {
  byte table, child, lower, submitter;
  short e, bits;

  /* `child` is the table that goes, `lower` the one below it, or the same. */
  table = (TO_LEVEL == 3 -> ROOT : 1);
  lower = 2;
  do
  :: e = cpu[WORD(table, 0, TO_LEVEL)];
     child = ADDRESS(e);
     d_step { foldBits() }
     atomic {
       if
       :: cpu[WORD(table, 0, TO_LEVEL)] == e ->
          cpu[WORD(table, 0, TO_LEVEL)] = LEAF(FRAME0) | PS | bits;
          break
       :: else
       fi
     }
  od;
  FLUSH(table);
#ifdef COLLAPSE_WHILE_WALKER_HOLDS_OLD_TABLE
  freeOldTables();
#endif
#ifdef IH_ON_NON_LEAF
  invalidate(0, SPAN(TO_LEVEL) - 1, 1, 0);
#else
  invalidate(0, SPAN(TO_LEVEL) - 1, 0, 0);
#endif
#ifndef LATE_BITS_LOST
  atomic { foldBits(); cpu[WORD(table, 0, TO_LEVEL)] = cpu[WORD(table, 0, TO_LEVEL)] | bits }
#endif
#ifndef COLLAPSE_WHILE_WALKER_HOLDS_OLD_TABLE
  freeOldTables();
#endif
  returned = 1
}

#include "machine/judge.pml"
