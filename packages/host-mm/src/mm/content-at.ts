import { FolioFlag } from '../folio/folio-table.ts';
import type { PageContent } from '../frame/page-content.ts';
import type { HostState } from '../host-state.ts';
import { Entry } from './entry-table.ts';
import type { MmState } from './mm-state.ts';

const ZERO_PAGE: PageContent = { tagLo: 0, tagHi: 0, words: null };

/** A page's content wherever it is: frame, swap cache or slot; zeros where nothing is. Touches nothing. */
export function contentAt(host: HostState, mm: MmState, page: number): PageContent {
  const { table } = mm;
  const { memory } = host;
  const flags = table.flags(page);
  if ((flags & Entry.MIGRATION) !== 0) return contentOnTheMove(host, mm, page);
  if ((flags & Entry.PRESENT) !== 0)
    return memory.readContent(table.value(page) + (table.level(page) === 0 ? 0 : page % (1 << table.level(page))));
  if ((flags & Entry.SWAP) !== 0) return contentOfSwap(host, table.value(page));
  return contentOfFile(host, mm, page);
}

/** Until the entry is present again, its folio may have its old frames or its new ones. */
function contentOnTheMove(host: HostState, mm: MmState, page: number): PageContent {
  const { folios, memory } = host;
  const folio = folios.at(mm.table.value(page));
  const offset = folios.frames(folio) === 1 ? 0 : (mm.vmas.find(page)?.indexOf(page) ?? 0) - folios.index(folio);
  return memory.readContent(folios.pfn(folio) + offset);
}

function contentOfFile(host: HostState, mm: MmState, page: number): PageContent {
  const vma = mm.vmas.find(page);
  const { memory } = host;
  if (!vma?.file) return ZERO_PAGE;
  const index = vma.indexOf(page);
  const flags = vma.file.cache.flags(index);
  if ((flags & Entry.PRESENT) !== 0) return memory.readContent(vma.file.cache.pfn(index));
  return (flags & Entry.SWAP) === 0 ? ZERO_PAGE : contentOfSwap(host, vma.file.cache.value(index));
}

/** The content of a folio in the swap cache once it has been read, else of the slot; none if the folio's frame is broken. */
function contentOfSwap({ folios, memory, swapCache, swapIo }: HostState, entry: number): PageContent {
  const folio = swapCache.get(entry);
  if (folio !== 0 && folios.has(folio, FolioFlag.hwpoison)) return ZERO_PAGE;
  if (folio === 0 || !folios.has(folio, FolioFlag.uptodate)) return swapIo.readContent(entry);
  return memory.readContent(folios.pfn(folio) + entry - folios.swapEntry(folio));
}
