import type { Agent, Task } from '@faultline/sim';
import { entryFrame, isLeaf, isPresent, levelFrames, SS_PAGE_SIZE, tableIndex } from './entry.ts';
import { MistakenWords, type NaiveUnmapReport, type PhysicalWords } from './mistaken-words.ts';
import type { TableState } from './table-state.ts';

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
  const words = new MistakenWords(table, physical);
  yield* clear({ agent, table, first: page, last: page + pages - 1, words }, table.rootPfn, table.levels, 0);
  return words.report;
}

interface NaivePass {
  readonly agent: Agent;
  readonly table: TableState;
  readonly first: number;
  readonly last: number;
  readonly words: MistakenWords;
}

function* clear(pass: NaivePass, pfn: number, level: number, base: number): Task<void> {
  const { agent, table, words } = pass;
  const size = levelFrames(level);
  const from = Math.max(pass.first, base);
  for (let index = tableIndex(from, level); index < 512; index++) {
    const page = base + index * size;
    if (page > pass.last) return;
    const word = yield* words.load(agent, pfn, level, index);
    if (word === null) return;
    if (!isPresent(word)) continue;
    if (pass.first <= page && pass.last >= page + size - 1) {
      if (level > 1 && (word & SS_PAGE_SIZE) === 0n) yield* listTables(pass, entryFrame(word), level - 1);
      yield* words.zero(agent, { pfn, level, index, word });
      if (words.isTable(pfn)) discount(table, word, level, page);
    } else if (level > 1) {
      yield* clear(pass, entryFrame(word), level - 1, page);
    }
    if (words.report.badAddress) return;
  }
}

/** Puts a table and the tables below it on the list to free. */
function* listTables(pass: NaivePass, pfn: number, level: number): Task<void> {
  const { agent, words } = pass;
  words.report.freed.push(pfn);
  for (let index = 0; level > 1 && index < 512; index++) {
    const word = yield* words.load(agent, pfn, level, index);
    if (word === null) return;
    if (isPresent(word) && (word & SS_PAGE_SIZE) === 0n) yield* listTables(pass, entryFrame(word), level - 1);
    if (words.report.badAddress) return;
  }
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
