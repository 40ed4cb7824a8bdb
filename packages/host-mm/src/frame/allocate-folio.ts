import { type Agent, Cost, Location, type Task } from '@faultline/sim';
import { type FolioOrder, framesOf } from '../folio/folio-order.ts';
import type { HostState } from '../host-state.ts';
import type { MemoryCgroup } from '../reclaim/memory-cgroup.ts';
import { chargeMemoryCgroup, MAX_RECLAIM_RETRIES, tryToFreePages } from '../reclaim/try-to-free.ts';

/** What is allocated, and for whom. */
export interface FolioRequest {
  readonly order: FolioOrder;
  readonly memcg: MemoryCgroup;
  /** Take these frames if they are free. */
  readonly preferredPfn?: number;
}

/** Fewest pages of one direct reclaim run. */
const RECLAIM_BATCH_PAGES = 32;

/**
 * Charges and allocates the frames of a folio. Below the low watermark kswapd is woken; below the min watermark, or with nothing free, a 4K
 * allocation reclaims itself, and a larger one fails (as with defrag=madvise). The caller must make a folio of it before its next yield.
 * @returns the first frame; -1 if there is none, and reclaim frees nothing
 */
export function* allocateFolio(host: HostState, agent: Agent, request: FolioRequest): Task<number> {
  const { order, memcg } = request;
  const pages = framesOf(order);
  for (let idleRounds = 0; idleRounds < MAX_RECLAIM_RETRIES; ) {
    if (memcg.usedPages + pages > memcg.maxPages) {
      if (order > 0 && pages > memcg.maxPages) return -1;
      if (!(yield* chargeMemoryCgroup(host, agent, memcg, pages))) return -1;
    }
    yield agent.writes('allocate folio', Location.lock, host.frames.id, Cost.lock);
    // Others may have charged meanwhile.
    if (memcg.usedPages + pages > memcg.maxPages) continue;
    const pfn = takeFrames(host, request);
    if (pfn === INJECTED) return -1;
    if (pfn >= 0) return pfn;
    if (order > 0) return -1;
    host.counters.allocstall++;
    const freed = yield* tryToFreePages(host, agent, { pages: RECLAIM_BATCH_PAGES, target: null, by: 'direct' });
    if (freed > 0 || host.allocator.freeFrames > host.zone.watermarks.min) continue;
    idleRounds++;
    if (host.swapIo.inFlight > 0) yield* host.swapIo.waitForOne(agent);
    else if (host.isolated.size > 0) yield agent.waits('wait for reclaim in progress', host.frames);
    // As long as something could go to swap: what had its second chance now goes in the next round (should_reclaim_retry).
    else if (host.swap.freeSlots === 0 && idleRounds > 1) break;
  }
  return host.allocator.freeFrames > 0 ? takeBelowMin(host, request) : -1;
}

const INJECTED = -2;

function takeFrames(host: HostState, { order, preferredPfn }: FolioRequest): number {
  const { allocator, zone, injection } = host;
  if (injection.allocationFails?.(++host.allocations, order)) {
    host.counters.injectedAllocationFailures++;
    return INJECTED;
  }
  const left = allocator.freeFrames - framesOf(order);
  if (left < zone.watermarks.low) zone.wakeKswapd();
  if (left < zone.watermarks.min) return -1;
  if (preferredPfn !== undefined && allocator.allocateAt(preferredPfn, order)) return preferredPfn;
  return allocator.allocate(order);
}

/** Nothing can be reclaimed any more: the reserve below the min watermark is better than failing. */
const takeBelowMin = (host: HostState, { order }: FolioRequest): number => host.allocator.allocate(order);

/** Tries to allocate without reclaiming or charging beyond the limit; part of the caller's step. @returns the first frame or -1 */
export function tryAllocateFolio(host: HostState, request: FolioRequest): number {
  const { memcg, order } = request;
  if (memcg.usedPages + framesOf(order) > memcg.maxPages) return -1;
  const pfn = takeFrames(host, request);
  return pfn < 0 ? -1 : pfn;
}
