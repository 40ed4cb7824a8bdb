import { hex } from '@faultline/address';
import { IommufdError } from '../errno.ts';
import { OrderedMap } from '../ordered-map.ts';
import type { FaultPolicy } from '../stage2/fault-policy.ts';

/** What the user asked to be mapped as one: the unit of unmap. */
export interface Area {
  /** First IOVA page. */
  readonly page: number;
  readonly pages: number;
  /** First page of the memory in the owner's address space. */
  readonly userPage: number;
  readonly writeable: boolean;
  /** Not pinned: mapped as far as memory is resident, and faulted in otherwise. Ours; no kernel has this flag. */
  readonly unpinned: boolean;
  /** Of an unpinned area: what is mapped before and around faults; default `DEFAULT_FAULT_POLICY`. */
  readonly policy?: FaultPolicy;
}

/** A range of IOVA pages within one area. */
export interface AreaSlice {
  readonly area: Area;
  readonly page: number;
  readonly pages: number;
}

/** The io_pagetable: the record of what the user mapped. Faults and notifiers only read it (I7). */
export class IoPagetable {
  readonly #areas = new OrderedMap<number, Area>();

  /** Number of areas. */
  get size(): number {
    return this.#areas.size;
  }

  /** All areas in IOVA order. */
  areas(): Area[] {
    return [...this.#areas.values()];
  }

  /** Records an area. @throws IommufdError EINVAL (zero length), EEXIST (overlap) */
  insert(area: Area): void {
    if (area.pages <= 0) throw new IommufdError('EINVAL', `length: ${hex(area.pages * 4096)} is not positive`);
    const before = this.#areas.getPairOrNextLower(area.page + area.pages - 1)?.[1];
    if (before && before.page + before.pages > area.page)
      throw new IommufdError('EEXIST', `iova: ${describe(area)} overlaps the area ${describe(before)}`);
    this.#areas.set(area.page, area);
  }

  /** The area that holds a page, or undefined. */
  find(page: number): Area | undefined {
    const area = this.#areas.getPairOrNextLower(page)?.[1];
    return area && page < area.page + area.pages ? area : undefined;
  }

  /**
   * Removes the areas that a range covers whole, in order. As Linux: an area covered in part gives ENOENT, and those before
   * it are gone already; nothing in the range gives ENOENT too. `removed` is called with each area that has gone.
   */
  removeRange(page: number, pages: number, removed: (area: Area) => void): number {
    const end = page + pages;
    let total = 0;
    const first = this.find(page);
    if (first && first.page < page) throw partial(page, pages, first);
    for (const [start, area] of this.#areas.getRange(page, end, false)) {
      if (start + area.pages > end) throw partial(page, pages, area);
      this.#areas.delete(area.page);
      removed(area);
      total += area.pages;
    }
    if (total === 0) throw new IommufdError('ENOENT', `iova: nothing is mapped in ${describe({ page, pages })}`);
    return total;
  }

  /** The parts of areas that map a range of the owner's memory. Walks all areas: a VM has a handful. */
  slicesOfMemory(userPage: number, pages: number): AreaSlice[] {
    const slices: AreaSlice[] = [];
    const end = userPage + pages;
    for (const area of this.#areas.values()) {
      const from = Math.max(userPage, area.userPage);
      const to = Math.min(end, area.userPage + area.pages);
      if (from < to) slices.push({ area, page: area.page + (from - area.userPage), pages: to - from });
    }
    return slices;
  }

  /** A hash over all areas: equal hashes before and after faults and notifiers show I7. */
  hash(): string {
    let hash = 0xcbf29ce484222325n;
    for (const area of this.#areas.values())
      for (const value of [area.page, area.pages, area.userPage, Number(area.writeable) * 2 + Number(area.unpinned)])
        hash = BigInt.asUintN(64, (hash ^ BigInt(value)) * 0x100000001b3n);
    return hash.toString(16).padStart(16, '0');
  }
}

const describe = (range: { page: number; pages: number }): string =>
  `[${hex(BigInt(range.page) * 4096n)}-${hex(BigInt(range.page + range.pages) * 4096n - 1n)}]`;

const partial = (page: number, pages: number, area: Area): IommufdError =>
  new IommufdError(
    'ENOENT',
    `iova: ${describe({ page, pages })} covers the area ${describe(area)} only in part; what was mapped as one is unmapped as one`,
  );
