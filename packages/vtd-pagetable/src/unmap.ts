import { type Agent, ANY_LOCATION, Cost, Location, type Task } from '@faultline/sim';
import { isLeaf, isPresent, LO_RIGHTS, levelFrames, SS_DIRTY } from './entry.ts';
import { InvalidationGather } from './invalidation-gather.ts';
import { isLeafLo } from './leaf-run.ts';
import { flushEntries } from './publication.ts';
import { checkChoice, checkRange, type TableState } from './table-state.ts';

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
  checkChoice('partialLeaf', request.partialLeaf, 'linux-7.3', 'whole-leaf');
  checkChoice('holes', request.holes, 'stop', 'skip');
  const pass = (table.idle.unmap ?? new UnmapPass(table)).begin(request, gather);
  table.idle.unmap = null;
  try {
    const { memory } = table;
    // What is looked at to choose a step is looked at again after it.
    while (pass.hasEntry()) {
      const { pfn, index } = pass;
      const location = memory.location(pfn, index);
      const kind = pass.kind();
      if (kind === Kind.hole) {
        const seen = pass.holes();
        yield agent.reads('read entry', Location.entry, seen === 1 ? location : ANY_LOCATION, Cost.entryRead, seen);
        pass.passHoles(seen);
      } else if (kind === Kind.leaf) {
        if (pass.stopsAtLeaf()) break;
        const seen = pass.leaves();
        yield agent.writes('clear leaf', Location.entry, seen === 1 ? location : ANY_LOCATION, Cost.entryWrite, seen);
        const cleared = pass.clearLeaves(seen);
        if (!memory.coherent && cleared > 0) yield* flushEntries(agent, memory, pfn, index, cleared);
      } else if (pass.covers()) {
        // Whatever is below is taken with it, so this conflicts with whoever touches any of it.
        yield agent.writes('unlink table', Location.entry, ANY_LOCATION, Cost.entryWrite);
        if (pass.kind() !== Kind.table) continue;
        const cleared = pass.unlink();
        if (cleared > 0) yield agent.spends('clear leaves', Cost.entryWrite, cleared);
        if (!memory.coherent && cleared >= 0) yield* flushEntries(agent, memory, pfn, index, 1);
      } else {
        yield agent.reads('read entry', Location.entry, location, Cost.entryRead);
        if (pass.kind() === Kind.table) pass.descend();
      }
    }
    return pass.unmapped;
  } finally {
    table.idle.unmap = pass;
  }
}

const Kind = { hole: 0, leaf: 1, table: 2 } as const;

/** An unmap under way: where it stands, and what it has done. */
export class UnmapPass {
  readonly #table: TableState;
  #request: UnmapRequest = { page: 0, pages: 0, partialLeaf: 'linux-7.3', holes: 'stop' };
  #gather = new InvalidationGather();
  readonly #halves: Int32Array;
  #end = 0;
  unmapped = 0;
  /** The entry that it stands at: table, index, level; `last` ends the part of the table that the range covers. */
  pfn = 0;
  index = 0;
  #level = 0;
  #last = 0;
  /** First page that the table maps. */
  #base = 0;
  #stopped = false;
  /** Where to go on in the tables above, innermost last: table, index, base. */
  readonly #above: number[] = [];

  constructor(table: TableState) {
    this.#table = table;
    this.#halves = table.memory.cpuHalves;
  }

  begin(request: UnmapRequest, gather: InvalidationGather): this {
    this.#request = request;
    this.#gather = gather;
    this.#end = request.page + request.pages;
    this.unmapped = 0;
    this.#stopped = false;
    this.#above.length = 0;
    this.#enter(this.#table.rootPfn, this.#table.levels, 0);
    return this;
  }

  /** First page of the entry. */
  get #page(): number {
    return this.#base + this.index * levelFrames(this.#level);
  }

  #enter(pfn: number, level: number, base: number): void {
    const size = levelFrames(level);
    this.pfn = pfn;
    this.#level = level;
    this.#base = base;
    this.index = Math.max(0, Math.floor((this.#request.page - base) / size));
    this.#last = Math.min(512, Math.ceil((this.#end - base) / size));
  }

  /** Goes on to the next entry of the range, up again where a table is done. @returns false at the end */
  hasEntry(): boolean {
    while (!this.#stopped && this.index >= this.#last) {
      const base = this.#above.pop();
      if (base === undefined) return false;
      const index = this.#above.pop() as number;
      this.#enter(this.#above.pop() as number, this.#level + 1, base);
      this.index = index + 1;
    }
    return !this.#stopped;
  }

  descend(): void {
    const page = this.#page;
    const child = this.#table.tableBelow(this.pfn, this.index, this.#level, page);
    this.#above.push(this.pfn, this.index, this.#base);
    this.#enter(child, this.#level - 1, page);
  }

  kind(index = this.index): number {
    const lo = this.#halves[((this.pfn - this.#table.memory.basePfn) << 10) | (index << 1)] as number;
    if ((lo & LO_RIGHTS) === 0) return Kind.hole;
    return isLeafLo(lo, this.#level) ? Kind.leaf : Kind.table;
  }

  /** Entries of this kind from here on, as far as the range covers the table. */
  #run(kind: number): number {
    let end = this.index;
    while (end < this.#last && this.kind(end) === kind) end++;
    return end - this.index;
  }

  holes(): number {
    return this.#request.holes === 'stop' ? 1 : this.#run(Kind.hole);
  }

  passHoles(seen: number): void {
    const count = Math.min(seen, this.#run(Kind.hole));
    if (count > 0 && this.#request.holes === 'stop') this.#stopped = true;
    this.index += count;
  }

  /** Whether the call ends here, inside a large leaf. */
  stopsAtLeaf(): boolean {
    return this.#page < this.#request.page && this.#request.partialLeaf === 'linux-7.3';
  }

  leaves(): number {
    return this.#run(Kind.leaf);
  }

  /** @returns leaves cleared: fewer if one of them is none any more, because of a cut for somebody else's part of it */
  clearLeaves(count: number): number {
    const table = this.#table;
    const level = this.#level;
    const size = levelFrames(level);
    let cleared = 0;
    for (; cleared < count; cleared++) {
      const page = this.#page;
      const entry = clearLeaf(table, this.pfn, this.index, level);
      if (entry === 0n) break;
      this.#gather.add(page, size);
      if (table.accessedDirty && (entry & SS_DIRTY) !== 0n) this.#gather.dirtyLeaves.push({ page, pages: size });
      this.index++;
    }
    table.leaves[level] = (table.leaves[level] as number) - cleared;
    this.unmapped += cleared * size;
    return cleared;
  }

  /** Whether the range covers all that the entry maps. */
  covers(): boolean {
    return this.#page >= this.#request.page && this.#page + levelFrames(this.#level) <= this.#end;
  }

  /**
   * Takes a covered table out with all that is below.
   * @returns leaves unmapped; -1 if the call has to stop at a hole in it: nothing is done, and the pass goes down to it
   */
  unlink(): number {
    const table = this.#table;
    const level = this.#level;
    const page = this.#page;
    const survey = { leaves: [0, 0, 0, 0], tables: [] };
    const child = table.tableBelow(this.pfn, this.index, level, page);
    if (!look(table, survey, child, level - 1, page, this.#request.holes === 'stop')) {
      this.descend();
      return -1;
    }
    clearTable(table, this.pfn, this.index);
    let cleared = 0;
    for (let leaf = 1; leaf <= 3; leaf++) {
      const count = survey.leaves[leaf] as number;
      cleared += count;
      table.leaves[leaf] = (table.leaves[leaf] as number) - count;
      this.unmapped += count * levelFrames(leaf);
    }
    this.#gatherTables(survey.tables);
    this.#gather.add(page, levelFrames(level));
    this.index++;
    return cleared;
  }

  #gatherTables(tables: readonly number[]): void {
    const { places, accessedDirty } = this.#table;
    for (let at = 0; at < tables.length; at += 3) {
      const pfn = tables[at] as number;
      places.remove(pfn);
      this.#gather.freedTables.push(pfn);
      if (!accessedDirty) continue;
      const [level, page] = [tables[at + 1] as number, tables[at + 2] as number];
      this.#gather.lateTables.push({ pfn, level, page, leafLevel: 0 });
    }
  }
}

/** What is in a sub-tree: leaves by level, and its tables: frame, level and first page of each. */
interface Survey {
  readonly leaves: number[];
  readonly tables: number[];
}

/** Counts a sub-tree. @returns false as soon as an entry is not present, if `stops` */
function look(table: TableState, survey: Survey, pfn: number, level: number, page: number, stops: boolean): boolean {
  const halves = table.memory.cpuHalves;
  const first = (pfn - table.memory.basePfn) << 10;
  const end = (first + 1024) | 0;
  // With R or W, and PS where that makes a leaf, an entry's bits are above those of everything that is none.
  const mask = level === 1 ? 0x3 : 0x83;
  const noLeaf = level === 1 ? 0 : level <= 3 ? 0x80 : mask;
  let leaves = 0;
  for (let half = first; ; half = (half + 2) | 0) {
    const next = pastLeaves(halves, half, end, mask, noLeaf);
    leaves += (next - half) >> 1;
    if (next === end) break;
    half = next;
    if (((halves[half] as number) & LO_RIGHTS) === 0) {
      if (stops) return false;
    } else {
      const index = (half - first) >> 1;
      const below = page + index * levelFrames(level);
      if (!look(table, survey, table.tableBelow(pfn, index, level, below), level - 1, below, stops)) return false;
    }
  }
  survey.leaves[level] = (survey.leaves[level] ?? 0) + leaves;
  survey.tables.push(pfn, level, page);
  return true;
}

/**
 * From entry half `half` on past all leaves that follow each other. A function of its own, with no call in its loop: as part of `look`
 * the same loop took 255 or 570 us for 1 GiB of 4K leaves, depending on what V8 had seen, and takes 155 to 265 us here.
 */
function pastLeaves(halves: Int32Array, half: number, end: number, mask: number, noLeaf: number): number {
  let at = half | 0;
  while (at < end && ((halves[at] as number) & mask) > noLeaf) at = (at + 2) | 0;
  return at;
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

/** Clears an entry that leads to a table: only hardware, setting A, changes it at the same time. */
function clearTable({ memory }: TableState, pfn: number, index: number): void {
  for (let expected = memory.load(pfn, index); ; ) {
    const seen = memory.compareExchange(pfn, index, expected, 0n);
    if (seen === expected) return;
    expected = seen;
  }
}
