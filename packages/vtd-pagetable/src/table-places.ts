import { assert } from '@faultline/sim';
import type { TableMemory } from './table-memory.ts';

/**
 * Which pages of the memory are tables of one page table, and at which place: what software knows of its own tables beside
 * the entries. An entry that leads anywhere else is corrupt, so that a cycle, a table that is reached twice, a frame that
 * is no table or another domain's table is found by one look, and no operation follows it.
 */
export class TablePlaces {
  readonly #basePfn: number;
  /** First 4K page of what the table maps, times 8, plus its level; 0: no table of this page table. */
  readonly #places: Float64Array;
  #count = 0;

  constructor(memory: TableMemory) {
    this.#basePfn = memory.basePfn;
    this.#places = new Float64Array(memory.pages);
  }

  /** Tables known, the root included. */
  get count(): number {
    return this.#count;
  }

  /** A page becomes the table at `level` that maps from 4K page `page` on. */
  put(pfn: number, level: number, page: number): void {
    assert(
      !this.#places[pfn - this.#basePfn],
      () => `frame 0x${pfn.toString(16)} is a table of this page table already`,
    );
    this.#places[pfn - this.#basePfn] = page * 8 + level;
    this.#count++;
  }

  /** A page is no table of this page table any more. */
  remove(pfn: number): void {
    assert(this.#places[pfn - this.#basePfn] !== 0, () => `frame 0x${pfn.toString(16)} is no table of this page table`);
    this.#places[pfn - this.#basePfn] = 0;
    this.#count--;
  }

  /** Whether the frame is the table at `level` that maps from `page` on. */
  holds(pfn: number, level: number, page: number): boolean {
    return this.#places[pfn - this.#basePfn] === page * 8 + level;
  }

  /** Forgets all tables. @returns their frames */
  clear(): number[] {
    const frames: number[] = [];
    for (let index = 0; index < this.#places.length && this.#count > 0; index++) {
      if (this.#places[index] === 0) continue;
      this.#places[index] = 0;
      this.#count--;
      frames.push(this.#basePfn + index);
    }
    return frames;
  }
}
