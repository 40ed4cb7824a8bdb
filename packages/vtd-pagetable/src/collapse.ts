import { type Agent, ANY_LOCATION, Cost, Location, type Task } from '@faultline/sim';
import {
  entryFrame,
  isLeaf,
  isPresent,
  levelFrames,
  SS_ACCESSED,
  SS_ADDRESS_MASK,
  SS_DIRTY,
  SS_PAGE_SIZE,
  SS_READ,
  SS_WRITE,
  tableIndex,
} from './entry.ts';
import type { InvalidationGather } from './invalidation-gather.ts';
import { pageBase } from './leaf-run.ts';
import { flushEntries } from './publication.ts';
import { checkRange, type TableState } from './table-state.ts';

/**
 * Why a table stays: an entry is empty; its frames are not in a row, or do not start at a multiple of the leaf's size;
 * rights or attributes differ; or software changed it between the look and the install.
 */
export type CollapseObstacle = 'hole' | 'frames' | 'attributes' | 'changed';

/** What a collapse did. */
export interface CollapseResult {
  /** New leaves of each size. */
  readonly leaves: { readonly '2M': number; readonly '1G': number };
  /** Tables that stay, by the first reason found. A 1G candidate that fails is tried as 2M ones, and counts too. */
  readonly obstacles: Readonly<Record<CollapseObstacle, number>>;
}

const AD = SS_ACCESSED | SS_DIRTY;

/**
 * Puts large leaves back: where the range covers a table whole and all that is below maps frames in a row, with equal
 * rights and attributes, the entry that leads to the table is replaced by the leaf, by one compare-and-swap; 1G is tried
 * before 2M, and takes a two-level sub-tree at once. A walker sees the old table or the leaf, and both translate alike
 * (Rev 5.10, 6.2.4.1), so no address faults. The leaf gets the OR of the A and D bits below.
 *
 * The table goes to the gather with its whole range, which makes the invalidation drop paging-structure entries (IH=0): hardware
 * that has one goes on walking the old table until then, and sets A and D in it. `TableState.settle` carries these bits
 * over to the leaf after the flush and before the table is freed (I6).
 *
 * **The caller keeps software off the range** from the call until the gather is settled, as for `map` and `unmap`. The
 * compare-and-swap looks at the entry above, so it cannot see a child that changes; the children are compared again right
 * before it, and a change that this catches is counted as `changed` and nothing is done. Hardware's A and D need no lock: set
 * before the second look they are in the leaf, after it they are late bits.
 * @throws PageTableError EINVAL, ERANGE, EIO (corrupt)
 */
export function* collapse(
  agent: Agent,
  table: TableState,
  page: number,
  pages: number,
  gather: InvalidationGather,
): Task<CollapseResult> {
  checkRange(table, page, pages);
  const leaves = { '2M': 0, '1G': 0 };
  const obstacles = { hole: 0, frames: 0, attributes: 0, changed: 0 };
  const end = table.largestLeafLevel === 1 ? 0 : page + pages;
  const [small, large] = [levelFrames(2), levelFrames(3)];
  let at = Math.ceil(page / small) * small;
  // Up to here 1G has been tried and does not go.
  let smallOnly = 0;
  while (at + small <= end) {
    const whole = table.largestLeafLevel === 3 && at % large === 0 && at >= smallOnly && at + large <= end;
    const slot = findSlot(table, at, whole ? 3 : 2);
    if (!leadsToTable(table, slot)) {
      at = pageBase(at, slot.level) + levelFrames(slot.level);
      continue;
    }
    const outcome = yield* replaceTable(agent, table, slot, gather);
    if (outcome === 'collapsed') leaves[slot.level === 3 ? '1G' : '2M']++;
    else if (outcome !== null) obstacles[outcome]++;
    if (slot.level === 3 && outcome !== 'collapsed') smallOnly = at + large;
    else at += levelFrames(slot.level);
  }
  return { leaves, obstacles };
}

/** The entry that may become a leaf. */
interface CollapseSlot {
  readonly pfn: number;
  readonly index: number;
  readonly level: number;
  readonly page: number;
}

/** The entry at `level` for a page, or one above it if that is empty or a leaf. */
function findSlot(table: TableState, page: number, level: number): CollapseSlot {
  let pfn = table.rootPfn;
  for (let above = table.levels as number; ; above--) {
    const index = tableIndex(page, above);
    const entry = table.memory.load(pfn, index);
    if (above === level || !isPresent(entry) || isLeaf(entry, above)) return { pfn, index, level: above, page };
    pfn = table.tableBelow(pfn, index, above, page);
  }
}

function leadsToTable(table: TableState, { pfn, index, level }: CollapseSlot): boolean {
  const entry = table.memory.load(pfn, index);
  return isPresent(entry) && !isLeaf(entry, level);
}

/** The rights of a walk are the AND over its entries: what a table entry takes away, a leaf in its place would give. */
const hasAllRights = (entry: bigint): boolean => (entry & SS_READ) !== 0n && (entry & SS_WRITE) !== 0n;

/** @returns null if there is no table any more */
function* replaceTable(
  agent: Agent,
  table: TableState,
  slot: CollapseSlot,
  gather: InvalidationGather,
): Task<'collapsed' | CollapseObstacle | null> {
  const { memory } = table;
  const { pfn, index, level, page } = slot;
  yield agent.reads('compare leaves', Location.entry, ANY_LOCATION, Cost.entryRead, 512);
  if (!leadsToTable(table, slot)) return null;
  if (!hasAllRights(memory.load(pfn, index))) return 'attributes';
  const before = new Fold(table, level);
  const obstacle = before.add(table.tableBelow(pfn, index, level, page), level - 1, page);
  if (obstacle !== null) return obstacle;
  yield agent.writes('install leaf for table', Location.entry, ANY_LOCATION, Cost.entryWrite);
  const fold = new Fold(table, level);
  const present = memory.load(pfn, index);
  if (!hasAllRights(present) || isLeaf(present, level)) return 'changed';
  if (fold.add(table.tableBelow(pfn, index, level, page), level - 1, page) !== null || !fold.equals(before))
    return 'changed';
  for (let expected = present; ; ) {
    const seen = memory.compareExchange(pfn, index, expected, fold.leaf);
    if (seen === expected) break;
    if ((seen & ~SS_ACCESSED) !== (present & ~SS_ACCESSED)) return 'changed';
    expected = seen; // hardware set A in it
  }
  fold.account(page, gather);
  if (!memory.coherent) yield* flushEntries(agent, memory, pfn, index, 1);
  return 'collapsed';
}

/** Compares all leaves below a table entry with what one leaf would say. */
class Fold {
  readonly #table: TableState;
  readonly #level: number;
  /** Of the first leaf: its frame, and everything but frame, PS, A and D. */
  #frame = -1;
  #bits = 0n;
  #accessedDirty = 0n;
  #first = 0;
  readonly #tables: { readonly pfn: number; readonly level: number; readonly page: number; readonly leaves: number }[] =
    [];

  constructor(table: TableState, level: number) {
    this.#table = table;
    this.#level = level;
  }

  /** The leaf that stands for all. */
  get leaf(): bigint {
    return (BigInt(this.#frame) << 12n) | this.#bits | this.#accessedDirty | SS_PAGE_SIZE;
  }

  /** Whether both saw the same translations. */
  equals(other: Fold): boolean {
    return this.#frame === other.#frame && this.#bits === other.#bits;
  }

  /** Adds the leaves of a table and below. @returns what stands in the way, or null */
  add(pfn: number, level: number, page: number): CollapseObstacle | null {
    const { memory } = this.#table;
    const size = levelFrames(level);
    let leaves = 0;
    for (let index = 0; index < 512; index++) {
      const entry = memory.load(pfn, index);
      const at = page + index * size;
      if (!isPresent(entry)) return 'hole';
      if (!isLeaf(entry, level)) {
        if (!hasAllRights(entry)) return 'attributes';
        const obstacle = this.add(this.#table.tableBelow(pfn, index, level, at), level - 1, at);
        if (obstacle !== null) return obstacle;
        continue;
      }
      leaves++;
      const bits = entry & ~(SS_ADDRESS_MASK | AD | (level > 1 ? SS_PAGE_SIZE : 0n));
      if (this.#frame < 0) {
        this.#frame = entryFrame(entry);
        this.#bits = bits;
        this.#first = at;
        if (this.#frame % levelFrames(this.#level) !== 0) return 'frames';
      }
      if (entryFrame(entry) !== this.#frame + at - this.#first) return 'frames';
      if (bits !== this.#bits) return 'attributes';
      this.#accessedDirty |= entry & AD;
    }
    this.#tables.push({ pfn, level, page, leaves });
    return null;
  }

  /** Counts the collapse and hands the tables to the gather. */
  account(page: number, gather: InvalidationGather): void {
    const { places, leaves, collapses } = this.#table;
    const size = levelFrames(this.#level);
    for (const { pfn, level, page: first, leaves: count } of this.#tables) {
      places.remove(pfn);
      gather.freedTables.push(pfn);
      gather.lateTables.push({ pfn, level, page: first, leafLevel: this.#level });
      leaves[level] = (leaves[level] as number) - count;
    }
    gather.add(page, size);
    leaves[this.#level] = (leaves[this.#level] as number) + 1;
    collapses[this.#level] = (collapses[this.#level] as number) + 1;
  }
}
