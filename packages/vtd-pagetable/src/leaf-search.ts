import { LO_RIGHTS, levelFrames, tableIndex } from './entry.ts';
import { isLeafLo, pageBase } from './leaf-run.ts';
import type { TableState } from './table-state.ts';

/** Leaves of one size side by side in one table. */
export interface FoundRun {
  readonly pfn: number;
  readonly index: number;
  readonly count: number;
  readonly level: number;
  /** First page of the first leaf: below the page asked for if that is inside the leaf. */
  readonly page: number;
}

/**
 * The next leaves of a range: those side by side in one table from the first leaf on that maps anything in `page` .. `end`.
 * Only a look: whoever acts on it announces that, and looks at each entry again.
 * @returns null if nothing is mapped there
 * @throws PageTableError EIO (corrupt)
 */
export function findLeaves(table: TableState, page: number, end: number): FoundRun | null {
  const { cpuHalves, basePfn } = table.memory;
  for (let at = page; at < end; ) {
    let pfn = table.rootPfn;
    for (let level = table.levels as number; ; level--) {
      const size = levelFrames(level);
      const first = (pfn - basePfn) << 10;
      let index = tableIndex(at, level);
      let lo = cpuHalves[first + 2 * index] as number;
      while ((lo & LO_RIGHTS) === 0) {
        at = pageBase(at, level) + size;
        index++;
        if (index === 512 || at >= end) break;
        lo = cpuHalves[first + 2 * index] as number;
      }
      if (index === 512 || at >= end) break;
      if (isLeafLo(lo, level)) {
        const start = pageBase(at, level);
        const last = Math.min(512, index + Math.ceil((end - start) / size));
        let stop = index + 1;
        for (; stop < last; stop++) {
          const next = cpuHalves[first + 2 * stop] as number;
          if ((next & LO_RIGHTS) === 0 || !isLeafLo(next, level)) break;
        }
        return { pfn, index, count: stop - index, level, page: start };
      }
      pfn = table.tableBelow(pfn, index, level, at);
    }
  }
  return null;
}
