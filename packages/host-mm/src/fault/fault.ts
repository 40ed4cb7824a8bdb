import { type Agent, assert, Cost, Location, type Task } from '@faultline/sim';
import { blockStart, type FolioOrder, framesOf, ORDER_OF, smallerOrder } from '../folio/folio-order.ts';
import { allocateFrame, tryAllocate } from '../frame/frame-supply.ts';
import type { HostState } from '../host-state.ts';
import { type CpuEntry, slotOf } from '../mm/cpu-page-table.ts';
import type { MmState } from '../mm/mm-state.ts';
import type { Vma } from '../mm/vma-list.ts';
import { VmFault } from './vm-fault.ts';

/** Something changed while the handler slept: look again. */
const AGAIN = -1;

/**
 * Makes a page present; the caller holds `mmap_lock`. In the order of Linux: no VMA; present already; a swap
 * entry (from the swap cache, else from the device); nothing there (the largest folio of the backing that fits).
 * @returns VM_FAULT bits
 */
export function* faultIn(host: HostState, mm: MmState, agent: Agent, page: number): Task<number> {
  assert(mm.mmapLock.held, () => `${agent.name} handles a fault without ${mm.mmapLock.name}`);
  yield agent.reads('fault: read entry', Location.cpuEntry, mm.entryLocation(page), Cost.minorFault);
  const vma = mm.vmas.find(page);
  if (vma === null) return VmFault.SIGSEGV;
  for (;;) {
    const entry = mm.table.entry(page);
    if (entry > 0) {
      host.folios.setYoung(entry, true);
      host.counters.minorFaults++;
      return 0;
    }
    const key = entry < 0 ? page : blockStart(page, framesOf(fittingOrder(mm, vma, page)));
    yield* mm.locks.acquire(agent, key, mm.place(page));
    try {
      const bits = yield* fillLocked(host, mm, agent, { page, key, vma });
      if (bits !== AGAIN) return bits;
    } finally {
      mm.locks.release(agent, key);
    }
    yield agent.reads('fault: read entry again', Location.cpuEntry, mm.entryLocation(page), Cost.entryRead);
  }
}

interface Missing {
  readonly page: number;
  /** The page whose lock is held. */
  readonly key: number;
  readonly vma: Vma;
}

/** Goes on under the page lock; looks at the entry again first, since it may have changed while waiting. */
function* fillLocked(host: HostState, mm: MmState, agent: Agent, missing: Missing): Task<number> {
  const { page, key, vma } = missing;
  const entry = mm.table.entry(page);
  if (entry > 0) return AGAIN;
  if (entry < 0) {
    if (key !== page) return AGAIN;
    const cached = host.swapCache.get(slotOf(entry));
    return cached === undefined
      ? yield* swapIn(host, mm, agent, { page, entry })
      : yield* mapCached(host, mm, agent, { page, entry, folio: cached });
  }
  const order = fittingOrder(mm, vma, page);
  if (key !== blockStart(page, framesOf(order))) return AGAIN;
  return yield* demandZero(host, mm, agent, { page, order });
}

/** The largest order of the backing whose aligned block around the page is empty. */
function fittingOrder(mm: MmState, vma: Vma, page: number): FolioOrder {
  let order = ORDER_OF[vma.backing];
  while (order !== 0 && !mm.table.isEmpty(blockStart(page, framesOf(order)), order)) order = smallerOrder(order);
  return order;
}

/** Maps a page whose frame is still in the swap cache: the same frame, no I/O. The reclaimer sees it and keeps the frame. */
function* mapCached(
  host: HostState,
  mm: MmState,
  agent: Agent,
  at: { page: number; entry: CpuEntry; folio: number },
): Task<number> {
  const { page, entry, folio } = at;
  yield agent.writes('fault: map from swap cache', Location.cpuEntry, mm.entryLocation(page), Cost.entryWrite);
  if (mm.table.entry(page) !== entry || host.swapCache.get(slotOf(entry)) !== folio) return AGAIN;
  mm.table.set(page, 0, folio);
  host.folios.setMapped(folio, true);
  host.folios.setYoung(folio, true);
  mm.swappedPages--;
  mm.residentFrames++;
  host.counters.swapCacheHits++;
  host.counters.minorFaults++;
  return 0;
}

/** Reads a page from swap into a new frame and frees the slot. */
function* swapIn(host: HostState, mm: MmState, agent: Agent, at: { page: number; entry: CpuEntry }): Task<number> {
  const { page, entry } = at;
  const pfn = yield* allocateFrame(host, agent);
  if (pfn < 0) return VmFault.OOM;
  yield agent.writes('fault: read page from swap', Location.frame, pfn, Cost.swapRead);
  yield agent.writes('fault: map page', Location.cpuEntry, mm.entryLocation(page), Cost.entryWrite);
  const slot = slotOf(entry);
  if (mm.table.entry(page) !== entry || host.swapCache.has(slot)) {
    host.freeFrames(pfn, 0);
    return AGAIN;
  }
  // A slot that an entry names does not change, so reading it here is reading it above.
  host.memory.writeContent(pfn, host.swap.readSlot(slot));
  host.swap.free(slot);
  mm.table.clear(page, 0);
  mm.swappedPages--;
  host.mapNew(mm, { startPage: page, pfn, order: 0 });
  host.counters.swapIn++;
  host.counters.majorFaults++;
  return VmFault.MAJOR;
}

/** Maps a folio of zeros; a smaller one than asked for when none of that order is free. */
function* demandZero(
  host: HostState,
  mm: MmState,
  agent: Agent,
  at: { page: number; order: FolioOrder },
): Task<number> {
  const { page } = at;
  let order = at.order;
  let pfn = -1;
  while (order !== 0) {
    pfn = yield* tryAllocate(host, agent, order);
    if (pfn >= 0) break;
    order = smallerOrder(order);
  }
  if (pfn < 0) pfn = yield* allocateFrame(host, agent);
  if (pfn < 0) return VmFault.OOM;
  const startPage = blockStart(page, framesOf(order));
  yield agent.writes('fault: zero folio', Location.frame, pfn, Cost.pageCopy, framesOf(order));
  host.memory.zeroFolio(pfn, order);
  yield agent.writes('fault: map folio', Location.cpuEntry, mm.entryLocation(page), Cost.entryWrite);
  if (!mm.table.isEmpty(startPage, order)) {
    host.freeFrames(pfn, order);
    return AGAIN;
  }
  host.mapNew(mm, { startPage, pfn, order });
  host.counters.minorFaults++;
  return 0;
}

/**
 * Makes the first page of an untouched block present with the largest folio that fits, in one step and without charging
 * for zeroing; what is there already, or needs reclaim, takes the way of {@link faultIn}.
 * @returns VM_FAULT bits
 */
export function* prefault(host: HostState, mm: MmState, agent: Agent, page: number): Task<number> {
  yield agent.writes('populate folio', Location.cpuEntry, mm.entryLocation(page), Cost.minorFault);
  const vma = mm.vmas.find(page);
  const entry = mm.table.entry(page);
  if (entry > 0) return 0;
  if (vma === null || entry < 0) return yield* faultIn(host, mm, agent, page);
  for (let order = fittingOrder(mm, vma, page); ; order = smallerOrder(order)) {
    const pfn = host.allocator.allocate(order);
    if (pfn >= 0) {
      host.memory.zeroFolio(pfn, order);
      host.mapNew(mm, { startPage: blockStart(page, framesOf(order)), pfn, order });
      host.counters.minorFaults++;
      return 0;
    }
    if (order === 0) return yield* faultIn(host, mm, agent, page);
  }
}
