/*
 * map: two mappers map neighbouring pages in an empty domain, and need the same tables, while a device asks for both. Linux lets two threads map
 * different ranges at once. What a finished map has promised, no walk may miss (I13). Claims I3, I5, I12, I13.
 *
 * With VACANT_TABLE one mapper maps a 2M leaf where an empty table hangs, which paging-structure caches may know: the leaf takes the
 * place of the entry, then the range is invalidated with IH = 0, then the table is freed.
 *
 * Bounds and what is left out: machine/take-away.pml; two levels to build. Defects: D1, INSTALL_WITHOUT_COMPARE,
 * PATH_FLUSH_LEFT_TO_WINNER, and for VACANT_TABLE STALE_4K_PAGING_ENTRY_AFTER_SUPERPAGE, TABLE_FREED_EARLY.
 */
#define LEAF_LEVEL 0
#define TARGET(page) page = 0 :: page = 1
#ifdef VACANT_TABLE
#define PROCESSES \
  owner[1] = IN_USE; owner[2] = IN_USE; \
  cpu[WORD(ROOT, 0, 3)] = POINTER(1); \
  cpu[WORD(1, 0, 2)] = POINTER(2); cpu[WORD(1, 2, 2)] = 0; \
  cpu[WORD(2, 0, 1)] = 0; cpu[WORD(2, 1, 1)] = 0; \
  FLUSH(ROOT); FLUSH(1); FLUSH(2); \
  run superpage()
#else
#define PROCESSES run mapper(0); run mapper(1)
#endif
#include "machine/take-away.pml"
#include "machine/map-page.pml"

byte mappersDone;

proctype mapper(byte page) {
  byte level, table, child;
  short e;
  bit mapped;

  mapPage(page, FRAME0 + page);
  atomic {
    promised = promised | (mapped << page);
    mappersDone++;
    returned = (mappersDone == 2)
  }
}

proctype superpage() {
  cpu[WORD(1, 0, 2)] = LEAF(FRAME0) | PS;
  FLUSH(1);
#ifdef TABLE_FREED_EARLY
  freeTable(2);
#endif
#ifdef STALE_4K_PAGING_ENTRY_AFTER_SUPERPAGE
  invalidate(0, 1, 1, 0);
#else
  invalidate(0, 1, 0, 0);
#endif
#ifndef TABLE_FREED_EARLY
  freeTable(2);
#endif
  promised = 3;
  returned = 1
}

#include "machine/judge.pml"
