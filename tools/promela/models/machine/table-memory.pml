/*
 * Second-stage tables in memory, small: a table has 2 entries instead of 512, so that levels 3, 2, 1 lead to leaves of 4, 2 and
 * 1 pages, which stand for 1G, 2M and 4K. One leaf of the largest size maps all four pages that there are.
 *
 * Pages 0 to 7 can be tables, page 0 is the root. Pages 8 to 15 are data: FRAME0 + p is what page p is mapped to at the start,
 * SPARE + p what it gets when it is faulted in again.
 *
 * With NONCOHERENT the CPU's stores stay in its cache (`cpu`) until the line is flushed or, at any moment, evicted; hardware reads
 * `ram`. A page of table entries is one line. Without it the two are one.
 */
#define PAGES   4
#define ROOT    0
#define TABLES  8
#define FRAME0  8
#define SPARE   12
#define NONE    255

/* Entry bits. HIGH stands for a right above bit 51 (IW, bit 62): with IO_RIGHTS a leaf must have it. */
#define R     1
#define W     2
#define PS    4
#define A     8
#define D     16
#define HIGH  32
#define ADDRESS(e)      ((e) >> 6)
#define POINTER(page)   (((page) << 6) | R | W)
#define LEAF(frame)     (((frame) << 6) | R | W | HIGH)
#define ATTRIBUTES(e)   ((e) & (R | W | A | D | HIGH))
#define PRESENT(e)      ((e) & (R | W))
#define IS_LEAF(e, l)   ((l) == 1 || ((e) & PS))

#define SPAN(level)            (1 << ((level) - 1))
#define BASE(page, level)      ((page) & ~(SPAN(level) - 1))
#define WORD(table, page, l)   ((table) * 2 + (((page) >> ((l) - 1)) & 1))
#define FRAME_IN(e, page, l)   (ADDRESS(e) + ((page) & (SPAN(l) - 1)))

short ram[32];
#ifdef NONCOHERENT
short cpu[32];
#else
#define cpu ram
#endif

/* Of pages 0 to 7: not in use, part of the table or private to who builds one, set aside for when there is no memory. */
#define FREE      0
#define IN_USE    1
#define RESERVED  2
byte owner[TABLES];

#ifdef NONCOHERENT
#define FLUSH(table) \
  atomic { ram[(table) * 2] = cpu[(table) * 2]; ram[(table) * 2 + 1] = cpu[(table) * 2 + 1] }

#define HELD_BACK(table) \
  (ram[(table) * 2] != cpu[(table) * 2] || ram[(table) * 2 + 1] != cpu[(table) * 2 + 1])

/* A cache writes lines back when it likes. */
active proctype cacheEviction() {
end:
  do
  :: HELD_BACK(0) -> FLUSH(0)
  :: HELD_BACK(1) -> FLUSH(1)
  :: HELD_BACK(2) -> FLUSH(2)
  :: HELD_BACK(3) -> FLUSH(3)
  :: HELD_BACK(5) -> FLUSH(5)
  :: HELD_BACK(6) -> FLUSH(6)
  :: HELD_BACK(7) -> FLUSH(7)
  od
}
#else
#define FLUSH(table) skip
#endif

/* compareExchange: what follows `->` happens with the store; else the entry has changed and nothing was stored. */
#define COMPARE_EXCHANGE(word, old, new) cpu[word] == old -> cpu[word] = new

/* A zeroed table page, by the CPU: what memory holds without a flush is what was there before. NONE if there is no memory. */
inline allocate(table) {
  atomic {
    if
#ifdef ALLOC_FAIL
    :: table = NONE
#endif
    :: owner[1] == FREE -> table = 1
    :: owner[1] != FREE && owner[2] == FREE -> table = 2
    :: owner[1] != FREE && owner[2] != FREE && owner[3] == FREE -> table = 3
    :: owner[1] != FREE && owner[2] != FREE && owner[3] != FREE && owner[4] == FREE -> table = 4
    fi;
    if
    :: table != NONE -> owner[table] = IN_USE; cpu[table * 2] = 0; cpu[table * 2 + 1] = 0
    :: else
    fi
  }
}

/* The software's walk: ends at the entry that decides about `page`, leaf or not present. Reads tables only, or I3 is broken. */
inline findEntry(page, level, table, e) {
  d_step {
    level = 3;
    table = ROOT;
    e = cpu[WORD(table, page, level)];
    do
    :: PRESENT(e) && !IS_LEAF(e, level) ->
       table = ADDRESS(e);
       level--;
       HOLDS(3, table < TABLES && owner[table] == IN_USE);
       e = cpu[WORD(table, page, level)]
    :: else -> break
    od
  }
}
