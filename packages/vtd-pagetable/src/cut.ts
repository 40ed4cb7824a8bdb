import { type Agent, Cost, Location, type Task } from '@faultline/sim';
import {
  encodeLeaf,
  encodeTable,
  entryFrame,
  isLeaf,
  isPresent,
  leafAttributes,
  levelFrames,
  SS_PAGE_SIZE,
  type TableLevel,
  tableIndex,
} from './entry.ts';
import type { InvalidationGather } from './invalidation-gather.ts';
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

/**
 * Makes both ends of a range leaf boundaries: a large leaf that crosses an end is replaced by a table that maps the same
 * frames with the same rights and attributes, in the largest leaves that leave the range's ends on boundaries. From 1G to
 * 4K this is a private two-level sub-tree and **one** 64-bit compare-and-swap: a walker sees the old leaf or the whole new
 * table, and both translate alike, so no address faults (I4). If hardware (A, D) or somebody else changed the entry in
 * between, the sub-tree is rebuilt from what is there now.
 *
 * The gather receives the whole old leaf: only an invalidation of its full size is sure to reach a cached large
 * translation (Rev 5.10, 6.5.2.3 and 6.5.3.3). Nothing is unmapped here; a failure to allocate leaves the leaf untouched.
 */
export function* cut(
  agent: Agent,
  table: TableState,
  page: number,
  pages: number,
  gather: InvalidationGather,
): Task<CutResult> {
  checkRange(table, page, pages);
  const tally = { ok: true, installs: 0, retries: 0 };
  const hole = { page, end: page + pages };
  yield* cutAt(agent, table, page, hole, gather, tally);
  // The first install settled the far end too if both lie in one leaf; this then finds nothing to do.
  if (tally.ok) yield* cutAt(agent, table, page + pages, hole, gather, tally);
  return tally;
}

interface Hole {
  readonly page: number;
  readonly end: number;
}

/** Replaces the leaf that has `boundary` strictly inside, if there is one. */
function* cutAt(
  agent: Agent,
  table: TableState,
  boundary: number,
  hole: Hole,
  gather: InvalidationGather,
  tally: { ok: boolean; installs: number; retries: number },
): Task<void> {
  const memory = table.memory;
  let pfn = table.rootPfn;
  for (let level = table.levels as number; level > 1; level--) {
    const size = levelFrames(level);
    if (boundary % size === 0) return; // a boundary of this level already
    const index = tableIndex(boundary, level);
    const location = memory.location(pfn, index);
    for (;;) {
      yield agent.reads('read entry', Location.entry, location, Cost.entryRead);
      const entry = memory.load(pfn, index);
      if (!isPresent(entry)) return;
      if (!isLeaf(entry, level)) {
        pfn = entryFrame(entry);
        break;
      }
      const start = Math.floor(boundary / size) * size;
      const built: number[] = [];
      const child = yield* buildSubtree(agent, table, entry, level, start, hole, built);
      if (child < 0) {
        for (const spare of built) table.reserve.giveBack(spare);
        tally.ok = false;
        return;
      }
      yield agent.writes('install sub-tree', Location.entry, location, Cost.entryWrite);
      if (memory.compareExchange(pfn, index, entry, encodeTable(child)) !== entry) {
        for (const spare of built) table.reserve.giveBack(spare);
        tally.retries++;
        continue;
      }
      account(table, level, built.length);
      gather.add(start, size);
      tally.installs++;
      return;
    }
  }
}

/** Builds, out of everybody's sight, the table that replaces a leaf. @returns its frame, or -1; `built` lists its pages */
function* buildSubtree(
  agent: Agent,
  table: TableState,
  leaf: bigint,
  level: number,
  start: number,
  hole: Hole,
  built: number[],
): Task<number> {
  const child = yield* table.reserve.allocateOrTake(agent);
  if (child < 0) return -1;
  built.push(child);
  yield agent.spends('build table', Cost.tableBuild);
  const childLevel = (level - 1) as TableLevel;
  const size = levelFrames(childLevel);
  const rights = Number(leaf & 3n);
  const attributes = leafAttributes(leaf) & ~(childLevel === 1 ? SS_PAGE_SIZE : 0n);
  for (let index = 0; index < 512; index++) {
    const page = start + index * size;
    const frame = entryFrame(leaf) + index * size;
    const entry = encodeLeaf(childLevel, frame, rights, attributes);
    if (childLevel > 1 && crosses(hole, page, size)) {
      const grandchild = yield* buildSubtree(agent, table, entry, childLevel, page, hole, built);
      if (grandchild < 0) return -1;
      table.memory.store(child, index, encodeTable(grandchild));
    } else {
      table.memory.store(child, index, entry);
    }
  }
  return child;
}

/** Whether an end of the hole lies strictly inside the leaf. */
function crosses(hole: Hole, page: number, size: number): boolean {
  return (hole.page > page && hole.page < page + size) || (hole.end > page && hole.end < page + size);
}

function account(table: TableState, level: number, builtPages: number): void {
  const leaves = table.leaves;
  leaves[level] = (leaves[level] as number) - 1;
  table.splits[level] = (table.splits[level] as number) + 1;
  table.tablePages += builtPages;
  leaves[level - 1] = (leaves[level - 1] as number) + 512;
  if (level !== 3) return;
  // Each further page of the sub-tree took the place of one 2M leaf.
  const split = builtPages - 1;
  leaves[2] = (leaves[2] as number) - split;
  leaves[1] = (leaves[1] as number) + 512 * split;
  table.splits[2] = (table.splits[2] as number) + split;
}
