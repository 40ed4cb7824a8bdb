import { type Agent, Cost, Location, type Task } from '@faultline/sim';
import type { FolioOrder } from '../folio/folio-order.ts';
import type { HostState } from '../host-state.ts';
import { reclaimPages } from '../reclaim/reclaim.ts';

/** How many pages direct reclaim aims at, `SWAP_CLUSTER_MAX` in Linux. */
const RECLAIM_BATCH_PAGES = 32;
/** Rounds of direct reclaim without progress before the allocation fails, `MAX_RECLAIM_RETRIES` in Linux. */
const RETRIES = 16;

/** Tries to allocate a folio of that order; never sleeps. @returns its first frame or -1 */
export function* tryAllocate(host: HostState, agent: Agent, order: FolioOrder): Task<number> {
  yield agent.writes('allocate folio', Location.lock, host.frames.id, Cost.lock);
  return host.allocator.allocate(order);
}

/** Allocates one frame, by direct reclaim if none is free. @returns the frame, or -1 if reclaim frees nothing */
export function* allocateFrame(host: HostState, agent: Agent): Task<number> {
  for (let idleRounds = 0; idleRounds < RETRIES; ) {
    const pfn = yield* tryAllocate(host, agent, 0);
    if (pfn >= 0) return pfn;
    const freed = yield* reclaimPages(host, agent, RECLAIM_BATCH_PAGES);
    if (freed > 0 || host.allocator.freeFrames > 0) continue;
    if (host.isolated === 0) return -1;
    // Other reclaimers have taken what there was; what they free is for everybody.
    idleRounds++;
    yield agent.waits('wait for reclaim in progress', host.frames);
  }
  return -1;
}
