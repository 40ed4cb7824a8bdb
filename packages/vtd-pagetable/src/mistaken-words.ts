import { type Agent, Cost, Location, type Task } from '@faultline/sim';
import type { TableState } from './table-state.ts';

/** Any physical memory of the host, by words: what the kernel's direct map reaches. */
export interface PhysicalWords {
  /** Whether there is memory at this frame. */
  contains(pfn: number): boolean;
  /** Word `index` (0..511) of a frame. */
  loadWord(pfn: number, index: number): bigint;
  storeWord(pfn: number, index: number, value: bigint): void;
}

/** A word that an unmap took for a page-table entry although it is in no page table. */
export interface MistakenWord {
  /** The level whose table it believed to read. */
  readonly level: number;
  /** Frame that it took for a table. */
  readonly pfn: number;
  readonly index: number;
  readonly word: bigint;
}

/** What an unmap did that does not look at PS. Empty lists: the range met no large leaf in part, and all was well. */
export interface NaiveUnmapReport {
  /** Words read as entries from frames that are no tables. */
  readonly mistaken: MistakenWord[];
  /** Those of them that it set to zero: memory corrupted. */
  readonly corrupted: MistakenWord[];
  /** Frames it put on the list of table pages to free: real tables, and what it took for one. */
  readonly freed: number[];
  /** The address at which there is no memory, in the kernel a page fault in the direct map; null if it got through. */
  badAddress: MistakenWord | null;
}

/** Memory as an unmap sees it that believes every frame it is led to to be a table. */
export class MistakenWords {
  readonly report: NaiveUnmapReport = { mistaken: [], corrupted: [], freed: [], badAddress: null };
  readonly #table: TableState;
  readonly #physical: PhysicalWords;

  constructor(table: TableState, physical: PhysicalWords) {
    this.#table = table;
    this.#physical = physical;
  }

  /** Whether the frame is a table page, and not somebody's data. */
  isTable(pfn: number): boolean {
    return this.#table.memory.isAllocated(pfn);
  }

  /** @returns null if there is no memory */
  *load(agent: Agent, pfn: number, level: number, index: number): Task<bigint | null> {
    const { memory } = this.#table;
    const location = memory.location(pfn, index);
    yield agent.reads('read what it takes for an entry', Location.entry, location, Cost.entryRead);
    if (this.isTable(pfn)) return memory.load(pfn, index);
    if (!this.#physical.contains(pfn)) {
      this.report.badAddress = { level, pfn, index, word: 0n };
      return null;
    }
    const word = this.#physical.loadWord(pfn, index);
    this.report.mistaken.push({ level, pfn, index, word });
    return word;
  }

  /** Sets a word to zero; what becomes of a real entry's counts is the caller's. */
  *zero(agent: Agent, found: MistakenWord): Task<void> {
    const { memory } = this.#table;
    const { pfn, index } = found;
    const location = memory.location(pfn, index);
    yield agent.writes('clear what it takes for an entry', Location.entry, location, Cost.entryWrite);
    if (this.isTable(pfn)) {
      memory.store(pfn, index, 0n);
      return;
    }
    this.#physical.storeWord(pfn, index, 0n);
    this.report.corrupted.push({ level: found.level, pfn, index, word: found.word });
  }
}
