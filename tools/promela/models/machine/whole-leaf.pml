/* Clears every leaf that the pages from .. to touch, whole; first .. last is what they covered. */
inline clearLeaves(from, to) {
  boundary = from;
  first = from;
  last = to;
  do
  :: boundary > to -> break
  :: else ->
     findEntry(boundary, level, table, e);
     if
     :: PRESENT(e) ->
        first = (BASE(boundary, level) < first -> BASE(boundary, level) : first);
        last = (BASE(boundary, level) + SPAN(level) - 1 > last -> BASE(boundary, level) + SPAN(level) - 1 : last);
        /* An exchange, not a store: D that hardware sets until then is not lost. */
        d_step {
          if
          :: cpu[WORD(table, boundary, level)] & D ->
             for (page : 0 .. PAGES - 1) {
               if
               :: BASE(page, level) == BASE(boundary, level) -> reported = reported | (1 << page)
               :: else
               fi
             }
          :: else
          fi;
          e = cpu[WORD(table, boundary, level)];
          cpu[WORD(table, boundary, level)] = 0
        }
        FLUSH(table)
     :: else
     fi;
     boundary = BASE(boundary, level) + SPAN(level)
  od
}
