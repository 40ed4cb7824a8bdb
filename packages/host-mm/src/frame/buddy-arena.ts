import type { Linked } from './linked-list.ts';

/** Order of an arena as one block: it has 512 units. */
export const ARENA_ORDER = 9;
/** The unit of heap node `n` (512 to 1023) is a bit of word `UNITS + (n >> 5)`, behind the heap's 32 words. */
const UNITS = 16;

/**
 * The buddy system of 512 units of one size: the 2M blocks of 1G, or the frames of 2M. Orders count units here, 0 to 9.
 *
 * Free blocks are bits of a binary heap of 1024 bits: node 1 is the whole, nodes 2 and 3 its halves, nodes 512 to 1023
 * the units, with the lower address at the higher node. A set bit is a free block that has no free buddy. So `node ^ 1`
 * is the buddy, and the highest set bit below `1024 >> order` is the smallest block that suffices, at the lowest address:
 * found by counting leading zeros in a summary of the 32 words and then in one of them. A second bitmap tells for each
 * unit whether it is free.
 */
export class BuddyArena implements Linked<BuddyArena> {
  prev: BuddyArena | null = null;
  next: BuddyArena | null = null;
  /** First frame number. */
  readonly firstPfn: number;
  /** The order of the largest free block when it was last listed, -1 if it is in no list. For the owner of the lists. */
  listedOrder = -1;
  /** 32 words of the heap, 16 words of units. */
  readonly #words = new Int32Array(48);
  /** Bit `w` tells whether word `w` of the heap has a bit set. */
  #summary = 0;

  /** All units are allocated, or all are free. */
  constructor(firstPfn: number, free: boolean) {
    this.firstPfn = firstPfn;
    if (!free) return;
    this.#set(1);
    this.#words.fill(-1, 32);
  }

  /** Whether all units are free. */
  get isWhole(): boolean {
    return this.#words[0] === 2;
  }

  /** Order of the largest free block, -1 if there is none. */
  get largestOrder(): number {
    const summary = this.#summary;
    if (summary === 0) return -1;
    const top = this.#words[0]!;
    // All nodes of a word are of one order, but for those of the first.
    return orderOf(top !== 0 ? lowestBit(top) : lowestBit(summary) << 5);
  }

  /** Takes the smallest free block that suffices, and of it the lowest part. @returns its first unit, or -1 */
  allocate(order: number): number {
    let node = this.#smallestFree(order);
    if (node === 0) return -1;
    this.#clear(node);
    for (const end = 512 >> order; node < end; ) {
      node <<= 1;
      this.#set(node++);
    }
    this.#markUnits(order, node, false);
    return ((1024 >> order) - 1 - node) << order;
  }

  /** Takes the block that begins at `unit` if all of it is free. */
  allocateAt(order: number, unit: number): boolean {
    const node = nodeAt(order, unit);
    let free = node;
    while (free > 0 && !this.#isSet(free)) free >>= 1;
    if (free === 0) return false;
    this.#clear(free);
    for (let part = node; part > free; part >>= 1) this.#set(part ^ 1);
    this.#markUnits(order, node, false);
    return true;
  }

  /** Gives back a block of which no unit is free, and merges it with free buddies. */
  free(order: number, unit: number): void {
    let node = nodeAt(order, unit);
    this.#markUnits(order, node, true);
    while (node > 1 && this.#isSet(node ^ 1)) {
      this.#clear(node ^ 1);
      node >>= 1;
    }
    this.#set(node);
  }

  /** Whether any unit of a block is free. */
  hasFree(order: number, unit: number): boolean {
    const leaf = nodeAt(order, unit) << order;
    const first = UNITS + (leaf >> 5);
    if (order < 5) return (this.#words[first]! & maskOf(order, leaf)) !== 0;
    for (let w = first; w < first + (1 << (order - 5)); w++) if (this.#words[w] !== 0) return true;
    return false;
  }

  /** Adds the number of free blocks of each order, from `counts[at]` on. */
  addFreeBlocks(counts: number[], at: number): void {
    for (let w = 0; w < 32; w++)
      for (let bits = this.#words[w]!; bits !== 0; bits &= bits - 1)
        counts[at + orderOf((w << 5) + lowestBit(bits))]!++;
  }

  /** The node of the smallest free block of at least that order, at the lowest address; 0 if there is none. */
  #smallestFree(order: number): number {
    // Orders 5 to 9 are within the first word, each smaller order fills words of its own.
    if (order >= 5) {
      const bits = this.#words[0]! & (-1 >>> (32 - (1024 >> order)));
      return bits === 0 ? 0 : 31 - Math.clz32(bits);
    }
    const words = this.#summary & (-1 >>> (32 - (32 >> order)));
    if (words === 0) return 0;
    const w = 31 - Math.clz32(words);
    return (w << 5) + 31 - Math.clz32(this.#words[w]!);
  }

  #isSet(node: number): boolean {
    return (this.#words[node >> 5]! & (1 << (node & 31))) !== 0;
  }

  #set(node: number): void {
    this.#words[node >> 5]! |= 1 << (node & 31);
    this.#summary |= 1 << (node >> 5);
  }

  #clear(node: number): void {
    const w = node >> 5;
    const left = this.#words[w]! & ~(1 << (node & 31));
    this.#words[w] = left;
    if (left === 0) this.#summary &= ~(1 << w);
  }

  #markUnits(order: number, node: number, free: boolean): void {
    const leaf = node << order;
    const first = UNITS + (leaf >> 5);
    if (order >= 5) this.#words.fill(free ? -1 : 0, first, first + (1 << (order - 5)));
    else if (free) this.#words[first]! |= maskOf(order, leaf);
    else this.#words[first]! &= ~maskOf(order, leaf);
  }
}

/** The heap's node for a block. */
const nodeAt = (order: number, unit: number): number => (1024 >> order) - 1 - (unit >> order);

/** The order of a node: 9 for node 1, 0 from node 512 on. */
const orderOf = (node: number): number => Math.clz32(node) - 22;

/** Index of the lowest bit that is set. */
const lowestBit = (bits: number): number => 31 - Math.clz32(bits & -bits);

/** The bits of a block of up to 16 units within their word. */
const maskOf = (order: number, leaf: number): number => ((1 << (1 << order)) - 1) << (leaf & 31);
