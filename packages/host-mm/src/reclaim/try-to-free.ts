import { type Agent, Cost, Location, type Task } from '@faultline/sim';
import { splitFolio } from '../folio/split.ts';
import type { HostState } from '../host-state.ts';
import { DEF_PRIORITY, type ScanControl, SWAP_CLUSTER_MAX } from './lru-policy.ts';
import type { MemoryCgroup } from './memory-cgroup.ts';

/** Rounds of a limit change or a charge that free nothing before it gives up (`MAX_RECLAIM_RETRIES`). */
export const MAX_RECLAIM_RETRIES = 16;

/** What a reclaim run is asked for. */
export interface ReclaimRequest {
  readonly pages: number;
  /** The cgroup that is over its limit; null: the host is short of memory. */
  readonly target: MemoryCgroup | null;
  readonly by: ScanControl['by'];
}

/**
 * One reclaim run (do_try_to_free_pages): looks at more and more of the lists, from 1/4096 to all, until it has freed what was asked
 * for; a second time with active pages deactivated if nothing was freed and some were left alone.
 * @returns pages freed
 */
export function* tryToFreePages(host: HostState, agent: Agent, request: ReclaimRequest): Task<number> {
  const scan: ScanControl = {
    nrToReclaim: Math.max(request.pages, SWAP_CLUSTER_MAX),
    target: request.target,
    by: request.by,
    priority: DEF_PRIORITY,
    nrReclaimed: 0,
    nrScanned: 0,
    nrPageout: 0,
    forceDeactivate: false,
    skippedDeactivate: false,
  };
  yield* scanPriorities(host, agent, scan);
  if (scan.nrReclaimed === 0 && scan.skippedDeactivate) {
    scan.forceDeactivate = true;
    yield* scanPriorities(host, agent, scan);
  }
  return scan.nrReclaimed;
}

function* scanPriorities(host: HostState, agent: Agent, scan: ScanControl): Task<void> {
  for (scan.priority = DEF_PRIORITY; scan.priority >= 0; scan.priority--) {
    yield* splitDeferred(host, agent, scan);
    const groups = scan.target ? [scan.target] : host.memcgs;
    for (const memcg of groups) if (canReclaim(host)) yield* host.lru.shrink(agent, memcg, scan);
    if (scan.nrReclaimed >= scan.nrToReclaim) return;
    // Nothing freed, and the device is still at it: wait for it, as reclaim_throttle does.
    if (scan.priority <= 1 && scan.nrReclaimed === 0) yield* waitForDevice(host, agent);
  }
}

/**
 * Whether a scan could free anything: not when swap is full, and nothing is in the swap cache, of a file, or given up by its owner
 * (can_reclaim_anon_pages).
 */
function canReclaim({ swap, swapCache, files, counters }: HostState): boolean {
  const mayBeLazyFree = counters.pglazyfree > counters.pglazyfreed;
  return swap.freeSlots > 0 || swapCache.pages > 0 || files.length > 0 || mayBeLazyFree;
}

function* waitForDevice(host: HostState, agent: Agent): Task<void> {
  if (host.swapIo.inFlight > 0) yield* host.swapIo.waitForOne(agent);
}

/** Splits folios that are mapped in part, oldest first, so that what nobody maps is free (the deferred split shrinker). */
function* splitDeferred(host: HostState, agent: Agent, scan: ScanControl): Task<void> {
  const { folios, deferredSplit } = host;
  if (deferredSplit.size === 0) return;
  const { target } = scan;
  const queued = [...deferredSplit].filter((folio) => target === null || folios.memcg(folio) === target.id);
  const share = Math.ceil(queued.length / 2 ** scan.priority);
  for (const folio of queued.slice(0, share)) {
    yield agent.writes('lock folio to split it', Location.folio, folios.pfn(folio), Cost.lock);
    if (!deferredSplit.has(folio) || !host.isolate(folio)) continue;
    if (!host.locks.tryAcquire(agent, folio)) {
      host.putBack(folio);
      continue;
    }
    const before = folios.frames(folio);
    const pieces: number[] = [];
    const free = host.allocator.freeFrames;
    const isSplit = yield* splitFolio(host, agent, folio, pieces);
    host.unlock(agent, folio);
    host.putBack(folio);
    for (const piece of pieces) host.putBack(piece);
    if (isSplit) scan.nrReclaimed += Math.min(before, Math.max(0, host.allocator.freeFrames - free));
  }
}

/**
 * Charges pages to a cgroup, reclaiming from it while it would be over its limit (try_charge).
 * @returns false if that frees nothing: the allocation fails
 */
export function* chargeMemoryCgroup(host: HostState, agent: Agent, memcg: MemoryCgroup, pages: number): Task<boolean> {
  for (let retries = MAX_RECLAIM_RETRIES; memcg.usedPages + pages > memcg.maxPages; ) {
    memcg.events.max++;
    const freed = yield* tryToFreePages(host, agent, { pages, target: memcg, by: 'direct' });
    if (memcg.usedPages + pages <= memcg.maxPages) break;
    if (freed > 0) continue;
    if (--retries <= 0) {
      memcg.events.oom++;
      return false;
    }
    yield* waitForDevice(host, agent);
  }
  return true;
}

/**
 * memory.reclaim: runs of a quarter of what is left, as Linux limits over-reclaim (user_proactive_reclaim). A signal ends it before its next
 * run (EINTR). @returns pages freed
 */
export function* reclaimProactively(
  host: HostState,
  agent: Agent,
  { pages, target, signalled }: { pages: number; target: MemoryCgroup | null; signalled: () => boolean },
): Task<number> {
  let freed = 0;
  for (let retries = MAX_RECLAIM_RETRIES; freed < pages && retries > 0 && !signalled(); ) {
    const batch = Math.ceil((pages - freed) / 4);
    const reclaimed = yield* tryToFreePages(host, agent, { pages: batch, target, by: 'proactive' });
    if (reclaimed === 0) retries--;
    freed += reclaimed;
  }
  return freed;
}

/** Changes `memory.max` and reclaims what is above it (memory_max_write). @returns whether usage is within the limit now */
export function* setMemoryMax(host: HostState, agent: Agent, memcg: MemoryCgroup, bytes: number): Task<boolean> {
  memcg.setMax(bytes);
  for (let retries = MAX_RECLAIM_RETRIES; memcg.usedPages > memcg.maxPages && retries > 0; ) {
    const excess = memcg.usedPages - memcg.maxPages;
    if ((yield* tryToFreePages(host, agent, { pages: excess, target: memcg, by: 'direct' })) === 0) {
      retries--;
      yield* waitForDevice(host, agent);
    }
  }
  if (memcg.usedPages <= memcg.maxPages) return true;
  memcg.events.oom++;
  return false;
}

/**
 * The reclaim thread of the host (kswapd): sleeps until an allocation finds less than the low watermark free, and reclaims up to the high one.
 * Gives up after {@link MAX_RECLAIM_RETRIES} rounds that free nothing, until it is asked again. Runs for ever.
 */
export function* kswapd(host: HostState, agent: Agent): Task<void> {
  const { zone, allocator } = host;
  for (;;) {
    while (!zone.kswapdWanted) yield agent.waits('kswapd sleeps', zone.kswapdWait);
    let failures = 0;
    while (allocator.freeFrames < zone.watermarks.high && failures < MAX_RECLAIM_RETRIES) {
      const pages = zone.watermarks.high - allocator.freeFrames;
      const freed = yield* tryToFreePages(host, agent, { pages, target: null, by: 'kswapd' });
      failures = freed > 0 ? 0 : failures + 1;
      if (freed === 0) yield* waitForDevice(host, agent);
    }
    zone.kswapdWanted = false;
  }
}
