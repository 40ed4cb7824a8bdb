/*
 * prq: the page request queue, its overflow, and the answers (VT-d Rev 5.10, 7.4 to 7.6). Two groups of up to two requests come from one
 * device, into a ring with room for RING - 1. When it is full, or PRO is set, hardware records nothing: it drops a request that is not
 * the last of its group, and answers the last one "success" by itself, so that the device tries again. The interrupt comes when PPR or PRO is set
 * while both were clear.
 *
 * The driver's thread clears PPR first, reads tail and head once, takes head .. tail, collects partial groups, and clears PRO only if head ==
 * tail on a fresh read, after it has dropped them. A worker answers the groups; only the last request of a group is answered.
 *
 * Claims I9 (each group gets exactly one answer) and I13 (every group is resolved at last). TRIES bounds how often a device asks again; after that
 * it gives up. Left out: PASIDs, bad requests, stop markers (see detach for what is outstanding then).
 *
 * Defects: OVERFLOW_LOSES_GROUP (an overflow is handled by throwing away what is in the ring), GROUP_ANSWERED_TWICE (every request is
 * answered), PPR_CLEARED_LAST.
 */
#include "machine/invariant.pml"

#ifndef RING
#define RING 3
#endif
#define TRIES 3
#define GROUPS 2

byte ringGroup[RING];
bit ringLast[RING];
byte head, tail;
bit ppr, pro;
bit interrupt;

chan answers[GROUPS] = [2] of { bit };    /* 1: software's answer, 0: hardware's own */
chan groups = [GROUPS] of { byte };
bit expecting[GROUPS];                    /* the last request is out, and its answer is not here */
byte groupsDone;

#define FULL ((tail + 1) % RING == head)

/* What hardware does with a request. */
inline request(group, last) {
  atomic {
    if
    :: last -> expecting[group] = 1
    :: else
    fi;
    if
    :: !pro && !FULL ->
       ringGroup[tail] = group;
       ringLast[tail] = last;
       tail = (tail + 1) % RING;
       interrupt = interrupt || (!ppr && !pro);
       ppr = 1
    :: pro || FULL ->
       interrupt = interrupt || (!ppr && !pro);
       pro = 1;
       if
       :: last -> answers[group] ! 0
       :: else
       fi
    fi
  }
}

proctype device(byte group) {
  bit bySoftware;
  byte tries;

  do
  :: tries == TRIES -> break
  :: else ->
     if
     :: request(group, 0)
     :: skip
     fi;
     request(group, 1);
     atomic {
       answers[group] ? bySoftware ->
       HOLDS(9, expecting[group]);
       expecting[group] = 0
     }
     if
     :: bySoftware -> break
     :: else -> tries++
     fi
  od;
  groupsDone++
}

#define HANDLE(slot) \
  if \
  :: ringLast[slot] -> groups ! ringGroup[slot]; partial = partial & ~(1 << ringGroup[slot]) \
  :: else -> partial = partial | (1 << ringGroup[slot]); ANSWER_PARTIAL(slot) \
  fi
#ifdef GROUP_ANSWERED_TWICE
#define ANSWER_PARTIAL(slot) answers[ringGroup[slot]] ! 1
#else
#define ANSWER_PARTIAL(slot) skip
#endif

proctype interruptThread() {
  byte at, to, partial;

end:
  do
  :: atomic { interrupt -> interrupt = 0 };
#ifndef PPR_CLEARED_LAST
     ppr = 0;
#endif
     atomic { to = tail; at = head };
#ifdef OVERFLOW_LOSES_GROUP
     if
     :: pro -> at = to
     :: else
     fi;
#endif
     do
     :: at == to -> break
     :: else -> atomic { HANDLE(at); at = (at + 1) % RING }
     od;
     head = to;
#ifdef PPR_CLEARED_LAST
     ppr = 0;
#endif
     if
     :: pro ->
        if
        :: head == tail -> partial = 0; pro = 0
        :: else
        fi
     :: else
     fi;
     atomic { at = 0; to = 0 }
  od
}

proctype worker() {
  byte group;

end:
  do
  :: groups ? group -> answers[group] ! 1
  od
}

/* When nothing moves any more. */
proctype judge() {
  timeout ->
  HOLDS(9, !expecting[0] && !expecting[1]);
  HOLDS(13, groupsDone == GROUPS);
  HOLDS(9, len(answers[0]) == 0 && len(answers[1]) == 0)
}

init {
  atomic {
    byte n;
    for (n : 0 .. GROUPS - 1) { run device(n) }
    run interruptThread();
    run worker();
    run judge()
  }
}
