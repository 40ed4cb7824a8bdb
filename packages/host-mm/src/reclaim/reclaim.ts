import { type Agent, Cost, Location, type Task } from '@faultline/sim';
import { framesOf, smallerOrder } from '../folio/folio-order.ts';
import type { HostState } from '../host-state.ts';
import { swapEntry } from '../mm/cpu-page-table.ts';
import { NotifierEvent, type NotifierRange } from '../notifier/mmu-notifier.ts';

/** Lets the random stream pick the piece of a folio that is split. */
const ANY_PAGE = -1;

/**
 * Frees up to `pages` frames from the LRU's tail, one 4K page at a time. A young folio gets a second chance, a
 * pinned one is skipped; both go to the head. Gives up after two rounds without progress, or when swap is full.
 * @returns how many frames it freed
 */
export function* reclaimPages(host: HostState, agent: Agent, pages: number): Task<number> {
  const { lru, folios, counters } = host;
  let freed = 0;
  let idleScans = 0;
  while (freed < pages) {
    yield agent.writes('scan the LRU tail', Location.lock, host.lruLock.id, Cost.reclaimScan);
    const folio = lru.tail;
    if (folio === 0 || idleScans > 2 * lru.size || host.swap.freeSlots === 0) break;
    counters.reclaimScanned++;
    idleScans++;
    if (folios.isYoung(folio)) {
      folios.setYoung(folio, false);
      lru.moveToHead(folio);
    } else if (folios.pins(folio) > 0) {
      lru.moveToHead(folio);
    } else {
      host.isolate(folio);
      if (yield* shrinkFolio(host, agent, folio)) {
        freed++;
        idleScans = 0;
      }
    }
  }
  return freed;
}

/**
 * Swaps one 4K page of an isolated folio out, splitting the folio down to it: the page given, or one that the random
 * stream picks, since a large leaf has one accessed bit for all. Ends the isolation.
 * @returns whether a frame was freed
 */
export function* shrinkFolio(host: HostState, agent: Agent, folio: number, page = ANY_PAGE): Task<boolean> {
  let target = folio;
  while (host.folios.order(target) !== 0) {
    const piece = yield* splitIsolated(host, agent, target, page);
    if (piece === 0) return false;
    target = piece;
  }
  return yield* swapOut(host, agent, target);
}

/**
 * Splits an isolated large folio, ends its isolation and isolates one of its pieces.
 * @returns the piece; 0 if the folio was pinned, split or unmapped in the meantime
 */
function* splitIsolated(host: HostState, agent: Agent, folio: number, page: number): Task<number> {
  const { folios } = host;
  const mm = host.mmOf(folio);
  const startPage = folios.startPage(folio);
  const pieceFrames = framesOf(smallerOrder(folios.order(folio)));
  const range = splitRange(host, folio);
  if (range) yield* mm.notifiers.start(agent, range);
  yield agent.writes('split large leaf', Location.cpuEntry, mm.entryLocation(startPage), Cost.folioSplit);
  let chosen = 0;
  if (folios.isMapped(folio) && folios.pins(folio) === 0) {
    const index = page === ANY_PAGE ? host.random.below(512) : Math.floor((page - startPage) / pieceFrames);
    chosen = host.split(folio)[index] ?? 0;
    host.isolate(chosen);
  }
  host.putBack(folio);
  if (range) yield* mm.notifiers.end(agent, range);
  return chosen;
}

/** The notifier range of a leaf's split, if there is one: see {@link HostState.splitNotify}. */
export function splitRange(host: HostState, folio: number): NotifierRange | null {
  if (host.splitNotify === 'none') return null;
  return {
    startPage: host.folios.startPage(folio),
    pages: host.folios.frames(folio),
    event: NotifierEvent.CLEAR,
    blockable: true,
  };
}

/**
 * Swaps an isolated 4K folio out, in the order of Linux's `shrink_folio_list`: page lock, slot, notifier start, CPU entry
 * to swap entry, notifier end, write while the page is in the swap cache, free. A fault during the write maps
 * the frame back, and then it stays. Ends the isolation.
 * @returns whether the frame was freed
 */
function* swapOut(host: HostState, agent: Agent, folio: number): Task<boolean> {
  const { folios, swap } = host;
  const mm = host.mmOf(folio);
  const page = folios.startPage(folio);
  yield agent.writes('lock page to swap it out', Location.cpuEntry, mm.entryLocation(page), Cost.lock);
  if (!folios.isMapped(folio) || !mm.locks.tryAcquire(agent, page)) return host.putBack(folio);
  const slot = swap.allocate();
  if (slot < 0) {
    mm.locks.release(agent, page);
    return host.putBack(folio);
  }
  const range: NotifierRange = { startPage: page, pages: 1, event: NotifierEvent.CLEAR, blockable: true };
  yield* mm.notifiers.start(agent, range);
  yield agent.writes('entry becomes a swap entry', Location.cpuEntry, mm.entryLocation(page), Cost.entryWrite);
  // A pin or a zap may have come since the scan.
  const taken = folios.isMapped(folio) && folios.pins(folio) === 0;
  if (taken) {
    mm.table.set(page, 0, swapEntry(slot));
    host.setUnmapped(mm, folio);
    mm.swappedPages++;
    host.swapCache.set(slot, folio);
  }
  yield* mm.notifiers.end(agent, range);
  mm.locks.release(agent, page);
  if (!taken) {
    swap.free(slot);
    return host.putBack(folio);
  }
  return yield* writeOut(host, agent, { folio, slot });
}

/** Writes an unmapped page in the swap cache to its slot and frees the frame, unless the page was mapped again. */
function* writeOut(host: HostState, agent: Agent, page: { folio: number; slot: number }): Task<boolean> {
  const { folio, slot } = page;
  const { folios, swap } = host;
  const mm = host.mmOf(folio);
  const startPage = folios.startPage(folio);
  yield agent.reads('write page to swap', Location.frame, folios.pfn(folio), Cost.swapWrite);
  swap.writeSlot(slot, host.memory.readContent(folios.pfn(folio)));
  yield agent.writes('leave the swap cache', Location.cpuEntry, mm.entryLocation(startPage), Cost.lock);
  host.swapCache.delete(slot);
  if (mm.table.entry(startPage) !== swapEntry(slot)) {
    // Mapped again (and the frame stays), or zapped (and nobody wants the content).
    swap.free(slot);
    return host.putBack(folio);
  }
  host.counters.swapOut++;
  yield agent.writes('free frame', Location.lock, host.frames.id, Cost.lock);
  return host.putBack(folio);
}
