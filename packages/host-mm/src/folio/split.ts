import { type Agent, assert, Cost, Location, type Task } from '@faultline/sim';
import type { HostState } from '../host-state.ts';
import { NotifierEvent, type NotifierRange } from '../notifier/mmu-notifier.ts';
import { type FolioOrder, framesOf, smallerLeaf } from './folio-order.ts';
import { FolioFlag } from './folio-table.ts';
import { type FolioSpan, forEachEntry, isMappedIn, spansOf } from './rmap.ts';
import { splitLeaf } from './unmap.ts';

/** Flags that the pieces of a folio inherit. */
const INHERITED =
  FolioFlag.anon |
  FolioFlag.dirty |
  FolioFlag.referenced |
  FolioFlag.active |
  FolioFlag.lazyfree |
  FolioFlag.uptodate |
  FolioFlag.workingset |
  FolioFlag.unevictable;

/** Order of the pieces that a folio is split into: 1G to 2M, everything else to 4K. */
export const pieceOrderOf = (order: FolioOrder): FolioOrder => (order > 9 ? smallerLeaf(18) : 0);

/**
 * Whether nobody but mappings, caches and the caller refers to a folio, so that it can be split or moved: not if pinned or in use
 * (`can_split_folio`).
 */
export function hasNoOtherUsers(host: HostState, folio: number): boolean {
  const { folios } = host;
  return folios.refs(folio) === folios.mapcount(folio) + cacheReferences(host, folio) + 1;
}

/** References that the swap cache or a page cache holds. */
export function cacheReferences(host: HostState, folio: number): number {
  const { folios } = host;
  const isCached = folios.has(folio, FolioFlag.swapcache) || !folios.has(folio, FolioFlag.anon);
  return isCached && !folios.has(folio, FolioFlag.hugetlb) ? folios.frames(folio) : 0;
}

/**
 * Splits a folio that the caller has locked and refers to (split_folio): 1G into 512 of 2M, smaller ones into 4K. No data
 * moves, frames and rights stay. Linux unmaps it meanwhile, so each VMA hears CLEAR over its extent, unless the host splits silently. The folio becomes its
 * first piece and stays locked.
 * @param list where the pieces go when the folio is off the LRU: isolated, as the folio is
 * @returns whether it was split; not if somebody else uses it
 */
export function* splitFolio(host: HostState, agent: Agent, folio: number, list?: number[]): Task<boolean> {
  const { folios, counters } = host;
  if (folios.order(folio) === 0) return true;
  const spans = spansOf(host, folio).filter((span) => isMappedIn(host, folio, span));
  const ranges = host.splitNotify === 'none' ? [] : spans.map(clearRange);
  for (const [i, range] of ranges.entries()) yield* spans[i]!.mm.notifiers.start(agent, range);
  yield* announce(host, agent, folio, spans);
  const possible = hasNoOtherUsers(host, folio) && !folios.has(folio, FolioFlag.writeback) && !folios.isPinned(folio);
  if (possible) {
    const order = folios.order(folio);
    splitNow(host, folio, list);
    if (order > 9) counters.folioSplits['1G->2M']++;
    else if (order === 9) counters.folioSplits['2M->4K']++;
    counters.thp_split_page++;
  } else {
    counters.thp_split_page_failed++;
  }
  for (const [i, range] of ranges.entries()) yield* spans[i]!.mm.notifiers.end(agent, range);
  return possible;
}

const clearRange = (span: FolioSpan): NotifierRange => ({
  startPage: span.startPage,
  pages: span.endPage - span.startPage,
  event: NotifierEvent.CLEAR,
  blockable: true,
});

/** One step that touches the entries of every span; the last one is the step in which the split happens. */
function* announce(host: HostState, agent: Agent, folio: number, spans: readonly FolioSpan[]): Task<void> {
  if (spans.length === 0) yield agent.writes('split folio', Location.folio, host.folios.pfn(folio), Cost.folioSplit);
  for (const span of spans) {
    const step = agent.writes('split folio', Location.cpuEntry, span.mm.entryLocation(span.startPage), Cost.folioSplit);
    yield agent.alsoWrites(step, Location.folio, host.folios.pfn(folio));
  }
}

function splitNow(host: HostState, folio: number, list: number[] | undefined): void {
  const { folios } = host;
  const order = folios.order(folio);
  const pieceOrder = pieceOrderOf(order);
  const pieceFrames = framesOf(pieceOrder);
  const count = framesOf(order) / pieceFrames;
  const spans = spansOf(host, folio);
  for (const span of spans) splitLeavesDownTo(host, folio, span, pieceOrder);
  const maps = new Int32Array(count);
  for (const span of spans)
    forEachEntry(host, folio, span, (page) => {
      const index = Math.floor((page - span.startPage + span.offset) / pieceFrames);
      maps[index]!++;
    });
  const onLru = host.lru.isOn(folio);
  const cached = cacheReferences(host, folio) > 0;
  const isFile = !folios.has(folio, FolioFlag.anon);
  const entry = folios.swapEntry(folio);
  host.deferredSplit.delete(folio);
  folios.setFlag(folio, FolioFlag.partiallyMapped, false);
  folios.put(folio, folios.mapcount(folio) - maps[0]! + (cached ? framesOf(order) - pieceFrames : 0));
  folios.shrinkTo(folio, pieceOrder, maps[0]!);
  const pieces = [folio];
  const flags = folios.flags(folio) & INHERITED;
  for (let i = 1; i < count; i++) {
    const piece = folios.create({
      pfn: folios.pfn(folio) + i * pieceFrames,
      order: pieceOrder,
      flags,
      mapping: folios.mapping(folio),
      index: folios.index(folio) + i * pieceFrames,
      memcg: folios.memcg(folio),
    });
    folios.changeMaps(piece, pieceOrder, maps[i]!);
    folios.get(piece, maps[i]! + (cached ? pieceFrames : 0));
    if (entry !== 0) {
      host.swapCache.add(entry + i * pieceFrames, pieceFrames, piece);
      folios.setSwapEntry(piece, entry + i * pieceFrames);
    }
    pieces.push(piece);
  }
  settlePieces(host, folio, pieces, { onLru, isFile, before: framesOf(order), list });
}

/** Puts the pieces where the folio was: beside it on the LRU, or isolated on the caller's list; frees what nobody maps. */
function settlePieces(
  host: HostState,
  folio: number,
  pieces: readonly number[],
  at: {
    readonly onLru: boolean;
    readonly isFile: boolean;
    readonly before: number;
    readonly list: number[] | undefined;
  },
): void {
  const { folios } = host;
  if (at.onLru) host.lru.split(folio, pieces, at.before);
  for (const piece of pieces) {
    if (piece === folio) continue;
    // Pages whose slots nobody names any more were kept by those of the others (free_swap_cache).
    host.dropIfUnwanted(piece);
    const isWanted = folios.refs(piece) > 1;
    if (isWanted && !at.onLru && at.list) {
      at.list.push(piece);
      host.isolated.add(piece);
      continue;
    }
    if (isWanted && !at.onLru && !folios.has(piece, FolioFlag.unevictable)) host.lru.add(piece);
    host.put(piece);
  }
  assert(folios.refs(folio) > 0, 'who splits a folio has a reference to its first piece');
}

/** Splits the span's leaves until none is larger than a piece. */
function splitLeavesDownTo(host: HostState, folio: number, span: FolioSpan, pieceOrder: FolioOrder): void {
  const { table } = span.mm;
  for (let page = span.startPage; page < span.endPage; page = table.end(page)) {
    const pfn = table.pfn(page);
    if (pfn < 0 || host.folios.at(pfn) !== folio) continue;
    while (table.level(page) > pieceOrder) splitLeaf(host, span.mm, page);
  }
}
