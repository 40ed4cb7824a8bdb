import { type Agent, Cost, Location, type Task } from '@faultline/sim';
import {
  encodeTable,
  entryFrame,
  HI_ADDRESS,
  isLeaf,
  isPresent,
  LO_PAGE_SIZE,
  levelFrames,
  SS_DIRTY,
  type TableLevel,
  tableIndex,
} from './entry.ts';
import type { InvalidationGather } from './invalidation-gather.ts';
import { fillLeaves, frameHi, frameLo, pageBase } from './leaf-run.ts';
import { corruptEntry } from './page-table-error.ts';
import { encodePrivateTable, flushPrivateTable, flushTableEntry } from './publication.ts';
import { checkRange, type TableState } from './table-state.ts';

/** How a cut ended. */
export interface CutResult {
  /** False: a table page could not be had, and the leaf in question is as it was. */
  readonly ok: boolean;
  /** Leaves that were replaced by tables. */
  readonly installs: number;
  /** Compare-and-swaps that met a change in between and were done again. */
  readonly retries: number;
}

/** How to cut. */
export interface CutOptions {
  /** From 1G to 4K with `one` install of a two-level sub-tree, or with `two`: 1G to 2M, then 2M to 4K. Default `one`. */
  readonly installs?: 'one' | 'two';
  /**
   * What becomes of D of the old leaf. A is inherited either way.
   * - `inherit` (default): every new leaf has it, so a leaf of which one page was written becomes 512 dirty ones.
   * - `clear-after-harvest`: the new leaves start clean, and the old one is reported whole by `TableState.settle`. That is after
   *   the flush, and it has to be: until then a cached translation with D set lets writes into the whole old leaf through
   *   without setting D anywhere.
   */
  readonly accessedDirty?: 'inherit' | 'clear-after-harvest';
}

/**
 * Makes both ends of a range leaf boundaries: a large leaf that crosses an end is replaced by a table that maps the same
 * frames with the same rights and attributes, in the largest leaves that leave the range's ends on boundaries. From 1G to
 * 4K this is a private two-level sub-tree and **one** 64-bit compare-and-swap: a walker sees the old leaf or the whole new
 * table, and both translate alike, so no address faults (I4). If hardware (A, D) or somebody else changed the entry in
 * between, the sub-tree is rebuilt from what is there now.
 *
 * The gather receives the whole old leaf: only an invalidation of its full size is sure to reach a cached large
 * translation (Rev 5.10, 6.5.2.3 and 6.5.3.3). Nothing is unmapped here.
 *
 * If a table page cannot be had, the install that needed it has not happened and its pages are given back; installs before it
 * stay. So with `installs: 'one'` each end is cut or untouched, and the second is not tried after the first failed.
 * @throws PageTableError EINVAL, ERANGE, EIO (corrupt)
 */
export function* cut(
  agent: Agent,
  table: TableState,
  page: number,
  pages: number,
  gather: InvalidationGather,
  options: CutOptions = {},
): Task<CutResult> {
  checkRange(table, page, pages);
  const { installs = 'one', accessedDirty = 'inherit' } = options;
  const pass: CutPass = {
    table,
    page,
    end: page + pages,
    gather,
    whole: installs === 'one',
    harvests: accessedDirty === 'clear-after-harvest',
    built: [],
    ok: true,
    installs: 0,
    retries: 0,
  };
  yield* cutAt(agent, pass, page);
  // The first install settled the far end too if both lie in one leaf; this then finds nothing to do.
  if (pass.ok) yield* cutAt(agent, pass, page + pages);
  return { ok: pass.ok, installs: pass.installs, retries: pass.retries };
}

interface CutPass {
  readonly table: TableState;
  readonly page: number;
  readonly end: number;
  readonly gather: InvalidationGather;
  /** Build down to where the ends are boundaries, not just one level. */
  readonly whole: boolean;
  readonly harvests: boolean;
  /** The sub-tree being built: frame, level and first page of each of its tables. */
  readonly built: number[];
  ok: boolean;
  installs: number;
  retries: number;
}

/** Replaces the leaf that has `boundary` strictly inside, if there is one. */
function* cutAt(agent: Agent, pass: CutPass, boundary: number): Task<void> {
  const { table } = pass;
  const memory = table.memory;
  let pfn = table.rootPfn;
  for (let level = table.levels as number; level > 1; level--) {
    if (boundary % levelFrames(level) === 0) return; // a boundary of this level already
    const index = tableIndex(boundary, level);
    for (;;) {
      yield agent.reads('read entry', Location.entry, memory.location(pfn, index), Cost.entryRead);
      const entry = memory.load(pfn, index);
      if (!isPresent(entry)) return;
      if (!isLeaf(entry, level)) break;
      checkLeaf({ level, tablePfn: pfn, index, entry });
      if (yield* replaceLeaf(agent, pass, { pfn, index, level: level as TableLevel, entry }, boundary)) break;
      if (!pass.ok) return;
    }
    pfn = table.tableBelow(pfn, index, level, boundary);
  }
}

function checkLeaf(leaf: { level: number; tablePfn: number; index: number; entry: bigint }): void {
  if (entryFrame(leaf.entry) % levelFrames(leaf.level) !== 0)
    throw corruptEntry(leaf, 'address bits below the size of the leaf are set');
}

interface FoundLeaf {
  readonly pfn: number;
  readonly index: number;
  readonly level: TableLevel;
  readonly entry: bigint;
}

/** @returns whether a table is there now; if not and `pass.ok`, the entry has changed */
function* replaceLeaf(agent: Agent, pass: CutPass, leaf: FoundLeaf, boundary: number): Task<boolean> {
  const { table, built, gather } = pass;
  const { memory } = table;
  const { pfn, index, level, entry } = leaf;
  const start = pageBase(boundary, level);
  built.length = 0;
  const lo = Number(BigInt.asIntN(32, pass.harvests ? entry & ~SS_DIRTY : entry));
  const child = yield* buildTable(agent, pass, {
    level: (level - 1) as TableLevel,
    start,
    frame: entryFrame(entry),
    lo,
    hi: Number(BigInt.asIntN(32, entry >> 32n)),
  });
  if (child < 0) {
    giveBack(pass);
    pass.ok = false;
    return false;
  }
  yield agent.writes('install sub-tree', Location.entry, memory.location(pfn, index), Cost.entryWrite);
  if (memory.compareExchange(pfn, index, entry, encodeTable(child)) !== entry) {
    giveBack(pass);
    pass.retries++;
    return false;
  }
  account(pass);
  gather.add(start, levelFrames(level));
  if (pass.harvests && (entry & SS_DIRTY) !== 0n) gather.dirtyLeaves.push({ page: start, pages: levelFrames(level) });
  pass.installs++;
  if (!memory.coherent) yield* flushTableEntry(agent, memory, pfn, index);
  return true;
}

function giveBack({ table, built }: CutPass): void {
  for (let at = 0; at < built.length; at += 3) table.reserve.giveBack(built[at] as number);
}

interface Subtree {
  /** Level of the table to build. */
  readonly level: TableLevel;
  readonly start: number;
  readonly frame: number;
  /** Halves of the leaf that it stands for. */
  readonly lo: number;
  readonly hi: number;
}

/** Builds, out of everybody's sight, the table that replaces a leaf. @returns its frame, or -1 */
function* buildTable(agent: Agent, pass: CutPass, tree: Subtree): Task<number> {
  const { memory, reserve } = pass.table;
  const { level, start, frame } = tree;
  const child = yield* reserve.allocateOrTake(agent);
  if (child < 0) return -1;
  pass.built.push(child, level, start);
  yield agent.spends('build table', Cost.tableBuild);
  const lo = (tree.lo & 0xfff & ~(level === 1 ? LO_PAGE_SIZE : 0)) | frameLo(frame);
  const hi = (tree.hi & ~HI_ADDRESS) | frameHi(frame);
  fillLeaves(memory.cpuHalves, (child - memory.basePfn) << 10, 512, level, lo, hi);
  if (level > 1 && pass.whole) {
    const size = levelFrames(level);
    const first = Math.floor((pass.page - start) / size);
    const last = Math.floor((pass.end - start) / size);
    for (const index of first === last ? [first] : [first, last]) {
      const from = start + index * size;
      if (index < 0 || index > 511 || !crosses(pass, from, size)) continue;
      const below = { ...tree, level: (level - 1) as TableLevel, start: from, frame: frame + index * size };
      const grandchild = yield* buildTable(agent, pass, below);
      if (grandchild < 0) return -1;
      memory.store(child, index, encodePrivateTable(memory, grandchild));
    }
  }
  if (!memory.coherent) yield* flushPrivateTable(agent, memory, child);
  return child;
}

/** Whether an end of the range lies strictly inside the leaf. */
const crosses = ({ page, end }: CutPass, from: number, size: number): boolean =>
  (page > from && page < from + size) || (end > from && end < from + size);

/** Counts an install: the old leaf, and below it each further table of the sub-tree, gave way to 512 entries. */
function account({ table, built }: CutPass): void {
  const { leaves, splits } = table;
  for (let at = 0; at < built.length; at += 3) {
    const [pfn, below, page] = built.slice(at, at + 3) as [number, number, number];
    table.places.put(pfn, below, page);
    leaves[below + 1] = (leaves[below + 1] as number) - 1;
    splits[below + 1] = (splits[below + 1] as number) + 1;
    leaves[below] = (leaves[below] as number) + 512;
  }
}
