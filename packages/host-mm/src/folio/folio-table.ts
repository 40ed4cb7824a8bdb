import { hex } from '@faultline/address';
import { assert } from '@faultline/sim';
import { type FolioOrder, framesOf } from './folio-order.ts';
import { FrameOwners } from './frame-owners.ts';

/** Flags of a folio; the words after PG_ of Linux. */
export const FolioFlag = {
  live: 0x1,
  /** Anonymous memory: {@link FolioTable.mapping} is an anon_vma, or a KSM node. */
  anon: 0x2,
  dirty: 0x4,
  referenced: 0x8,
  active: 0x10,
  swapcache: 0x20,
  writeback: 0x40,
  /** Goes to the tail of its LRU list when its write-back ends. */
  reclaim: 0x80,
  /** Anonymous and of no worth to its owner any more if not written to again (MADV_FREE): PG_swapbacked is off. */
  lazyfree: 0x100,
  hugetlb: 0x200,
  hwpoison: 0x400,
  ksm: 0x800,
  /** Its content is what it should be; not after a swap read that failed. */
  uptodate: 0x1000,
  /** On the deferred split queue: mapped in part. */
  partiallyMapped: 0x2000,
  /** Has been on the active list before it was evicted. */
  workingset: 0x4000,
  unevictable: 0x8000,
  /** Read ahead into the swap cache, and not asked for yet. */
  readahead: 0x10000,
} as const;

/** What a new folio is. */
export interface NewFolio {
  readonly pfn: number;
  readonly order: FolioOrder;
  /** {@link FolioFlag} bits beside `live`. */
  readonly flags: number;
  /** Id of its anon_vma or file. */
  readonly mapping: number;
  /** Its first page's offset there, in pages up to 2^45. */
  readonly index: number;
  /** Id of the cgroup that is charged. */
  readonly memcg: number;
}

/** `GUP_PIN_COUNTING_BIAS`: what a FOLL_PIN adds to the reference count of a 4K folio. */
export const GUP_PIN_COUNTING_BIAS = 1024;

/**
 * The folios in use, by id (from 1), in typed arrays: Linux's struct folio. Reference counts are Linux's: one for each
 * mapping (a large leaf is one), one for each page in the swap cache or page cache, one for whoever has isolated it, one or
 * more for each user. A folio is freed when they are gone; {@link put} says so.
 */
export class FolioTable {
  #capacity = 1024;
  #count = 1;
  readonly #freed: number[] = [];
  #pfn: Int32Array = new Int32Array(this.#capacity);
  #order: Uint8Array = new Uint8Array(this.#capacity);
  #flags: Int32Array = new Int32Array(this.#capacity);
  #refs: Int32Array = new Int32Array(this.#capacity);
  #pins: Int32Array = new Int32Array(this.#capacity);
  #maps: Int32Array = new Int32Array(this.#capacity);
  #mappedFrames: Int32Array = new Int32Array(this.#capacity);
  #mapping: Int32Array = new Int32Array(this.#capacity);
  #index: Float64Array = new Float64Array(this.#capacity);
  #memcg: Uint16Array = new Uint16Array(this.#capacity);
  #swap: Int32Array = new Int32Array(this.#capacity);
  readonly #owners: FrameOwners;
  #live = 0;

  /** One past the last frame number of the host. */
  readonly endPfn: number;

  constructor(span: { readonly firstPfn: number; readonly endPfn: number }) {
    this.endPfn = span.endPfn;
    this.#owners = new FrameOwners(span);
  }

  /** Folios in use. */
  get live(): number {
    return this.#live;
  }

  /** One more than the largest id so far; for checks that visit all. */
  get limit(): number {
    return this.#count;
  }

  /** The folio that holds a frame; 0 if none does. */
  at(pfn: number): number {
    return this.#owners.folioAt(pfn);
  }

  /** A new folio with one reference, the caller's. */
  create({ pfn, order, flags, mapping, index, memcg }: NewFolio): number {
    const id = this.#freed.pop() ?? this.#count++;
    if (id >= this.#capacity) this.#grow();
    this.#pfn[id] = pfn;
    this.#order[id] = order;
    this.#flags[id] = flags | FolioFlag.live;
    this.#refs[id] = 1;
    this.#pins[id] = 0;
    this.#maps[id] = 0;
    this.#mappedFrames[id] = 0;
    this.#mapping[id] = mapping;
    this.#index[id] = index;
    this.#memcg[id] = memcg;
    this.#swap[id] = 0;
    this.#owners.set(pfn, order, id);
    this.#live++;
    return id;
  }

  /** Forgets a folio. Asserts that nothing refers to it any more. */
  destroy(id: number): void {
    assert(this.isLive(id) && this.#refs[id] === 0 && this.mapcount(id) === 0, () => `${this.name(id)} is in use`);
    this.#owners.set(this.#pfn[id]!, this.#order[id]!, 0);
    this.#flags[id] = 0;
    this.#freed.push(id);
    this.#live--;
  }

  /**
   * Its content is in other frames from now on. The old ones stay known as its own until {@link forgetFrames}, so that who meets
   * a migration entry finds its lock.
   */
  moveTo(id: number, pfn: number): void {
    this.#pfn[id] = pfn;
    this.#owners.set(pfn, this.#order[id]!, id);
  }

  /** Frames that a folio has left belong to none. */
  forgetFrames(pfn: number, order: FolioOrder): void {
    this.#owners.set(pfn, order, 0);
  }

  /** The first frame from `pfn` on, below `endPfn`, that a folio holds; `endPfn` if none does. Skips what is empty by 1G and 2M. */
  nextUsed(pfn: number, endPfn: number): number {
    return this.#owners.nextUsed(pfn, endPfn);
  }

  pfn(id: number): number {
    return this.#pfn[id]!;
  }

  order(id: number): FolioOrder {
    return this.#order[id]!;
  }

  /** Size in 4 KiB frames. */
  frames(id: number): number {
    return framesOf(this.#order[id]!);
  }

  /** Id of its anon_vma, file or KSM node. */
  mapping(id: number): number {
    return this.#mapping[id]!;
  }

  /** Its first page's offset in its mapping. */
  index(id: number): number {
    return this.#index[id]!;
  }

  /** Makes it part of another mapping, as KSM and the child of a fork do. */
  remap(id: number, mapping: number, index: number): void {
    this.#mapping[id] = mapping;
    this.#index[id] = index;
  }

  /** Id of the cgroup that it is charged to. */
  memcg(id: number): number {
    return this.#memcg[id]!;
  }

  /** The first of its swap entries while it is in the swap cache; else 0. */
  swapEntry(id: number): number {
    return this.#swap[id]!;
  }

  setSwapEntry(id: number, entry: number): void {
    this.#swap[id] = entry;
    this.setFlag(id, FolioFlag.swapcache, entry !== 0);
  }

  refs(id: number): number {
    return this.#refs[id]!;
  }

  /** Takes references. */
  get(id: number, count = 1): void {
    assert(this.isLive(id), () => `a reference is taken to folio ${id}, which is free`);
    this.#refs[id]! += count;
  }

  /** Gives references back. @returns whether none is left, so that the caller must free it */
  put(id: number, count = 1): boolean {
    const refs = this.#refs[id]! - count;
    assert(refs >= 0, () => `${this.name(id)} has fewer references than are given back`);
    this.#refs[id] = refs;
    return refs === 0;
  }

  /** Pins and references together: FOLL_PIN of so many of its pages (`try_grab_folio`). A negative count takes them back. */
  changePins(id: number, pages: number): void {
    const pins = this.#pins[id]! + pages;
    assert(pins >= 0, () => `${this.name(id)} is unpinned more often than pinned`);
    this.#pins[id] = pins;
    this.#refs[id]! += pages * (this.#order[id] === 0 ? GUP_PIN_COUNTING_BIAS : 1);
    assert(this.#refs[id]! >= 0, () => `${this.name(id)} has fewer references than pins`);
  }

  /** How many pins it has. */
  pins(id: number): number {
    return this.#pins[id]!;
  }

  /** `folio_maybe_dma_pinned`; exact here, where Linux may be wrong for 4K folios with 1024 references. */
  isPinned(id: number): boolean {
    return this.#pins[id]! > 0;
  }

  /** Counts entries of that order that map it, or parts of it, in or out. */
  changeMaps(id: number, order: FolioOrder, by: number): void {
    this.#maps[id]! += by;
    this.#mappedFrames[id]! += by * framesOf(order);
    assert(this.#maps[id]! >= 0, () => `${this.name(id)} is unmapped more often than mapped`);
  }

  /** Entries, of any size, that map it or parts of it; each holds one reference. */
  mapcount(id: number): number {
    return this.#maps[id]!;
  }

  isMapped(id: number): boolean {
    return this.#maps[id]! > 0;
  }

  /** Whether mapped, and not all of its pages are (as far as counts tell, as in Linux without counts for each page). */
  isPartlyMapped(id: number): boolean {
    return this.#maps[id]! > 0 && this.#mappedFrames[id]! < this.frames(id);
  }

  /** It has become the first of the pieces that it was split into, of that order, with that many entries mapping it. */
  shrinkTo(id: number, order: FolioOrder, maps: number): void {
    this.#order[id] = order;
    this.#maps[id] = maps;
    this.#mappedFrames[id] = maps * framesOf(order);
  }

  isLive(id: number): boolean {
    return (this.#flags[id]! & FolioFlag.live) !== 0;
  }

  has(id: number, flag: number): boolean {
    return (this.#flags[id]! & flag) !== 0;
  }

  setFlag(id: number, flag: number, on: boolean): void {
    if (on) this.#flags[id]! |= flag;
    else this.#flags[id]! &= ~flag;
  }

  flags(id: number): number {
    return this.#flags[id]!;
  }

  /** For messages. */
  name(id: number): string {
    return `folio ${id} (frame ${hex(this.#pfn[id] ?? 0)}, order ${this.#order[id]})`;
  }

  #grow(): void {
    this.#capacity *= 2;
    const grow = <T extends Int32Array | Uint8Array | Uint16Array | Float64Array>(from: T, to: T): T => {
      to.set(from);
      return to;
    };
    const int32 = (from: Int32Array): Int32Array => grow(from, new Int32Array(this.#capacity));
    this.#pfn = int32(this.#pfn);
    this.#order = grow(this.#order, new Uint8Array(this.#capacity));
    this.#flags = int32(this.#flags);
    this.#refs = int32(this.#refs);
    this.#pins = int32(this.#pins);
    this.#maps = int32(this.#maps);
    this.#mappedFrames = int32(this.#mappedFrames);
    this.#mapping = int32(this.#mapping);
    this.#index = grow(this.#index, new Float64Array(this.#capacity));
    this.#memcg = grow(this.#memcg, new Uint16Array(this.#capacity));
    this.#swap = int32(this.#swap);
  }
}
