import { assert } from '@faultline/sim';
import { type Replacement, type ReplacementPolicy, replacementOf } from './replacement.ts';

/** Shape of a set-associative array. `sets` is a power of two; 1 set makes it fully associative. */
export interface SetAssociativeGeometry {
  /** Number of sets, a power of two. */
  readonly sets: number;
  /** Entries in each set. 0 means that nothing of this kind is ever cached. */
  readonly ways: number;
  /** Which entry of a full set makes room. Default `lru`. */
  readonly replacement?: ReplacementPolicy;
}

const MAX_SLOTS = 1 << 24;

/*
 * Words of one slot, together in one array so that a look-up stays in one line of the machine's own cache:
 * 0 tag, 1 second tag, 2 and 3 upper and lower half of the address, 4 next slot of the same hash chain or -1, 5 index of
 * the store whose entry it is or -1 if the slot is empty. Literal numbers below, since bundlers make variables of a
 * module's constants, which cost a hit 4 of 18 ns.
 */
const WORDS = 8;

/** The slots that one or more stores put their entries into. */
class SlotArray {
  readonly sets: number;
  readonly slots: number;
  readonly words: Int32Array;
  readonly replacement: Replacement;
  readonly stores: SetAssociative[] = [];

  constructor(name: string, geometry: SetAssociativeGeometry) {
    if (!geometry) throw new TypeError(`${name}: a geometry with sets and ways is missing`);
    const { sets, ways } = geometry;
    if (!Number.isInteger(sets) || sets < 1 || (sets & (sets - 1)) !== 0)
      throw new RangeError(`${name}: sets must be a power of two, got ${sets}`);
    if (!Number.isInteger(ways) || ways < 0) throw new RangeError(`${name}: ways must be 0 or more, got ${ways}`);
    if (sets * ways > MAX_SLOTS) throw new RangeError(`${name}: ${sets} x ${ways} entries is above ${MAX_SLOTS}`);
    this.sets = sets;
    this.slots = sets * ways;
    this.words = new Int32Array(this.slots * WORDS).fill(-1);
    this.replacement = replacementOf(geometry.replacement ?? 'lru', name, sets, ways);
  }
}

/**
 * Tag store for entries of one size: which slot holds (tag, address at this granularity), and which slot of a set goes
 * next. Payload lives with the owner, indexed by slot. Stores of several sizes may put their entries into one array.
 *
 * A look-up does not scan the ways: slots hang in hash chains keyed by the page number alone, so that look-up by
 * (tag, page) and invalidation of a page whatever the tag both cost one short chain, also with 1 set of 1024 ways.
 */
export class SetAssociative {
  /** Number of slots of the array: sets x ways. */
  readonly slots: number;
  /** log2 of the bytes that one entry covers, 0..48. */
  readonly shift: number;
  readonly #array: SlotArray;
  readonly #index: number;
  // Fields that are read on a hit have a first value of their kind: a field that was undefined once is checked by V8 at every use.
  readonly #words: Int32Array = new Int32Array(0);
  readonly #replacement: Replacement;
  readonly #maskHi: number = 0;
  readonly #maskLo: number = 0;
  readonly #setMask: number;
  readonly #hashShift: number = 0;
  readonly #bucketHead: Int32Array = new Int32Array(0);
  #count = 0;
  #evictions = 0;

  private constructor(array: SlotArray, shift: number) {
    this.#array = array;
    this.#index = array.stores.push(this) - 1;
    this.#words = array.words;
    this.#replacement = array.replacement;
    this.shift = shift;
    this.slots = array.slots;
    this.#setMask = array.sets - 1;
    this.#maskHi = shift >= 32 ? -1 << (shift - 32) : -1;
    this.#maskLo = shift >= 32 ? 0 : -1 << shift;
    let bucketBits = 1;
    while (2 ** bucketBits < 2 * this.slots) bucketBits++;
    this.#hashShift = 32 - bucketBits;
    this.#bucketHead = new Int32Array(2 ** bucketBits).fill(-1);
  }

  /**
   * A store with an array of its own.
   * @throws RangeError if sets is not a power of two, ways is negative, there are more than 2^24 slots, or the ways do
   * not suit the replacement.
   */
  static alone(name: string, geometry: SetAssociativeGeometry, shift: number): SetAssociative {
    return new SetAssociative(new SlotArray(name, geometry), shift);
  }

  /** Stores of several sizes, which compete for one array. @throws RangeError as {@link alone} does */
  static sharing(name: string, geometry: SetAssociativeGeometry, shifts: readonly number[]): SetAssociative[] {
    const array = new SlotArray(name, geometry);
    return shifts.map((shift) => new SetAssociative(array, shift));
  }

  /** Entries held now by this store. */
  get count(): number {
    return this.#count;
  }

  /** Entries, of whatever store of the array, that made room for an entry of this one. */
  get evictions(): number {
    return this.#evictions;
  }

  /** The slot that holds (tag, address, second tag), or -1. Changes nothing. Caches with one tag give 0 as the second. */
  find(tag: number, hi: number, lo: number, second: number): number {
    if (this.#count === 0) return -1;
    const words = this.#words;
    const keyHi = hi & this.#maskHi;
    const keyLo = lo & this.#maskLo;
    let slot = this.#bucketHead[this.#bucket(keyHi, keyLo)]!;
    while (slot >= 0) {
      const at = slot << 3;
      if (words[at | 3]! === keyLo && words[at]! === tag && words[at | 2]! === keyHi && words[at | 1]! === second)
        return slot;
      slot = words[at | 4]!;
    }
    return -1;
  }

  /** The owner's non-negative tag of an occupied slot. */
  tagAt(slot: number): number {
    return this.#words[slot << 3]!;
  }

  /** The owner's second tag of an occupied slot. */
  secondAt(slot: number): number {
    return this.#words[(slot << 3) + 1]!;
  }

  /** Upper half of the address, low bits cleared to the granularity. */
  hiAt(slot: number): number {
    return this.#words[(slot << 3) + 2]!;
  }

  /** Lower half of the address, low bits cleared to the granularity. */
  loAt(slot: number): number {
    return this.#words[(slot << 3) + 3]!;
  }

  /** Tells the replacement that the slot was used. */
  touch(slot: number): void {
    this.#replacement.touch(slot);
  }

  /** Puts (tag, address, second tag), which must not be present, into a slot of its set. Needs ways above 0. */
  insert(tag: number, hi: number, lo: number, second: number): number {
    assert(this.slots > 0, 'a cache without ways has no slot to fill');
    const words = this.#words;
    const keyHi = hi & this.#maskHi;
    const keyLo = lo & this.#maskLo;
    const slot = this.#replacement.take(this.#pageNumber(keyHi, keyLo) & this.#setMask);
    const at = slot << 3;
    const previous = words[at + 5]!;
    if (previous >= 0) {
      (this.#array.stores[previous] as SetAssociative).#unchain(slot);
      this.#evictions++;
    }
    const bucket = this.#bucket(keyHi, keyLo);
    words[at] = tag;
    words[at + 1] = second;
    words[at + 2] = keyHi;
    words[at + 3] = keyLo;
    words[at + 4] = this.#bucketHead[bucket]!;
    words[at + 5] = this.#index;
    this.#bucketHead[bucket] = slot;
    this.#count++;
    return slot;
  }

  /** Empties a slot that this store occupies. */
  drop(slot: number): void {
    this.#unchain(slot);
    this.#replacement.release(slot);
  }

  /**
   * Calls `visit` with every occupied slot whose page shares a byte with the aligned range of 2^rangeShift bytes that
   * holds the address. `visit` may drop the slot it is given. Small ranges cost their own pages, large ones all slots.
   */
  forEachOverlapping(hi: number, lo: number, rangeShift: number, visit: (slot: number) => void): void {
    if (this.#count === 0) return;
    const steps = rangeShift <= this.shift ? 0 : rangeShift - this.shift;
    if (rangeShift < 32 && 2 ** steps <= this.slots) {
      const start = rangeShift >= 12 ? lo & (-1 << rangeShift) : lo;
      for (let page = 0; page < 2 ** steps; page++) this.#visitPage(hi, (start + page * 2 ** this.shift) | 0, visit);
      return;
    }
    const shift = Math.max(rangeShift, this.shift);
    const maskHi = shift >= 64 ? 0 : shift >= 32 ? -1 << (shift - 32) : -1;
    const maskLo = shift >= 32 ? 0 : -1 << shift;
    this.forEach((slot) => {
      if (((this.hiAt(slot) ^ hi) & maskHi) === 0 && ((this.loAt(slot) ^ lo) & maskLo) === 0) visit(slot);
    });
  }

  /** Calls `visit` with every slot that this store occupies, in slot order. `visit` may drop it. */
  forEach(visit: (slot: number) => void): void {
    for (let slot = 0; slot < this.slots && this.#count > 0; slot++) if (this.occupies(slot)) visit(slot);
  }

  /** Whether the slot holds an entry of this store. */
  occupies(slot: number): boolean {
    return this.#words[(slot << 3) + 5]! === this.#index;
  }

  #visitPage(hi: number, lo: number, visit: (slot: number) => void): void {
    const keyHi = hi & this.#maskHi;
    const keyLo = lo & this.#maskLo;
    let slot = this.#bucketHead[this.#bucket(keyHi, keyLo)]!;
    while (slot >= 0) {
      const next = this.#words[(slot << 3) + 4]!;
      if (this.loAt(slot) === keyLo && this.hiAt(slot) === keyHi) visit(slot);
      slot = next;
    }
  }

  #unchain(slot: number): void {
    const words = this.#words;
    const bucket = this.#bucket(this.hiAt(slot), this.loAt(slot));
    const next = words[(slot << 3) + 4]!;
    let at = this.#bucketHead[bucket]!;
    if (at === slot) this.#bucketHead[bucket] = next;
    else {
      while (words[(at << 3) + 4]! !== slot) at = words[(at << 3) + 4]!;
      words[(at << 3) + 4] = next;
    }
    words[(slot << 3) + 5] = -1;
    this.#count--;
  }

  /** Page number, modulo 2^32: bits shift+31..shift of the address. */
  #pageNumber(hi: number, lo: number): number {
    if (this.shift >= 32) return hi >>> (this.shift - 32);
    // Two steps, since a shift by 32 is a shift by 0 in JavaScript.
    return ((hi << 1) << (31 - this.shift)) | (lo >>> this.shift);
  }

  /** Chain of a page: the upper bits of a multiplicative hash. Low bits that are zero for large pages do no harm there. */
  #bucket(keyHi: number, keyLo: number): number {
    return Math.imul(Math.imul(keyHi, 0x85ebca6b) ^ keyLo, 0x9e3779b1) >>> this.#hashShift;
  }
}
