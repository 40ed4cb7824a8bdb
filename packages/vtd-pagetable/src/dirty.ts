import { type Agent, ANY_LOCATION, Cost, Location, type Task } from '@faultline/sim';
import { isLeaf, isPresent, levelFrames, SS_DIRTY } from './entry.ts';
import type { InvalidationGather } from './invalidation-gather.ts';
import { type FoundRun, findLeaves } from './leaf-search.ts';
import { PageTableError } from './page-table-error.ts';
import { checkRange, type TableState } from './table-state.ts';

/** A range whose dirty leaves are asked for. */
export interface DirtyRequest {
  readonly page: number;
  readonly pages: number;
  /** Clear D of what is reported; false is Linux's NO_CLEAR. */
  readonly clear: boolean;
}

/** Takes one dirty leaf: its first 4K page and its size in pages, whatever part of it was asked for. */
export type DirtyReport = (page: number, pages: number) => void;

/**
 * Reports the leaves of a range that hardware has marked dirty, whole and not clipped to the range, and clears D if asked to,
 * as `read_and_clear_dirty` of Linux 7.3. A cleared leaf is gathered: until the invalidation a cached translation with D
 * set lets writes through without setting it again, so the pages are to be processed after the flush (I6). D is
 * cleared by compare-and-swap; Linux's is a plain read, change and store, which can lose what hardware sets in between.
 * @returns leaves reported
 * @throws PageTableError EOPNOTSUPP if the unit sets no D, EINVAL, ERANGE, EIO (corrupt)
 */
export function* readAndClearDirty(
  agent: Agent,
  table: TableState,
  request: DirtyRequest,
  gather: InvalidationGather,
  report: DirtyReport,
): Task<number> {
  const { page, pages, clear } = request;
  checkRange(table, page, pages);
  if (!table.accessedDirty) throw new PageTableError('EOPNOTSUPP', 'the unit sets no dirty bits in this table');
  const end = page + pages;
  let reported = 0;
  for (let at = page; at < end; ) {
    const run = findLeaves(table, at, end);
    if (run === null) break;
    const location = run.count === 1 ? table.memory.location(run.pfn, run.index) : ANY_LOCATION;
    yield clear
      ? agent.writes('read and clear dirty', Location.entry, location, Cost.entryRead, run.count)
      : agent.reads('read dirty', Location.entry, location, Cost.entryRead, run.count);
    const dirty: number[] = [];
    const looked = readRun(table, run, SS_DIRTY, clear, dirty);
    const size = levelFrames(run.level);
    for (const nth of dirty) {
      report(run.page + nth * size, size);
      if (clear) gather.add(run.page + nth * size, size);
    }
    reported += dirty.length;
    // Where a leaf has become a table meanwhile, look again at what is there now.
    at = Math.max(at, run.page + looked * size);
  }
  return reported;
}

/**
 * Looks at A or D of a run of leaves, and clears it by compare-and-swap if asked to. Part of the caller's step.
 * @returns leaves looked at, up to one that is none any more; `found` gets the number in the run of those that have the bit set
 */
export function readRun(table: TableState, run: FoundRun, bit: bigint, clear: boolean, found: number[]): number {
  const { memory } = table;
  const loBit = Number(bit);
  const { pfn, index, count, level } = run;
  const first = ((pfn - memory.basePfn) << 10) + 2 * index;
  for (let nth = 0; nth < count; nth++) {
    const lo = memory.cpuHalves[first + 2 * nth] as number;
    if ((lo & loBit) === 0 && (lo & 3) !== 0 && (level === 1 || (lo & 0x80) !== 0)) continue;
    let entry = memory.load(pfn, index + nth);
    for (;;) {
      if (!isPresent(entry) || !isLeaf(entry, level)) return nth;
      const seen = clear ? memory.compareExchange(pfn, index + nth, entry, entry & ~bit) : entry;
      if (seen === entry) break;
      entry = seen;
    }
    if ((entry & bit) !== 0n) found.push(nth);
  }
  return count;
}
