import { FRAMES_PER_PAGE, hex, type PageSize } from '@faultline/address';
import { checkPageRange } from '../argument.ts';
import { type FolioOrder, ORDER_OF } from '../folio/folio-order.ts';

/** A mapping of anonymous memory, and the size of the folios that back it. */
export interface Vma {
  /** First page (Hva >> 12). */
  readonly startPage: number;
  readonly pages: number;
  /** The largest folio that a fault may install. */
  readonly backing: PageSize;
}

/** The mappings of an address space: sorted, disjoint. */
export class VmaList {
  readonly #vmas: Vma[] = [];

  get all(): readonly Vma[] {
    return this.#vmas;
  }

  /** Adds a mapping. @throws RangeError naming the argument if it is not aligned to its backing or overlaps another */
  add(vma: Vma): void {
    checkPageRange(vma);
    const unit = FRAMES_PER_PAGE[vma.backing];
    if (unit === undefined) throw new RangeError(`backing: ${vma.backing} is not 4K, 2M or 1G`);
    if (vma.startPage % unit !== 0)
      throw new RangeError(`startPage: ${hex(vma.startPage)} is not aligned to ${vma.backing} (${hex(unit)} pages)`);
    if (vma.pages % unit !== 0)
      throw new RangeError(`pages: ${hex(vma.pages)} is not a multiple of ${vma.backing} (${hex(unit)} pages)`);
    const at = this.#floor(vma.startPage) + 1;
    const before = this.#vmas[at - 1];
    const after = this.#vmas[at];
    if (before && before.startPage + before.pages > vma.startPage)
      throw new RangeError(`startPage: ${hex(vma.startPage)} lies in the mapping at ${hex(before.startPage)}`);
    if (after && vma.startPage + vma.pages > after.startPage)
      throw new RangeError(`pages: ${hex(vma.pages)} reach into the mapping at ${hex(after.startPage)}`);
    this.#vmas.splice(at, 0, { startPage: vma.startPage, pages: vma.pages, backing: vma.backing });
  }

  /** The mapping that holds the page, or null. */
  find(page: number): Vma | null {
    const vma = this.#vmas[this.#floor(page)];
    return vma && page < vma.startPage + vma.pages ? vma : null;
  }

  /** The order of the backing of the page's mapping; 4K outside all mappings. */
  orderAt(page: number): FolioOrder {
    const vma = this.find(page);
    return vma ? ORDER_OF[vma.backing] : 0;
  }

  /** The first page of the range that no mapping holds, or -1 if all are mapped. */
  firstHole(startPage: number, pages: number): number {
    let page = startPage;
    while (page < startPage + pages) {
      const vma = this.find(page);
      if (vma === null) return page;
      page = vma.startPage + vma.pages;
    }
    return -1;
  }

  clear(): void {
    this.#vmas.length = 0;
  }

  /** Index of the last mapping that starts at or before the page; -1 if there is none. */
  #floor(page: number): number {
    let low = -1;
    let high = this.#vmas.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if ((this.#vmas[middle]?.startPage ?? 0) <= page) low = middle;
      else high = middle - 1;
    }
    return low;
  }
}
