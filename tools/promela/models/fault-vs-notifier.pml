/*
 * fault-vs-notifier: the host swaps a page out while a device that can wait faults on it and its neighbour. The notifier takes the leaf away
 * under the update lock and the fault handler maps under it, after a look at the notifier's sequence: what was looked up before
 * an invalidation is looked up again. The content goes to swap after the notifier's end; until the frame is freed a fault finds it in the
 * swap cache and maps it again.
 *
 * Claims I1, I2, I3, I5, I9, I10, I12, I13. Bounds and what is left out: machine/take-away.pml; RECLAIMS 1 or 2 (the second takes
 * page 1), LEAF_LEVEL 2, 1 or 0: then the host has the pages and the domain does not.
 * Defects: MAP_WITHOUT_SEQUENCE_CHECK, SEQUENCE_CHECK_BEFORE_LOCK, RESPONSE_BEFORE_MAP, UNLOCKED_BEFORE_FLUSH, and those of
 * machine/remapping-unit.pml.
 */
#define PRI
#define TARGET(page) page = 0 :: page = 1
#ifndef RECLAIMS
#define RECLAIMS 1
#endif
/* Contents are counts of writes. */
byte content[8];             /* of frames, from FRAME0 on */
byte writes[2];              /* to pages */
#define ON_WRITE(page, frame) writes[page]++; content[frame - FRAME0]++
#define PROCESSES \
  hostFrame[0] = FRAME0; hostFrame[1] = FRAME0 + 1; swapCache[0] = 1; swapCache[1] = 1; \
  for (n : 0 .. RECLAIMS - 1) { run host(n) } \
  run worker()
#define AT_THE_END \
  for (page : 0 .. 1) { \
    HOLDS(2, writes[page] == (hostFrame[page] == 0 -> swap[page] : content[hostFrame[page] - FRAME0])) \
  }
#include "machine/take-away.pml"
#include "machine/map-page.pml"
#include "machine/whole-leaf.pml"

byte hostFrame[2];           /* the CPU's page table; 0: not there */
byte sequence;
byte invalidating;           /* notifiers between start and end */
bit taken[2];                /* the start for this page has returned, the end has not begun */
bit locked;                  /* the update lock */
bit swapCache[2];            /* the page's first frame is not freed yet */
byte swap[2];                /* what swap holds of it */
byte hostsDone;

inline lock() { atomic { !locked -> locked = 1 } }

proctype host(byte self) {
  byte page, level, table, boundary, first, last, n;
  short e;

  invalidating++;
  lock();
  withdraw(0);
  withdraw(1);
  clearLeaves(self, self);
#ifdef UNLOCKED_BEFORE_FLUSH
  locked = 0;
  invalidate(first, last, 1, self);
  atomic { taken[self] = 1; gone = gone | (1 << (FRAME0 + self)) };
#else
  invalidate(first, last, 1, self);
  atomic { locked = 0; taken[self] = 1; gone = gone | (1 << (FRAME0 + self)) };
#endif
  hostFrame[self] = 0;
  atomic { taken[self] = 0; invalidating--; sequence++ };
  swap[self] = content[self];
  atomic {
    if
    :: hostFrame[self] == 0 -> swapCache[self] = 0
    :: else              /* mapped again: reclaim gives up */
    fi;
    hostsDone++;
    returned = (hostsDone == RECLAIMS)
  }
}

/* handle_mm_fault, under the lock of the CPU's page table: the frame in the swap cache, or another with what swap holds. */
inline handleMmFault(page) {
  atomic {
    if
    :: hostFrame[page] == 0 && swapCache[page] ->
       hostFrame[page] = FRAME0 + page;
       gone = gone & ~(1 << (FRAME0 + page))
    :: hostFrame[page] == 0 && !swapCache[page] ->
       hostFrame[page] = SPARE + page;
       content[SPARE + page - FRAME0] = swap[page]
    :: else
    fi
  }
}

proctype worker() {
  byte who, page, level, table, child, frame, seen;
  short e;
  bit write, mapped;

end:
  do
  :: pageRequests ? who, page, write ->
#ifdef RESPONSE_BEFORE_MAP
     atomic { promised = promised | (1 << page); answers[who] ! SUCCESS };
#endif
again:
     atomic { invalidating == 0 -> seen = sequence };
     frame = hostFrame[page];
     if
     :: frame == 0 -> handleMmFault(page); goto again
     :: else
     fi;
#ifdef SEQUENCE_CHECK_BEFORE_LOCK
     if
     :: invalidating > 0 || sequence != seen -> goto again
     :: else
     fi;
     lock();
#else
     lock();
#ifndef MAP_WITHOUT_SEQUENCE_CHECK
     if
     :: invalidating > 0 || sequence != seen -> locked = 0; goto again
     :: else
     fi;
#endif
#endif
     mapPage(page, frame);
     HOLDS(10, !taken[page]);
     atomic { promised = promised | (mapped << page); locked = 0 };
#ifndef RESPONSE_BEFORE_MAP
     if
     :: mapped -> answers[who] ! SUCCESS
     :: else -> answers[who] ! INVALID
     fi;
#endif
     atomic { who = 0; page = 0; frame = 0; seen = 0; mapped = 0 }
  od
}

#include "machine/judge.pml"
