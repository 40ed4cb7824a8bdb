/** A range of 4K pages. */
interface PageRange {
  readonly page: number;
  readonly pages: number;
}

/** The union of what harvests and unmaps have reported dirty: whole leaves, so their pages are counted by range. */
export class DirtyLog {
  #ranges: PageRange[] = [];
  #isMerged = true;

  /** Adds ranges; they may overlap. */
  report(ranges: readonly PageRange[]): void {
    for (const range of ranges) this.#ranges.push(range);
    this.#isMerged = false;
  }

  /** Pages reported, each counted once. */
  get pages(): number {
    return this.#merged().reduce((sum, range) => sum + range.pages, 0);
  }

  /** Whether a page was reported. O(log n) after the ranges were merged. */
  has(page: number): boolean {
    const ranges = this.#merged();
    let [low, high] = [0, ranges.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((ranges[middle] as PageRange).page <= page) low = middle + 1;
      else high = middle;
    }
    const range = ranges[low - 1];
    return range !== undefined && page < range.page + range.pages;
  }

  #merged(): readonly PageRange[] {
    if (this.#isMerged) return this.#ranges;
    const merged: { page: number; pages: number }[] = [];
    for (const { page, pages } of this.#ranges.sort((a, b) => a.page - b.page)) {
      const last = merged.at(-1);
      if (last && page <= last.page + last.pages) last.pages = Math.max(last.pages, page + pages - last.page);
      else merged.push({ page, pages });
    }
    this.#ranges = merged;
    this.#isMerged = true;
    return merged;
  }
}
