import { hex } from '@faultline/address';
import { IommufdError } from '../errno.ts';
import { OrderedMap } from '../ordered-map.ts';
import type { Area } from './area.ts';

/** A range of IOVA pages within one area. */
export interface AreaSlice {
  readonly area: Area;
  readonly page: number;
  readonly pages: number;
}

/** The io_pagetable: the record of what the user mapped. Faults and notifiers only read it (I7). */
export class IoPagetable {
  readonly #areas = new OrderedMap<bigint, Area>(undefined, (a, b) => (a < b ? -1 : a > b ? 1 : 0));

  /** Number of areas. */
  get size(): number {
    return this.#areas.size;
  }

  /** All areas in IOVA order. */
  areas(): Area[] {
    return [...this.#areas.values()];
  }

  /** Records an area. @throws IommufdError EEXIST (overlap) */
  insert(area: Area): void {
    const other = this.firstIn(area.iova, area.last);
    if (other) throw new IommufdError('EEXIST', `iova: ${formatArea(area)} overlaps the area ${formatArea(other)}`);
    this.#areas.set(area.iova, area);
  }

  /** Forgets an area. */
  remove(area: Area): void {
    this.#areas.delete(area.iova);
  }

  /** The area that holds an IOVA page and is not being torn down, or undefined: what a fault may map. */
  find(page: number): Area | undefined {
    const area = this.#areas.getPairOrNextLower(BigInt(page) * 4096n)?.[1];
    return area && page < area.page + area.pages && area.state !== 'going' ? area : undefined;
  }

  /** The area with the lowest address that has any byte of a range, or undefined. */
  firstIn(first: bigint, last: bigint): Area | undefined {
    const before = this.#areas.getPairOrNextLower(first)?.[1];
    if (before && before.last >= first) return before;
    const next = this.#areas.nextHigherPair(first)?.[1];
    return next && next.iova <= last ? next : undefined;
  }

  /**
   * Areas that cover a range without a hole, in order: iopt_for_each_contig_area. @returns null if there is a hole, or an area that
   * is being made or torn down
   */
  contiguous(first: bigint, last: bigint): Area[] | null {
    const found: Area[] = [];
    for (let at = first; at <= last; ) {
      const area = this.firstIn(at, at);
      if (area?.state !== 'mapped') return null;
      found.push(area);
      at = area.last + 1n;
    }
    return found;
  }

  /**
   * The parts of unpinned areas that map a range of the owner's memory: what a notifier has to look after, since the frames of
   * pinned areas stay. Areas that are being made or torn down count, they may be in a domain. Walks all areas: a VM has a handful.
   */
  slicesOfMemory(userPage: number, pages: number): AreaSlice[] {
    const slices: AreaSlice[] = [];
    const end = userPage + pages;
    for (const area of this.#areas.values()) {
      if (!area.unpinned) continue;
      const from = Math.max(userPage, area.userPage);
      const to = Math.min(end, area.userPage + area.pages);
      if (from < to) slices.push({ area, page: area.page + (from - area.userPage), pages: to - from });
    }
    return slices;
  }

  /** A hash over all areas: equal hashes before and after faults and notifiers show I7. */
  hash(): string {
    let hash = 0xcbf29ce484222325n;
    for (const area of this.#areas.values()) {
      const flags = (area.readable ? 4n : 0n) + (area.writeable ? 2n : 0n) + (area.unpinned ? 1n : 0n);
      for (const value of [area.iova, area.length, BigInt(area.userPage), area.pageOffset, flags])
        hash = BigInt.asUintN(64, (hash ^ value) * 0x100000001b3n);
    }
    return hash.toString(16).padStart(16, '0');
  }
}

/** For messages: an area's IOVAs. */
export const formatArea = (area: { readonly iova: bigint; readonly last: bigint }): string =>
  `[${hex(area.iova)}-${hex(area.last)}]`;
