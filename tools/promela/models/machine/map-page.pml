/*
 * Maps one 4K page. A missing table is a zeroed page, flushed, and put in by compare-and-swap; who loses gives its page back and goes on with
 * the winner's. The winner may not have flushed the entry that leads to the table yet, so everybody flushes the whole path before
 * saying that the page is mapped. `mapped` tells whether it is, by us or by somebody quicker; not if there was no memory.
 */
inline mapPage(page, frame) {
  mapped = 0;
  do
  :: findEntry(page, level, table, e);
     if
     :: PRESENT(e) -> mapped = 1; break
     :: !PRESENT(e) && level == 1 ->
        atomic {
          if
          :: COMPARE_EXCHANGE(WORD(table, page, 1), e, LEAF(frame))
          :: else
          fi
        }
     :: !PRESENT(e) && level > 1 ->
        allocate(child);
        if
        :: child == NONE -> break
        :: else
        fi;
#ifndef D1
        FLUSH(child);
#endif
        atomic {
          if
#ifdef INSTALL_WITHOUT_COMPARE
          :: cpu[WORD(table, page, level)] = POINTER(child)
#else
          :: COMPARE_EXCHANGE(WORD(table, page, level), e, POINTER(child))
          :: else -> owner[child] = FREE
#endif
          fi
        }
        FLUSH(table)
     fi
  od;
#ifdef PATH_FLUSH_LEFT_TO_WINNER
  FLUSH(table);
#else
  if
  :: mapped ->
     FLUSH(ROOT);
     FLUSH(ADDRESS(cpu[ROOT * 2]));
     FLUSH(table)
  :: else
  fi;
#endif
  level = 0; table = 0; child = 0; e = 0
}
