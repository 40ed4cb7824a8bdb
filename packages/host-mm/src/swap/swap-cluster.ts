/** Slots in a swap cluster, Linux's SWAPFILE_CLUSTER where a PMD maps 2 MiB. */
export const SLOTS_PER_CLUSTER = 512;
/** log2 of the slots that a folio takes: 0 (4K) to 9 (2M, a whole cluster). */
export type SwapOrder = 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9;
/** The largest order, PMD_ORDER. */
export const CLUSTER_ORDER = 9;

const WORDS = SLOTS_PER_CLUSTER / 32;
/** Bits of a word where a run of 1, 2, 4, 8 or 16 slots may begin. */
const STARTS = [-1, 0x55555555, 0x11111111, 0x01010101, 0x00010001] as const;

// Which list a cluster is on; nonfull and frag have one list for each order.
const ON_NONE = 0;
const ON_FREE = 1;
const ON_FULL = 2;
const ON_NONFULL = 3;
const ON_FRAG = ON_NONFULL + CLUSTER_ORDER + 1;
const LISTS = ON_FRAG + CLUSTER_ORDER + 1;

/**
 * Which slots of an area are taken, by cluster, with the lists of Linux's allocator (mm/swapfile.c since 6.12): free; full;
 * for each order `nonfull`, where something was freed since the last scan; and `frag`, the others that were scanned. A
 * cluster serves the order that first took from it, until it is empty. Clusters never used take no memory.
 */
export class SwapClusters {
  /** Slots, including those that can never be taken. */
  readonly slots: number;
  /** Clusters that were looked at so far, what allocations cost: at most 3 each, and one more for each slot given back. */
  scans = 0;
  /** Clusters from here to `#whole` are free and were never used. */
  #fresh = 0;
  readonly #whole: number;
  #freed = 0;
  #bitmap = new Int32Array(0);
  #count = new Uint16Array(0);
  #order = new Uint8Array(0);
  #list = new Uint8Array(0);
  #prev = new Int32Array(0);
  #next = new Int32Array(0);
  readonly #head = new Int32Array(LISTS).fill(-1);
  readonly #tail = new Int32Array(LISTS).fill(-1);
  /** By order: where in its present cluster the next run is looked for, or -1. Linux keeps it per CPU; here is one. */
  readonly #cursor = new Int32Array(CLUSTER_ORDER + 1).fill(-1);

  constructor(slots: number, header: boolean) {
    this.slots = slots;
    this.#whole = Math.floor(slots / SLOTS_PER_CLUSTER);
    // As swapon does: a cluster with bad slots is on order 0's nonfull list from the start and never becomes free.
    if (header && this.#whole > 0) {
      this.#fresh = 1;
      this.#markBad(0, 0, 1);
    }
    const tail = slots % SLOTS_PER_CLUSTER;
    if (tail > 0) {
      if (header && this.#whole === 0) this.#markBad(0, 0, 1);
      this.#markBad(this.#whole, tail, SLOTS_PER_CLUSTER);
    }
  }

  /** Clusters of which no slot is taken. */
  get freeClusters(): number {
    return this.#whole - this.#fresh + this.#freed;
  }

  /** Whether a slot is taken (or can never be). */
  isTaken(slot: number): boolean {
    return ((this.#bitmap[slot >>> 5] ?? 0) & (1 << (slot & 31))) !== 0;
  }

  /** Takes a run from the cluster that this order took from last, behind it. @returns its first slot or -1 */
  takeFromCurrent(order: SwapOrder): number {
    const from = this.#cursor[order]!;
    if (from < 0) return -1;
    this.#cursor[order] = -1;
    const cluster = from >>> 9;
    const usable = order === 0 || this.#count[cluster] === 0 || this.#order[cluster] === order;
    return usable ? this.#takeFrom(cluster, order, from & (SLOTS_PER_CLUSTER - 1)) : -1;
  }

  /** Takes a run from the lists: nonfull, free, one of frag; for order 0 then any. @returns its first slot or -1 */
  takeFromLists(order: SwapOrder): number {
    let slot = order < CLUSTER_ORDER ? this.#takeFromList(ON_NONFULL + order, order) : -1;
    if (slot >= 0) return slot;
    const cluster = this.#head[ON_FREE]!;
    // Never used clusters stand at the head of Linux's list of free ones, in ascending order.
    if (this.#fresh < this.#whole) return this.#takeFresh(order);
    if (cluster >= 0) return this.#takeFrom(cluster, order, 0);
    const frag = this.#head[ON_FRAG + order]!;
    // Linux looks at one only: a large folio can be split instead.
    if (frag >= 0) slot = this.#takeFrom(frag, order, 0);
    if (order > 0 || slot >= 0) return slot;
    for (let other = 1; other <= CLUSTER_ORDER && slot < 0; other++) {
      slot = this.#takeFromList(ON_FRAG + other, 0);
      if (slot < 0) slot = this.#takeFromList(ON_NONFULL + other, 0);
    }
    return slot;
  }

  /** Gives one slot back. @returns whether its whole cluster is free now */
  give(slot: number): boolean {
    const cluster = slot >>> 9;
    this.#bitmap[slot >>> 5]! &= ~(1 << (slot & 31));
    const left = --this.#count[cluster]!;
    if (left === 0) {
      this.#order[cluster] = 0;
      this.#move(cluster, ON_FREE);
    } else {
      const list = ON_NONFULL + this.#order[cluster]!;
      if (this.#list[cluster] !== list) this.#move(cluster, list);
    }
    return left === 0;
  }

  #takeFresh(order: SwapOrder): number {
    const cluster = this.#fresh++;
    this.#grow(cluster + 1);
    return this.#takeFrom(cluster, order, 0);
  }

  /** Scans until a cluster has a run; those without leave the list, so that each is scanned once for each time it lost slots. */
  #takeFromList(list: number, order: SwapOrder): number {
    for (let cluster = this.#head[list]!; cluster >= 0; cluster = this.#head[list]!) {
      const slot = this.#takeFrom(cluster, order, 0);
      if (slot >= 0) return slot;
    }
    return -1;
  }

  #takeFrom(cluster: number, order: SwapOrder, from: number): number {
    this.scans++;
    const at = this.#find(cluster * WORDS, order, from);
    if (at >= 0) {
      if (this.#count[cluster] === 0) this.#order[cluster] = order;
      this.#setBits(cluster, at, at + 2 ** order);
      const next = at + 2 ** order;
      this.#cursor[order] = next < SLOTS_PER_CLUSTER ? cluster * SLOTS_PER_CLUSTER + next : -1;
    }
    this.#relocate(cluster);
    return at < 0 ? -1 : cluster * SLOTS_PER_CLUSTER + at;
  }

  /** Where a cluster belongs after a scan. To the tail: what was just scanned is looked at last. */
  #relocate(cluster: number): void {
    const count = this.#count[cluster]!;
    if (count === SLOTS_PER_CLUSTER) this.#move(cluster, ON_FULL);
    else if (count > 0) this.#move(cluster, ON_FRAG + this.#order[cluster]!);
  }

  /** The first free aligned run at or behind `from`, or -1; at most 16 words are looked at. */
  #find(base: number, order: number, from: number): number {
    if (order >= 5) {
      const words = 1 << (order - 5);
      for (let word = from >>> 5; word < WORDS; word += words) {
        let taken = 0;
        for (let i = 0; i < words; i++) taken |= this.#bitmap[base + word + i]!;
        if (taken === 0) return word * 32;
      }
      return -1;
    }
    let behind = -1 << (from & 31);
    for (let word = from >>> 5; word < WORDS; word++) {
      let free = ~this.#bitmap[base + word]!;
      for (let width = 1; width < 1 << order; width <<= 1) free &= free >>> width;
      free &= STARTS[order]! & behind;
      if (free !== 0) return word * 32 + 31 - Math.clz32(free & -free);
      behind = -1;
    }
    return -1;
  }

  #setBits(cluster: number, from: number, to: number): void {
    const base = cluster * SLOTS_PER_CLUSTER;
    this.#count[cluster]! += to - from;
    if (to - from >= 32) this.#bitmap.fill(-1, (base + from) >>> 5, (base + to) >>> 5);
    else for (let slot = base + from; slot < base + to; slot++) this.#bitmap[slot >>> 5]! |= 1 << (slot & 31);
  }

  #markBad(cluster: number, from: number, to: number): void {
    this.#grow(cluster + 1);
    for (let at = from; at < to; at++) this.#bitmap[cluster * WORDS + (at >>> 5)]! |= 1 << (at & 31);
    this.#count[cluster]! += to - from;
    this.#move(cluster, this.#count[cluster] === SLOTS_PER_CLUSTER ? ON_FULL : ON_NONFULL);
  }

  #move(cluster: number, to: number): void {
    const from = this.#list[cluster]!;
    if (from !== ON_NONE) {
      const prev = this.#prev[cluster]!;
      const next = this.#next[cluster]!;
      if (prev < 0) this.#head[from] = next;
      else this.#next[prev] = next;
      if (next < 0) this.#tail[from] = prev;
      else this.#prev[next] = prev;
    }
    this.#freed += Number(to === ON_FREE) - Number(from === ON_FREE);
    const last = this.#tail[to]!;
    this.#list[cluster] = to;
    this.#prev[cluster] = last;
    this.#next[cluster] = -1;
    this.#tail[to] = cluster;
    if (last < 0) this.#head[to] = cluster;
    else this.#next[last] = cluster;
  }

  #grow(clusters: number): void {
    if (clusters <= this.#count.length) return;
    const limit = Math.ceil(this.slots / SLOTS_PER_CLUSTER);
    const size = Math.min(limit, Math.max(clusters, 16, this.#count.length * 2));
    this.#bitmap = copyInto(new Int32Array(size * WORDS), this.#bitmap);
    this.#count = copyInto(new Uint16Array(size), this.#count);
    this.#order = copyInto(new Uint8Array(size), this.#order);
    this.#list = copyInto(new Uint8Array(size), this.#list);
    this.#prev = copyInto(new Int32Array(size), this.#prev);
    this.#next = copyInto(new Int32Array(size), this.#next);
  }
}

function copyInto<T extends { set(from: T): void }>(to: T, from: T): T {
  to.set(from);
  return to;
}
