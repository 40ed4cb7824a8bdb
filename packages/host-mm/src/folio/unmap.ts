import { type Agent, assert, Cost, Location, type Task } from '@faultline/sim';
import type { HostState } from '../host-state.ts';
import { Entry } from '../mm/entry-table.ts';
import type { MmState } from '../mm/mm-state.ts';
import { NotifierEvent, type NotifierRange } from '../notifier/mmu-notifier.ts';
import { FANOUT, framesOf, PUD_ORDER, smallerLeaf } from './folio-order.ts';
import { FolioFlag } from './folio-table.ts';
import { forgetKsmPlace } from './ksm-places.ts';
import { type FolioSpan, isMappedIn, spansOf } from './rmap.ts';

/** Why a folio is unmapped everywhere, which decides what its entries become. */
export type UnmapReason =
  /** Swap entries; a clean lazyfree page, or a page of a file: nothing. */
  | 'reclaim'
  /** Migration entries, at which faults wait. */
  | 'migrate'
  /** Poison entries, at which faults die. */
  | 'poison';

const SWAP_BITS = Entry.SWAP | Entry.SOFT_DIRTY | Entry.EXCLUSIVE | Entry.UFFD_WP;

/**
 * Takes a locked folio out of every page table (try_to_unmap, try_to_migrate): for each VMA one notifier range over the
 * folio's extent there (all of a large leaf), a large leaf split into entries first, then the entries in one step. A page that is pinned meanwhile keeps its entry.
 * @returns whether no mapping is left
 */
export function* unmapFolio(host: HostState, agent: Agent, folio: number, reason: UnmapReason): Task<boolean> {
  for (const span of spansOf(host, folio)) {
    if (!host.folios.isMapped(folio)) break;
    if (!isMappedIn(host, folio, span)) continue;
    const range = unmapRange(span);
    yield* span.mm.notifiers.start(agent, range);
    yield agent.writes(
      LABELS[reason],
      Location.cpuEntry,
      span.mm.entryLocation(span.startPage),
      Cost.entryWrite,
      span.endPage - span.startPage,
    );
    unmapSpan(host, folio, span, reason);
    yield* span.mm.notifiers.end(agent, range);
  }
  return !host.folios.isMapped(folio);
}

const LABELS: Readonly<Record<UnmapReason, string>> = {
  reclaim: 'entry becomes a swap entry',
  migrate: 'entry becomes a migration entry',
  poison: 'entry becomes a poison entry',
};

/** CLEAR over the folio's extent in the VMA. */
const unmapRange = (span: FolioSpan): NotifierRange => ({
  startPage: span.startPage,
  pages: span.endPage - span.startPage,
  event: NotifierEvent.CLEAR,
  blockable: true,
});

function unmapSpan(host: HostState, folio: number, span: FolioSpan, reason: UnmapReason): void {
  const { table } = span.mm;
  const { folios } = host;
  const first = table.pfn(span.startPage);
  const isLeaf = table.level(span.startPage) > 0 && first >= 0 && folios.at(first) === folio;
  if (isLeaf && reason === 'reclaim') {
    if (folios.isPinned(folio)) return;
    splitLeaf(host, span.mm, span.startPage);
  }
  for (let page = span.startPage; page < span.endPage; ) {
    const end = table.end(page);
    const pfn = table.pfn(page);
    if (pfn >= 0 && folios.at(pfn) === folio) unmapEntry(host, folio, span, page, reason);
    page = end;
  }
  // Only what is left of it counts; on the move, it will be mapped as before.
  if (reason !== 'migrate') host.deferIfPartlyMapped(folio);
}

function unmapEntry(host: HostState, folio: number, span: FolioSpan, page: number, reason: UnmapReason): void {
  const { mm } = span;
  const { table } = mm;
  const { folios } = host;
  const flags = table.flags(page);
  const order = table.level(page);
  const startPage = table.end(page) - framesOf(order);
  const value = table.value(page);
  if ((flags & Entry.EXCLUSIVE) !== 0 && folios.isPinned(folio) && reason !== 'poison') return;
  if ((flags & Entry.DIRTY) !== 0) folios.setFlag(folio, FolioFlag.dirty, true);
  if ((flags & Entry.YOUNG) !== 0) folios.setFlag(folio, FolioFlag.referenced, true);
  if (reason === 'poison') {
    table.set(startPage, order, value, Entry.POISON);
  } else if (reason === 'migrate') {
    table.set(startPage, order, value, (flags & ~Entry.PRESENT) | Entry.MIGRATION);
  } else if (!folios.has(folio, FolioFlag.anon)) {
    table.clear(startPage, order);
  } else if (folios.has(folio, FolioFlag.swapcache)) {
    const entry = folios.swapEntry(folio) + (page - (span.startPage - span.offset));
    host.swap.duplicate(entry);
    table.set(page, 0, entry, Entry.SWAP | (flags & SWAP_BITS));
    mm.swappedPages++;
    mm.memcg.swappedPages++;
  } else if (folios.has(folio, FolioFlag.lazyfree) && !folios.has(folio, FolioFlag.dirty)) {
    table.clear(startPage, order);
  } else {
    // Written to since MADV_FREE: it is of worth again.
    folios.setFlag(folio, FolioFlag.lazyfree, false);
    return;
  }
  if (folios.has(folio, FolioFlag.ksm) && reason !== 'migrate') forgetKsmPlace(host, folio, mm, page);
  host.countUnmapped(mm, folio, order, false);
  assert(!host.put(folio), 'who unmaps a folio has a reference to it');
}

/**
 * Replaces a 1G or 2M leaf by entries of the next size; the folio stays whole (`__split_huge_pmd`, `__split_huge_pud`). Part of the
 * caller's step; the notifier range is the caller's too.
 */
export function splitLeaf(host: HostState, mm: MmState, page: number): void {
  const { table } = mm;
  const order = table.level(page);
  const end = table.end(page);
  const startPage = end - framesOf(order);
  const folio = host.folios.at(table.value(page));
  table.split(startPage);
  if (order === PUD_ORDER) host.counters.thp_split_pud++;
  else host.counters.thp_split_pmd++;
  if ((table.flags(page) & Entry.PRESENT) === 0) return;
  const pieceOrder = smallerLeaf(order);
  host.folios.get(folio, FANOUT - 1);
  host.folios.changeMaps(folio, order, -1);
  host.folios.changeMaps(folio, pieceOrder, FANOUT);
  if (pieceOrder === 0 && host.folios.has(folio, FolioFlag.anon)) mm.anonHugeFrames -= framesOf(order);
}

/** The notifier range of a leaf's split, if it tells anybody: see {@link HostState.splitNotify}. */
export function splitLeafRange(host: HostState, mm: MmState, page: number): NotifierRange | null {
  if (host.splitNotify === 'none') return null;
  const frames = framesOf(mm.table.level(page));
  return { startPage: mm.table.end(page) - frames, pages: frames, event: NotifierEvent.CLEAR, blockable: true };
}

/** Splits the large leaf that maps the page, with its notifier range around it, if it is still there when its turn comes. */
export function* splitLeafAt(host: HostState, mm: MmState, agent: Agent, page: number): Task<void> {
  const order = mm.table.level(page);
  if (order === 0 || mm.table.flags(page) === 0) return;
  const range = splitLeafRange(host, mm, page);
  if (range) yield* mm.notifiers.start(agent, range);
  yield agent.writes('split large leaf', Location.cpuEntry, mm.entryLocation(page), Cost.folioSplit);
  if (mm.table.level(page) === order && mm.table.flags(page) !== 0) splitLeaf(host, mm, page);
  if (range) yield* mm.notifiers.end(agent, range);
}
