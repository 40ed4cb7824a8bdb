/*
 * A remapping unit's translation caches and its invalidation queue (VT-d Rev 5.10, 6.2 and 6.5). One domain.
 *
 * The IOTLB has one entry for each requester (its look-up tag is the source-id), the paging-structure caches one entry for each
 * table that they can point to. Any entry may be lost at any moment: a look-up may miss what is there, a fill may not happen.
 * A large leaf is cached whole, or as the 4K piece that was asked for. An invalidation drops an entry that it covers whole; one
 * that it touches only in part may survive (6.5.2.3).
 *
 * An invalidation does not stop a walk or a DMA under way: these go on, may fill no cache any more ("overtaken"), and the next
 * wait completes when they have ended (6.5.4). A device-TLB invalidation goes out when the IOTLB invalidations before it are through.
 * Left out: granularities other than page-selective, errors of the queue, implicit invalidation by a page request (drops only).
 */
#ifndef DEVICES
#define DEVICES 1
#endif

typedef Translation { bit valid; bit w; byte base; byte level; byte frame };
Translation iotlb[DEVICES];
#ifdef ATS
Translation deviceTlb[DEVICES];
bit pending[DEVICES];        /* a translation request is out, or its completion on the way back */
bit stale[DEVICES];          /* an invalidation came meanwhile: what comes back may not be used */
bit using[DEVICES];          /* a DMA with a translation of the device's own is on its way */
bit deviceDrain[DEVICES];    /* ... and an invalidation waits for it */
#endif
byte pdpteCache;             /* table of level 2 that serves the four pages, or 0 */
byte pdeCache[2];            /* table of level 1 that serves two of them, or 0 */
#ifdef CONTEXT
byte pasidEntry;             /* P, and where the table is */
bit pasidCache;              /* the PASID cache holds the entry as it was with P */
#endif
bit busy[DEVICES];           /* the unit is at work for a request */
bit overtaken[DEVICES];
bit drain[DEVICES];

#define IOTLB_INVALIDATION       1
#define DEVICE_TLB_INVALIDATION  2
#define PASID_CACHE_INVALIDATION 3
#define WAIT                     4
chan queue = [6] of { byte, byte, byte, bit };
bit completed[2];            /* status words of the waits, one for each submitter */

#define COVERED(t)   (t.base >= first && t.base + SPAN(t.level) - 1 <= last)
#define TOUCHED(t)   (t.base <= last && t.base + SPAN(t.level) - 1 >= first)

inline dropCovered(t) {
  if
  :: t.valid && TOUCHED(t) -> t.valid = 0; t.w = 0; t.base = 0; t.level = 0; t.frame = 0
  :: t.valid && !COVERED(t)
  :: !t.valid
  fi
}

active proctype invalidationQueue() {
  byte type, first, last, device;
  bit third;
end:
  do
  :: atomic {
       queue ? type, first, last, third ->
       if
       :: type == IOTLB_INVALIDATION ->
          for (device : 0 .. DEVICES - 1) {
            dropCovered(iotlb[device]);
            if
            :: busy[device] -> overtaken[device] = 1; drain[device] = 1
            :: else
            fi
          }
          /* IH = 0: paging structures too. */
          if
          :: !third ->
             pdpteCache = 0;
             if :: first <= 1 -> pdeCache[0] = 0 :: else fi;
             if :: last >= 2 -> pdeCache[1] = 0 :: else fi
          :: else
          fi
#ifdef CONTEXT
       :: type == PASID_CACHE_INVALIDATION ->
          pasidCache = 0;
          for (device : 0 .. DEVICES - 1) {
            if
            :: busy[device] -> overtaken[device] = 1; drain[device] = 1
            :: else
            fi
          }
#endif
       :: else
       fi
     }
     if
     :: type == IOTLB_INVALIDATION || type == PASID_CACHE_INVALIDATION
#ifdef ATS
     :: type == DEVICE_TLB_INVALIDATION ->
        for (device : 0 .. DEVICES - 1) {
          atomic {
            !drain[device] ->
            dropCovered(deviceTlb[device]);
            stale[device] = pending[device];
            deviceDrain[device] = using[device]
          }
        }
        for (device : 0 .. DEVICES - 1) { !deviceDrain[device] }
#endif
     :: type == WAIT ->
        for (device : 0 .. DEVICES - 1) { !drain[device] }
        completed[third] = 1
     fi;
     atomic { type = 0; first = 0; last = 0; third = 0; device = 0 }
  od
}

/* What software does about a change of pages first .. last: IOTLB, then device TLBs, then wait. Returns when that is complete. */
inline invalidate(first, last, leafOnly, submitter) {
#ifdef MISSING_INVALIDATION
  skip;
#else
  atomic {
    completed[submitter] = 0;
#ifdef DEVICE_TLB_BEFORE_IOTLB
    queue ! DEVICE_TLB_INVALIDATION, first, last, 0;
    queue ! IOTLB_INVALIDATION, first, last, leafOnly;
#else
    queue ! IOTLB_INVALIDATION, first, last, leafOnly;
#if defined(ATS) && !defined(DEVICE_TLB_NOT_INVALIDATED)
    queue ! DEVICE_TLB_INVALIDATION, first, last, 0;
#endif
#endif
    queue ! WAIT, 0, 0, submitter
  }
  completed[submitter] == 1;
#endif
}

/* Gives a table page back that hardware could have seen: only after the invalidation that covers it (I5). */
inline freeTable(table) {
  d_step {
    HOLDS(5, table == ROOT || (pdpteCache != table && pdeCache[0] != table && pdeCache[1] != table));
    owner[table] = FREE
  }
}
