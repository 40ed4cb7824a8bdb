import { type Agent, Cost, Location, type Task } from '@faultline/sim';
import { entryFrame, isLeaf, isPresent, levelFrames, SS_PAGE_SIZE, tableIndex } from './entry.ts';
import type { TableState } from './table-state.ts';

/** Any physical memory of the host, by words: what the kernel's direct map reaches. */
export interface PhysicalWords {
  /** Whether there is memory at this frame. */
  contains(pfn: number): boolean;
  /** Word `index` (0..511) of a frame. */
  loadWord(pfn: number, index: number): bigint;
  storeWord(pfn: number, index: number, value: bigint): void;
}

/** A word that the naive unmap took for a page-table entry although it is in no page table. */
export interface MistakenWord {
  /** The level whose table it believed to read. */
  readonly level: number;
  /** Frame that it took for a table. */
  readonly pfn: number;
  readonly index: number;
  readonly word: bigint;
}

/** What a naive sub-range unmap did. Empty lists: the range met no large leaf in part, and all was well. */
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

/**
 * The sub-range unmap of the 2023 thread, with no split: the recursive clear of Linux 6.1-6.5 reached with a range that
 * covers a large leaf only in part. It does not look at PS on the way down, so it takes the leaf's address for the next
 * table's, and reads guest data as entries: those inside the range are cleared, those that look like tables are followed, and
 * what a covered one points to goes on the list of table pages to free. The hardware keeps the large leaf.
 *
 * A defect on purpose, for the strategy `naive`.
 */
export function* naiveUnmap(
  agent: Agent,
  table: TableState,
  page: number,
  pages: number,
  physical: PhysicalWords,
): Task<NaiveUnmapReport> {
  const report: NaiveUnmapReport = { mistaken: [], corrupted: [], freed: [], badAddress: null };
  const pass: NaivePass = { agent, table, first: page, last: page + pages - 1, physical, report };
  yield* clear(pass, table.rootPfn, table.levels, 0);
  return report;
}

interface NaivePass {
  readonly agent: Agent;
  readonly table: TableState;
  readonly first: number;
  readonly last: number;
  readonly physical: PhysicalWords;
  readonly report: NaiveUnmapReport;
}

function* clear(pass: NaivePass, pfn: number, level: number, base: number): Task<void> {
  const size = levelFrames(level);
  const from = Math.max(pass.first, base);
  for (let index = tableIndex(from, level); index < 512; index++) {
    const page = base + index * size;
    if (page > pass.last) return;
    const word = yield* load(pass, pfn, level, index);
    if (word === null) return;
    if (!isPresent(word)) continue;
    if (pass.first <= page && pass.last >= page + size - 1) {
      if (level > 1 && (word & SS_PAGE_SIZE) === 0n) yield* listTables(pass, entryFrame(word), level - 1);
      yield* zero(pass, { pfn, level, index, page, word });
    } else if (level > 1) {
      yield* clear(pass, entryFrame(word), level - 1, page);
    }
    if (pass.report.badAddress) return;
  }
}

/** Puts a table and the tables below it on the list to free. */
function* listTables(pass: NaivePass, pfn: number, level: number): Task<void> {
  pass.report.freed.push(pfn);
  for (let index = 0; level > 1 && index < 512; index++) {
    const word = yield* load(pass, pfn, level, index);
    if (word === null) return;
    if (isPresent(word) && (word & SS_PAGE_SIZE) === 0n) yield* listTables(pass, entryFrame(word), level - 1);
    if (pass.report.badAddress) return;
  }
}

function* load(pass: NaivePass, pfn: number, level: number, index: number): Task<bigint | null> {
  const { agent, table, physical, report } = pass;
  yield agent.reads(
    'read what it takes for an entry',
    Location.entry,
    table.memory.location(pfn, index),
    Cost.entryRead,
  );
  if (table.memory.isAllocated(pfn)) return table.memory.load(pfn, index);
  if (!physical.contains(pfn)) {
    report.badAddress = { level, pfn, index, word: 0n };
    return null;
  }
  const word = physical.loadWord(pfn, index);
  report.mistaken.push({ level, pfn, index, word });
  return word;
}

function* zero(pass: NaivePass, found: MistakenWord & { readonly page: number }): Task<void> {
  const { agent, table, physical, report } = pass;
  const { pfn, level, index, page, word } = found;
  yield agent.writes(
    'clear what it takes for an entry',
    Location.entry,
    table.memory.location(pfn, index),
    Cost.entryWrite,
  );
  if (table.memory.isAllocated(pfn)) {
    table.memory.store(pfn, index, 0n);
    discount(table, word, level, page);
    return;
  }
  physical.storeWord(pfn, index, 0n);
  report.corrupted.push({ level, pfn, index, word });
}

/** Takes what a cleared entry of a real table mapped, or the tables it led to, off the table's counts. */
function discount(table: TableState, entry: bigint, level: number, page: number): void {
  if (isLeaf(entry, level)) {
    table.leaves[level] = Math.max(0, (table.leaves[level] as number) - 1);
    return;
  }
  const child = entryFrame(entry);
  if (level < 2 || !table.places.holds(child, level - 1, page)) return;
  table.places.remove(child);
  for (let index = 0; index < 512; index++) {
    const below = table.memory.load(child, index);
    if (isPresent(below)) discount(table, below, level - 1, page + index * levelFrames(level - 1));
  }
}
