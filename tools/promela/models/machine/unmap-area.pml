/*
 * Unmaps all four pages in Linux's order: the leaves of a table, then the entry that leads to it, from below. Tables are kept until
 * the invalidation, which says IH = 0, is complete.
 */
inline exchangeForZero(word, from, level) {
  d_step {
    if
    :: cpu[word] & D ->
       for (boundary : from .. from + SPAN(level) - 1) { reported = reported | (1 << boundary) }
    :: else
    fi;
    cpu[word] = 0
  }
}

/* Unmaps the two pages from `from`; `below` is the table that mapped them, or 0. */
inline unmapHalf(from, below) {
  if
  :: PRESENT(cpu[WORD(table, from, 2)]) && !(cpu[WORD(table, from, 2)] & PS) ->
     below = ADDRESS(cpu[WORD(table, from, 2)]);
     exchangeForZero(below * 2, from, 1);
     exchangeForZero(below * 2 + 1, from + 1, 1);
     FLUSH(below);
     cpu[WORD(table, from, 2)] = 0
  :: else -> exchangeForZero(WORD(table, from, 2), from, 2)
  fi;
  FLUSH(table)
}

inline unmapArea() {
  if
  :: cpu[ROOT * 2] & PS -> exchangeForZero(ROOT * 2, 0, 3)
  :: else ->
     table = ADDRESS(cpu[ROOT * 2]);
     unmapHalf(0, child);
     unmapHalf(2, lower);
     cpu[ROOT * 2] = 0
  fi;
  FLUSH(ROOT)
}

inline freeTables() {
  if :: child != 0 -> freeTable(child); child = 0 :: else fi;
  if :: lower != 0 -> freeTable(lower); lower = 0 :: else fi;
  if :: table != 0 -> freeTable(table); table = 0 :: else fi
}

inline unmapAreaAndFlush() {
#ifdef INVALIDATION_BEFORE_CHANGE
  invalidate(0, PAGES - 1, 0, 0);
#endif
  unmapArea();
#ifdef TABLE_FREED_EARLY
  freeTables();
#endif
#if defined(IH_ON_NON_LEAF)
  invalidate(0, PAGES - 1, 1, 0);
#elif !defined(INVALIDATION_BEFORE_CHANGE)
  invalidate(0, PAGES - 1, 0, 0);
#endif
  freeTables()
}
