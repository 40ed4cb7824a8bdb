import { hex } from '@faultline/address';
import { type Agent, Cost, Location, type Task } from '@faultline/sim';
import { handleMmFault } from '../fault/handle-mm-fault.ts';
import { VmFault } from '../fault/vm-fault.ts';
import { blockStart, framesOf } from '../folio/folio-order.ts';
import { FolioFlag } from '../folio/folio-table.ts';
import { splitFolio } from '../folio/split.ts';
import { splitLeafAt } from '../folio/unmap.ts';
import type { HostState } from '../host-state.ts';
import { Entry } from '../mm/entry-table.ts';
import type { MmState } from '../mm/mm-state.ts';
import { type PageSpan, zapRange } from '../mm/zap.ts';
import { NotifierEvent, type NotifierRange } from '../notifier/mmu-notifier.ts';
import { shrinkFolioList } from '../reclaim/shrink-folio-list.ts';

/**
 * Advice to madvise, without its MADV_:
 * - `DONTNEED`: drops the content; the pages read as zeros afterwards. Fires CLEAR over the range.
 * - `FREE`: the content may go when memory is short, unless it is written to again. Fires CLEAR over the range.
 * - `PAGEOUT`: reclaims the pages now, accessed or not. Fires CLEAR over each folio that goes (and that is split).
 * - `COLD`: makes the pages the next that reclaim takes. Fires nothing, but for a folio that must be split.
 * - `WILLNEED`: reads what is in swap. Fires nothing.
 */
export type MadviseAdvice = 'DONTNEED' | 'FREE' | 'PAGEOUT' | 'COLD' | 'WILLNEED';

interface PageRange {
  readonly startPage: number;
  readonly pages: number;
}

/** madvise. Holds `mmap_lock` for reading. */
export function* advise(
  host: HostState,
  mm: MmState,
  agent: Agent,
  range: PageRange,
  advice: MadviseAdvice,
): Task<void> {
  yield* mm.mmapLock.acquireRead(agent);
  try {
    if (advice === 'DONTNEED') yield* dontNeed(host, mm, agent, range);
    else if (advice === 'FREE') yield* free(host, mm, agent, range);
    else if (advice === 'WILLNEED') yield* willNeed(host, mm, agent, range);
    else yield* coldOrPageOut(host, mm, agent, range, advice === 'PAGEOUT');
  } finally {
    mm.mmapLock.releaseRead(agent);
  }
}

const clearRange = ({ startPage, pages }: PageRange): NotifierRange => ({
  startPage,
  pages,
  event: NotifierEvent.CLEAR,
  blockable: true,
});

function* dontNeed(host: HostState, mm: MmState, agent: Agent, range: PageRange): Task<void> {
  const notified = clearRange(range);
  const spans = wholeHugePages(mm, range);
  yield* mm.notifiers.start(agent, notified);
  for (const span of spans) yield* zapRange(host, mm, agent, span);
  yield* mm.notifiers.end(agent, notified);
}

/** What MADV_DONTNEED drops: of hugetlb only whole pages. @throws RangeError if the range begins within a huge page (EINVAL) */
function wholeHugePages(mm: MmState, range: PageRange): PageSpan[] {
  const rangeEnd = range.startPage + range.pages;
  return mm.vmas.within(range.startPage, rangeEnd).map((vma) => {
    const startPage = Math.max(vma.startPage, range.startPage);
    const endPage = Math.min(vma.endPage, rangeEnd);
    if (!vma.shape.hugetlb) return { startPage, endPage };
    const frames = framesOf(vma.shape.order);
    if (startPage % frames !== 0)
      throw new RangeError(`startPage: ${hex(startPage)} is not the first of a page of ${vma.backing} (EINVAL)`);
    return { startPage, endPage: blockStart(endPage, frames) };
  });
}

/** Clean, and not backed by swap any more: reclaim drops such folios instead of writing them. Swap entries go at once. */
function* free(host: HostState, mm: MmState, agent: Agent, range: PageRange): Task<void> {
  const { folios } = host;
  const notified = clearRange(range);
  const endPage = range.startPage + range.pages;
  yield* mm.notifiers.start(agent, notified);
  for (let page = mm.table.nextUsed(range.startPage, endPage); page < endPage; ) {
    yield* splitWhatSticksOut(host, mm, agent, page, range);
    yield agent.writes('madvise: free entry', Location.cpuEntry, mm.entryLocation(page), Cost.entryWrite);
    const flags = mm.table.flags(page);
    const order = mm.table.level(page);
    const vma = mm.vmas.find(page);
    if ((flags & Entry.SWAP) !== 0) {
      const entry = mm.table.value(page);
      mm.table.clear(page, 0);
      host.dropSwapEntry(mm, entry);
    } else if ((flags & Entry.PRESENT) !== 0 && vma?.isCow && !vma.shape.hugetlb) {
      const folio = folios.at(mm.table.pfn(page));
      // Only who has all of a folio may give it up.
      if (folios.mapcount(folio) === 1 && framesOf(order) === folios.frames(folio) && !host.locks.isLocked(folio)) {
        host.freeSwap(folio);
        if (!folios.has(folio, FolioFlag.swapcache)) makeLazyFree(host, mm, folio, page, flags);
      }
    }
    page = mm.table.nextUsed(mm.table.end(page), endPage);
  }
  yield* mm.notifiers.end(agent, notified);
}

function makeLazyFree(host: HostState, mm: MmState, folio: number, page: number, flags: number): void {
  const { folios, counters } = host;
  mm.table.setFlags(page, flags & ~(Entry.YOUNG | Entry.DIRTY));
  folios.setFlag(folio, FolioFlag.dirty | FolioFlag.referenced, false);
  folios.setFlag(folio, FolioFlag.lazyfree, true);
  counters.pglazyfree += folios.frames(folio);
  host.lru.deactivate(folio);
}

function* willNeed(host: HostState, mm: MmState, agent: Agent, range: PageRange): Task<void> {
  const endPage = range.startPage + range.pages;
  for (let page = mm.table.nextUsed(range.startPage, endPage); page < endPage; ) {
    if ((mm.table.flags(page) & Entry.SWAP) !== 0) {
      const bits = yield* handleMmFault(host, mm, agent, { page, write: false });
      // It is advice: when there is no memory for it, the rest is not tried.
      if ((bits & VmFault.OOM) !== 0) return;
    }
    page = mm.table.nextUsed(mm.table.end(page), endPage);
  }
}

/** Splits the large leaf at the page if it reaches out of the range, down to entries that do not. */
function* splitWhatSticksOut(host: HostState, mm: MmState, agent: Agent, page: number, range: PageRange): Task<void> {
  for (;;) {
    const end = mm.table.end(page);
    const start = end - framesOf(mm.table.level(page));
    const fits = start >= range.startPage && end <= range.startPage + range.pages;
    if (fits || mm.table.level(page) === 0 || mm.table.flags(page) === 0) return;
    yield* splitLeafAt(host, mm, agent, page);
  }
}

/**
 * MADV_COLD and MADV_PAGEOUT (madvise_cold_or_pageout_pte_range): folios that reach out of the range are split first, those that others map too are
 * left alone.
 */
function* coldOrPageOut(host: HostState, mm: MmState, agent: Agent, range: PageRange, pageOut: boolean): Task<void> {
  const { folios, lru } = host;
  const endPage = range.startPage + range.pages;
  const isolated: number[] = [];
  for (let page = mm.table.nextUsed(range.startPage, endPage); page < endPage; ) {
    const folio = yield* privateFolioWithin(host, mm, agent, page, range);
    if (folio !== 0) {
      const flags = mm.table.flags(page);
      mm.table.setFlags(page, flags & ~Entry.YOUNG);
      folios.setFlag(folio, FolioFlag.referenced, false);
      if (!pageOut) lru.deactivate(folio);
      else if (host.isolate(folio)) isolated.push(folio);
    }
    if (isolated.length >= 512) yield* shrinkFolioList(host, agent, isolated.splice(0), null);
    page = mm.table.nextUsed(mm.table.end(page), endPage);
  }
  if (isolated.length > 0) yield* shrinkFolioList(host, agent, isolated, null);
}

/** The folio that the page's entry maps, split down until it lies in the range. @returns 0 if it is to be left alone */
function* privateFolioWithin(host: HostState, mm: MmState, agent: Agent, page: number, range: PageRange): Task<number> {
  const { folios, locks } = host;
  for (;;) {
    yield agent.writes('madvise: look at entry', Location.cpuEntry, mm.entryLocation(page), Cost.entryRead);
    const pfn = mm.table.pfn(page);
    const folio = pfn < 0 ? 0 : folios.at(pfn);
    if (folio === 0 || !host.lru.isOn(folio) || folios.isPinned(folio)) return 0;
    const vma = mm.vmas.find(page);
    if (vma === null || vma.shape.hugetlb) return 0;
    const first = vma.pageOf(folios.index(folio));
    const isWithin = first >= range.startPage && first + folios.frames(folio) <= range.startPage + range.pages;
    if (isWithin || folios.order(folio) === 0)
      return folios.order(folio) > 0 || folios.mapcount(folio) === 1 ? folio : 0;
    if (folios.has(folio, FolioFlag.ksm) || !locks.tryAcquire(agent, folio)) return 0;
    folios.get(folio);
    const isSplit = yield* splitFolio(host, agent, folio);
    host.unlock(agent, folio);
    host.put(folio);
    if (!isSplit) return 0;
  }
}

/** MADV_PAGEOUT of one page. @returns whether its frame was freed */
export function* pageOutPage(host: HostState, mm: MmState, agent: Agent, page: number): Task<boolean> {
  yield* mm.mmapLock.acquireRead(agent);
  try {
    const folio = yield* privateFolioWithin(host, mm, agent, page, { startPage: page, pages: 1 });
    if (folio === 0 || host.swap.freeSlots === 0 || !host.isolate(folio)) return false;
    const { reclaimed } = yield* shrinkFolioList(host, agent, [folio], null);
    return reclaimed > 0;
  } finally {
    mm.mmapLock.releaseRead(agent);
  }
}
