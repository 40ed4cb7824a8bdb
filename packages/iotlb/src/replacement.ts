/** A source of random numbers: `RandomStream` of `@faultline/sim` is one. */
export interface RandomSource {
  /** A uniform integer in 0 .. bound-1. */
  below(bound: number): number;
}

/**
 * Which entry of a full set makes room.
 * - `lru`: the least recently used, exactly. The default.
 * - `pseudo-lru`: the one that a binary tree of bits in each set points to, a bit per pair of halves. Ways: a power of two.
 * - `random`: any, from the given stream.
 *
 * All of them use an empty way before they evict. No source says which one a remapping unit has.
 */
export type ReplacementPolicy = 'lru' | 'pseudo-lru' | { readonly random: RandomSource };

/** What one array asks of its replacement policy. Slots are numbered set by set. */
export interface Replacement {
  /** The slot was used. On the hit path: allocates nothing. */
  touch(slot: number): void;
  /** The slot of the set that the next entry takes, an empty one if there is any; it counts as used. */
  take(set: number): number;
  /** The slot was emptied. */
  release(slot: number): void;
}

/** Most ways of a set that are searched for the oldest. With more, each use costs a little, and the search nothing. */
const STAMPED_WAYS = 16;

/** Makes the policy of one array. @throws RangeError for a pseudo-LRU whose ways are no power of two, or another policy */
export function replacementOf(policy: ReplacementPolicy, name: string, sets: number, ways: number): Replacement {
  if (policy === 'lru') return ways <= STAMPED_WAYS ? new StampedLru(sets, ways) : new RingLru(sets, ways);
  if (typeof policy === 'object') return new RandomReplacement(policy.random, sets, ways);
  if (policy !== 'pseudo-lru')
    throw new RangeError(`${name}: replacement: ${policy as string} is not one of lru, pseudo-lru, { random }`);
  if ((ways & (ways - 1)) !== 0)
    throw new RangeError(`${name}: ways of a pseudo-LRU must be a power of two, got ${ways}`);
  return new TreePseudoLru(sets, ways);
}

/**
 * Exact LRU for few ways: each slot has the number of its last use, 0 if it is empty. A use is one store, where moving a slot in a
 * list is six that wait for each other: 5 ns of a hit's 13.
 */
class StampedLru implements Replacement {
  readonly #ways: number;
  /** By slot; then the number of the last use of all. Exact to 2^53. */
  readonly #stamps: Float64Array = new Float64Array(0);
  readonly #last: number = 0;

  constructor(sets: number, ways: number) {
    this.#ways = ways;
    this.#last = sets * ways;
    this.#stamps = new Float64Array(this.#last + 1);
  }

  touch(slot: number): void {
    const stamps = this.#stamps;
    const now = stamps[this.#last]! + 1;
    stamps[this.#last] = now;
    stamps[slot] = now;
  }

  take(set: number): number {
    const stamps = this.#stamps;
    const first = set * this.#ways;
    let oldest = first;
    for (let slot = first + 1; slot < first + this.#ways; slot++) if (stamps[slot]! < stamps[oldest]!) oldest = slot;
    this.touch(oldest);
    return oldest;
  }

  release(slot: number): void {
    this.#stamps[slot] = 0;
  }
}

/**
 * Exact LRU for many ways: each set is a ring of slots by age. A dropped slot goes to the old end, so that it is taken first.
 * Nodes of four words: 0 older neighbour, 1 newer neighbour, 2 node of the set. A node for each slot, then one for each
 * set: the ring's fixed point between newest and oldest.
 */
class RingLru implements Replacement {
  readonly #slots: number;
  readonly #nodes: Int32Array;

  constructor(sets: number, ways: number) {
    this.#slots = sets * ways;
    this.#nodes = new Int32Array((this.#slots + sets) << 2);
    for (let set = 0; set < sets; set++) {
      const ring = this.#slots + set;
      this.#nodes[ring << 2] = ring;
      this.#nodes[(ring << 2) + 1] = ring;
      for (let slot = set * ways; slot < (set + 1) * ways; slot++) {
        this.#nodes[(slot << 2) + 2] = ring;
        this.#linkNewest(slot, ring);
      }
    }
  }

  touch(slot: number): void {
    const nodes = this.#nodes;
    const at = slot << 2;
    const newer = nodes[at + 1]!;
    if (newer >= this.#slots) return; // the newest already
    const older = nodes[at]!;
    const ring = nodes[at + 2]!;
    const head = nodes[ring << 2]!;
    nodes[newer << 2] = older;
    nodes[(older << 2) + 1] = newer;
    nodes[at] = head;
    nodes[at + 1] = ring;
    nodes[(head << 2) + 1] = slot;
    nodes[ring << 2] = slot;
  }

  take(set: number): number {
    const slot = this.#nodes[((this.#slots + set) << 2) + 1]!;
    this.touch(slot);
    return slot;
  }

  release(slot: number): void {
    const nodes = this.#nodes;
    const at = slot << 2;
    const newer = nodes[at + 1]!;
    const older = nodes[at]!;
    nodes[newer << 2] = older;
    nodes[(older << 2) + 1] = newer;
    const ring = nodes[at + 2]!;
    const tail = nodes[(ring << 2) + 1]!;
    nodes[at + 1] = tail;
    nodes[at] = ring;
    nodes[tail << 2] = slot;
    nodes[(ring << 2) + 1] = slot;
  }

  #linkNewest(slot: number, ring: number): void {
    const nodes = this.#nodes;
    const at = slot << 2;
    const head = nodes[ring << 2]!;
    nodes[at] = head;
    nodes[at + 1] = ring;
    nodes[(head << 2) + 1] = slot;
    nodes[ring << 2] = slot;
  }
}

/** The empty slots of each set, as stacks: what a policy without an order of age needs to use empty ways first. */
class EmptySlots {
  readonly #ways: number;
  readonly #stacks: Int32Array;
  readonly #depths: Int32Array;

  constructor(sets: number, ways: number) {
    this.#ways = ways;
    this.#depths = new Int32Array(sets).fill(ways);
    // The first way is on top.
    this.#stacks = Int32Array.from({ length: sets * ways }, (_, i) => i - (i % ways) + (ways - 1 - (i % ways)));
  }

  push(slot: number): void {
    const set = (slot / this.#ways) | 0;
    this.#stacks[set * this.#ways + this.#depths[set]!++] = slot;
  }

  /** An empty slot of the set, no longer counted as empty, or -1. */
  pop(set: number): number {
    return this.#depths[set]! === 0 ? -1 : this.#stacks[set * this.#ways + --this.#depths[set]!]!;
  }
}

/** Tree pseudo-LRU: node 1 is the root, node n has children 2n and 2n+1, way w is leaf ways+w; a bit points to the colder half. */
class TreePseudoLru implements Replacement {
  readonly #ways: number;
  readonly #bits: Uint8Array;
  readonly #empty: EmptySlots;

  constructor(sets: number, ways: number) {
    this.#ways = ways;
    this.#bits = new Uint8Array(sets * ways);
    this.#empty = new EmptySlots(sets, ways);
  }

  touch(slot: number): void {
    const way = slot & (this.#ways - 1);
    const tree = slot - way;
    for (let node = this.#ways + way; node > 1; node >>= 1) this.#bits[tree + (node >> 1)] = (node & 1) ^ 1;
  }

  take(set: number): number {
    let slot = this.#empty.pop(set);
    if (slot < 0) {
      const tree = set * this.#ways;
      let node = 1;
      while (node < this.#ways) node = 2 * node + this.#bits[tree + node]!;
      slot = tree + node - this.#ways;
    }
    this.touch(slot);
    return slot;
  }

  release(slot: number): void {
    this.#empty.push(slot);
  }
}

/** Random replacement: nothing to remember but which ways are empty. */
class RandomReplacement implements Replacement {
  readonly #random: RandomSource;
  readonly #ways: number;
  readonly #empty: EmptySlots;

  constructor(random: RandomSource, sets: number, ways: number) {
    this.#random = random;
    this.#ways = ways;
    this.#empty = new EmptySlots(sets, ways);
  }

  touch(): void {}

  take(set: number): number {
    const slot = this.#empty.pop(set);
    return slot >= 0 ? slot : set * this.#ways + this.#random.below(this.#ways);
  }

  release(slot: number): void {
    this.#empty.push(slot);
  }
}
