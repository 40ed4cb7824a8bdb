/** A range of 4K pages whose leaf had D set when it left the table. */
export interface DirtyRange {
  readonly page: number;
  readonly pages: number;
}

/** An unlinked table in which hardware with a stale paging-structure entry may still set A and D until the flush. */
export interface LateTable {
  readonly pfn: number;
  readonly level: number;
  /** First 4K page that it mapped. */
  readonly page: number;
  /** Level of the leaf that took its place, which gets its late bits; 0 if it was unmapped. */
  readonly leafLevel: number;
}

/**
 * What a change of the table owes the caches, collected until one flush: the range of pages, and what may be done only
 * after it: table pages to free, and dirty bits that are complete only then. Like Linux's `iommu_iotlb_gather` with
 * FLUSH_RANGE: one range, gaps merged in.
 */
export class InvalidationGather {
  /** First 4K page number, or -1 while nothing was gathered. */
  firstPage = -1;
  /** Last 4K page number. */
  lastPage = -1;
  /** Unlinked table pages. */
  readonly freedTables: number[] = [];
  /** Those of them whose late A and D bits count; `TableState.settle` reads them. */
  readonly lateTables: LateTable[] = [];
  /** Leaves that left the table dirty; `TableState.settle` hands them out. */
  readonly dirtyLeaves: DirtyRange[] = [];

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
