/*
 * How a world with one domain begins and ends. At the end what was written is dirty somewhere (I6), and every table page that is in use
 * is part of the table (I12).
 */
#ifndef PROCESSES
#define PROCESSES run host()
#endif
#ifndef AT_THE_END
#define AT_THE_END
#endif

/* The root. */
#ifndef TABLES_LEFT
#define TABLES_LEFT 1
#endif

proctype judge() {
  byte page, level, table, inUse;
  short e;
  atomic {
    returned && devicesDone == DEVICES && empty(queue) ->
    for (page : 0 .. PAGES - 1) {
      findEntry(page, level, table, e);
#ifdef ADE
      HOLDS(6, !((written >> page) & 1) || (e & D) || ((reported >> page) & 1))
#endif
    }
    for (page : 0 .. TABLES - 1) {
      inUse = inUse + (owner[page] == IN_USE)
    }
    for (page : 0 .. 1) {
      e = cpu[ROOT * 2 + page];
      if
      :: PRESENT(e) && !(e & PS) ->
         inUse--;
         table = ADDRESS(e);
         if :: PRESENT(cpu[table * 2]) && !(cpu[table * 2] & PS) -> inUse-- :: else fi;
         if :: PRESENT(cpu[table * 2 + 1]) && !(cpu[table * 2 + 1] & PS) -> inUse-- :: else fi
      :: else
      fi
    }
    HOLDS(12, inUse == TABLES_LEFT);
#ifdef PRI
    for (page : 0 .. DEVICES - 1) { HOLDS(9, len(answers[page]) == 0) }
#endif
    AT_THE_END
  }
}

init {
  atomic {
    byte n;
#ifdef NONCOHERENT
    /* What the pages held before. */
    for (n : 1 .. TABLES - 1) {
      cpu[n * 2] = LEAF(SPARE + 3); cpu[n * 2 + 1] = LEAF(SPARE + 3);
      ram[n * 2] = LEAF(SPARE + 3); ram[n * 2 + 1] = LEAF(SPARE + 3)
    }
#endif
    owner[ROOT] = IN_USE;
    owner[5] = RESERVED;
    owner[6] = RESERVED;
    owner[7] = RESERVED;
#if LEAF_LEVEL == 0
#elif LEAF_LEVEL == 3
    cpu[WORD(ROOT, 0, 3)] = LEAF(FRAME0) | PS;
#else
    owner[1] = IN_USE;
    cpu[WORD(ROOT, 0, 3)] = POINTER(1);
#if LEAF_LEVEL == 2
    cpu[WORD(1, 0, 2)] = LEAF(FRAME0) | PS;
#else
    owner[2] = IN_USE;
    cpu[WORD(1, 0, 2)] = POINTER(2);
    cpu[WORD(2, 0, 1)] = LEAF(FRAME0);
    cpu[WORD(2, 1, 1)] = LEAF(FRAME0 + 1);
#endif
    cpu[WORD(1, 2, 2)] = LEAF(FRAME0 + 2) | PS;
#endif
    FLUSH(ROOT);
    FLUSH(1);
    FLUSH(2);
    PROCESSES;
    run judge();
    for (n : 0 .. DEVICES - 1) { run device(n) }
  }
}
