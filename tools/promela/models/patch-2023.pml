/*
 * patch-2023: the unmap of the patch posted in August 2023, as it goes, with its defects: from the root down it splits a large leaf that the range
 * is smaller than, one level at a time (D4: only then; else it goes on down). The new table is not flushed before it is published (D1), a
 * failure to allocate (D6) or a compare-and-swap that hardware's A or D made fail (D5) ends the unmap, which says nothing
 * of it (D3); the bits above 51 are left out (D8). Only the range is invalidated (D9). A and D are inherited (D7, no violation); D2 is about
 * first-stage tables.
 *
 * Bounds and what is left out: machine/take-away.pml. What breaks depends on the configuration: I1 by D9, I3 by D4, I4 by D1 or D8, I8 by
 * D3, D5 or D6.
 */
#define HITLESS
#include "machine/take-away.pml"

inline splitLeaf() {
  allocate(child);
  if
  :: child == NONE -> goto giveUp
  :: else
  fi;
  d_step {
    cpu[child * 2] = ATTRIBUTES(e) & ~HIGH | (level == 3 -> PS : 0) | (ADDRESS(e) << 6);
    cpu[child * 2 + 1] = ATTRIBUTES(e) & ~HIGH | (level == 3 -> PS : 0) | ((ADDRESS(e) + SPAN(level - 1)) << 6)
  }
  atomic {
    if
    :: cpu[WORD(table, page, level)] == e -> cpu[WORD(table, page, level)] = POINTER(child)
    :: else -> owner[child] = FREE; goto giveUp
    fi
  }
  FLUSH(table)
}

inline takeAway() {
  page = FIRST;
  do
  :: page > LAST -> break
  :: else ->
     level = 3;
     table = ROOT;
     do
     :: level == 1 -> break
     :: else ->
        e = cpu[WORD(table, page, level)];
        if
        :: !PRESENT(e) -> break
        :: (e & PS) && BASE(page, level) == page && LAST - page + 1 >= SPAN(level) -> break
        :: (e & PS) && LAST - FIRST + 1 < SPAN(level) -> splitLeaf()
        :: else
        fi;
        d_step {
          table = ADDRESS(cpu[WORD(table, page, level)]);
          level--;
          HOLDS(3, table < TABLES && owner[table] == IN_USE)
        }
     od;
     atomic {
       if :: cpu[WORD(table, page, level)] & D -> reported = reported | (1 << page) :: else fi;
       cpu[WORD(table, page, level)] = 0
     }
     FLUSH(table);
     page = BASE(page, level) + SPAN(level)
  od;
giveUp:
  invalidate(FIRST, LAST, 1, 0)
}

#include "machine/take-away-run.pml"
