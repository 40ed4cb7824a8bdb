import { blockStart, FRAMES_PER_1G } from '../folio/folio-order.ts';
import { Entry, type EntryTable } from './entry-table.ts';

/** A run of pages that are present and physically contiguous; the caller owns it and has it filled. */
export interface PageRun {
  /** First page. */
  startPage: number;
  /** Length in pages; 0 if the page asked for is not present. */
  pages: number;
  /** Frame of the first page; -1 if the page asked for is not present. */
  pfn: number;
}

/** An inclusive range of pages to stay in, and whether every page must be writeable. */
export interface PageBounds {
  readonly firstPage: number;
  readonly lastPage: number;
  readonly write?: boolean;
}

/**
 * The longest run of present, physically contiguous pages around `page` within the bounds and within its 1G block (no
 * second-stage leaf is larger). Costs O(entries visited), one read of a whole 1G table at most.
 * @returns whether the page is present, with the right asked for
 */
export function contiguousRun(table: EntryTable, page: number, bounds: PageBounds, out: PageRun): boolean {
  const block = blockStart(page, FRAMES_PER_1G);
  const first = Math.max(bounds.firstPage, block);
  const last = Math.min(bounds.lastPage, block + FRAMES_PER_1G - 1);
  const pfn = usablePfn(table, page, bounds.write);
  out.startPage = page;
  out.pages = 0;
  out.pfn = -1;
  if (pfn < 0) return false;
  const offset = page - pfn;
  let end = Math.min(table.end(page), last + 1);
  while (end <= last && usablePfn(table, end, bounds.write) === end - offset) end = Math.min(table.end(end), last + 1);
  let start = leafStart(table, page, first);
  while (start > first && usablePfn(table, start - 1, bounds.write) === start - 1 - offset)
    start = leafStart(table, start - 1, first);
  out.startPage = start;
  out.pages = end - start;
  out.pfn = start - offset;
  return true;
}

const leafStart = (table: EntryTable, page: number, first: number): number =>
  Math.max(first, table.end(page) - (1 << table.level(page)));

/** The frame of a page that may be accessed so, or -1. */
function usablePfn(table: EntryTable, page: number, write: boolean | undefined): number {
  const flags = table.flags(page);
  if ((flags & Entry.PROT_NONE) !== 0 || (write === true && (flags & Entry.WRITE) === 0)) return -1;
  return table.pfn(page);
}
