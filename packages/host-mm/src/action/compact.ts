import { type Agent, Cost, Location, type Task } from '@faultline/sim';
import { checkInteger } from '../argument.ts';
import { blockStart, FANOUT, framesOf, PMD_ORDER } from '../folio/folio-order.ts';
import { FolioFlag } from '../folio/folio-table.ts';
import { cacheReferences } from '../folio/split.ts';
import type { HostState } from '../host-state.ts';
import { type Migration, migrateFolio } from './migrate.ts';

/** Where the two scanners are: the first frames of the 2M blocks that they have come to. */
interface Scanners {
  migrate: number;
  free: number;
}

/**
 * Moves folios from low frames to free ones at the high end until a block of that order is free, or the two scanners meet (compact_zone). Each
 * folio is looked at once at most, what is empty is skipped by 2M and 1G. Fires what migration fires: CLEAR over each folio that moves.
 * @param order 1 to 9 @returns whether such a block is free @throws RangeError for another order
 */
export function* compact(host: HostState, agent: Agent, order: number): Task<boolean> {
  checkInteger('order', order, 1, PMD_ORDER);
  const { allocator, counters } = host;
  const found = allocator.largestFreeOrder >= order || (yield* scan(host, agent, order));
  if (found) counters.compact_success++;
  else counters.compact_fail++;
  return found;
}

function* scan(host: HostState, agent: Agent, order: number): Task<boolean> {
  const { folios, allocator } = host;
  const scanners: Scanners = {
    migrate: blockStart(allocator.firstPfn, FANOUT),
    free: blockStart(folios.endPfn - 1, FANOUT),
  };
  const how: Migration = { target: () => takeFromAbove(host, scanners), sync: false };
  let block = -1;
  for (let pfn = allocator.firstPfn; ; ) {
    pfn = folios.nextUsed(pfn, scanners.free);
    if (pfn >= scanners.free) return allocator.largestFreeOrder >= order;
    scanners.migrate = blockStart(pfn, FANOUT);
    if (scanners.migrate !== block) {
      block = scanners.migrate;
      yield agent.reads('compaction: scan 2M', Location.lock, host.lruLock.id, Cost.reclaimScan, FANOUT);
      continue;
    }
    const folio = folios.at(pfn);
    const end = folios.pfn(folio) + folios.frames(folio);
    const isWhole = folios.pfn(folio) <= pfn && pfn < end;
    if (!isWhole || !isMovable(host, folio, order)) {
      pfn = isWhole ? end : pfn + 1;
      continue;
    }
    const outcome = yield* migrateFolio(host, agent, folio, how);
    if (allocator.largestFreeOrder >= order) return true;
    // One folio that stays is enough to spoil the block that is wanted here.
    pfn = outcome === 'moved' ? end : blockStart(pfn, framesOf(order)) + framesOf(order);
  }
}

/** The lowest free frame of the highest 2M block that has one, above the migrate scanner's. */
function takeFromAbove(host: HostState, scanners: Scanners): number {
  for (; scanners.free > scanners.migrate; scanners.free -= FANOUT) {
    const pfn = host.allocator.allocateWithin(scanners.free, 0);
    if (pfn >= 0) return pfn;
  }
  return -1;
}

/** Whether it is worth trying (isolate_migratepages_block): small, on the LRU, and nobody but mappings and caches refers to it. */
function isMovable(host: HostState, folio: number, order: number): boolean {
  const { folios, locks } = host;
  const references = folios.mapcount(folio) + cacheReferences(host, folio);
  const isIdle = folios.refs(folio) === references && !folios.has(folio, FolioFlag.writeback) && !locks.isLocked(folio);
  return folios.order(folio) === 0 && folios.order(folio) < order && host.lru.isOn(folio) && isIdle;
}
