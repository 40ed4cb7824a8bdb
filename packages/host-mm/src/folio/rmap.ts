import type { HostState } from '../host-state.ts';
import { Entry } from '../mm/entry-table.ts';
import type { MmState } from '../mm/mm-state.ts';
import type { Vma } from '../mm/vma.ts';
import { framesOf } from './folio-order.ts';
import { FolioFlag } from './folio-table.ts';

/** Where a folio may be mapped: a run of pages of a VMA, and the folio's page that comes first there. */
export interface FolioSpan {
  readonly mm: MmState;
  readonly vma: Vma;
  readonly startPage: number;
  readonly endPage: number;
  /** Offset of the first page within the folio. */
  readonly offset: number;
}

/**
 * The places where a folio may be mapped (rmap_walk): by the VMAs of its anon_vma or file and the folio's offset there, or one by one for a
 * KSM page. Whether it is mapped there says the page table. Costs O(VMAs of the anon_vma).
 */
export function spansOf(host: HostState, folio: number): FolioSpan[] {
  const { folios } = host;
  if (folios.has(folio, FolioFlag.ksm)) {
    const spans: FolioSpan[] = [];
    for (const { mm, page } of host.ksm.get(folio) ?? []) {
      const vma = mm.vmas.find(page);
      if (vma !== null) spans.push({ mm, vma, startPage: page, endPage: page + 1, offset: 0 });
    }
    return spans;
  }
  const mapping = folios.mapping(folio);
  const vmas = folios.has(folio, FolioFlag.anon) ? host.anonVma(mapping)?.vmas : host.files[mapping]?.vmas;
  const spans: FolioSpan[] = [];
  for (const vma of vmas ?? []) {
    const first = vma.pageOf(folios.index(folio));
    const startPage = Math.max(first, vma.startPage);
    const endPage = Math.min(first + folios.frames(folio), vma.endPage);
    if (startPage < endPage) spans.push({ mm: vma.mm, vma, startPage, endPage, offset: startPage - first });
  }
  return spans;
}

/** Calls `visit` for each entry of the span that maps the folio: its first page, its order and its bits. */
export function forEachEntry(
  host: HostState,
  folio: number,
  span: FolioSpan,
  visit: (page: number, order: number, flags: number) => void,
): void {
  const { table } = span.mm;
  for (let page = span.startPage; page < span.endPage; ) {
    const flags = table.flags(page);
    const order = table.level(page);
    const end = table.end(page);
    if ((flags & Entry.PRESENT) !== 0 && host.folios.at(table.pfn(page)) === folio)
      visit(end - framesOf(order), order, flags);
    page = end;
  }
}

/** Whether any entry of the span maps the folio. */
export function isMappedIn(host: HostState, folio: number, span: FolioSpan): boolean {
  const { table } = span.mm;
  for (let page = span.startPage; page < span.endPage; page = table.end(page)) {
    const pfn = table.pfn(page);
    if (pfn >= 0 && host.folios.at(pfn) === folio) return true;
  }
  return false;
}
