/*
 * The host takes pages FIRST .. LAST out of a domain whose leaves are larger, while a device uses them and their neighbours. The protocol
 * is `takeAway()`, which each strategy defines between this file and take-away-run.pml: it begins when the notifier does, and when it ends, the
 * notifier returns and the host gives the frames to somebody else.
 *
 * Configurations: LEAF_LEVEL 3 (1G), 2 (2M) 1 (4K for the first two pages) or 0 (nothing mapped), ATS, ADE, NONCOHERENT, ALLOC_FAIL, DEVICES, DMAS, FIRST, LAST; IO_RIGHTS;
 * HITLESS: the strategy claims I4.
 * Left out: locks (there is one notifier), swap (a frame that is gone is gone), faults (see fault-vs-notifier).
 */
#ifndef LEAF_LEVEL
#define LEAF_LEVEL 2
#endif
#ifndef FIRST
#define FIRST 0
#define LAST  0
#endif
#define IN_RANGE(page) ((page) >= FIRST && (page) <= LAST)

/* The page, and for each size of leaf a neighbour in it. */
#ifndef TARGET
#define TARGET(page) page = FIRST :: page = FIRST ^ 1 :: page = FIRST ^ 2
#endif
#ifdef HITLESS
#define MAY_FAULT(page) IN_RANGE(page)
#endif
#include "invariant.pml"
#include "table-memory.pml"
#include "remapping-unit.pml"
#include "device.pml"

byte reported;               /* pages that the unmap reported dirty, by bit */
bit returned;                /* the notifier has */

inline clearPages() {
  page = FIRST;
  do
  :: page > LAST -> break
  :: else ->
     findEntry(page, level, table, e);
     if
     :: PRESENT(e) && level == 1 ->
        /* An exchange, not a store: D that hardware sets until then is not lost. */
        atomic {
          if :: cpu[WORD(table, page, 1)] & D -> reported = reported | (1 << page) :: else fi;
          cpu[WORD(table, page, 1)] = 0
        }
        FLUSH(table)
     :: else
     fi;
     page++
  od
}
