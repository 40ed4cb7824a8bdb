import { type Agent, Location, type Task } from '@faultline/sim';
import { FANOUT } from '../folio/folio-order.ts';
import { FolioFlag } from '../folio/folio-table.ts';
import { addKsmPlace } from '../folio/ksm-places.ts';
import type { AnonVma } from '../folio/mapping.ts';
import { allocateFolio } from '../frame/allocate-folio.ts';
import type { HostState } from '../host-state.ts';
import { canChangeWriteable } from '../mm/change-protection.ts';
import { Entry } from '../mm/entry-table.ts';
import type { Vma } from '../mm/vma.ts';
import { newAnonymousFolio } from './anonymous.ts';
import { preferredPfn } from './contiguous.ts';
import { AGAIN, dropMmapLock, entryStep, type FaultContext } from './fault-context.ts';
import { VmFault } from './vm-fault.ts';

/**
 * A page that is in swap (do_swap_page): from the swap cache if its folio is there, else read from the device into a new 4K folio, with
 * read-ahead around it. The slot stays with the page as its clean copy while swap is not half full.
 */
export function* swapIn(fault: FaultContext): Task<number> {
  const { host, mm, page } = fault;
  const { folios, counters } = host;
  const entry = mm.table.value(page);
  let folio = host.swapCache.get(entry);
  if (folio === 0) {
    const read = yield* readAround(fault, entry);
    if (read <= 0) return read === 0 ? AGAIN : VmFault.OOM;
    folio = read;
    fault.io.isMajor = true;
  } else {
    counters.swapCacheHits++;
    noteReadAheadHit(fault, folio);
    folios.get(folio);
  }
  const locked = yield* lockFolio(fault, folio);
  if (!locked) return VmFault.RETRY;
  const mapped = yield* mapFromSwapCache(fault, folio, entry);
  host.unlock(fault.agent, folio);
  host.put(folio);
  return mapped;
}

/** Locks the folio; with ALLOW_RETRY, gives `mmap_lock` back instead of waiting with it. @returns whether it is locked */
function* lockFolio(fault: FaultContext, folio: number): Task<boolean> {
  const { host, agent, allowRetry } = fault;
  const pfn = host.folios.pfn(folio);
  if (!allowRetry || !host.locks.isLocked(folio)) {
    yield* host.locks.acquire(agent, folio, pfn);
    return true;
  }
  dropMmapLock(fault);
  yield* host.locks.acquire(agent, folio, pfn);
  host.unlock(agent, folio);
  host.put(folio);
  return false;
}

function* mapFromSwapCache(fault: FaultContext, folio: number, entry: number): Task<number> {
  const { host, mm, vma, page, write } = fault;
  const { folios } = host;
  if (host.swapCache.get(entry) !== folio) return AGAIN;
  if (folios.has(folio, FolioFlag.hwpoison)) return VmFault.HWPOISON;
  if (!folios.has(folio, FolioFlag.uptodate)) return VmFault.SIGBUS;
  if (mustCopy(fault, folio, entry)) return yield* mapCopyOf(fault, folio, entry);
  const step = entryStep(fault, 'fault: map page from swap cache');
  yield fault.agent.alsoWrites(step, Location.folio, folios.pfn(folio));
  const flags = mm.table.flags(page);
  // Somebody else may have mapped it first, who cannot share it with this mapping.
  if ((flags & Entry.SWAP) === 0 || mm.table.value(page) !== entry || mustCopy(fault, folio, entry)) return AGAIN;
  const isKsm = folios.has(folio, FolioFlag.ksm);
  const bits = presentBits(fault, flags, !isKsm && (flags & Entry.EXCLUSIVE) !== 0);
  const pfn = folios.pfn(folio) + (entry - folios.swapEntry(folio));
  mm.table.set(page, 0, pfn, bits);
  if (isKsm) addKsmPlace(host, folio, mm, page);
  // While it was read, the slot may have been freed and given to another page: rmap goes by who maps it (folio_add_anon_rmap).
  if (!folios.isMapped(folio) && folios.order(folio) === 0 && !isKsm)
    folios.remap(folio, mappingOf(host, vma).id, vma.indexOf(page));
  host.swap.freeReference(entry);
  mm.swappedPages--;
  mm.memcg.swappedPages--;
  folios.get(folio);
  host.countMapped(mm, folio, 0);
  // A page that will be written to needs no old copy; nor does any when swap fills up (should_try_to_free_swap).
  const isWritten = write && (bits & Entry.WRITE) !== 0;
  if (isWritten || host.swap.full) host.freeSwap(folio);
  return write && !isWritten ? AGAIN : 0;
}

/** An exclusive page is writeable at once, unless its writes are to be seen. */
function presentBits({ vma, write }: FaultContext, flags: number, exclusive: boolean): number {
  const bits =
    Entry.PRESENT | Entry.YOUNG | (flags & (Entry.SOFT_DIRTY | Entry.UFFD_WP)) | (exclusive ? Entry.EXCLUSIVE : 0);
  if (!canChangeWriteable(vma, bits)) return bits;
  return bits | Entry.WRITE | (write ? Entry.DIRTY | Entry.SOFT_DIRTY : 0);
}

/**
 * Whether the page cannot be mapped here, because rmap would not find it: it was a KSM page before it was swapped out, and somebody
 * unrelated has it back already; or UFFDIO_MOVE moved the entry (ksm_might_need_to_copy).
 */
function mustCopy({ host, vma, page }: FaultContext, folio: number, entry: number): boolean {
  const { folios } = host;
  if (folios.has(folio, FolioFlag.ksm) || (!folios.isMapped(folio) && folios.order(folio) === 0)) return false;
  const isLinked = vma.anonChain.some((anonVma) => anonVma.id === folios.mapping(folio));
  return !isLinked || vma.indexOf(page) !== folios.index(folio) + (entry - folios.swapEntry(folio));
}

/** Maps a page of its own with the content of a locked folio of the swap cache. */
function* mapCopyOf(fault: FaultContext, folio: number, entry: number): Task<number> {
  const { host, mm, agent, vma, page, write } = fault;
  const { folios } = host;
  const pfn = yield* allocateFolio(host, agent, { order: 0, memcg: mm.memcg, ...preferredPfn(mm, vma, page) });
  if (pfn < 0) return VmFault.OOM;
  const copy = newAnonymousFolio(host, vma, page, pfn, 0);
  const step = entryStep(fault, 'fault: map copy of a page in the swap cache');
  yield agent.alsoWrites(step, Location.folio, folios.pfn(folio));
  const flags = mm.table.flags(page);
  const isSame = (flags & Entry.SWAP) !== 0 && mm.table.value(page) === entry && host.swapCache.get(entry) === folio;
  if (!isSame) {
    host.put(copy);
    return AGAIN;
  }
  host.memory.copyFrame(folios.pfn(folio) + (entry - folios.swapEntry(folio)), pfn);
  const bits = presentBits(fault, flags, true);
  mm.table.set(page, 0, pfn, bits);
  host.swap.freeReference(entry);
  mm.swappedPages--;
  mm.memcg.swappedPages--;
  host.countMapped(mm, copy, 0);
  host.lru.add(copy);
  host.counters.ksm_swpin_copy++;
  return write && (bits & Entry.WRITE) === 0 ? AGAIN : 0;
}

/**
 * Reads the entry, and its neighbours as far as read-ahead goes, into new folios in the swap cache: on the LRU, and locked until
 * the device is done.
 * @returns the folio of the entry, with a reference for the caller; 0: somebody else was faster; -1: no memory
 */
function* readAround(fault: FaultContext, entry: number): Task<number> {
  const { host, mm, agent, vma, page } = fault;
  const wanted = yield* newSwapCacheFolio(fault, entry, page);
  if (wanted <= 0) return wanted;
  const folios = [wanted];
  const window = readAheadWindow(host, vma, page);
  for (let at = window.startPage; at < window.endPage; at++) {
    if (at === page || (mm.table.flags(at) & Entry.SWAP) === 0) continue;
    const neighbour = yield* newSwapCacheFolio(fault, mm.table.value(at), at);
    if (neighbour < 0) break;
    if (neighbour === 0) continue;
    host.folios.setFlag(neighbour, FolioFlag.readahead, true);
    host.counters.swap_ra++;
    folios.push(neighbour);
  }
  yield* readFolios(host, agent, folios);
  for (const folio of folios) {
    host.unlock(agent, folio);
    if (folio !== wanted) host.put(folio);
  }
  return wanted;
}

/** A locked folio in the swap cache for an entry. @returns 0 if there is one, or nobody needs it any more; -1: no memory */
function* newSwapCacheFolio(fault: FaultContext, entry: number, page: number): Task<number> {
  const { host, mm, agent, vma } = fault;
  const isTaken = (): boolean =>
    host.swapCache.get(entry) !== 0 || !host.swap.isUsed(entry) || host.swap.references(entry) === 0;
  if (isTaken()) return 0;
  const pfn = yield* allocateFolio(host, agent, { order: 0, memcg: mm.memcg, ...preferredPfn(mm, vma, page) });
  if (pfn < 0) return -1;
  if (isTaken() || vma.endPage <= page) {
    host.freeFrames(pfn, 0);
    return 0;
  }
  const folio = host.newFolio({
    pfn,
    order: 0,
    flags: FolioFlag.anon,
    mapping: mappingOf(host, vma).id,
    index: vma.indexOf(page),
    memcg: mm.memcg,
  });
  host.locks.tryAcquire(agent, folio);
  host.addToSwapCache(folio, entry);
  host.folios.setFlag(folio, FolioFlag.uptodate, false);
  host.lru.add(folio);
  return folio;
}

/** What other address spaces may map too is found through the oldest anon_vma, which all of them have. */
const mappingOf = (host: HostState, vma: Vma): AnonVma => vma.anonChain[0] ?? host.anonVmaOf(vma);

/** Reads locked folios, those with slots in a row by one command. A folio that cannot be read does not become up to date. */
function* readFolios(host: HostState, agent: Agent, folios: number[]): Task<void> {
  const { folios: table, swapIo } = host;
  folios.sort((a, b) => table.swapEntry(a) - table.swapEntry(b));
  for (let first = 0; first < folios.length; ) {
    const entry = table.swapEntry(folios[first]!);
    let end = first + 1;
    while (end < folios.length && table.swapEntry(folios[end]!) === entry + (end - first)) end++;
    const batch = folios.slice(first, end);
    // A page that zswap gives up has no other copy.
    const markDirty = (index: number): void => table.setFlag(batch[index]!, FolioFlag.dirty, true);
    const pfns = batch.map((folio) => table.pfn(folio));
    const whole = yield* swapIo.readPages(agent, { entry, pfn: pfns[0]!, pages: pfns.length, pfns, markDirty });
    for (const [i, folio] of batch.entries()) {
      // One page of the command may be bad: each is tried on its own.
      const mayRetry = !whole && batch.length > 1;
      const one = { entry: entry + i, pfn: table.pfn(folio), pages: 1, markDirty: () => markDirty(i) };
      const isRead = whole || (mayRetry && (yield* swapIo.readPages(agent, one)));
      table.setFlag(folio, FolioFlag.uptodate, isRead);
      if (!isRead) host.counters.swapReadErrors++;
    }
    first = end;
  }
}

/**
 * The pages around a fault that are read with it (swap_vma_readahead): as many as the last window's hits promise, a power of two
 * up to `vm.page-cluster`, ahead of a sequential reader, around a random one, within the mapping and 2M.
 */
function readAheadWindow(
  host: HostState,
  vma: Vma,
  page: number,
): { readonly startPage: number; readonly endPage: number } {
  const largest = 2 ** host.pageCluster;
  if (largest === 1) return { startPage: page, endPage: page + 1 };
  const before = vma.readAhead;
  const window = windowPages(before, page, largest);
  vma.readAhead = { page, window, hits: 0 };
  let startPage = page - ((window - 1) >> 1);
  if (page === before.page + 1) startPage = page;
  else if (page === before.page - 1) startPage = page - window + 1;
  const table = page - (page % FANOUT);
  return {
    startPage: Math.max(startPage, vma.startPage, table),
    endPage: Math.min(startPage + window, vma.endPage, table + FANOUT),
  };
}

/** How many pages to read, from the hits of the window before (__swapin_nr_pages). */
function windowPages(before: Vma['readAhead'], page: number, largest: number): number {
  let pages = before.hits + 2;
  if (pages === 2) {
    if (page !== before.page + 1 && page !== before.page - 1) pages = 1;
  } else {
    let power = 4;
    while (power < pages) power *= 2;
    pages = power;
  }
  return Math.max(Math.min(pages, largest), before.window >> 1);
}

/** A fault found its page in the swap cache: a reader that goes on from there is sequential; what was read ahead makes the next window larger. */
function noteReadAheadHit({ host, vma, page }: FaultContext, folio: number): void {
  if (host.folios.order(folio) > 0) return;
  vma.readAhead.page = page;
  if (!host.folios.has(folio, FolioFlag.readahead)) return;
  host.folios.setFlag(folio, FolioFlag.readahead, false);
  host.counters.swap_ra_hit++;
  vma.readAhead.hits++;
}
