/*
 * detach: a device that can fault is taken off its domain, which is then destroyed. P of its PASID entry is cleared; PASID cache, IOTLB and device
 * TLB are invalidated, in this order, and waited for; page requests that are in the queue are answered "invalid"; what a worker has taken
 * is answered by it, without a map. Then the tables and the frames belong to others.
 *
 * Claims I1, I3, I5, I9, I11, I12. Bounds and what is left out: machine/take-away.pml; pages 0 and 1 are not mapped at first, 2 and 3 by a
 * 2M leaf. Defects: STALE_CONTEXT_ON_DETACH, GROUP_LOST_ON_DETACH, and those of machine/remapping-unit.pml.
 */
#define CONTEXT
#define PRI
#define TARGET(page) page = 0 :: page = 2
#define TABLES_LEFT 0
#define PROCESSES cpu[WORD(1, 0, 2)] = 0; attached = 1; pasidEntry = 1; run host(); run worker()
#include "machine/take-away.pml"
#include "machine/map-page.pml"

bit locked;                  /* of the domain's list of devices */
bit attached;

inline lock() { atomic { !locked -> locked = 1 } }

proctype host() {
  byte who, page, n;
  bit write;

  lock();
  attached = 0;
  withdraw(0);
  locked = 0;
  pasidEntry = 0;
#ifndef STALE_CONTEXT_ON_DETACH
  queue ! PASID_CACHE_INVALIDATION, 0, 0, 0;
#endif
  invalidate(0, PAGES - 1, 0, 0);
  do
  :: pageRequests ? who, page, write ->
#ifdef GROUP_LOST_ON_DETACH
     skip
#else
     answers[who] ! INVALID
#endif
  :: empty(pageRequests) -> break
  od;
  /* Bits 8 to 15: every frame. */
  gone = 65280;
  cpu[ROOT * 2] = 0;
  n = 0;
  do
  :: n == TABLES -> break
  :: else ->
     if
     :: owner[n] == IN_USE -> freeTable(n)
     :: else
     fi;
     n++
  od;
  returned = 1
}

proctype worker() {
  byte who, page, level, table, child;
  short e;
  bit write, mapped;

end:
  do
  :: pageRequests ? who, page, write ->
     lock();
     if
     :: attached ->
        mapPage(page, FRAME0 + page);
        promised = promised | (mapped << page)
     :: else -> mapped = 0
     fi;
     locked = 0;
     if
     :: mapped -> answers[who] ! SUCCESS
     :: else -> answers[who] ! INVALID
     fi;
     atomic { who = 0; page = 0; mapped = 0 }
  od
}

#include "machine/judge.pml"
