import { assert } from '@faultline/sim';
import { checkInteger } from '../argument.ts';
import type { PageContent } from '../frame/page-content.ts';
import { PageStore } from '../frame/page-store.ts';

const BITS = 32;

/** A swap device: 4 KiB slots that are allocated, written, read and freed, each in O(1). */
export class SwapDevice {
  readonly slots: number;
  readonly #store = new PageStore();
  /** Slots at or above it were never used. */
  #fresh = 0;
  readonly #freed: number[] = [];
  /** One bit a slot, grown as slots come into use. */
  #used = new Uint32Array(32);

  /** @throws RangeError unless `slots` is an integer in 0..2^31-1 */
  constructor({ slots }: { readonly slots: number }) {
    checkInteger('slots', slots, 0, 2 ** 31 - 1);
    this.slots = slots;
  }

  get freeSlots(): number {
    return this.slots - this.#fresh + this.#freed.length;
  }

  get usedSlots(): number {
    return this.slots - this.freeSlots;
  }

  /** A free slot, now in use, or -1 if the device is full. */
  allocate(): number {
    const slot = this.#freed.pop() ?? (this.#fresh < this.slots ? this.#fresh++ : -1);
    if (slot >= 0) this.#mark(slot);
    return slot;
  }

  /** Gives a slot back and forgets its content. Asserts that it is in use. */
  free(slot: number): void {
    this.#check(slot);
    this.#used[slot >>> 5]! &= ~(1 << (slot & (BITS - 1)));
    this.#store.setTag(slot, 0, 0);
    this.#freed.push(slot);
  }

  /** Whether a slot is in use. */
  isUsed(slot: number): boolean {
    return ((this.#used[slot >>> 5] ?? 0) & (1 << (slot & (BITS - 1)))) !== 0;
  }

  /** Stores a page. Asserts that the slot is in use. */
  writeSlot(slot: number, content: PageContent): void {
    this.#check(slot);
    this.#store.write(slot, content);
  }

  /** What was stored last; zeros in a slot that was never written. Asserts that the slot is in use. */
  readSlot(slot: number): PageContent {
    this.#check(slot);
    return this.#store.read(slot);
  }

  #mark(slot: number): void {
    const word = slot >>> 5;
    if (word >= this.#used.length) {
      const grown = new Uint32Array(Math.max(word + 1, this.#used.length * 2));
      grown.set(this.#used);
      this.#used = grown;
    }
    this.#used[word]! |= 1 << (slot & (BITS - 1));
  }

  #check(slot: number): void {
    if (!this.isUsed(slot)) assert(false, `swap slot ${slot} is not in use`);
  }
}
