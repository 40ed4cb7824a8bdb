import { assert } from '@faultline/sim';

const NOWHERE = -1;

/**
 * The LRU of folios: one doubly linked list over folio ids, newest at the head, in typed arrays. Id 0 is the list's own
 * node. All operations are O(1). (Linux has active and inactive lists or generations; second chance on a single list is
 * the simplest policy with the same two signals: age and the accessed bit.)
 */
export class Lru {
  #prev: Int32Array = new Int32Array(1024).fill(NOWHERE);
  #next: Int32Array = new Int32Array(1024).fill(NOWHERE);
  #size = 0;

  constructor() {
    this.#prev[0] = 0;
    this.#next[0] = 0;
  }

  /** How many folios are on the list. */
  get size(): number {
    return this.#size;
  }

  /** The oldest folio, or 0 for an empty list. */
  get tail(): number {
    return this.#prev[0]!;
  }

  has(folio: number): boolean {
    return folio < this.#next.length && this.#next[folio] !== NOWHERE;
  }

  /** Puts a folio at the young end. Asserts that it is on no list. */
  addHead(folio: number): void {
    this.#insert(folio, 0);
  }

  /** Puts a folio right behind another, on its younger side. */
  addYounger(folio: number, than: number): void {
    assert(this.has(than), () => `folio ${than} is not on the LRU`);
    this.#insert(folio, this.#prev[than]!);
  }

  /** Takes a folio off. Asserts that it is on. */
  remove(folio: number): void {
    assert(folio > 0 && this.has(folio), () => `folio ${folio} is not on the LRU`);
    const prev = this.#prev[folio]!;
    const next = this.#next[folio]!;
    this.#next[prev] = next;
    this.#prev[next] = prev;
    this.#next[folio] = NOWHERE;
    this.#prev[folio] = NOWHERE;
    this.#size--;
  }

  /** A second chance: from wherever it is to the head. */
  moveToHead(folio: number): void {
    this.remove(folio);
    this.addHead(folio);
  }

  /** All folios, oldest first; for checks. */
  *oldestFirst(): Generator<number, void, void> {
    for (let folio = this.#prev[0]!; folio !== 0; folio = this.#prev[folio]!) yield folio;
  }

  /** Links a folio in after `before`, towards the tail. */
  #insert(folio: number, before: number): void {
    if (folio >= this.#next.length) this.#grow(folio);
    assert(folio > 0 && this.#next[folio] === NOWHERE, () => `folio ${folio} is on the LRU already`);
    const after = this.#next[before]!;
    this.#next[before] = folio;
    this.#prev[folio] = before;
    this.#next[folio] = after;
    this.#prev[after] = folio;
    this.#size++;
  }

  #grow(folio: number): void {
    const length = Math.max(folio + 1, this.#next.length * 2);
    const grow = (from: Int32Array): Int32Array => {
      const to = new Int32Array(length).fill(NOWHERE);
      to.set(from);
      return to;
    };
    this.#prev = grow(this.#prev);
    this.#next = grow(this.#next);
  }
}
