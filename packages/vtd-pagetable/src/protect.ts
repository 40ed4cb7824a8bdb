import { hex } from '@faultline/address';
import { type Agent, ANY_LOCATION, Cost, Location, type Task } from '@faultline/sim';
import { isLeaf, isPresent, levelFrames, SS_READ, SS_WRITE } from './entry.ts';
import type { InvalidationGather } from './invalidation-gather.ts';
import { type FoundRun, findLeaves } from './leaf-search.ts';
import { PageTableError } from './page-table-error.ts';
import { flushEntries } from './publication.ts';
import { checkChoice, checkRange, type TableState } from './table-state.ts';

/** A change of rights. */
export interface ProtectRequest {
  readonly page: number;
  readonly pages: number;
  /** R in bit 0, W in bit 1. */
  readonly rights: number;
  /** At a page that is not mapped: `stop` and return what was done, or `skip` it. */
  readonly holes: 'stop' | 'skip';
  /**
   * Only devices that take page faults use the range. Then W may be added to a readable leaf without an invalidation: a stale
   * entry costs a fault that finds nothing to do (Rev 5.10, 6.5.3.5). Default false: every change is gathered.
   */
  readonly faultCapable?: boolean;
}

/**
 * Changes the rights of the leaves in a range, each by one compare-and-swap; frame, attributes, A and D stay. Linux 7.3
 * has no such operation. The old rights are in use until the gathered range is invalidated.
 * @returns 4K pages that have the rights now
 * @throws PageTableError EINVAL (no rights; an end inside a large leaf: nothing is changed then, cut there first), ERANGE, EIO (corrupt)
 */
export function* protect(
  agent: Agent,
  table: TableState,
  request: ProtectRequest,
  gather: InvalidationGather,
): Task<number> {
  const { page, pages, rights, holes, faultCapable = false } = request;
  checkRange(table, page, pages);
  checkChoice('holes', holes, 'stop', 'skip');
  if ((rights & 3) === 0) throw new PageTableError('EINVAL', 'rights: neither read nor write; unmap instead');
  const end = page + pages;
  yield agent.reads('read ends of range', Location.entry, ANY_LOCATION, Cost.entryRead, 2 * table.levels);
  for (const boundary of [page, end]) checkEnd(table, boundary);
  let done = 0;
  for (let at = page; at < end; ) {
    const run = findLeaves(table, at, end);
    if (run === null || (run.page > at && holes === 'stop')) break;
    const { pfn, index, count, level } = run;
    const location = count === 1 ? table.memory.location(pfn, index) : ANY_LOCATION;
    yield agent.writes('change rights', Location.entry, location, Cost.entryWrite, count);
    const changed = changeRun(table, run, BigInt(rights & 3), faultCapable, gather);
    if (!table.memory.coherent && changed > 0) yield* flushEntries(agent, table.memory, pfn, index, changed);
    done += changed * levelFrames(level);
    at = run.page + changed * levelFrames(level);
  }
  return done;
}

function checkEnd(table: TableState, boundary: number): void {
  const leaf = table.leafAt(boundary);
  if (leaf !== null && leaf.page < boundary)
    throw new PageTableError(
      'EINVAL',
      `iova: ${hex(boundary * 4096)} is inside the ${leaf.level === 3 ? '1G' : '2M'} leaf at ${hex(leaf.page * 4096)}; cut there first`,
    );
}

/** @returns leaves that have the rights now, up to one that is no leaf any more */
function changeRun(
  table: TableState,
  { pfn, index, count, level, page }: FoundRun,
  rights: bigint,
  faultCapable: boolean,
  gather: InvalidationGather,
): number {
  const { memory } = table;
  for (let nth = 0; nth < count; nth++) {
    for (let entry = memory.load(pfn, index + nth); ; ) {
      if (!isPresent(entry) || !isLeaf(entry, level)) return nth;
      const wanted = (entry & ~(SS_READ | SS_WRITE)) | rights;
      const seen = wanted === entry ? entry : memory.compareExchange(pfn, index + nth, entry, wanted);
      if (seen !== entry) {
        entry = seen; // hardware set A or D
        continue;
      }
      const free = faultCapable && (entry & SS_READ) !== 0n && (wanted & SS_READ) !== 0n && (wanted & SS_WRITE) !== 0n;
      if (wanted !== entry && !free) gather.add(page + nth * levelFrames(level), levelFrames(level));
      break;
    }
  }
  return count;
}
