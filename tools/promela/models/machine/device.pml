/*
 * A device that makes DMAS accesses, each to any page. Every level of a walk, every fill, the way of a completion and the access itself
 * are steps of their own. Without ATS its requests are untranslated; with ATS it asks for translations and keeps one in its TLB.
 * With ADE hardware sets A in every entry it uses and D in the leaf of a write, and grants W only with D set.
 *
 * A page that is not there ends the DMA, or, with PRI, is asked for by a page request, and the DMA begins again after the answer. What an
 * answer or a finished map has promised must be there for who asks after it (I13).
 */
#ifndef DMAS
#define DMAS 2
#endif
#ifndef MAY_FAULT
/* Pages whose absence a device may notice; the others are the innocent neighbours (I4). */
#define MAY_FAULT(page) true
#endif

#ifndef ON_WRITE
#define ON_WRITE(page, frame) skip
#endif

int gone;                    /* frames that DMA must not reach any more, by bit */
byte written;                /* pages that a device wrote, by bit */
byte devicesDone;
byte promised;               /* pages that are there, as a map or an answer has said, until they are taken away; by bit */
bit relies[DEVICES];         /* the access began when its page was promised, and still is */

#define IS_GONE(frame) ((gone >> (frame)) & 1)
#define SERVES(t, page) (t.valid && (page) >= t.base && (page) < t.base + SPAN(t.level) && (!write || t.w))

#ifdef PRI
chan pageRequests = [2] of { byte, byte, bit };
chan answers[DEVICES] = [1] of { byte };
#define SUCCESS 0
#define INVALID 1
#endif

/* Takes the promise back, at the beginning of a notifier. */
inline withdraw(page) {
  d_step {
    promised = promised & ~(1 << (page));
    for (n : 0 .. DEVICES - 1) { relies[n] = 0 }
  }
}

proctype device(byte self) {
  byte page, level, table, frame, dmas, cached;
  short e;
  bit write;

  do
  :: dmas == DMAS -> break
  :: else ->
     atomic {
       dmas++;
       if
       :: TARGET(page)
       fi;
#ifdef ADE
       if :: write = 1 :: write = 0 fi
#else
       write = 1
#endif
     }
again:
#ifdef ATS
     atomic {
       if
       :: SERVES(deviceTlb[self], page) ->
          frame = deviceTlb[self].frame + (page - deviceTlb[self].base);
          using[self] = 1;
          goto access
       :: pending[self] = 1; stale[self] = 0
       fi
     }
#endif
     atomic {
       busy[self] = 1;
       overtaken[self] = 0;
       relies[self] = (promised >> page) & 1;
#ifdef CONTEXT
       if
       :: pasidCache
       :: pasidEntry != 0
       :: pasidEntry == 0 -> goto blocked
       fi
     }
     atomic {
       if
       :: pasidCache = (pasidCache || !overtaken[self])
       :: skip
       fi;
#endif
       if
       :: SERVES(iotlb[self], page) ->
          level = iotlb[self].level;
          frame = iotlb[self].frame + (page - iotlb[self].base);
          goto translated
       :: pdeCache[page >> 1] != 0 -> table = pdeCache[page >> 1]; level = 1
       :: pdpteCache != 0 -> table = pdpteCache; level = 2
       :: table = ROOT; level = 3
       fi
     }
     do
     :: atomic {
          HOLDS(5, table >= TABLES || owner[table] != FREE);
          HOLDS(3, table < TABLES && owner[table] == IN_USE);
          e = ram[WORD(table, page, level)];
          if
          :: !PRESENT(e) -> goto missing
#ifdef IO_RIGHTS
          :: PRESENT(e) && IS_LEAF(e, level) && !(e & HIGH) -> goto missing
#endif
          :: else
          fi;
#ifdef ADE
          e = e | A;
          if :: IS_LEAF(e, level) && write -> e = e | D :: else fi;
          ram[WORD(table, page, level)] = e;
#endif
          if
          :: IS_LEAF(e, level) -> frame = FRAME_IN(e, page, level); break
          :: else ->
             table = ADDRESS(e);
             level--;
             if
             :: overtaken[self]
             :: !overtaken[self]
             :: !overtaken[self] && level == 2 -> pdpteCache = table
             :: !overtaken[self] && level == 1 -> pdeCache[page >> 1] = table
             fi
          fi
        }
     od;
     atomic {
       if
       :: overtaken[self]
       :: !overtaken[self]
       :: !overtaken[self] -> if :: cached = level :: level > 1 -> cached = 1 fi;
          iotlb[self].valid = 1;
          iotlb[self].base = BASE(page, cached);
          iotlb[self].level = cached;
          iotlb[self].frame = frame - (page - BASE(page, cached));
#ifdef ADE
          iotlb[self].w = ((e & D) != 0)
#else
          iotlb[self].w = 1
#endif
       fi;
       e = 0; table = 0
     }
translated:
#ifdef ATS
     /* The completion leaves the unit; then it is in the device. */
     atomic { busy[self] = 0; drain[self] = 0 }
     atomic {
       pending[self] = 0;
       if
       :: stale[self] -> stale[self] = 0; frame = 0; level = 0; goto again
       :: else ->
          if
          :: deviceTlb[self].valid = 1;
             deviceTlb[self].base = BASE(page, level);
             deviceTlb[self].level = level;
             deviceTlb[self].frame = frame - (page - BASE(page, level));
             deviceTlb[self].w = write
          :: skip
          fi;
          using[self] = 1
       fi
     }
#endif
access:
     atomic {
       HOLDS(1, !IS_GONE(frame));
       HOLDS(11, frame >= FRAME0 && (frame & 3) == page);
       if :: write -> written = written | (1 << page); ON_WRITE(page, frame) :: else fi;
       busy[self] = 0; drain[self] = 0; overtaken[self] = 0;
#ifdef ATS
       using[self] = 0; deviceDrain[self] = 0;
#endif
       frame = 0; level = 0; cached = 0; write = 0; relies[self] = 0;
       goto next
     }
#ifdef CONTEXT
blocked:
     atomic {
       busy[self] = 0; drain[self] = 0; overtaken[self] = 0; relies[self] = 0;
#ifdef ATS
       pending[self] = 0; stale[self] = 0;
#endif
       goto next
     }
#endif
missing:
     atomic {
       HOLDS(4, MAY_FAULT(page));
       HOLDS(13, !relies[self]);
       busy[self] = 0; drain[self] = 0; overtaken[self] = 0;
#ifdef ATS
       pending[self] = 0; stale[self] = 0;
#endif
       e = 0; table = 0; level = 0
     }
#ifdef PRI
     atomic {
       if
#ifdef CONTEXT
       :: pasidEntry == 0 -> goto next    /* hardware answers "invalid" itself */
#endif
       :: pageRequests ! self, page, write
       fi
     }
     if
     :: answers[self] ? SUCCESS -> goto again
     :: answers[self] ? INVALID
     fi;
#endif
next:
     skip
  od;
  devicesDone++
}
