/*
 * fault-vs-fault: two devices fault on the same page, or on neighbours that need the same tables, and two workers handle that at once. The host
 * gives a page one frame, whoever asks; a page that is mapped already is a spurious fault, and is answered like any other.
 * Claims I3, I9, I11, I12, I13.
 *
 * Bounds and what is left out: machine/take-away.pml; an empty domain. Defects: RESPONSE_BEFORE_MAP, INSTALL_WITHOUT_COMPARE.
 */
#define LEAF_LEVEL 0
#define DEVICES 2
#define DMAS 1
#define PRI
#define TARGET(page) page = 0 :: page = 1
#define PROCESSES run worker(); run worker(); returned = 1
#include "machine/take-away.pml"
#include "machine/map-page.pml"

byte hostFrame[2];           /* 0: not there */

proctype worker() {
  byte who, page, level, table, child;
  short e;
  bit write, mapped;

end:
  do
  :: pageRequests ? who, page, write ->
     /* handle_mm_fault, under the lock of the CPU's page table. */
     hostFrame[page] = SPARE + page;
#ifdef RESPONSE_BEFORE_MAP
     atomic { promised = promised | (1 << page); answers[who] ! SUCCESS };
     mapPage(page, hostFrame[page])
#else
     mapPage(page, hostFrame[page]);
     atomic {
       promised = promised | (mapped << page);
       if
       :: mapped -> answers[who] ! SUCCESS
       :: else -> answers[who] ! INVALID
       fi;
       who = 0; page = 0
     }
#endif
  od
}

#include "machine/judge.pml"
