import { type Agent, ANY_LOCATION, Cost, Location, type Task } from '@faultline/sim';
import { type DirtyReport, readRun } from './dirty.ts';
import { levelFrames, SS_ACCESSED } from './entry.ts';
import type { InvalidationGather } from './invalidation-gather.ts';
import { findLeaves } from './leaf-search.ts';
import { PageTableError } from './page-table-error.ts';
import { checkRange, type TableState } from './table-state.ts';

/** A range whose leaves are asked whether hardware used them. */
export interface AccessedRequest {
  readonly page: number;
  readonly pages: number;
  /** Clear A of what is reported. */
  readonly clear: boolean;
}

/**
 * Reports the leaves of a range that have A set, whole and not clipped to the range: A of a large leaf says that one of its pages
 * was used, and not which. Clears A by compare-and-swap if asked to, so that no D is lost. What is cleared is gathered: a
 * cached translation, of the IOTLB or a device TLB, is used on without setting A again (Rev 5.10, 3.7.2), so without the flush a
 * page that is hot enough to stay cached looks cold. Part of the caller's step, and under no lock: nothing is followed that
 * another step may free.
 * @returns leaves reported
 * @throws PageTableError EOPNOTSUPP if the unit sets no A, EINVAL, ERANGE, EIO (corrupt)
 */
export function accessedNow(
  table: TableState,
  request: AccessedRequest,
  gather: InvalidationGather,
  report: DirtyReport,
): number {
  const { page, pages, clear } = request;
  checkRange(table, page, pages);
  if (!table.accessedDirty) throw new PageTableError('EOPNOTSUPP', 'the unit sets no accessed bits in this table');
  const end = page + pages;
  let reported = 0;
  for (let at = page; at < end; ) {
    const run = findLeaves(table, at, end);
    if (run === null) break;
    const young: number[] = [];
    const looked = readRun(table, run, SS_ACCESSED, clear, young);
    const size = levelFrames(run.level);
    for (const nth of young) {
      report(run.page + nth * size, size);
      if (clear) gather.add(run.page + nth * size, size);
    }
    reported += young.length;
    at = run.page + looked * size;
  }
  return reported;
}

/** {@link accessedNow} as a step of its own. */
export function* readAndClearAccessed(
  agent: Agent,
  table: TableState,
  request: AccessedRequest,
  gather: InvalidationGather,
  report: DirtyReport,
): Task<number> {
  yield request.clear
    ? agent.writes('read and clear accessed', Location.entry, ANY_LOCATION, Cost.entryRead, table.levels)
    : agent.reads('read accessed', Location.entry, ANY_LOCATION, Cost.entryRead, table.levels);
  return accessedNow(table, request, gather, report);
}
