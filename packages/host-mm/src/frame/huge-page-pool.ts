import type { FolioOrder } from '../folio/folio-order.ts';
import type { FrameAllocator } from './frame-allocator.ts';

interface Pool {
  readonly free: number[];
  /** Pages of the pool, free or in use. */
  total: number;
  /** Promised to mappings, and not yet taken by a fault. */
  reserved: number;
}

/**
 * The pools of huge pages that were set aside (hugetlb): frames that serve nothing else. Sizes are set as with
 * `nr_hugepages`; a mapping reserves what it may need, so that its faults find a page.
 */
export class HugePagePool {
  readonly #allocator: FrameAllocator;
  readonly #pools = new Map<FolioOrder, Pool>();

  constructor(allocator: FrameAllocator) {
    this.#allocator = allocator;
  }

  /** Grows or shrinks the pool of an order, as far as frames are free. @returns pages in the pool then */
  resize(order: FolioOrder, pages: number): number {
    const pool = this.#pool(order);
    while (pool.total < pages) {
      const pfn = this.#allocator.allocate(order);
      if (pfn < 0) break;
      pool.free.push(pfn);
      pool.total++;
    }
    while (pool.total > pages && pool.free.length > pool.reserved) {
      this.#allocator.free(pool.free.pop() ?? -1, order);
      pool.total--;
    }
    return pool.total;
  }

  /** Pages of the pool, free ones, and promised ones, as in /proc/meminfo. */
  counts(order: FolioOrder): { readonly total: number; readonly free: number; readonly reserved: number } {
    const { total, free, reserved } = this.#pool(order);
    return { total, free: free.length, reserved };
  }

  /** Promises pages to a mapping. @returns whether there are enough */
  reserve(order: FolioOrder, pages: number): boolean {
    const pool = this.#pool(order);
    if (pool.free.length - pool.reserved < pages) return false;
    pool.reserved += pages;
    return true;
  }

  /** Takes back a promise that was not used. */
  unreserve(order: FolioOrder, pages: number): void {
    this.#pool(order).reserved -= pages;
  }

  /** Promises pages again that a mapping has dropped, and that come back to the pool (hugetlb_set_folio_restore_reserve). */
  restore(order: FolioOrder, pages: number): void {
    this.#pool(order).reserved += pages;
  }

  /** A page for a fault, from the mapping's promise or from what is promised to nobody; -1 if there is none. */
  take(order: FolioOrder, promised: boolean): number {
    const pool = this.#pool(order);
    if (!promised && pool.free.length <= pool.reserved) return -1;
    const pfn = pool.free.pop() ?? -1;
    if (pfn >= 0 && promised) pool.reserved--;
    return pfn;
  }

  /** A page comes back. */
  give(pfn: number, order: FolioOrder): void {
    this.#pool(order).free.push(pfn);
  }

  /** A page that was in use is none any more: one of its frames is broken (dissolve_free_hugetlb_folio). */
  dissolve(order: FolioOrder): void {
    this.#pool(order).total--;
  }

  /** Takes the free page that holds a frame out of its pool, if it is promised to nobody. @returns its first frame and order, or null */
  dissolveAt(pfn: number): { readonly pfn: number; readonly order: FolioOrder } | null {
    for (const [order, pool] of this.#pools) {
      const at = pool.free.findIndex((first) => pfn >= first && pfn < first + 2 ** order);
      if (at < 0) continue;
      if (pool.free.length <= pool.reserved) return null;
      const [first] = pool.free.splice(at, 1);
      pool.total--;
      return { pfn: first ?? pfn, order };
    }
    return null;
  }

  /** Frames of all pools that nobody uses. */
  get freeFrames(): number {
    let frames = 0;
    for (const [order, pool] of this.#pools) frames += pool.free.length * 2 ** order;
    return frames;
  }

  #pool(order: FolioOrder): Pool {
    let pool = this.#pools.get(order);
    if (!pool) {
      pool = { free: [], total: 0, reserved: 0 };
      this.#pools.set(order, pool);
    }
    return pool;
  }
}
