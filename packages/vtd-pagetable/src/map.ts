import { hex } from '@faultline/address';
import { type Agent, ANY_LOCATION, Cost, Location, type Task } from '@faultline/sim';
import {
  entryFrame,
  isLeaf,
  isPresent,
  LO_PAGE_SIZE,
  LO_RIGHTS,
  leafAttributes,
  levelFrames,
  type TableLevel,
  tableIndex,
} from './entry.ts';
import { InvalidationGather } from './invalidation-gather.ts';
import { checkBigint, type PageRange } from './iova-range.ts';
import { fillLeaves, frameHi, frameLo, isLeafLo, pageBase } from './leaf-run.ts';
import { PageTableError } from './page-table-error.ts';
import { flushEntries, flushPrivateTable, flushTableEntry, SS_FLUSHED, tableEntry } from './publication.ts';
import type { TableMemory } from './table-memory.ts';
import { checkRange, type TableState } from './table-state.ts';

/** A run of pages to map: `pages` 4K pages from `page` onto as many frames from `frame`. */
export interface MapRequest {
  /** First IOVA page number. */
  readonly page: number;
  /** First frame number. */
  readonly frame: number;
  /** Number of 4K pages. */
  readonly pages: number;
  /** R in bit 0, W in bit 1. */
  readonly rights: number;
  /** Further leaf bits, such as SNP. Bits that the unit reserves are written as given, and walks fault on them. */
  readonly attributes?: bigint;
  /** Level of the largest leaf to make; default the largest that the unit has. */
  readonly largest?: TableLevel;
}

/**
 * Maps a run with the largest leaves that the alignment of both sides, the remaining length and the unit allow, as
 * generic_pt of Linux 7.3 does: a run of equal leaves in one table is one pass. A missing leaf table is filled before anybody
 * can see it and installed by one compare-and-swap against the empty entry; in a table that is there already, each leaf is
 * a single 64-bit store. A table in the way of a large leaf is replaced if it is empty all the way down (its pages go to the
 * gather), otherwise the map fails and what it had mapped stays, as the core's caller then unmaps it.
 * @returns 4K pages mapped
 * @throws PageTableError EINVAL (no rights, zero length, no level), ERANGE (outside input or output range), EADDRINUSE, ENOMEM, EIO (corrupt)
 */
export function* map(agent: Agent, table: TableState, request: MapRequest, gather: InvalidationGather): Task<number> {
  checkRequest(table, request);
  const pass = (table.idle.map ?? new MapPass(table)).begin(request, gather);
  table.idle.map = null;
  try {
    const { memory, reserve } = pass.table;
    const end = request.page + request.pages;
    for (; pass.page < end; pass.advance()) {
      const level = pass.chooseRun(end);
      let above = pass.knownAbove(level);
      while (above > level) {
        const pfn = pass.tables[above] as number;
        const index = tableIndex(pass.page, above);
        yield agent.reads('read table entry', Location.entry, memory.location(pfn, index), Cost.entryRead);
        const found = pass.below(pfn, index, above);
        if (found >= 0) {
          if (!memory.coherent) yield* flushIfNew(agent, memory, pfn, index);
          pass.tables[--above] = found;
          continue;
        }
        if (reserve.asksScheduler) yield reserve.chooseFailure(agent);
        const child = pass.buildTable(above, reserve.asksScheduler && agent.step.chosen === 1);
        const filled = above - 1 === level;
        if (filled) yield agent.spends('write leaves', Cost.entryWrite, pass.count);
        if (!memory.coherent) yield* flushPrivateTable(agent, memory, child);
        yield agent.writes('install table', Location.entry, memory.location(pfn, index), Cost.tableBuild);
        if (!pass.installTable(pfn, index, above, child)) continue; // somebody else was faster: use theirs
        if (!memory.coherent) yield* flushTableEntry(agent, memory, pfn, index);
        pass.tables[--above] = child;
        if (filled) pass.written = pass.count;
      }
      if (pass.written === pass.count) continue;
      const pfn = pass.tables[level] as number;
      const location = pass.count === 1 ? memory.location(pfn, pass.index) : ANY_LOCATION;
      yield agent.writes('install leaf', Location.entry, location, Cost.entryWrite, pass.count);
      pass.writeLeaves(pfn);
      if (!memory.coherent && pass.written > 0) yield* flushEntries(agent, memory, pfn, pass.index, pass.written);
      if (pass.written < pass.count) throw pass.obstacle ?? inUse(pass.page + pass.written * levelFrames(level));
    }
    return request.pages;
  } finally {
    table.idle.map = pass;
  }
}

/** Another mapper may still be about to flush this entry: what is mapped below has to be reachable when the call returns. */
function* flushIfNew(agent: Agent, memory: TableMemory, pfn: number, index: number): Task<void> {
  if ((memory.load(pfn, index) & SS_FLUSHED) === 0n) yield* flushTableEntry(agent, memory, pfn, index);
}

/** A map under way: the run of leaves side by side in one table that is next, and the tables on the way to it. */
export class MapPass {
  readonly table: TableState;
  #gather = new InvalidationGather();
  /** Rights and attributes of each leaf, as halves. */
  #bitsLo = 0;
  #bitsHi = 0;
  /** Level of the largest leaf. */
  #largest = 0;
  /** The run: first page and frame, level, index of the first leaf, number of leaves, how many of them are written. */
  page = 0;
  frame = 0;
  level: TableLevel = 1;
  index = 0;
  count = 0;
  written = 0;
  /** The error at the corrupt entry that the run ended at, to be thrown when what was written before it is flushed. */
  obstacle: unknown = null;
  /** Tables on the way to page `#reached`, from the run's level on up; -1 where not known. */
  readonly tables = [-1, -1, -1, -1, -1, -1];
  #reached = 0;

  constructor(table: TableState) {
    this.table = table;
    this.tables[table.levels] = table.rootPfn;
  }

  begin({ page, frame, rights, attributes = 0n, largest }: MapRequest, gather: InvalidationGather): this {
    this.#gather = gather;
    this.#largest = Math.min(largest ?? 5, this.table.largestLeafLevel, this.table.levels);
    this.#bitsLo = attributes === 0n ? rights : Number(BigInt.asIntN(32, attributes)) | rights;
    this.#bitsHi = attributes === 0n ? 0 : Number(BigInt.asIntN(32, attributes >> 32n));
    this.page = page;
    this.frame = frame;
    this.obstacle = null;
    for (let level = 1; level < this.table.levels; level++) this.tables[level] = -1;
    return this;
  }

  /** Chooses the largest leaf that fits here, and how many of them. @returns its level */
  chooseRun(end: number): TableLevel {
    const { page, frame } = this;
    let level = this.#largest;
    // A 4K leaf always fits.
    while (page !== pageBase(page, level) || frame !== pageBase(frame, level) || end - page < levelFrames(level))
      level--;
    this.level = level as TableLevel;
    this.index = tableIndex(page, level);
    // Within one table the size stays: a larger leaf could only start where the next table does.
    this.count = Math.min(512 - this.index, Math.floor((end - page) / levelFrames(level)));
    this.written = 0;
    return this.level;
  }

  advance(): void {
    this.page += this.count * levelFrames(this.level);
    this.frame += this.count * levelFrames(this.level);
  }

  /**
   * The lowest level, `level` or above, whose table on the way to the run is known from the run before. Of that run's leaves each
   * covers whole tables of lower levels, so that what is kept of those is of other pages than the next run's.
   */
  knownAbove(level: number): number {
    let above = level;
    while (this.tables[above] === -1 || pageBase(this.#reached, above + 1) !== pageBase(this.page, above + 1)) above++;
    this.#reached = this.page;
    return above;
  }

  /** The table that an entry leads to, or -1 if it is empty. @throws PageTableError EADDRINUSE at a leaf */
  below(pfn: number, index: number, level: number): number {
    const { memory } = this.table;
    const lo = memory.cpuHalves[((pfn - memory.basePfn) << 10) | (index << 1)] as number;
    if ((lo & LO_RIGHTS) === 0) return -1;
    if (isLeafLo(lo, level)) throw inUse(this.page);
    return this.table.tableBelow(pfn, index, level, this.page);
  }

  /** A table for an empty entry at `level`, with the run in it if it is the run's own. @throws PageTableError ENOMEM */
  buildTable(level: number, refused: boolean): number {
    const { memory, reserve } = this.table;
    const filled = level - 1 === this.level;
    const child = reserve.allocate(refused, !(filled && this.count === 512));
    if (child < 0) throw new PageTableError('ENOMEM', `no table page for iova ${hex(this.page * 4096)}`);
    if (filled) {
      const lo = this.#bitsLo | frameLo(this.frame) | (this.level > 1 ? LO_PAGE_SIZE : 0);
      fillLeaves(memory, child, this.index, this.count, this.level, lo, this.#bitsHi | frameHi(this.frame));
    }
    return child;
  }

  /** Points the empty entry to the table. @returns false if it is not empty any more; the table is freed then */
  installTable(pfn: number, index: number, level: number, child: number): boolean {
    const { table } = this;
    const { memory } = table;
    for (let empty = 0n; ; ) {
      const seen = memory.compareExchange(pfn, index, empty, tableEntry(child));
      if (seen === empty) break;
      if (isPresent(seen)) {
        memory.free(child);
        return false;
      }
      empty = seen; // not present is not zero: ignored bits give way
    }
    table.places.put(child, level - 1, pageBase(this.page, level));
    if (level - 1 === this.level) table.leaves[this.level] = (table.leaves[this.level] as number) + this.count;
    return true;
  }

  /** Writes the run into a table that others may be looking at: one 64-bit store a leaf, up to one that is in use. */
  writeLeaves(pfn: number): void {
    const { table, level, index, count, page, frame } = this;
    const { memory } = table;
    const size = levelFrames(level);
    const lo = BigInt.asUintN(32, BigInt(this.#bitsLo | (level > 1 ? LO_PAGE_SIZE : 0)));
    const bits = BigInt.asUintN(64, (BigInt(this.#bitsHi) << 32n) | lo);
    let at = index;
    for (const end = index + count; at < end; at++) {
      const present = memory.load(pfn, at);
      const done = (at - index) * size;
      if (isPresent(present) && (isLeaf(present, level) || !this.#unlinkVacant(pfn, at, page + done))) break;
      memory.store(pfn, at, (BigInt(frame + done) << 12n) | bits);
    }
    this.written = at - index;
    table.leaves[level] = (table.leaves[level] as number) + this.written;
  }

  /** Takes a vacant table out of the way of a leaf. @returns false if it is not vacant, or corrupt: `obstacle` says so */
  #unlinkVacant(pfn: number, index: number, page: number): boolean {
    const { table, level } = this;
    try {
      const child = table.tableBelow(pfn, index, level, page);
      if (!isVacant(table, child, level - 1, page)) return false;
      table.memory.store(pfn, index, 0n);
      gatherVacant(table, child, level - 1, { page, pages: levelFrames(level) }, this.#gather);
      return true;
    } catch (error) {
      this.obstacle = error;
      return false;
    }
  }
}

function checkRequest(table: TableState, request: MapRequest): void {
  checkRange(table, request.page, request.pages);
  if ((request.rights & 3) === 0) throw new PageTableError('EINVAL', 'rights: neither read nor write');
  const { frame, pages, attributes = 0n, largest = 5 } = request;
  if (!(Number.isInteger(largest) && largest >= 1 && largest <= 5))
    throw new PageTableError('EINVAL', `largest: ${largest} is not a level, 1 to 5`);
  if (attributes !== 0n) checkAttributes(attributes);
  if (!Number.isInteger(frame)) throw new PageTableError('EINVAL', `frame: ${frame} is not a frame number`);
  if (frame < 0 || frame + pages > table.hostFrames)
    throw new PageTableError(
      'ERANGE',
      `paddr: ${hex(frame * 4096)} + ${hex(pages * 4096)} is beyond the ${table.capabilities.hostAddressWidth}-bit host address width`,
    );
}

function checkAttributes(attributes: bigint): void {
  checkBigint('attributes', attributes);
  if (attributes !== BigInt.asUintN(64, attributes))
    throw new PageTableError('EINVAL', `attributes: ${hex(attributes)} is not a 64-bit value`);
  if (attributes !== leafAttributes(attributes))
    throw new PageTableError('EINVAL', `attributes: ${hex(attributes)} has bits of the address, R, W or PS`);
}

/** Whether a table and all tables below it hold no leaf. */
function isVacant(table: TableState, pfn: number, level: number, page: number): boolean {
  for (let index = 0; index < 512; index++) {
    const entry = table.memory.load(pfn, index);
    if (!isPresent(entry)) continue;
    if (isLeaf(entry, level)) return false;
    const below = page + index * levelFrames(level);
    if (!isVacant(table, table.tableBelow(pfn, index, level, below), level - 1, below)) return false;
  }
  return true;
}

/** Puts a vacant table and the tables below it on the list to free. `leaf` is what takes their place. */
function gatherVacant(
  table: TableState,
  pfn: number,
  level: number,
  leaf: PageRange,
  gather: InvalidationGather,
): void {
  for (let index = 0; level > 1 && index < 512; index++) {
    const entry = table.memory.load(pfn, index);
    if (isPresent(entry)) gatherVacant(table, entryFrame(entry), level - 1, leaf, gather);
  }
  gather.addTable(pfn, leaf.page, leaf.pages);
  table.places.remove(pfn);
}

const inUse = (page: number): PageTableError =>
  new PageTableError('EADDRINUSE', `iova ${hex(page * 4096)} is mapped already`);
