import { assert } from '@faultline/sim';
import { checkInteger } from '../argument.ts';
import { FANOUT } from '../folio/folio-order.ts';
import { PageStore } from '../frame/page-store.ts';
import { SlotTable } from './slot-table.ts';
import { CLUSTER_ORDER, SLOTS_PER_CLUSTER, SwapClusters, type SwapOrder } from './swap-cluster.ts';
import { SwapFaults } from './swap-faults.ts';
import { Zram, type ZramOptions } from './zram.ts';

/** Linux's DEF_SWAP_PRIO: areas without a priority are equal and come last. */
export const DEFAULT_SWAP_PRIORITY = -1;
const MAX_PRIORITY = 0x7fff;

/** A disk with a queue, such as NVMe. */
export interface BlockModel {
  readonly kind: 'block';
  /** Commands that it executes at a time: the most workers that may serve it. */
  readonly queueDepth: number;
}

/** What stands behind an area. zram is SWP_SYNCHRONOUS_IO: the CPU that swaps does the work. */
export type SwapModel = BlockModel | ({ readonly kind: 'zram' } & ZramOptions);

/** Options of a {@link SwapArea}. */
export interface SwapAreaOptions {
  readonly name: string;
  /** 4 KiB slots, 1..2^30-1. */
  readonly slots: number;
  /** -1..32767, higher is used first; the default is -1, as swapon without a priority. */
  readonly priority?: number;
  /** Whether slot 0 holds the swap header and is never used, as mkswap makes it; then the first cluster is never free. */
  readonly header?: boolean;
  readonly model: SwapModel;
}

// A slot's word: two marks, and the number of swap entries above them.
const CACHED = 1;
const ZERO = 2;
const ONE_REFERENCE = 4;

/** One swap device or file, Linux's swap_info_struct: clusters of slots, each with its references and its content. */
export class SwapArea {
  readonly name: string;
  readonly priority: number;
  readonly slots: number;
  readonly model: SwapModel;
  /** Errors and slowness on purpose. */
  readonly faults: SwapFaults = new SwapFaults();
  /** The compressed memory behind the area, or null for a disk. */
  readonly zram: Zram | null;
  /** What the device holds, by slot. */
  readonly content: PageStore = new PageStore();
  /** Told about each slot that becomes free. One listener: the space that the area belongs to. */
  freed: ((slot: number) => void) | null = null;
  readonly #clusters: SwapClusters;
  readonly #words = new SlotTable();
  readonly #unusable: number;
  #used = 0;

  /** @throws RangeError naming the argument that does not fit */
  constructor({ name, slots, priority = DEFAULT_SWAP_PRIORITY, header = false, model }: SwapAreaOptions) {
    checkInteger('slots', slots, 1, 2 ** 30 - 1);
    if (!Number.isInteger(priority) || priority < DEFAULT_SWAP_PRIORITY || priority > MAX_PRIORITY)
      throw new RangeError(`priority: ${priority} is not an integer in -1..32767`);
    if (model.kind === 'block') checkInteger('queueDepth', model.queueDepth, 1, 0x10000);
    this.name = name;
    this.slots = slots;
    this.priority = priority;
    this.model = model;
    this.zram = model.kind === 'zram' ? new Zram(name, model) : null;
    this.#clusters = new SwapClusters(slots, header);
    this.#unusable = header ? 1 : 0;
  }

  get usedSlots(): number {
    return this.#used;
  }

  get freeSlots(): number {
    return this.slots - this.#unusable - this.#used;
  }

  /** Clusters without a used slot: as many folios of order 9 can be swapped out whole. */
  get freeClusters(): number {
    return this.#clusters.freeClusters;
  }

  /**
   * Takes 2^order slots, contiguous and naturally aligned. They have the has-cache mark and no reference, as after Linux's
   * folio_alloc_swap. @returns the first slot, or -1; for an order above 0 also when only single slots are left
   */
  allocate(order: SwapOrder): number {
    const slot = this.allocateFromCurrent(order);
    return slot >= 0 ? slot : this.allocateFromLists(order);
  }

  /** The first half of {@link allocate}: from the cluster that this order took from last, if there is more behind it. */
  allocateFromCurrent(order: SwapOrder): number {
    checkInteger('order', order, 0, CLUSTER_ORDER);
    return this.#taken(this.#clusters.takeFromCurrent(order), order);
  }

  /** The second half of {@link allocate}: from the area's lists of clusters. */
  allocateFromLists(order: SwapOrder): number {
    checkInteger('order', order, 0, CLUSTER_ORDER);
    return this.#taken(this.#clusters.takeFromLists(order), order);
  }

  /** Whether a slot is in use: it has references, or is cached. */
  isUsed(slot: number): boolean {
    return (this.#words.get(slot) & ~ZERO) !== 0;
  }

  /** How many swap entries name a used slot. */
  references(slot: number): number {
    return this.#word(slot) >>> 2;
  }

  /** Whether a used slot has a page in the swap cache. */
  isCached(slot: number): boolean {
    return (this.#word(slot) & CACHED) !== 0;
  }

  /** One more swap entry names a used slot (swap_duplicate). */
  duplicate(slot: number): void {
    const word = this.#word(slot);
    assert(word >>> 2 < 2 ** 29, 'too many references to a swap slot');
    this.#words.set(slot, word + ONE_REFERENCE);
  }

  /** One swap entry less (swap_free). @returns whether the slot is free now */
  freeReference(slot: number): boolean {
    const word = this.#word(slot);
    if (word >>> 2 === 0) assert(false, () => `swap slot ${slot} of ${this.name} has no reference to free`);
    return this.#store(slot, word - ONE_REFERENCE);
  }

  /** Marks a used slot as in the swap cache, or no longer. @returns whether the slot is free now */
  setCached(slot: number, cached: boolean): boolean {
    const word = this.#word(slot);
    return this.#store(slot, cached ? word | CACHED : word & ~CACHED);
  }

  /** Whether the page was all zeros, so that it was not written (Linux's zeromap). */
  isZero(slot: number): boolean {
    return (this.#words.get(slot) & ZERO) !== 0;
  }

  /** Notes that a used slot's page is all zeros, or that it is not. */
  setZero(slot: number, zero: boolean): void {
    const word = this.#word(slot);
    this.#words.set(slot, zero ? word | ZERO : word & ~ZERO);
    if (zero) this.content.setTag(slot, 0, 0);
  }

  #taken(slot: number, order: SwapOrder): number {
    if (slot < 0) return -1;
    this.#used += 2 ** order;
    for (let i = 0; i < 2 ** order; i++) this.#words.set(slot + i, CACHED);
    return slot;
  }

  #store(slot: number, word: number): boolean {
    if ((word & ~ZERO) !== 0) {
      this.#words.set(slot, word);
      return false;
    }
    this.#words.set(slot, 0);
    this.#used--;
    this.zram?.forget(slot);
    if (this.#clusters.give(slot)) this.content.zero(slot & ~(SLOTS_PER_CLUSTER - 1), FANOUT);
    else this.content.setTag(slot, 0, 0);
    this.freed?.(slot);
    return true;
  }

  #word(slot: number): number {
    const word = this.#words.get(slot);
    if ((word & ~ZERO) === 0) assert(false, () => `swap slot ${slot} of ${this.name} is not in use`);
    return word;
  }
}
