import { assert } from '@faultline/sim';

/** Shape of a set-associative array. `sets` is a power of two; 1 set makes it fully associative. */
export interface SetAssociativeGeometry {
  /** Number of sets, a power of two. */
  readonly sets: number;
  /** Entries in each set. 0 means that nothing of this kind is ever cached. */
  readonly ways: number;
}

const NONE = -1;
const MAX_SLOTS = 1 << 24;

/**
 * Tag store of one cache: which slot holds (tag, address at this granularity), and which slot of a set goes next.
 * Payload lives with the owner, indexed by slot.
 *
 * A look-up does not scan the ways: slots hang in hash chains keyed by the page number alone, so that look-up by
 * (tag, page) and invalidation of a page whatever the tag both cost one short chain, also with 1 set of 1024 ways.
 * Replacement is exact LRU in each set, by a linked list; a dropped slot goes to the old end and is reused first.
 */
export class SetAssociative {
  /** Number of slots: sets x ways. */
  readonly slots: number;
  /** log2 of the bytes that one entry covers, 12..48. */
  readonly shift: number;
  /** The owner's 16-bit (or wider, non-negative) tag by slot; -1 if the slot is empty. */
  readonly tags: Int32Array;
  /** Upper half of the address by slot, low bits cleared to the granularity. */
  readonly addressHi: Int32Array;
  /** Lower half of the address by slot, low bits cleared to the granularity. */
  readonly addressLo: Int32Array;
  readonly #maskHi: number;
  readonly #maskLo: number;
  readonly #setMask: number;
  readonly #ways: number;
  readonly #bucketMask: number;
  readonly #bucketHead: Int32Array;
  readonly #chainNext: Int32Array;
  /** Per set: most and least recently used slot; per slot: neighbours towards older and newer. */
  readonly #newest: Int32Array;
  readonly #oldest: Int32Array;
  readonly #older: Int32Array;
  readonly #newer: Int32Array;
  #count = 0;

  /** @throws RangeError if sets is not a power of two, ways is negative, or there are more than 2^24 slots. */
  constructor(name: string, geometry: SetAssociativeGeometry, shift: number) {
    const { sets, ways } = geometry;
    if (!Number.isInteger(sets) || sets < 1 || (sets & (sets - 1)) !== 0)
      throw new RangeError(`${name}: sets must be a power of two, got ${sets}`);
    if (!Number.isInteger(ways) || ways < 0) throw new RangeError(`${name}: ways must be 0 or more, got ${ways}`);
    if (sets * ways > MAX_SLOTS) throw new RangeError(`${name}: ${sets} x ${ways} entries is above ${MAX_SLOTS}`);
    this.shift = shift;
    this.slots = sets * ways;
    this.#ways = ways;
    this.#setMask = sets - 1;
    this.#maskHi = shift >= 32 ? -1 << (shift - 32) : -1;
    this.#maskLo = shift >= 32 ? 0 : -1 << shift;
    let buckets = 2;
    while (buckets < 2 * this.slots) buckets *= 2;
    this.#bucketMask = buckets - 1;
    this.tags = new Int32Array(this.slots).fill(NONE);
    this.addressHi = new Int32Array(this.slots);
    this.addressLo = new Int32Array(this.slots);
    this.#bucketHead = new Int32Array(buckets).fill(NONE);
    this.#chainNext = new Int32Array(this.slots).fill(NONE);
    this.#newest = new Int32Array(sets).fill(NONE);
    this.#oldest = new Int32Array(sets).fill(NONE);
    this.#older = new Int32Array(this.slots).fill(NONE);
    this.#newer = new Int32Array(this.slots).fill(NONE);
    for (let slot = 0; slot < this.slots; slot++) this.#linkNewest(slot, (slot / ways) | 0);
  }

  /** Entries held now. */
  get count(): number {
    return this.#count;
  }

  /** The slot that holds (tag, address), or -1. Changes nothing. */
  find(tag: number, hi: number, lo: number): number {
    if (this.#count === 0) return NONE;
    const keyHi = hi & this.#maskHi;
    const keyLo = lo & this.#maskLo;
    let slot = this.#bucketHead[this.#bucket(keyHi, keyLo)]!;
    while (slot !== NONE) {
      if (this.addressLo[slot]! === keyLo && this.addressHi[slot]! === keyHi && this.tags[slot]! === tag) return slot;
      slot = this.#chainNext[slot]!;
    }
    return NONE;
  }

  /**
   * Like {@link find}, for owners with a second tag that they keep themselves, by slot from `first` on.
   * @param second what the owner's array must say for the slot
   */
  findTagged(tag: number, hi: number, lo: number, second: number, seconds: Int32Array, first: number): number {
    if (this.#count === 0) return NONE;
    const keyHi = hi & this.#maskHi;
    const keyLo = lo & this.#maskLo;
    let slot = this.#bucketHead[this.#bucket(keyHi, keyLo)]!;
    while (slot !== NONE) {
      if (
        this.addressLo[slot]! === keyLo &&
        this.addressHi[slot]! === keyHi &&
        this.tags[slot]! === tag &&
        seconds[slot + first]! === second
      )
        return slot;
      slot = this.#chainNext[slot]!;
    }
    return NONE;
  }

  /** Makes the slot the most recently used of its set. */
  touch(slot: number): void {
    const newer = this.#newer[slot]!;
    if (newer === NONE) return;
    const set = (slot / this.#ways) | 0;
    this.#unlink(slot, set);
    this.#linkNewest(slot, set);
  }

  /** The slot that {@link insert} would use for a new address: empty, or about to be evicted. Needs ways above 0. */
  victim(hi: number, lo: number): number {
    assert(this.#ways > 0, 'a cache without ways has no victim');
    return this.#oldest[this.#set(hi & this.#maskHi, lo & this.#maskLo)]!;
  }

  /** Puts (tag, address), which must not be present, into its set's victim slot as most recently used. */
  insert(tag: number, hi: number, lo: number): number {
    const slot = this.victim(hi, lo);
    if (this.tags[slot]! !== NONE) this.drop(slot);
    const keyHi = hi & this.#maskHi;
    const keyLo = lo & this.#maskLo;
    const bucket = this.#bucket(keyHi, keyLo);
    this.tags[slot] = tag;
    this.addressHi[slot] = keyHi;
    this.addressLo[slot] = keyLo;
    this.#chainNext[slot] = this.#bucketHead[bucket]!;
    this.#bucketHead[bucket] = slot;
    this.#count++;
    this.touch(slot);
    return slot;
  }

  /** Empties an occupied slot. */
  drop(slot: number): void {
    const bucket = this.#bucket(this.addressHi[slot]!, this.addressLo[slot]!);
    const next = this.#chainNext[slot]!;
    let at = this.#bucketHead[bucket]!;
    if (at === slot) this.#bucketHead[bucket] = next;
    else {
      while (this.#chainNext[at]! !== slot) at = this.#chainNext[at]!;
      this.#chainNext[at] = next;
    }
    this.tags[slot] = NONE;
    this.#count--;
    const set = (slot / this.#ways) | 0;
    this.#unlink(slot, set);
    this.#linkOldest(slot, set);
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
    for (let slot = 0; slot < this.slots; slot++) {
      if (this.tags[slot]! === NONE) continue;
      if (((this.addressHi[slot]! ^ hi) & maskHi) === 0 && ((this.addressLo[slot]! ^ lo) & maskLo) === 0) visit(slot);
    }
  }

  /** Calls `visit` with every occupied slot, in slot order. `visit` may drop it. */
  forEach(visit: (slot: number) => void): void {
    if (this.#count === 0) return;
    for (let slot = 0; slot < this.slots; slot++) if (this.tags[slot]! !== NONE) visit(slot);
  }

  #visitPage(hi: number, lo: number, visit: (slot: number) => void): void {
    const keyHi = hi & this.#maskHi;
    const keyLo = lo & this.#maskLo;
    let slot = this.#bucketHead[this.#bucket(keyHi, keyLo)]!;
    while (slot !== NONE) {
      const next = this.#chainNext[slot]!;
      if (this.addressLo[slot]! === keyLo && this.addressHi[slot]! === keyHi) visit(slot);
      slot = next;
    }
  }

  /** Page number, modulo 2^32: bits shift+31..shift of the address. */
  #pageNumber(hi: number, lo: number): number {
    return this.shift >= 32 ? hi >>> (this.shift - 32) : (hi << (32 - this.shift)) | (lo >>> this.shift);
  }

  #set(hi: number, lo: number): number {
    return this.#pageNumber(hi, lo) & this.#setMask;
  }

  /** Neighbouring pages fall into neighbouring buckets; the upper bits are folded in by a multiplicative hash. */
  #bucket(hi: number, lo: number): number {
    const page = this.#pageNumber(hi, lo);
    return (page ^ (Math.imul(page ^ hi, 0x9e3779b1) >>> 15)) & this.#bucketMask;
  }

  #unlink(slot: number, set: number): void {
    const older = this.#older[slot]!;
    const newer = this.#newer[slot]!;
    if (newer === NONE) this.#newest[set] = older;
    else this.#older[newer] = older;
    if (older === NONE) this.#oldest[set] = newer;
    else this.#newer[older] = newer;
  }

  #linkNewest(slot: number, set: number): void {
    const head = this.#newest[set]!;
    this.#older[slot] = head;
    this.#newer[slot] = NONE;
    this.#newest[set] = slot;
    if (head === NONE) this.#oldest[set] = slot;
    else this.#newer[head] = slot;
  }

  #linkOldest(slot: number, set: number): void {
    const tail = this.#oldest[set]!;
    this.#newer[slot] = tail;
    this.#older[slot] = NONE;
    this.#oldest[set] = slot;
    if (tail === NONE) this.#newest[set] = slot;
    else this.#older[tail] = slot;
  }
}
