import { type Agent, Cost, Location, type Task } from '@faultline/sim';
import { deleteFromPageCache, moveToSwapCache } from '../fault/shmem.ts';
import { FolioFlag } from '../folio/folio-table.ts';
import { hasNoOtherUsers, splitFolio } from '../folio/split.ts';
import { unmapFolio } from '../folio/unmap.ts';
import type { HostState } from '../host-state.ts';
import type { SwapOrder } from '../swap/swap-cluster.ts';
import { checkReferences } from './check-references.ts';
import type { ScanControl } from './lru-policy.ts';
import { pageOutFolio } from './page-out.ts';

/** What becomes of one folio. */
type Fate = 'free' | 'keep' | 'activate';

/** What became of a list, in 4 KiB pages. */
export interface ShrinkResult {
  reclaimed: number;
  /** Write-back begun. */
  pageout: number;
  /** Found under write-back. */
  writeback: number;
}

interface Shrinking {
  /** Null: asked for by name (MADV_PAGEOUT), so accessed bits do not matter. */
  readonly scan: ScanControl | null;
  /** Folios still to come; pieces of a split folio join them. */
  readonly list: number[];
  readonly result: ShrinkResult;
}

/**
 * Tries to free isolated folios, in the order of Linux's shrink_folio_list: lock; under write-back: a later scan; accessed:
 * keep; mapped in part, or no slots in a row: split; swap slots; unmap; write; leave the swap cache; free. What stays goes back to
 * the LRU. Pieces of a folio that is split on the way follow on the list.
 */
export function* shrinkFolioList(
  host: HostState,
  agent: Agent,
  list: number[],
  scan: ScanControl | null,
): Task<ShrinkResult> {
  const shrinking: Shrinking = { scan, list, result: { reclaimed: 0, pageout: 0, writeback: 0 } };
  const kept: number[] = [];
  for (let i = 0; i < list.length; i++) {
    const folio = list[i]!;
    yield agent.writes('lock folio to reclaim it', Location.folio, host.folios.pfn(folio), Cost.lock);
    if (!host.locks.tryAcquire(agent, folio)) {
      kept.push(folio);
      continue;
    }
    const fate = yield* shrinkLocked(host, agent, folio, shrinking);
    host.unlock(agent, folio);
    if (fate === 'free') {
      yield agent.writes('free frames', Location.lock, host.frames.id, Cost.lock);
      countFreed(host, folio, shrinking);
      host.putBack(folio);
      continue;
    }
    if (fate === 'activate') {
      host.folios.setFlag(folio, FolioFlag.active, true);
      host.counters.pgactivate += host.folios.frames(folio);
    }
    kept.push(folio);
  }
  for (const folio of kept) host.putBack(folio);
  return shrinking.result;
}

function countFreed(host: HostState, folio: number, { result }: Shrinking): void {
  const frames = host.folios.frames(folio);
  result.reclaimed += frames;
  host.counters.reclaimedPages += frames;
}

/** Goes on under the folio lock, which it leaves held. */
function* shrinkLocked(host: HostState, agent: Agent, folio: number, shrinking: Shrinking): Task<Fate> {
  const { folios } = host;
  if (folios.has(folio, FolioFlag.writeback)) {
    folios.setFlag(folio, FolioFlag.reclaim, true);
    shrinking.result.writeback += folios.frames(folio);
    return 'activate';
  }
  if (shrinking.scan !== null && folios.isMapped(folio)) {
    const verdict = yield* checkReferences(host, agent, folio);
    if (verdict !== 'reclaim') return verdict;
  }
  if (folios.isPinned(folio)) return 'keep';
  if (!(yield* prepareSwap(host, agent, folio, shrinking))) return 'activate';
  if (folios.isMapped(folio) && !(yield* unmapFolio(host, agent, folio, 'reclaim'))) return 'activate';
  if (folios.isPinned(folio)) return 'activate';
  return yield* writeAndRemove(host, agent, folio, shrinking);
}

/**
 * Gives an anonymous folio its swap slots: a large one a row of them, or else it is split and its first piece goes on. Lazyfree folios
 * and those in the swap cache need none. @returns false if it cannot be reclaimed now
 */
function* prepareSwap(host: HostState, agent: Agent, folio: number, shrinking: Shrinking): Task<boolean> {
  const { folios, counters } = host;
  const needsNone = FolioFlag.swapcache | FolioFlag.lazyfree;
  if (folios.has(folio, needsNone) || !folios.has(folio, FolioFlag.anon)) return true;
  // Without a free slot Linux does not scan anonymous memory at all, and so splits none of it (can_reclaim_anon_pages).
  if (shrinking.scan !== null && host.swap.freeSlots === 0) return false;
  const isLarge = folios.order(folio) > 0;
  if (isLarge && !hasNoOtherUsers(host, folio)) return false;
  const splitFirst = folios.order(folio) > 9 || folios.isPartlyMapped(folio) || (isLarge && !host.thpSwap);
  while (splitFirst && folios.order(folio) > (host.thpSwap && !folios.isPartlyMapped(folio) ? 9 : 0))
    if (!(yield* splitFolio(host, agent, folio, shrinking.list))) return false;
  for (;;) {
    const step = agent.writes('take swap slots', Location.lock, host.swapLock.id, Cost.lock);
    yield agent.alsoWrites(step, Location.folio, folios.pfn(folio));
    const entry = host.swap.allocate(folios.order(folio) as SwapOrder);
    if (entry >= 0) {
      host.addToSwapCache(folio, entry);
      folios.setFlag(folio, FolioFlag.dirty, true);
      return true;
    }
    if (folios.order(folio) === 0) return false;
    const wasPmd = folios.order(folio) === 9;
    if (!(yield* splitFolio(host, agent, folio, shrinking.list))) return false;
    if (wasPmd) counters.thp_swpout_fallback++;
  }
}

/** The folio is unmapped: writes it if it is dirty, and takes it out of the swap cache if it is clean and nobody uses it. */
function* writeAndRemove(host: HostState, agent: Agent, folio: number, { result }: Shrinking): Task<Fate> {
  const { folios, counters } = host;
  if (folios.has(folio, FolioFlag.lazyfree)) {
    if (folios.has(folio, FolioFlag.dirty)) return 'activate';
    counters.pglazyfreed += folios.frames(folio);
    return onlyMine(host, folio) ? 'free' : 'keep';
  }
  const inPageCache = !folios.has(folio, FolioFlag.anon | FolioFlag.swapcache);
  if (folios.has(folio, FolioFlag.dirty)) {
    if (inPageCache && !(yield* moveToSwapCache(host, agent, folio))) return 'activate';
    const frames = folios.frames(folio);
    const outcome = yield* pageOutFolio(host, agent, folio);
    if (outcome === 'gone') return onlyMine(host, folio) ? 'free' : 'keep';
    if (outcome === 'failed') return 'activate';
    result.pageout += frames;
    if (outcome === 'queued') return 'keep';
  }
  const step = agent.writes('leave the swap cache', Location.folio, folios.pfn(folio), Cost.lock);
  yield agent.alsoWrites(step, Location.lock, host.swapLock.id);
  // Mapped again, written to, or in use: it stays.
  const busy = folios.isMapped(folio) || folios.has(folio, FolioFlag.dirty) || folios.has(folio, FolioFlag.writeback);
  if (busy || !hasNoOtherUsers(host, folio)) return 'keep';
  if (folios.has(folio, FolioFlag.swapcache)) host.deleteFromSwapCache(folio);
  else if (!folios.has(folio, FolioFlag.anon)) deleteFromPageCache(host, folio);
  return onlyMine(host, folio) ? 'free' : 'keep';
}

/** Whether the isolator's reference is the only one. */
const onlyMine = (host: HostState, folio: number): boolean => host.folios.refs(folio) === 1;
