/*
 * dirty-harvest: live migration reads the D bits, clears them by compare-and-swap, invalidates, and only then copies the pages that were dirty. A
 * page that is written after that is dirty again, since no cached translation with W is left (I6). After the device has stopped a last
 * round must leave an exact copy.
 *
 * Contents are counters of writes. LEAF_LEVEL 2 or 1; ROUNDS while the device runs. Bounds and what is left out: machine/take-away.pml.
 * Defects: DIRTY_HARVEST_WITHOUT_FLUSH, COPY_BEFORE_FLUSH, and those of machine/remapping-unit.pml.
 */
#define ADE
#ifndef ROUNDS
#define ROUNDS 1
#endif
byte source[4], copy[4];
#define ON_WRITE(page, frame) source[page]++
#define MAY_FAULT(page) false
#define HARVESTED_PAGES 2
#define TARGET(page) page = 0 :: page = 1
#include "machine/take-away.pml"

/* Notes and clears D for the first two pages. */
inline readAndClearDirty() {
  page = 0;
  dirty = 0;
  do
  :: page >= HARVESTED_PAGES -> break
  :: else ->
     findEntry(page, level, table, e);
     atomic {
       if
       :: cpu[WORD(table, page, level)] & D ->
          dirty = dirty | ((1 << SPAN(level)) - 1) << BASE(page, level);
          cpu[WORD(table, page, level)] = cpu[WORD(table, page, level)] & ~D
       :: else
       fi
     }
     page = BASE(page, level) + SPAN(level)
  od
}

inline copyDirty() {
  for (page : 0 .. HARVESTED_PAGES - 1) {
    if
    :: (dirty >> page) & 1 -> copy[page] = source[page]
    :: else
    fi
  }
}

proctype host() {
  byte page, level, table, dirty, round;
  short e;

  do
  :: round == ROUNDS -> break
  :: else ->
     readAndClearDirty();
#ifdef COPY_BEFORE_FLUSH
     copyDirty();
#endif
#ifndef DIRTY_HARVEST_WITHOUT_FLUSH
     invalidate(0, HARVESTED_PAGES - 1, 1, 0);
#endif
#ifndef COPY_BEFORE_FLUSH
     copyDirty();
#endif
     round++
  od;
  devicesDone == DEVICES;
  atomic {
    readAndClearDirty();
    copyDirty();
    for (page : 0 .. HARVESTED_PAGES - 1) { HOLDS(6, copy[page] == source[page]) }
    written = 0;
    returned = 1
  }
}

#include "machine/judge.pml"
