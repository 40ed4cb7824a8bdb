import { hex } from '@faultline/address';
import { assert } from '@faultline/sim';
import type { PageContent } from '../frame/page-content.ts';
import type { SwapArea } from './swap-area.ts';
import { CLUSTER_ORDER, SLOTS_PER_CLUSTER, type SwapOrder } from './swap-cluster.ts';

/** Swap entries are below it, so that a page-table entry can hold them. */
const ENTRY_LIMIT = 2 ** 30;

interface Mounted {
  readonly area: SwapArea;
  readonly base: number;
}

/**
 * All swap areas of a host. A swap entry is a number from 512 to 2^30 - 1: the area's base, a multiple of 512, plus the slot. Areas of
 * higher priority are used first; equal ones take turns whenever a cluster is used up, as Linux turns its plist.
 */
export class SwapSpace {
  /** Told about each entry that becomes free. One listener: the I/O side, which forgets what it holds for the entry. */
  freed: ((entry: number) => void) | null = null;
  readonly #areas: Mounted[] = [];
  /** The order in which areas are tried: by priority, equal ones by when they were tried last. */
  #available: Mounted[] = [];
  /** By order: the area whose current cluster serves it. */
  readonly #current: (Mounted | null)[] = new Array<Mounted | null>(CLUSTER_ORDER + 1).fill(null);
  #nextBase = SLOTS_PER_CLUSTER;

  /** Adds an area. @throws RangeError if its slots do not fit below 2^30 @throws TypeError if it is in use already */
  swapon(area: SwapArea): void {
    if (area.freed) throw new TypeError(`area: ${area.name} is in use already`);
    const base = this.#nextBase;
    const end = base + area.slots;
    if (end > ENTRY_LIMIT)
      throw new RangeError(`area: the ${area.slots} slots of ${area.name} do not fit below entry ${hex(ENTRY_LIMIT)}`);
    this.#nextBase = Math.ceil(end / SLOTS_PER_CLUSTER) * SLOTS_PER_CLUSTER;
    area.freed = (slot) => this.freed?.(base + slot);
    const mounted = { area, base };
    this.#areas.push(mounted);
    this.#requeue(mounted);
  }

  /** The areas in the order in which they came. */
  get areas(): readonly SwapArea[] {
    return this.#areas.map((mounted) => mounted.area);
  }

  get usedSlots(): number {
    let slots = 0;
    for (const { area } of this.#areas) slots += area.usedSlots;
    return slots;
  }

  get freeSlots(): number {
    let slots = 0;
    for (const { area } of this.#areas) slots += area.freeSlots;
    return slots;
  }

  /** Slots that can be used, in use or not. */
  get slots(): number {
    return this.usedSlots + this.freeSlots;
  }

  /** Whether more than half is in use (vm_swap_full): Linux then frees the slots of pages in the swap cache eagerly. */
  get full(): boolean {
    return this.freeSlots * 2 < this.slots;
  }

  /** 2^order contiguous entries, naturally aligned, cached and without references. @returns the first or -1 */
  allocate(order: SwapOrder): number {
    const current = this.#current[order];
    if (current) {
      const slot = current.area.allocateFromCurrent(order);
      if (slot >= 0) return current.base + slot;
    }
    for (const mounted of this.#available.slice()) {
      this.#requeue(mounted);
      const slot = mounted.area.allocateFromLists(order);
      if (slot < 0) continue;
      this.#current[order] = mounted;
      return mounted.base + slot;
    }
    return -1;
  }

  /** Whether the number is an entry in use. */
  isUsed(entry: number): boolean {
    const mounted = this.#find(entry);
    return mounted ? mounted.area.isUsed(entry - mounted.base) : false;
  }

  /** One more page-table entry holds it (swap_duplicate). */
  duplicate(entry: number): void {
    const { area, base } = this.#mounted(entry);
    area.duplicate(entry - base);
  }

  /** One page-table entry less holds it (swap_free). @returns whether the slot is free now */
  freeReference(entry: number): boolean {
    const { area, base } = this.#mounted(entry);
    return area.freeReference(entry - base);
  }

  /** How many page-table entries hold it. */
  references(entry: number): number {
    const { area, base } = this.#mounted(entry);
    return area.references(entry - base);
  }

  /** Marks entries as in the swap cache, or no longer; then those without references become free. */
  setCached(entry: number, pages: number, cached: boolean): void {
    const { area, base } = this.#mounted(entry);
    for (let i = 0; i < pages; i++) area.setCached(entry - base + i, cached);
  }

  /** Whether a used entry has a page in the swap cache. */
  isCached(entry: number): boolean {
    const { area, base } = this.#mounted(entry);
    return area.isCached(entry - base);
  }

  /** The area of an entry. Asserts that there is one. */
  areaOf(entry: number): SwapArea {
    return this.#mounted(entry).area;
  }

  /** The entry's slot within its area. */
  slotOf(entry: number): number {
    return entry - this.#mounted(entry).base;
  }

  /** What the entry's device holds, for checks; a page in zswap is not there yet. */
  readContent(entry: number): PageContent {
    const { area, base } = this.#mounted(entry);
    return area.content.read(entry - base);
  }

  #mounted(entry: number): Mounted {
    const mounted = this.#find(entry);
    if (!mounted) assert(false, () => `${hex(entry)} is no swap entry`);
    return mounted;
  }

  #find(entry: number): Mounted | null {
    for (const mounted of this.#areas)
      if (entry >= mounted.base && entry < mounted.base + mounted.area.slots) return mounted;
    return null;
  }

  /** Puts an area behind those of its priority (plist_requeue). */
  #requeue(mounted: Mounted): void {
    const others = this.#available.filter((other) => other !== mounted);
    const at = others.findIndex((other) => other.area.priority < mounted.area.priority);
    others.splice(at < 0 ? others.length : at, 0, mounted);
    this.#available = others;
  }
}
