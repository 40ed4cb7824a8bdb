import { type Agent, assert, Cost, Location, type Task } from '@faultline/sim';
import { FolioFlag } from '../folio/folio-table.ts';
import type { FileMapping } from '../folio/mapping.ts';
import { allocateFolio } from '../frame/allocate-folio.ts';
import type { HostState } from '../host-state.ts';
import { Entry } from '../mm/entry-table.ts';
import type { MemoryCgroup } from '../reclaim/memory-cgroup.ts';
import { waitOnWriteback } from '../reclaim/page-out.ts';
import { mapNewAnonymous, newAnonymousFolio } from './anonymous.ts';
import { AGAIN, dropMmapLock, entryStep, type FaultContext } from './fault-context.ts';
import { VmFault } from './vm-fault.ts';

/**
 * A page of a memfd that this address space does not map (shmem_fault): from the page cache, from swap, or a new one of zeros. Read-only at
 * first in a shared mapping that is only read, so that the first write is seen.
 */
export function* missingFilePage(fault: FaultContext): Task<number> {
  const { host, mm, vma, page, write } = fault;
  const { file } = vma;
  assert(file !== null, 'a page of a file is missing in a mapping of a file');
  const index = vma.indexOf(page);
  if (index >= file.pages) return VmFault.SIGBUS;
  if (write && !vma.shared) return yield* copyOfFilePage(fault, file, index);
  const found = yield* pageOfFile(fault, file, index);
  if (found <= 0) return found === 0 ? AGAIN : -found;
  const folio = found;
  const { folios } = host;
  const step = entryStep(fault, 'fault: map page of file');
  yield fault.agent.alsoWrites(step, Location.folio, folios.pfn(folio));
  const isCached = file.cache.pfn(index) === folios.pfn(folio);
  if (!isCached || mm.table.flags(page) !== 0) {
    host.put(folio);
    return AGAIN;
  }
  const dirtied = write && vma.shared && !folios.has(folio, FolioFlag.dirty);
  const writeable = vma.writeable && vma.shared && write;
  mm.table.set(
    page,
    0,
    folios.pfn(folio),
    Entry.PRESENT | Entry.YOUNG | Entry.SOFT_DIRTY | (writeable ? Entry.WRITE | Entry.DIRTY : 0),
  );
  host.countMapped(mm, folio, 0);
  return finishSharedWrite(fault, folio, dirtied);
}

/**
 * A write to a private page that is not mapped yet (do_cow_fault): the copy is allocated first, so that reclaim on its behalf cannot take
 * the page away again and again; nothing was mapped, so nobody is told.
 */
function* copyOfFilePage(fault: FaultContext, file: FileMapping, index: number): Task<number> {
  const { host, mm, agent, vma, page } = fault;
  const pfn = yield* allocateFolio(host, agent, { order: 0, memcg: mm.memcg });
  if (pfn < 0) return VmFault.OOM;
  const copy = newAnonymousFolio(host, vma, page, pfn, 0);
  const folio = yield* pageOfFile(fault, file, index);
  if (folio <= 0) {
    host.put(copy);
    return folio === 0 ? AGAIN : -folio;
  }
  yield agent.writes('fault: copy page', Location.frame, pfn, Cost.pageCopy);
  host.memory.copyFrame(host.folios.pfn(folio), pfn);
  yield entryStep(fault, 'fault: map copy');
  host.put(folio);
  if (mm.table.flags(page) !== 0) {
    host.put(copy);
    return AGAIN;
  }
  mapNewAnonymous(host, mm, vma, copy, true);
  return 0;
}

/** The first write to a page of a shared mapping that was mapped for reading (do_shared_fault, wp_page_shared). */
export function* sharedFileWrite(fault: FaultContext): Task<number> {
  const { host, mm, page } = fault;
  const flags = mm.table.flags(page);
  yield entryStep(fault, 'fault: make shared page writeable');
  if (mm.table.flags(page) !== flags) return AGAIN;
  const folio = host.folios.at(mm.table.pfn(page));
  const dirtied = !host.folios.has(folio, FolioFlag.dirty);
  mm.table.setFlags(page, flags | Entry.WRITE | Entry.DIRTY | Entry.YOUNG | Entry.SOFT_DIRTY);
  return finishSharedWrite(fault, folio, dirtied);
}

/**
 * A write that dirties the page first gives `mmap_lock` back to balance dirty pages, and so is COMPLETED (fault_dirty_shared_page); without
 * ALLOW_RETRY it is done like any other.
 */
function finishSharedWrite(fault: FaultContext, folio: number, dirtied: boolean): number {
  if (!dirtied) return 0;
  fault.host.folios.setFlag(folio, FolioFlag.dirty, true);
  if (!fault.allowRetry) return 0;
  dropMmapLock(fault);
  return VmFault.COMPLETED;
}

/** Who wants a page of a file: a fault, or a pin of the file itself. */
export interface FileReader {
  readonly host: HostState;
  readonly agent: Agent;
  /** Whose cgroup pays for a new page. */
  readonly mm: { readonly memcg: MemoryCgroup };
  readonly io: { isMajor: boolean };
}

/** The folio of a page of a file, with a reference for the caller. @returns 0 to look again; minus VM_FAULT bits for an error */
export function* pageOfFile(fault: FileReader, file: FileMapping, index: number): Task<number> {
  const { host, mm, agent } = fault;
  const flags = file.cache.flags(index);
  if ((flags & Entry.PRESENT) !== 0) {
    const folio = host.folios.at(file.cache.pfn(index));
    host.folios.get(folio);
    return folio;
  }
  if ((flags & Entry.POISON) !== 0) return -VmFault.HWPOISON;
  const entry = (flags & Entry.SWAP) !== 0 ? file.cache.value(index) : -1;
  const cached = entry >= 0 ? host.swapCache.get(entry) : 0;
  if (cached !== 0) return yield* takeFromSwapCache(fault, file, index, cached);
  const pfn = yield* allocateFolio(host, agent, { order: 0, memcg: mm.memcg });
  if (pfn < 0) return -VmFault.OOM;
  if (entry >= 0) return yield* readFromSwap(fault, file, index, { entry, pfn });
  const folio = host.newFolio({ pfn, order: 0, flags: 0, mapping: file.id, index, memcg: mm.memcg });
  yield agent.writes('fault: zero folio', Location.frame, pfn, Cost.pageCopy);
  host.memory.zeroFolio(pfn, 0);
  yield agent.writes('fault: add to page cache', Location.folio, pfn, Cost.entryWrite);
  if (file.cache.flags(index) !== flags) {
    host.put(folio);
    return 0;
  }
  addToPageCache(host, file, index, folio);
  host.lru.add(folio);
  return folio;
}

/** Reads a page of a file from its slot: in the swap cache and locked meanwhile, so that the slot stays and others wait (shmem_swapin_folio). */
function* readFromSwap(
  fault: FileReader,
  file: FileMapping,
  index: number,
  { entry, pfn }: { readonly entry: number; readonly pfn: number },
): Task<number> {
  const { host, mm, agent } = fault;
  const isThere = (): boolean => (file.cache.flags(index) & Entry.SWAP) !== 0 && file.cache.value(index) === entry;
  if (!isThere() || host.swapCache.get(entry) !== 0) {
    host.freeFrames(pfn, 0);
    return 0;
  }
  const folio = host.newFolio({ pfn, order: 0, flags: 0, mapping: file.id, index, memcg: mm.memcg });
  host.locks.tryAcquire(agent, folio);
  host.addToSwapCache(folio, entry);
  host.folios.setFlag(folio, FolioFlag.uptodate, false);
  fault.io.isMajor = true;
  const isRead = yield* host.swapIo.readPages(agent, { entry, pfn, pages: 1 });
  if (!isRead) host.counters.swapReadErrors++;
  yield agent.writes('fault: add to page cache', Location.folio, pfn, Cost.entryWrite);
  const isDone = isRead && isThere();
  host.folios.setFlag(folio, FolioFlag.uptodate, isRead);
  host.deleteFromSwapCache(folio);
  if (isDone) {
    leaveSwap(host, file, index, entry, folio);
    host.lru.add(folio);
  }
  host.unlock(agent, folio);
  if (isDone) return folio;
  host.put(folio);
  return isRead ? 0 : -VmFault.SIGBUS;
}

/** What became of a page of a file that was found in swap. */
function* takeFromSwapCache(fault: FileReader, file: FileMapping, index: number, folio: number): Task<number> {
  const { host, agent } = fault;
  const { folios } = host;
  folios.get(folio);
  yield* host.locks.acquire(agent, folio, folios.pfn(folio));
  yield* waitOnWriteback(host, agent, folio);
  const entry = folios.swapEntry(folio);
  const isBroken = folios.has(folio, FolioFlag.hwpoison);
  const isSame =
    entry !== 0 && !isBroken && (file.cache.flags(index) & Entry.SWAP) !== 0 && file.cache.value(index) === entry;
  if (isSame) {
    host.deleteFromSwapCache(folio);
    leaveSwap(host, file, index, entry, folio);
    host.counters.swapCacheHits++;
  }
  host.unlock(agent, folio);
  if (isSame) return folio;
  host.put(folio);
  return isBroken ? -VmFault.HWPOISON : 0;
}

/** The page cache names a folio again instead of a swap entry; the folio is dirty, having no copy any more. */
function leaveSwap(host: HostState, file: FileMapping, index: number, entry: number, folio: number): void {
  const { folios } = host;
  host.swap.freeReference(entry);
  file.leaveSwap(index, host.memcgs);
  folios.setFlag(folio, FolioFlag.dirty, true);
  addToPageCache(host, file, index, folio);
}

function addToPageCache(host: HostState, file: FileMapping, index: number, folio: number): void {
  file.cache.set(index, 0, host.folios.pfn(folio), Entry.PRESENT);
  file.cached++;
  host.folios.get(folio);
}

/**
 * Moves a locked, unmapped folio of a file from the page cache to the swap cache, and its swap entry into the page cache (shmem_writepage).
 * @returns false if swap is full, or somebody uses the folio
 */
export function* moveToSwapCache(host: HostState, agent: Agent, folio: number): Task<boolean> {
  const { folios } = host;
  const step = agent.writes('take swap slots', Location.lock, host.swapLock.id, Cost.lock);
  yield agent.alsoWrites(step, Location.folio, folios.pfn(folio));
  if (folios.isMapped(folio)) return false;
  const entry = host.swap.allocate(0);
  if (entry < 0) return false;
  const file = host.files[folios.mapping(folio)]!;
  host.addToSwapCache(folio, entry);
  host.swap.duplicate(entry);
  file.cache.set(folios.index(folio), 0, entry, Entry.SWAP);
  file.cached--;
  file.enterSwap(folios.index(folio), host.memcgOf(folio));
  folios.put(folio);
  return true;
}

/** Takes a clean folio, or one that nobody wants, out of the page cache; the caller has a reference. */
export function deleteFromPageCache(host: HostState, folio: number): void {
  const file = host.files[host.folios.mapping(folio)]!;
  file.cache.clear(host.folios.index(folio), 0);
  file.cached--;
  host.put(folio);
}
