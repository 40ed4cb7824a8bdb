import { type Agent, Cost, Location, type Task } from '@faultline/sim';
import { deleteFromPageCache } from '../fault/shmem.ts';
import { FolioFlag } from '../folio/folio-table.ts';
import type { FileMapping } from '../folio/mapping.ts';
import type { HostState } from '../host-state.ts';
import { Entry } from '../mm/entry-table.ts';
import type { Vma } from '../mm/vma.ts';
import { zapRange } from '../mm/zap.ts';
import { NotifierEvent, type NotifierRange } from '../notifier/mmu-notifier.ts';
import { waitOnWriteback } from '../reclaim/page-out.ts';

/** A range of a file, in pages, and whether private copies of its pages go too. */
interface FileRange {
  readonly startIndex: number;
  readonly endIndex: number;
  readonly evenCows: boolean;
}

/**
 * Drops a range of a memfd's pages, wherever they are (FALLOC_FL_PUNCH_HOLE): they read as zeros afterwards. Fires CLEAR over each mapping's part,
 * mapped or not, and again for a page that a fault brings back meanwhile. Private copies stay.
 */
export function* punchHole(
  host: HostState,
  agent: Agent,
  file: FileMapping,
  { startIndex, pages }: { readonly startIndex: number; readonly pages: number },
): Task<void> {
  const endIndex = Math.min(startIndex + pages, file.pages);
  if (startIndex < endIndex) yield* dropPages(host, agent, file, { startIndex, endIndex, evenCows: false });
}

/** Changes a memfd's size (ftruncate). What is cut off goes, private copies too, with CLEAR as for a hole; an access to it is SIGBUS. */
export function* truncateFile(host: HostState, agent: Agent, file: FileMapping, pages: number): Task<void> {
  yield agent.writes('truncate', Location.lock, host.swapLock.id, Cost.lock);
  const before = file.pages;
  file.pages = pages;
  if (pages < before) yield* dropPages(host, agent, file, { startIndex: pages, endIndex: before, evenCows: true });
}

function* dropPages(host: HostState, agent: Agent, file: FileMapping, range: FileRange): Task<void> {
  yield* unmapMappingRange(host, agent, file, range);
  const { startIndex, endIndex } = range;
  for (let index = file.cache.nextUsed(startIndex, endIndex); index < endIndex; )
    if (yield* dropPage(host, agent, file, index)) index = file.cache.nextUsed(index + 1, endIndex);
}

/**
 * Takes the entries out of every mapping of the range (unmap_mapping_range). `mmap_lock` does for what i_mmap_rwsem does in Linux: no mapping
 * goes or moves meanwhile.
 */
function* unmapMappingRange(host: HostState, agent: Agent, file: FileMapping, range: FileRange): Task<void> {
  for (const vma of [...file.vmas]) {
    const { mm } = vma;
    yield* mm.mmapLock.acquireRead(agent);
    try {
      yield* unmapPart(host, agent, vma, range);
    } finally {
      mm.mmapLock.releaseRead(agent);
    }
  }
}

function* unmapPart(
  host: HostState,
  agent: Agent,
  vma: Vma,
  { startIndex, endIndex, evenCows }: FileRange,
): Task<void> {
  const startPage = Math.max(vma.startPage, vma.pageOf(startIndex));
  const endPage = Math.min(vma.endPage, vma.pageOf(endIndex));
  if (startPage >= endPage || !vma.file?.vmas.has(vma)) return;
  const event = NotifierEvent.CLEAR;
  const range: NotifierRange = { startPage, pages: endPage - startPage, event, blockable: true };
  yield* vma.mm.notifiers.start(agent, range);
  yield* zapRange(host, vma.mm, agent, { startPage, endPage }, !evenCows);
  yield* vma.mm.notifiers.end(agent, range);
}

/** Takes one page out of the page cache, or its slot out of swap. @returns false to look again */
function* dropPage(host: HostState, agent: Agent, file: FileMapping, index: number): Task<boolean> {
  const { folios, locks } = host;
  yield agent.reads('truncate: look at page cache', Location.lock, host.swapLock.id, Cost.entryRead);
  const flags = file.cache.flags(index);
  if (flags === 0) return true;
  const isPresent = (flags & Entry.PRESENT) !== 0;
  const isSwapped = (flags & Entry.SWAP) !== 0;
  const folio = isPresent
    ? folios.at(file.cache.pfn(index))
    : isSwapped
      ? host.swapCache.get(file.cache.value(index))
      : 0;
  if (folio !== 0) {
    folios.get(folio);
    yield* locks.acquire(agent, folio, folios.pfn(folio));
    yield* waitOnWriteback(host, agent, folio);
  }
  const pfn = folio === 0 ? 0 : folios.pfn(folio);
  const step = agent.writes('truncate: drop page', Location.lock, host.swapLock.id, Cost.lock);
  yield agent.alsoWrites(step, Location.folio, pfn);
  let isGone = false;
  if (folio === 0 || !folios.isMapped(folio)) isGone = dropNow(host, file, index, folio);
  if (folio !== 0) {
    host.unlock(agent, folio);
    host.put(folio);
  }
  // A fault has mapped it again.
  if (!isGone && folio !== 0 && file.cache.pfn(index) === pfn)
    yield* unmapMappingRange(host, agent, file, { startIndex: index, endIndex: index + 1, evenCows: false });
  return isGone;
}

/** Part of the caller's step. @returns false if something else is there by now */
function dropNow(host: HostState, file: FileMapping, index: number, folio: number): boolean {
  const { folios } = host;
  const flags = file.cache.flags(index);
  if (flags === 0) return true;
  if ((flags & Entry.SWAP) !== 0) {
    const entry = file.cache.value(index);
    const cached = host.swapCache.get(entry);
    if (cached !== folio) return false;
    file.cache.clear(index, 0);
    host.swap.freeReference(entry);
    file.leaveSwap(index, host.memcgs);
    if (folio !== 0) disown(host, folio);
    return true;
  }
  if ((flags & Entry.POISON) !== 0) {
    file.cache.clear(index, 0);
    return true;
  }
  if (folio === 0 || file.cache.pfn(index) !== folios.pfn(folio) || folios.has(folio, FolioFlag.writeback))
    return false;
  deleteFromPageCache(host, folio);
  disown(host, folio);
  return true;
}

/** The folio belongs to no file any more (folio->mapping is NULL): whoever still has it, by a pin or to reclaim it, does not put it back. */
function disown({ folios }: HostState, folio: number): void {
  folios.setFlag(folio, FolioFlag.anon, true);
  folios.remap(folio, 0, 0);
}
