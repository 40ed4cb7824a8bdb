import { type Agent, Cost, Location, type Task } from '@faultline/sim';
import { LO_PAGE_SIZE, LO_RIGHTS, levelFrames, type TableLevel, tableIndex } from './entry.ts';
import type { InvalidationGather } from './invalidation-gather.ts';
import { fillLeaves, frameHi, isLeafLo, pageBase } from './leaf-run.ts';
import { corruptEntry } from './page-table-error.ts';
import { flushPrivateTable, flushTableEntry, privateTableLo, tableEntry } from './publication.ts';
import { checkChoice, checkRange, type TableState } from './table-state.ts';

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
  checkChoice('installs', installs, 'one', 'two');
  checkChoice('accessedDirty', accessedDirty, 'inherit', 'clear-after-harvest');
  const whole = installs === 'one';
  const pass = (table.idle.cut ?? new CutPass(table)).begin(page, pages, whole, accessedDirty !== 'inherit');
  table.idle.cut = null;
  try {
    const { memory, reserve } = table;
    const { cpuHalves } = memory;
    for (let nth = 0; nth < 2; nth++) {
      const boundary = nth === 0 ? pass.page : pass.end;
      if (pass.settles(boundary)) break;
      let pfn = table.rootPfn;
      for (let level = table.levels as number; boundary !== pageBase(boundary, level); ) {
        const index = tableIndex(boundary, level);
        yield agent.reads('read entry', Location.entry, memory.location(pfn, index), Cost.entryRead);
        const half = ((pfn - memory.basePfn) << 10) | (index << 1);
        const lo = cpuHalves[half] as number;
        if ((lo & LO_RIGHTS) === 0) break;
        if (isLeafLo(lo, level)) {
          const entry = memory.load(pfn, index);
          // The halves are read after the entry: if hardware sets A or D in between, the exchange fails.
          const leaf = { pfn, index, level, lo: cpuHalves[half] as number, hi: cpuHalves[half + 1] as number, entry };
          pass.replaces(leaf, boundary);
          while (pass.needsTable()) {
            if (reserve.asksScheduler) yield reserve.chooseFailure(agent);
            if (!pass.takeTable(reserve.asksScheduler && agent.step.chosen === 1)) return pass.result(false);
            yield agent.spends('build table', Cost.tableBuild);
          }
          pass.build();
          if (!memory.coherent) yield* pass.flushBuilt(agent);
          yield agent.writes('install sub-tree', Location.entry, memory.location(pfn, index), Cost.entryWrite);
          if (!pass.install(gather)) continue; // look again at what is there now
          if (!memory.coherent) yield* flushTableEntry(agent, memory, pfn, index);
        }
        pfn = table.tableBelow(pfn, index, level, boundary);
        level--;
      }
    }
    return pass.result(true);
  } finally {
    table.idle.cut = pass;
  }
}

interface FoundLeaf {
  readonly pfn: number;
  readonly index: number;
  readonly level: number;
  readonly lo: number;
  readonly hi: number;
  readonly entry: bigint;
}

/** Low half: D. */
const LO_DIRTY = 0x200;

/** A cut under way, and the sub-tree that is to take the place of one leaf: a table, and below it one for each end that needs it. */
export class CutPass {
  readonly #table: TableState;
  page = 0;
  end = 0;
  /** Build down to where the ends are boundaries, not just one level. */
  #whole = true;
  #leaf: FoundLeaf = { pfn: -1, index: 0, level: 1, lo: 0, hi: 0, entry: 0n };
  #start = 0;
  #harvests = false;
  /** Indexes of the new table at which a lower one is needed, and how many. */
  readonly #crossed = [-1, -1];
  #crossings = 0;
  /** Tables taken so far, the new table first, and how many. */
  readonly #tables = [-1, -1, -1];
  #taken = 0;
  #installs = 0;
  #retries = 0;

  constructor(table: TableState) {
    this.#table = table;
  }

  begin(page: number, pages: number, whole: boolean, harvests: boolean): this {
    this.page = page;
    this.end = page + pages;
    this.#whole = whole;
    this.#harvests = harvests;
    this.#installs = 0;
    this.#retries = 0;
    return this;
  }

  result(ok: boolean): CutResult {
    return { ok, installs: this.#installs, retries: this.#retries };
  }

  /** Whether the sub-tree that was installed for the first end has the second as a boundary: it lies in the same leaf. */
  settles(boundary: number): boolean {
    return this.#whole && this.#installs > 0 && boundary < this.#start + levelFrames(this.#leaf.level);
  }

  /** Plans the sub-tree that is to take the place of a leaf. */
  replaces(leaf: FoundLeaf, boundary: number): void {
    const { level, lo } = leaf;
    if ((lo & (level === 2 ? 0x1f_f000 : 0x3fff_f000)) !== 0)
      throw corruptEntry({ ...leaf, tablePfn: leaf.pfn }, 'address bits below the size of the leaf are set');
    this.#leaf = leaf;
    this.#start = pageBase(boundary, level);
    this.#taken = 0;
    this.#crossings = 0;
    if (level === 2 || !this.#whole) return;
    this.#cross(this.page);
    this.#cross(this.end);
  }

  #cross(boundary: number): void {
    const index = Math.floor((boundary - this.#start) / 512);
    if (index < 0 || index >= 512 || boundary === pageBase(boundary, 2)) return;
    if (this.#crossings === 0 || this.#crossed[0] !== index) this.#crossed[this.#crossings++] = index;
  }

  needsTable(): boolean {
    return this.#taken < 1 + this.#crossings;
  }

  /** @returns false if there is none; those taken are given back then */
  takeTable(refused: boolean): boolean {
    const pfn = this.#table.reserve.allocateOrTake(refused, false);
    if (pfn >= 0) this.#tables[this.#taken++] = pfn;
    else this.#giveBack();
    return pfn >= 0;
  }

  #giveBack(): void {
    for (let nth = 0; nth < this.#taken; nth++) this.#table.reserve.giveBack(this.#tables[nth] as number);
  }

  /** Fills the tables: nobody can reach them yet. */
  build(): void {
    const { memory } = this.#table;
    const { cpuHalves, basePfn } = memory;
    const { level, lo, hi } = this.#leaf;
    const child = this.#tables[0] as number;
    this.#fill(child, level - 1, this.#harvests ? lo & ~LO_DIRTY : lo, hi);
    for (let nth = 1; nth < this.#taken; nth++) {
      const pfn = this.#tables[nth] as number;
      const half = ((child - basePfn) << 10) | ((this.#crossed[nth - 1] as number) << 1);
      this.#fill(pfn, 1, cpuHalves[half] as number, cpuHalves[half + 1] as number);
      cpuHalves[half] = privateTableLo(memory, pfn);
      cpuHalves[half + 1] = frameHi(pfn);
    }
  }

  #fill(pfn: number, level: number, lo: number, hi: number): void {
    const first = level === 1 ? lo & ~LO_PAGE_SIZE : lo;
    fillLeaves(this.#table.memory, pfn, 0, 512, level as TableLevel, first, hi);
  }

  *flushBuilt(agent: Agent): Task<void> {
    for (let nth = 0; nth < this.#taken; nth++)
      yield* flushPrivateTable(agent, this.#table.memory, this.#tables[nth] as number);
  }

  /** @returns false if the entry has changed; the tables are given back then */
  install(gather: InvalidationGather): boolean {
    const table = this.#table;
    const { pfn, index, level, lo, entry } = this.#leaf;
    const child = this.#tables[0] as number;
    if (table.memory.compareExchange(pfn, index, entry, tableEntry(child)) !== entry) {
      this.#giveBack();
      this.#retries++;
      return false;
    }
    this.#account(child, level - 1, this.#start);
    for (let nth = 1; nth < this.#taken; nth++)
      this.#account(this.#tables[nth] as number, 1, this.#start + (this.#crossed[nth - 1] as number) * 512);
    const pages = levelFrames(level);
    gather.add(this.#start, pages);
    if (this.#harvests && (lo & LO_DIRTY) !== 0) gather.dirtyLeaves.push({ page: this.#start, pages });
    this.#installs++;
    return true;
  }

  /** Each table of the sub-tree makes 512 leaves of one. */
  #account(pfn: number, level: number, page: number): void {
    const { places, leaves, splits } = this.#table;
    places.put(pfn, level, page);
    leaves[level + 1] = (leaves[level + 1] as number) - 1;
    splits[level + 1] = (splits[level + 1] as number) + 1;
    leaves[level] = (leaves[level] as number) + 512;
  }
}
