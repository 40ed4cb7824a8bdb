/*
 * cut: the hitless split. The sub-tree that is to take the place of a large leaf is built in private, whole, with the leaf's attributes, and
 * put in by one compare-and-swap, which fails if hardware set A or D meanwhile: then it is built again. After that the pages are cleared
 * and the whole old leaf is invalidated, since the cached translation may be as large as that (6.5.2.3); IH = 1, because
 * no non-leaf entry was there. If there is no memory, table pages come from a reserve, since a notifier cannot fail.
 *
 * Claims I1, I3, I4, I5, I6 (with ADE), I8, I11, I12. Bounds and what is left out: see machine/take-away.pml.
 *
 * Defects: D1 D3 D4 D5 D6 D8 D9 of the posted patch; SECOND_INSTALL_LOSES_DIRTY, INVALIDATION_BEFORE_CHANGE, and those of
 * machine/remapping-unit.pml.
 */
#define HITLESS
#if defined(D3) || defined(SECOND_INSTALL_LOSES_DIRTY)
#define ONE_LEVEL_AT_A_TIME
#endif
#include "machine/take-away.pml"

/* One range needs at most three tables. D6 has no reserve; D3 has none for the second split. */
#if defined(D6)
#define MAY_TAKE false
#elif defined(D3)
#define MAY_TAKE (level == 3)
#else
#define MAY_TAKE true
#endif
inline takeReserve(table) {
  d_step {
    if
    :: table == NONE && MAY_TAKE && (owner[5] == RESERVED || owner[6] == RESERVED || owner[7] == RESERVED) ->
       table = (owner[5] == RESERVED -> 5 : (owner[6] == RESERVED -> 6 : 7));
       owner[table] = IN_USE;
       cpu[table * 2] = 0;
       cpu[table * 2 + 1] = 0
    :: else
    fi
  }
}

/* Fills `child`, and for a leaf of level 3 `lower` below it. Private: nobody can reach them. */
inline buildSubTree() {
  d_step {
    if
    :: level == 2 ->
       cpu[child * 2] = ATTRIBUTES(e) | (ADDRESS(e) << 6);
       cpu[child * 2 + 1] = ATTRIBUTES(e) | ((ADDRESS(e) + 1) << 6)
    :: else ->
       cpu[child * 2] = ATTRIBUTES(e) | PS | (ADDRESS(e) << 6);
       cpu[child * 2 + 1] = ATTRIBUTES(e) | PS | ((ADDRESS(e) + 2) << 6);
#ifndef ONE_LEVEL_AT_A_TIME
       cpu[lower * 2] = ATTRIBUTES(e) | ((ADDRESS(e) + (boundary & 2)) << 6);
       cpu[lower * 2 + 1] = ATTRIBUTES(e) | ((ADDRESS(e) + (boundary & 2) + 1) << 6);
       cpu[WORD(child, boundary, 2)] = POINTER(lower)
#endif
    fi;
#ifdef D8
    cpu[child * 2] = cpu[child * 2] & ~HIGH;
    cpu[child * 2 + 1] = cpu[child * 2 + 1] & ~HIGH;
#endif
  }
}

/* Makes `boundary` the first page of a leaf. */
inline cutAt() {
  do
  :: findEntry(boundary, level, table, e);
     if
     :: !PRESENT(e) || level == 1 || BASE(boundary, level) == boundary -> break
     :: else ->
        allocate(child);
        takeReserve(child);
        lower = 0;
#ifndef ONE_LEVEL_AT_A_TIME
        if
        :: level == 3 -> allocate(lower); takeReserve(lower)
        :: else
        fi;
#endif
        if
        :: child == NONE || lower == NONE -> break
        :: else
        fi;
        buildSubTree();
#ifndef D1
        FLUSH(child);
        if :: lower != 0 -> FLUSH(lower) :: else fi;
#endif
#ifdef SECOND_INSTALL_LOSES_DIRTY
        if
        :: level == 2 -> d_step { cpu[WORD(table, boundary, level)] = POINTER(child); e = cpu[WORD(table, boundary, level)] }
        :: else
        fi;
#endif
        atomic {
          if
          :: cpu[WORD(table, boundary, level)] == e -> cpu[WORD(table, boundary, level)] = POINTER(child)
          :: PRESENT(cpu[WORD(table, boundary, level)]) && ADDRESS(cpu[WORD(table, boundary, level)]) == child
          :: else ->
             owner[child] = (child >= 5 -> RESERVED : FREE);
             if :: lower != 0 -> owner[lower] = (lower >= 5 -> RESERVED : FREE) :: else fi;
             child = NONE
          fi;
          if
          :: child != NONE ->
             first = (BASE(boundary, level) < first -> BASE(boundary, level) : first);
             last = (BASE(boundary, level) + SPAN(level) - 1 > last -> BASE(boundary, level) + SPAN(level) - 1 : last)
          :: else
          fi
        }
        if
        :: child != NONE -> FLUSH(table)
#ifdef D5
        :: else -> break
#else
        :: else
#endif
        fi
     fi
  od
}

inline takeAway() {
  first = FIRST;
  last = LAST;
  boundary = FIRST;
  do
  :: boundary >= PAGES || boundary > LAST + 1 -> break
  :: else ->
#ifdef D4
     /* Splits only for a range smaller than the leaf; else goes on down, as if the leaf led to a table. */
     d_step {
       findEntry(boundary, level, table, e);
       if
       :: LAST - FIRST + 1 >= SPAN(level) && level > 1 && BASE(boundary, level) != boundary ->
          table = ADDRESS(e);
          HOLDS(3, table < TABLES)
       :: else
       fi
     }
#endif
     cutAt();
     boundary = (boundary == FIRST -> LAST + 1 : PAGES)
  od;
#ifdef D9
  first = FIRST;
  last = LAST;
#endif
#ifdef INVALIDATION_BEFORE_CHANGE
  invalidate(first, last, 1, 0);
  clearPages()
#else
  clearPages();
  invalidate(first, last, 1, 0)
#endif
}

#include "machine/take-away-run.pml"
