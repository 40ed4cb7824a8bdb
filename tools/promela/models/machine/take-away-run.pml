/* The processes of machine/take-away.pml, when takeAway() is known. */
proctype host() {
  byte page, level, table, boundary, child, lower, first, last;
  short e;

  takeAway();
  atomic {
    page = FIRST;
    do
    :: page > LAST -> break
    :: else ->
       findEntry(page, level, table, e);
       HOLDS(8, !PRESENT(e));
       gone = gone | (1 << (FRAME0 + page));
       page++
    od;
    returned = 1
  }
}

#include "judge.pml"
