import { blockStart, FRAMES_PER_1G } from '../folio/folio-order.ts';
import type { FolioTable } from '../folio/folio-table.ts';
import type { CpuPageTable } from './cpu-page-table.ts';

/** A run of pages that are present and physically contiguous; the caller owns it and has it filled. */
export interface PageRun {
  /** First page. */
  startPage: number;
  /** Length in pages; 0 if the page asked for is not present. */
  pages: number;
  /** Frame of the first page; -1 if the page asked for is not present. */
  pfn: number;
}

/** An inclusive range of pages to stay in. */
export interface PageBounds {
  readonly firstPage: number;
  readonly lastPage: number;
}

/**
 * The longest run of present, physically contiguous pages around `page` within the bounds and within its 1G block (no
 * second-stage leaf is larger). Costs O(leaves visited), one read of a whole 1G table at most.
 * @returns whether the page is present
 */
export function contiguousRun(
  at: { readonly table: CpuPageTable; readonly folios: FolioTable },
  page: number,
  bounds: PageBounds,
  out: PageRun,
): boolean {
  const { table, folios } = at;
  const block = blockStart(page, FRAMES_PER_1G);
  const first = Math.max(bounds.firstPage, block);
  const last = Math.min(bounds.lastPage, block + FRAMES_PER_1G - 1);
  let folio = table.entry(page);
  if (folio <= 0) {
    out.startPage = page;
    out.pages = 0;
    out.pfn = -1;
    return false;
  }
  let start = folios.startPage(folio);
  let end = start + folios.frames(folio);
  let pfn = folios.pfn(folio);
  while (end <= last) {
    folio = table.entry(end);
    if (folio <= 0 || folios.pfn(folio) !== pfn + (end - start)) break;
    end += folios.frames(folio);
  }
  while (start > first) {
    folio = table.entry(start - 1);
    if (folio <= 0 || folios.pfn(folio) + folios.frames(folio) !== pfn) break;
    start = folios.startPage(folio);
    pfn = folios.pfn(folio);
  }
  out.startPage = Math.max(start, first);
  out.pfn = pfn + (out.startPage - start);
  out.pages = Math.min(end, last + 1) - out.startPage;
  return true;
}
