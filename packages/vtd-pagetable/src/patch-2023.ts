import { type Agent, Cost, Location, type Task } from '@faultline/sim';
import {
  entryFrame,
  isLeaf,
  isPresent,
  LO_PAGE_SIZE,
  levelFrames,
  SS_DIRTY,
  type TableLevel,
  tableIndex,
} from './entry.ts';
import type { InvalidationGather } from './invalidation-gather.ts';
import { fillLeaves, frameHi } from './leaf-run.ts';
import { MistakenWords, type NaiveUnmapReport, type PhysicalWords } from './mistaken-words.ts';
import { flushEntries, flushPrivateTable, flushTableEntry, tableEntry } from './publication.ts';
import { checkRange, type TableState } from './table-state.ts';

/**
 * Which defects of the posted patch are on. D2 is missing: it concerns directory entries of the first stage, and this is the second;
 * see `splitFirstStage`.
 */
export interface Patch2023Defects {
  /** The new table is not written back from the CPU's cache before it is published; matters where walks do not snoop. */
  readonly D1: boolean;
  /** The result of the recursive call is dropped: where the second of two splits fails, the unmap reports success. */
  readonly D3: boolean;
  /** A leaf is split only if the range is smaller than it; one that a longer range covers in part is taken for a table. */
  readonly D4: boolean;
  /** An entry that changed under the compare-and-swap (hardware set A or D) ends the unmap; off: again, with what is there now. */
  readonly D5: boolean;
  /** Table pages come from the host at that moment or not at all; off: from the reserve when the host has none. */
  readonly D6: boolean;
  /** D is inherited by all children; off: they start clean, and the old leaf is reported whole by `TableState.settle`. */
  readonly D7: boolean;
  /** Bits 63:52 are not copied. */
  readonly D8: boolean;
  /** Only the range is gathered; off: the whole leaf that was split. */
  readonly D9: boolean;
}

/** What to unmap, and how well. */
export interface Patch2023Request {
  readonly page: number;
  readonly pages: number;
  readonly defects: Patch2023Defects;
}

/** How it ended. */
export interface Patch2023Result {
  /** The error that `intel_iommu_unmap` turns into "0 bytes unmapped"; null for success, or what it takes for it (D3). */
  readonly failed: 'ENOMEM' | 'EBUSY' | null;
  /** Not null where it read guest data as a table (D4). */
  readonly unsplit: NaiveUnmapReport | null;
}

type Failure = Patch2023Result['failed'];

/**
 * Unmap as of "iommu/vt-d: Atomic breakdown of IOPT into finer granularity" (v1, August 2023): on the way down a large leaf that
 * the range covers in part is replaced by a table of 512 leaves one level lower, by one compare-and-swap, and the
 * descent goes on below it; from 1G to 4K that is done twice. Entries that the range covers are cleared by plain stores.
 */
export function* unmapByPatch2023(
  agent: Agent,
  table: TableState,
  request: Patch2023Request,
  gather: InvalidationGather,
  physical: PhysicalWords,
): Task<Patch2023Result> {
  const { page, pages } = request;
  checkRange(table, page, pages);
  const words = new MistakenWords(table, physical);
  const pass: PatchPass = { agent, table, request, last: page + pages - 1, gather, words };
  const failed = yield* clearLevel(pass, table.rootPfn, table.levels, 0);
  // After a failure nothing was unmapped as far as the caller is told; unlinked tables have to be flushed all the same.
  if (failed === null || gather.freedTables.length > 0) gather.add(page, pages);
  const { mistaken, badAddress } = words.report;
  return { failed, unsplit: mistaken.length > 0 || badAddress !== null ? words.report : null };
}

interface PatchPass {
  readonly agent: Agent;
  readonly table: TableState;
  readonly request: Patch2023Request;
  readonly last: number;
  readonly gather: InvalidationGather;
  readonly words: MistakenWords;
}

function* clearLevel(pass: PatchPass, pfn: number, level: number, base: number): Task<Failure> {
  const { agent, table, request, last, words } = pass;
  const size = levelFrames(level);
  const first = tableIndex(Math.max(request.page, base), level);
  let index = first;
  for (; index < 512; index++) {
    const page = base + index * size;
    if (page > last) break;
    const word = yield* words.load(agent, pfn, level, index);
    if (word === null) return null;
    if (!isPresent(word)) continue;
    if (request.page <= page && page + size - 1 <= last) {
      yield* clearEntry(pass, { pfn, level, index, word }, page);
    } else {
      // A 4K page is covered or not, so that this is a table of a higher level.
      const failed = yield* descend(pass, { pfn, level, index, word }, page);
      if (failed !== null) return failed;
    }
    if (words.report.badAddress) return null;
  }
  if (!table.memory.coherent && words.isTable(pfn)) yield* flushEntries(agent, table.memory, pfn, first, index - first);
  return null;
}

/** An entry of what it takes for a table. */
interface FoundEntry {
  readonly pfn: number;
  readonly level: number;
  readonly index: number;
  readonly word: bigint;
}

/** Splits a large leaf that the range covers in part, and goes on below. */
function* descend(pass: PatchPass, found: FoundEntry, page: number): Task<Failure> {
  const { request, words } = pass;
  const { pfn, level, index, word } = found;
  const splits = request.pages < levelFrames(level) || !request.defects.D4;
  let child = entryFrame(word);
  if (isLeaf(word, level) && splits && words.isTable(pfn)) {
    const failed = yield* split(pass, found, page);
    if (failed !== null) return failed;
    child = entryFrame(pass.table.memory.load(pfn, index));
  }
  const failed = yield* clearLevel(pass, child, level - 1, page);
  return request.defects.D3 ? null : failed;
}

/** Clears an entry that the range covers; tables below it go to the gather, and what it takes for some to the report. */
function* clearEntry(pass: PatchPass, found: FoundEntry, page: number): Task<void> {
  const { agent, table, gather, words } = pass;
  const { pfn, level, index, word } = found;
  const listed: number[] = [];
  if (!isLeaf(word, level)) yield* listTables(pass, entryFrame(word), level - 1, page, listed);
  if (words.report.badAddress) return;
  // What hardware has set in between goes with the plain store, here as in the patch.
  const seen = words.isTable(pfn) ? table.memory.load(pfn, index) : word;
  yield* words.zero(agent, { pfn, level, index, word: seen });
  // Not before: until the entry is clear, whoever reads the tables under no lock still gets there.
  for (const below of listed) table.places.remove(below);
  if (!words.isTable(pfn) || !isLeaf(word, level)) return;
  table.leaves[level] = (table.leaves[level] as number) - 1;
  if (table.accessedDirty && (seen & SS_DIRTY) !== 0n) gather.dirtyLeaves.push({ page, pages: levelFrames(level) });
}

/** Puts a table and the tables below it on the list to free, and in `listed` those that are tables of this place. */
function* listTables(pass: PatchPass, pfn: number, level: number, page: number, listed: number[]): Task<void> {
  const { agent, table, gather, words } = pass;
  const real = table.places.holds(pfn, level, page);
  if (!real) words.report.freed.push(pfn);
  for (let index = 0; index < 512; index++) {
    const word = yield* words.load(agent, pfn, level, index);
    if (word === null) return;
    if (!isPresent(word)) continue;
    if (!isLeaf(word, level))
      yield* listTables(pass, entryFrame(word), level - 1, page + index * levelFrames(level), listed);
    else if (real) table.leaves[level] = (table.leaves[level] as number) - 1;
    if (words.report.badAddress) return;
  }
  if (!real) return;
  listed.push(pfn);
  gather.freedTables.push(pfn);
  gather.lateTables.push({ pfn, level, page, leafLevel: 0 });
}

/** Replaces a leaf by a table of 512 leaves one level lower. */
function* split(pass: PatchPass, { pfn, level, index }: FoundEntry, page: number): Task<Failure> {
  const { agent, table, gather, request } = pass;
  const { memory, reserve } = table;
  const { defects } = request;
  for (;;) {
    yield agent.reads('read leaf to split', Location.entry, memory.location(pfn, index), Cost.entryRead);
    const entry = memory.load(pfn, index);
    if (!isPresent(entry) || !isLeaf(entry, level)) return null; // somebody else has split it
    if (reserve.asksScheduler) yield reserve.chooseFailure(agent);
    const refused = reserve.asksScheduler && agent.step.chosen === 1;
    const child = defects.D6 ? reserve.allocate(refused, false) : reserve.allocateOrTake(refused, false);
    if (child < 0) return 'ENOMEM';
    yield agent.spends('build table', Cost.tableBuild);
    fillChildren(table, child, level, entry, defects);
    if (!memory.coherent && !defects.D1) yield* flushPrivateTable(agent, memory, child);
    yield agent.writes('install table', Location.entry, memory.location(pfn, index), Cost.entryWrite);
    if (memory.compareExchange(pfn, index, entry, tableEntry(child)) !== entry) {
      reserve.giveBack(child);
      if (defects.D5) return 'EBUSY';
      continue;
    }
    table.places.put(child, level - 1, page);
    table.leaves[level] = (table.leaves[level] as number) - 1;
    table.splits[level] = (table.splits[level] as number) + 1;
    table.leaves[level - 1] = (table.leaves[level - 1] as number) + 512;
    if (!defects.D9) gather.add(page, levelFrames(level));
    if (!defects.D7 && (entry & SS_DIRTY) !== 0n) gather.dirtyLeaves.push({ page, pages: levelFrames(level) });
    if (!memory.coherent) yield* flushTableEntry(agent, memory, pfn, index);
    return null;
  }
}

/** Low half: D. */
const LO_DIRTY = 0x200;

function fillChildren(table: TableState, child: number, level: number, entry: bigint, defects: Patch2023Defects): void {
  let lo = Number(BigInt.asIntN(32, entry));
  if (level === 2) lo &= ~LO_PAGE_SIZE;
  if (!defects.D7) lo &= ~LO_DIRTY;
  const hi = defects.D8 ? frameHi(entryFrame(entry)) : Number(BigInt.asIntN(32, entry >> 32n));
  fillLeaves(table.memory, child, 0, 512, (level - 1) as TableLevel, lo, hi);
}
