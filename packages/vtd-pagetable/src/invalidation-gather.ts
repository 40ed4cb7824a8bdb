/**
 * What a change of the table owes the caches, collected until one flush: the range of pages, and the table pages that may
 * be freed only after it. Like Linux's `iommu_iotlb_gather` with FLUSH_RANGE: one range, gaps merged in.
 */
export class InvalidationGather {
  /** First 4K page number, or -1 while nothing was gathered. */
  firstPage = -1;
  /** Last 4K page number. */
  lastPage = -1;
  /** Unlinked table pages. */
  readonly freedTables: number[] = [];

  /** Whether nothing needs to be invalidated. */
  get empty(): boolean {
    return this.firstPage < 0;
  }

  /** Invalidation hint: true if only leaf entries changed, so that paging-structure caches may stay (Rev 5.10, 6.5.2.3). */
  get leafOnly(): boolean {
    return this.freedTables.length === 0;
  }

  /** Adds a range of 4K pages. For a large leaf this is the whole old leaf, whatever part of it went (6.5.3.3; D9). */
  add(page: number, pages: number): void {
    const last = page + pages - 1;
    if (this.firstPage < 0) {
      this.firstPage = page;
      this.lastPage = last;
      return;
    }
    if (page < this.firstPage) this.firstPage = page;
    if (last > this.lastPage) this.lastPage = last;
  }

  /** Adds an unlinked table page that covered the range. */
  addTable(tablePfn: number, page: number, pages: number): void {
    this.freedTables.push(tablePfn);
    this.add(page, pages);
  }
}
