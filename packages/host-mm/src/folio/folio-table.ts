import { assert } from '@faultline/sim';
import { type FolioOrder, framesOf } from './folio-order.ts';

const Flag = { live: 1, mapped: 2, young: 4, isolated: 8, husk: 16 } as const;

/** What a new folio is. */
export interface NewFolio {
  readonly pfn: number;
  readonly order: FolioOrder;
  /** The address space's id. */
  readonly mm: number;
  /** Where in the address space its first page belongs; pages up to 2^45. */
  readonly startPage: number;
}

/**
 * The folios in use, by id (from 1), in typed arrays. A folio belongs to one page range of one address space for its
 * life (anonymous private memory that is never shared), and is as large as the CPU leaf that maps it: splitting a leaf
 * splits its folio. A folio that was split while pinned leaves a husk behind, which passes the unpin on to the pieces.
 */
export class FolioTable {
  #capacity = 1024;
  #count = 1;
  readonly #freed: number[] = [];
  #pfn: Int32Array = new Int32Array(this.#capacity);
  #order: Uint8Array = new Uint8Array(this.#capacity);
  #mm: Int32Array = new Int32Array(this.#capacity);
  #startPage: Float64Array = new Float64Array(this.#capacity);
  #pins: Int32Array = new Int32Array(this.#capacity);
  #flags: Uint8Array = new Uint8Array(this.#capacity);
  readonly #pieces = new Map<number, Int32Array>();
  #live = 0;

  /** Folios in use, husks included. */
  get live(): number {
    return this.#live;
  }

  /** One more than the largest id so far; for checks that visit all. */
  get limit(): number {
    return this.#count;
  }

  /** A new folio: neither mapped, young, isolated nor pinned. */
  create({ pfn, order, mm, startPage }: NewFolio): number {
    const id = this.#freed.pop() ?? this.#count++;
    if (id >= this.#capacity) this.#grow();
    this.#pfn[id] = pfn;
    this.#order[id] = order;
    this.#mm[id] = mm;
    this.#startPage[id] = startPage;
    this.#pins[id] = 0;
    this.#flags[id] = Flag.live;
    this.#live++;
    return id;
  }

  /** Forgets a folio. Asserts that nothing refers to it any more. */
  destroy(id: number): void {
    assert(
      this.isLive(id) && !this.isMapped(id) && !this.isIsolated(id) && this.pins(id) === 0,
      `folio ${id} is in use`,
    );
    this.#flags[id] = 0;
    this.#pieces.delete(id);
    this.#freed.push(id);
    this.#live--;
  }

  pfn(id: number): number {
    return this.#pfn[id]!;
  }

  order(id: number): FolioOrder {
    return this.#order[id] as FolioOrder;
  }

  /** Size in 4 KiB frames. */
  frames(id: number): number {
    return framesOf(this.order(id));
  }

  /** The id of its address space. */
  mm(id: number): number {
    return this.#mm[id]!;
  }

  /** The first page that it backs. */
  startPage(id: number): number {
    return this.#startPage[id]!;
  }

  /** How many pins it has; see {@link changePins}. */
  pins(id: number): number {
    return this.#pins[id]!;
  }

  /** Adds to the pin count and returns it. Asserts that it does not fall below zero. */
  changePins(id: number, by: number): number {
    const pins = this.#pins[id]! + by;
    assert(pins >= 0, () => `folio ${id} is unpinned more often than pinned`);
    this.#pins[id] = pins;
    return pins;
  }

  isLive(id: number): boolean {
    return (this.#flags[id]! & Flag.live) !== 0;
  }

  /** Whether a CPU leaf maps it. */
  isMapped(id: number): boolean {
    return (this.#flags[id]! & Flag.mapped) !== 0;
  }

  setMapped(id: number, mapped: boolean): void {
    this.#set(id, Flag.mapped, mapped);
  }

  /** The accessed bit of the CPU leaf. */
  isYoung(id: number): boolean {
    return (this.#flags[id]! & Flag.young) !== 0;
  }

  setYoung(id: number, young: boolean): void {
    this.#set(id, Flag.young, young);
  }

  /** Whether somebody has taken it off the LRU to work on it. */
  isIsolated(id: number): boolean {
    return (this.#flags[id]! & Flag.isolated) !== 0;
  }

  setIsolated(id: number, isolated: boolean): void {
    this.#set(id, Flag.isolated, isolated);
  }

  /** Whether it has been split, and only its id is still held by an isolator or a pin. */
  isHusk(id: number): boolean {
    return (this.#flags[id]! & Flag.husk) !== 0;
  }

  /** Turns a folio that has been split into a husk. */
  makeHusk(id: number, pieces: Int32Array): void {
    this.#set(id, Flag.mapped, false);
    this.#set(id, Flag.husk, true);
    this.#pieces.set(id, pieces);
  }

  /** What a husk was split into. */
  pieces(id: number): Int32Array {
    return this.#pieces.get(id) ?? new Int32Array(0);
  }

  #set(id: number, flag: number, on: boolean): void {
    if (on) this.#flags[id]! |= flag;
    else this.#flags[id]! &= ~flag;
  }

  #grow(): void {
    this.#capacity *= 2;
    const grow = <T extends Int32Array | Uint8Array | Float64Array>(from: T, to: T): T => {
      to.set(from);
      return to;
    };
    this.#pfn = grow(this.#pfn, new Int32Array(this.#capacity));
    this.#order = grow(this.#order, new Uint8Array(this.#capacity));
    this.#mm = grow(this.#mm, new Int32Array(this.#capacity));
    this.#startPage = grow(this.#startPage, new Float64Array(this.#capacity));
    this.#pins = grow(this.#pins, new Int32Array(this.#capacity));
    this.#flags = grow(this.#flags, new Uint8Array(this.#capacity));
  }
}
