import { hex } from '@faultline/address';
import { PUD_ORDER } from '../folio/folio-order.ts';
import type { Vma } from './vma.ts';

/** The mappings of an address space: sorted, disjoint. */
export class VmaList {
  readonly #vmas: Vma[] = [];

  get all(): readonly Vma[] {
    return this.#vmas;
  }

  /** Adds a mapping. @throws RangeError if it overlaps another */
  add(vma: Vma): void {
    const at = this.#floor(vma.startPage) + 1;
    const before = this.#vmas[at - 1];
    const after = this.#vmas[at];
    if (before && before.endPage > vma.startPage)
      throw new RangeError(`startPage: ${hex(vma.startPage)} lies in the mapping at ${hex(before.startPage)}`);
    if (after && vma.endPage > after.startPage)
      throw new RangeError(`pages: ${hex(vma.pages)} reach into the mapping at ${hex(after.startPage)}`);
    this.#vmas.splice(at, 0, vma);
  }

  /** The mapping that holds the page, or null. */
  find(page: number): Vma | null {
    const vma = this.#vmas[this.#floor(page)];
    return vma && page < vma.endPage ? vma : null;
  }

  /** Whether 1G leaves may map the page. */
  mayHave1G(page: number): boolean {
    return this.find(page)?.shape.order === PUD_ORDER;
  }

  /** The first page of the range that no mapping holds, or -1 if all are mapped. */
  firstHole(startPage: number, pages: number): number {
    let page = startPage;
    while (page < startPage + pages) {
      const vma = this.find(page);
      if (vma === null) return page;
      page = vma.endPage;
    }
    return -1;
  }

  /** The mappings that the range touches, in order. */
  within(startPage: number, endPage: number): Vma[] {
    const found: Vma[] = [];
    for (let at = Math.max(0, this.#floor(startPage)); at < this.#vmas.length; at++) {
      const vma = this.#vmas[at]!;
      if (vma.startPage >= endPage) break;
      if (vma.endPage > startPage) found.push(vma);
    }
    return found;
  }

  /** Splits the mapping that holds the page, so that one begins there (`split_vma`); nothing if one does. */
  splitAt(page: number): void {
    const vma = this.find(page);
    if (vma === null || vma.startPage === page) return;
    const rest = vma.copy(vma.mm, page, vma.endPage);
    vma.endPage = page;
    this.#vmas.splice(this.#floor(page) + 1, 0, rest);
  }

  /** The mappings of exactly that range, after splitting those at its ends. */
  carve(startPage: number, endPage: number): Vma[] {
    this.splitAt(startPage);
    this.splitAt(endPage);
    return this.within(startPage, endPage);
  }

  remove(vma: Vma): void {
    const at = this.#vmas.indexOf(vma);
    if (at < 0) return;
    this.#vmas.splice(at, 1);
    vma.unlink();
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
