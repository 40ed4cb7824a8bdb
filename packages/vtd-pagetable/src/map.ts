import { hex } from '@faultline/address';
import { type Agent, ANY_LOCATION, Cost, Location, type Task } from '@faultline/sim';
import {
  encodeTable,
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
import type { InvalidationGather } from './invalidation-gather.ts';
import { fillLeaves, frameHi, frameLo, isLeafLo, pageBase } from './leaf-run.ts';
import { PageTableError } from './page-table-error.ts';
import { flushEntries, flushPrivateTable, flushTableEntry, LO_FLUSHED } from './publication.ts';
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
}

/**
 * Maps a run with the largest leaves that the alignment of both sides, the remaining length and the unit allow, as
 * generic_pt of Linux 7.3 does: a run of equal leaves in one table is one pass. A missing leaf table is filled before anybody
 * can see it and installed by one compare-and-swap against the empty entry; in a table that is there already, each leaf is
 * a single 64-bit store. A table in the way of a large leaf is replaced if it is empty all the way down (its pages go to the
 * gather), otherwise the map fails and what it had mapped stays, as the core's caller then unmaps it.
 * @returns 4K pages mapped
 * @throws PageTableError EINVAL (no rights, zero length), ERANGE (outside input or output range), EADDRINUSE, ENOMEM, EIO (corrupt)
 */
export function* map(agent: Agent, table: TableState, request: MapRequest, gather: InvalidationGather): Task<number> {
  checkRequest(table, request);
  const { rights, attributes = 0n } = request;
  const pass: MapPass = {
    table,
    bitsLo: Number(BigInt.asIntN(32, attributes)) | rights,
    bitsHi: attributes === 0n ? 0 : Number(BigInt.asIntN(32, attributes >> 32n)),
    gather,
    tables: [-1, -1, -1, -1, -1, -1],
    reached: 0,
  };
  pass.tables[table.levels] = table.rootPfn;
  const end = request.page + request.pages;
  let { page, frame } = request;
  while (page < end) {
    const level = bestLevel(table, page, frame, end - page);
    const size = levelFrames(level);
    const index = tableIndex(page, level);
    // Within one table the size stays: a larger leaf could only start where the next table does.
    const run: LeafRun = { level, page, frame, index, count: Math.min(512 - index, Math.floor((end - page) / size)) };
    const pfn = yield* descend(agent, pass, run);
    if (pfn >= 0) yield* writeRun(agent, pass, pfn, run);
    page += run.count * size;
    frame += run.count * size;
  }
  return request.pages;
}

interface MapPass {
  readonly table: TableState;
  /** Rights and attributes of each leaf. */
  readonly bitsLo: number;
  readonly bitsHi: number;
  readonly gather: InvalidationGather;
  /** Tables on the way to `reached`, by level; -1 where not known. */
  readonly tables: number[];
  reached: number;
}

/** Leaves of one size side by side in one table. */
interface LeafRun {
  readonly level: TableLevel;
  readonly page: number;
  readonly frame: number;
  readonly index: number;
  readonly count: number;
}

function checkRequest(table: TableState, request: MapRequest): void {
  checkRange(table, request.page, request.pages);
  if ((request.rights & 3) === 0) throw new PageTableError('EINVAL', 'rights: neither read nor write');
  const { frame, pages, attributes } = request;
  if (attributes !== undefined && attributes !== leafAttributes(attributes))
    throw new PageTableError('EINVAL', `attributes: ${hex(attributes)} has bits of the address, R, W or PS`);
  const limit = 2 ** (table.capabilities.hostAddressWidth - 12);
  if (!Number.isInteger(frame) || frame < 0 || frame + pages > limit)
    throw new PageTableError(
      'ERANGE',
      `paddr: ${hex(frame * 4096)} + ${hex(pages * 4096)} is beyond the ${table.capabilities.hostAddressWidth}-bit host address width`,
    );
}

/** The largest leaf that fits here. */
function bestLevel(table: TableState, page: number, frame: number, pages: number): TableLevel {
  let level = Math.min(table.largestLeafLevel, table.levels);
  while (level > 1) {
    const size = levelFrames(level);
    if (page % size === 0 && frame % size === 0 && pages >= size) break;
    level--;
  }
  return level as TableLevel;
}

/**
 * Goes down to the table that the run belongs into, installing what is missing.
 * @returns its frame, or -1 if it was missing and has been installed with the run in it
 */
function* descend(agent: Agent, pass: MapPass, run: LeafRun): Task<number> {
  const { table, tables } = pass;
  const { memory } = table;
  const { page, level } = run;
  let above = level as number;
  while (tables[above] === -1 || pageBase(pass.reached, above + 1) !== pageBase(page, above + 1)) above++;
  tables.fill(-1, 0, above);
  pass.reached = page;
  while (above > level) {
    const pfn = tables[above] as number;
    const index = tableIndex(page, above);
    yield agent.reads('read table entry', Location.entry, memory.location(pfn, index), Cost.entryRead);
    const lo = memory.cpuHalves[((pfn - memory.basePfn) << 10) | (index << 1)] as number;
    if ((lo & LO_RIGHTS) === 0) {
      const child = yield* installTable(agent, pass, run, pfn, index, above);
      if (child < 0) continue; // somebody else was faster: use theirs
      tables[above - 1] = child;
      if (above - 1 === level) return -1;
    } else {
      if (isLeafLo(lo, above)) throw inUse(page);
      tables[above - 1] = table.tableBelow(pfn, index, above, page);
      // Another mapper may still be about to flush it: what is mapped below has to be reachable when this call returns.
      if (!memory.coherent && (lo & LO_FLUSHED) === 0) yield* flushTableEntry(agent, memory, pfn, index);
    }
    above--;
  }
  return tables[level] as number;
}

/** Installs a table under an empty entry; the run is in it if it is the run's own. @returns its frame, or -1: lost the race */
function* installTable(
  agent: Agent,
  pass: MapPass,
  run: LeafRun,
  pfn: number,
  index: number,
  level: number,
): Task<number> {
  const { table } = pass;
  const { memory } = table;
  const empty = memory.load(pfn, index);
  const child = yield* table.reserve.allocate(agent);
  if (child < 0) throw new PageTableError('ENOMEM', `no table page for iova ${hex(run.page * 4096)}`);
  const filled = level - 1 === run.level;
  if (filled) {
    yield agent.spends('write leaves', Cost.entryWrite, run.count);
    const half = ((child - memory.basePfn) << 10) | (run.index << 1);
    fillLeaves(memory.cpuHalves, half, run.count, run.level, leafLo(pass, run), pass.bitsHi | frameHi(run.frame));
  }
  if (!memory.coherent) yield* flushPrivateTable(agent, memory, child);
  yield agent.writes('install table', Location.entry, memory.location(pfn, index), Cost.tableBuild);
  if (memory.compareExchange(pfn, index, empty, encodeTable(child)) !== empty) {
    memory.free(child);
    return -1;
  }
  table.places.put(child, level - 1, pageBase(run.page, level));
  if (filled) table.leaves[run.level] = (table.leaves[run.level] as number) + run.count;
  if (!memory.coherent) yield* flushTableEntry(agent, memory, pfn, index);
  return child;
}

/** Low half of the run's first leaf. */
const leafLo = (pass: MapPass, run: LeafRun): number =>
  pass.bitsLo | frameLo(run.frame) | (run.level > 1 ? LO_PAGE_SIZE : 0);

/** Writes the run into a table that others may be looking at: one 64-bit store a leaf, up to one that is in use. */
function* writeRun(agent: Agent, pass: MapPass, pfn: number, run: LeafRun): Task<void> {
  const { table } = pass;
  const { memory } = table;
  const { level, index, count } = run;
  const size = levelFrames(level);
  const location = count === 1 ? memory.location(pfn, index) : ANY_LOCATION;
  yield agent.writes('install leaf', Location.entry, location, Cost.entryWrite, count);
  const bits = (BigInt(pass.bitsHi) << 32n) | BigInt.asUintN(32, BigInt(pass.bitsLo | (level > 1 ? LO_PAGE_SIZE : 0)));
  let written = 0;
  for (; written < count; written++) {
    const present = memory.load(pfn, index + written);
    const page = run.page + written * size;
    if (isPresent(present)) {
      if (isLeaf(present, level)) break;
      const child = table.tableBelow(pfn, index + written, level, page);
      if (!isVacant(table, child, level - 1, page)) break;
      memory.store(pfn, index + written, 0n);
      gatherVacant(table, child, level - 1, page, pass.gather);
    }
    memory.store(pfn, index + written, BigInt.asUintN(64, (BigInt(run.frame + written * size) << 12n) | bits));
  }
  table.leaves[level] = (table.leaves[level] as number) + written;
  if (!memory.coherent && written > 0) yield* flushEntries(agent, memory, pfn, index, written);
  if (written < count) throw inUse(run.page + written * size);
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

function gatherVacant(table: TableState, pfn: number, level: number, page: number, gather: InvalidationGather): void {
  for (let index = 0; level > 1 && index < 512; index++) {
    const entry = table.memory.load(pfn, index);
    if (isPresent(entry)) gatherVacant(table, entryFrame(entry), level - 1, page + index * levelFrames(level), gather);
  }
  gather.addTable(pfn, page, levelFrames(level + 1));
  table.places.remove(pfn);
}

const inUse = (page: number): PageTableError =>
  new PageTableError('EADDRINUSE', `iova ${hex(page * 4096)} is mapped already`);
