import { type Agent, ANY_LOCATION, Cost, Location, type Task } from '@faultline/sim';
import { isLeaf, isPresent, LO_RIGHTS, levelFrames, SS_DIRTY } from './entry.ts';
import type { InvalidationGather } from './invalidation-gather.ts';
import { isLeafLo } from './leaf-run.ts';
import { flushEntries } from './publication.ts';
import { checkRange, type TableState } from './table-state.ts';

/**
 * What to do with a large leaf that the range covers only in part.
 * - `linux-7.3`: at its head the whole leaf goes and the larger size is returned; inside it nothing is unmapped and the
 *   call stops (generic_pt).
 * - `whole-leaf`: the whole leaf goes wherever the range touches it (KVM's rule for its notifier).
 */
export type PartialLeafRule = 'linux-7.3' | 'whole-leaf';

/** A range to unmap. */
export interface UnmapRequest {
  readonly page: number;
  readonly pages: number;
  readonly partialLeaf: PartialLeafRule;
  /** At a page that is not mapped: `stop` and return what was done (Linux), or `skip` it (a notifier's range has holes). */
  readonly holes: 'stop' | 'skip';
}

/**
 * Unmaps. A table whose range is covered whole is unlinked, with all that is below it, by one compare-and-swap on the entry that
 * leads to it, and its pages go to the gather; elsewhere leaves are cleared by one compare-and-swap each. Allocates
 * nothing and cannot fail on a sound table.
 *
 * Linux clears the leaves of such a table first and the entry last. The same leaves and tables go; the difference is that
 * hardware with a stale paging-structure entry finds the old leaves until the flush, as it may in its IOTLB anyway.
 * @returns 4K pages unmapped
 * @throws PageTableError EINVAL, ERANGE, EIO (corrupt)
 */
export function* unmap(
  agent: Agent,
  table: TableState,
  request: UnmapRequest,
  gather: InvalidationGather,
): Task<number> {
  checkRange(table, request.page, request.pages);
  const pass: UnmapPass = {
    table,
    request,
    end: request.page + request.pages,
    gather,
    survey: { leaves: new Int32Array(4), tables: [] },
    unmapped: 0,
    stopped: false,
  };
  yield* clearTable(agent, pass, table.rootPfn, table.levels, 0);
  return pass.unmapped;
}

interface UnmapPass {
  readonly table: TableState;
  readonly request: UnmapRequest;
  readonly end: number;
  readonly gather: InvalidationGather;
  readonly survey: Survey;
  unmapped: number;
  stopped: boolean;
}

/** What is in a sub-tree. */
interface Survey {
  /** Leaves by level. */
  readonly leaves: Int32Array;
  /** Its tables, children before parents: frame, level and first page of each. */
  readonly tables: number[];
}

/** Unmaps what the range covers of one table; `base` is the first page that the table maps. */
function* clearTable(agent: Agent, pass: UnmapPass, pfn: number, level: number, base: number): Task<void> {
  const { table, request, end } = pass;
  const size = levelFrames(level);
  const last = Math.min(512, Math.ceil((end - base) / size));
  let index = Math.max(0, Math.floor((request.page - base) / size));
  while (index < last && !pass.stopped) {
    const lo = entryLo(table, pfn, index);
    const slot: Slot = { pfn, index, last, level, page: base + index * size };
    // What is looked at here is looked at again after the step that announces it.
    if ((lo & LO_RIGHTS) === 0) index += yield* passHoles(agent, pass, slot);
    else if (isLeafLo(lo, level)) index += yield* clearLeaves(agent, pass, slot);
    else index += yield* clearBelow(agent, pass, slot);
  }
}

interface Slot {
  readonly pfn: number;
  readonly index: number;
  /** End of the part of the table that the range covers. */
  readonly last: number;
  readonly level: number;
  /** First page of the entry. */
  readonly page: number;
}

const entryLo = (table: TableState, pfn: number, index: number): number =>
  table.memory.cpuHalves[((pfn - table.memory.basePfn) << 10) | (index << 1)] as number;

/** Entries from the slot on, up to `last`, that are not present. */
function holesFrom(table: TableState, { pfn, index, last }: Slot): number {
  let end = index;
  while (end < last && (entryLo(table, pfn, end) & LO_RIGHTS) === 0) end++;
  return end - index;
}

/** @returns entries passed; 0: look again */
function* passHoles(agent: Agent, pass: UnmapPass, slot: Slot): Task<number> {
  const { table, request } = pass;
  const stops = request.holes === 'stop';
  const seen = stops ? 1 : holesFrom(table, slot);
  const location = seen === 1 ? table.memory.location(slot.pfn, slot.index) : ANY_LOCATION;
  yield agent.reads('read entry', Location.entry, location, Cost.entryRead, seen);
  const count = Math.min(seen, holesFrom(table, slot));
  if (stops && count > 0) pass.stopped = true;
  return count;
}

/** Clears the leaves from the slot on. @returns entries done; 0: look again */
function* clearLeaves(agent: Agent, pass: UnmapPass, slot: Slot): Task<number> {
  const { table, request, gather } = pass;
  const { memory } = table;
  const { pfn, index, last, level, page } = slot;
  if (page < request.page && request.partialLeaf === 'linux-7.3') {
    pass.stopped = true;
    return 0;
  }
  let end = index + 1;
  for (; end < last; end++) {
    const lo = entryLo(table, pfn, end);
    if ((lo & LO_RIGHTS) === 0 || !isLeafLo(lo, level)) break;
  }
  const location = end === index + 1 ? memory.location(pfn, index) : ANY_LOCATION;
  yield agent.writes('clear leaf', Location.entry, location, Cost.entryWrite, end - index);
  const size = levelFrames(level);
  let cleared = 0;
  for (; index + cleared < end; cleared++) {
    const at = page + cleared * size;
    const entry = clearLeaf(table, pfn, index + cleared, level);
    // No leaf any more, because of a cut for somebody else's part of it: look again at what is there now.
    if (entry === 0n) break;
    gather.add(at, size);
    if (table.accessedDirty && (entry & SS_DIRTY) !== 0n) gather.dirtyLeaves.push({ page: at, pages: size });
  }
  table.leaves[level] = (table.leaves[level] as number) - cleared;
  pass.unmapped += cleared * size;
  if (!memory.coherent && cleared > 0) yield* flushEntries(agent, memory, pfn, index, cleared);
  return cleared;
}

/** @returns the leaf that was cleared, with the A and D bits that it had at that moment; 0 if the entry is no leaf any more */
function clearLeaf(table: TableState, pfn: number, index: number, level: number): bigint {
  for (let expected = table.memory.load(pfn, index); ; ) {
    if (!isPresent(expected) || !isLeaf(expected, level)) return 0n;
    const seen = table.memory.compareExchange(pfn, index, expected, 0n);
    if (seen === expected) return seen;
    expected = seen; // hardware set A or D
  }
}

/** Unmaps below a table entry. @returns 1, or 0: look again */
function* clearBelow(agent: Agent, pass: UnmapPass, slot: Slot): Task<number> {
  const { table, request, end } = pass;
  const { memory } = table;
  const { pfn, index, level, page } = slot;
  const covered = page >= request.page && page + levelFrames(level) <= end;
  if (covered) {
    // Whatever is below is taken with it, so this conflicts with whoever touches any of it.
    yield agent.writes('unlink table', Location.entry, ANY_LOCATION, Cost.entryWrite);
    if (!isTable(table, slot)) return 0;
    if (unlink(pass, slot)) {
      const { leaves } = pass.survey;
      const entries = (leaves[1] as number) + (leaves[2] as number) + (leaves[3] as number);
      if (entries > 0) yield agent.spends('clear leaves', Cost.entryWrite, entries);
      if (!memory.coherent) yield* flushEntries(agent, memory, pfn, index, 1);
      return 1;
    }
  } else {
    yield agent.reads('read entry', Location.entry, memory.location(pfn, index), Cost.entryRead);
    if (!isTable(table, slot)) return 0;
  }
  yield* clearTable(agent, pass, table.tableBelow(pfn, index, level, page), level - 1, page);
  return 1;
}

function isTable(table: TableState, { pfn, index, level }: Slot): boolean {
  const lo = entryLo(table, pfn, index);
  return (lo & LO_RIGHTS) !== 0 && !isLeafLo(lo, level);
}

/** Takes a covered table out with all that is below. @returns false, with nothing done, if the call has to stop at a hole in it */
function unlink(pass: UnmapPass, { pfn, index, level, page }: Slot): boolean {
  const { table, gather, survey } = pass;
  const { memory } = table;
  survey.leaves.fill(0);
  survey.tables.length = 0;
  const child = table.tableBelow(pfn, index, level, page);
  if (!look(table, survey, child, level - 1, page, pass.request.holes === 'stop')) return false;
  for (let expected = memory.load(pfn, index); ; ) {
    const seen = memory.compareExchange(pfn, index, expected, 0n);
    if (seen === expected) break;
    expected = seen; // hardware set A
  }
  for (let at = 0; at < survey.tables.length; at += 3) {
    const [tablePfn, tableLevel, first] = survey.tables.slice(at, at + 3) as [number, number, number];
    table.places.remove(tablePfn);
    gather.freedTables.push(tablePfn);
    if (table.accessedDirty) gather.lateTables.push({ pfn: tablePfn, level: tableLevel, page: first, leafLevel: 0 });
  }
  gather.add(page, levelFrames(level));
  for (let leaf = 1; leaf <= 3; leaf++) {
    const count = survey.leaves[leaf] as number;
    table.leaves[leaf] = (table.leaves[leaf] as number) - count;
    pass.unmapped += count * levelFrames(leaf);
  }
  return true;
}

/** Counts a sub-tree. @returns false as soon as an entry is empty, if `stops` */
function look(table: TableState, survey: Survey, pfn: number, level: number, page: number, stops: boolean): boolean {
  const halves = table.memory.cpuHalves;
  const first = (pfn - table.memory.basePfn) << 10;
  let leaves = 0;
  for (let index = 0; index < 512; index++) {
    const lo = halves[first + (index << 1)] as number;
    if ((lo & LO_RIGHTS) === 0) {
      if (stops) return false;
    } else if (isLeafLo(lo, level)) {
      leaves++;
    } else {
      const below = page + index * levelFrames(level);
      if (!look(table, survey, table.tableBelow(pfn, index, level, below), level - 1, below, stops)) return false;
    }
  }
  if (leaves > 0) survey.leaves[level] = (survey.leaves[level] as number) + leaves;
  survey.tables.push(pfn, level, page);
  return true;
}
