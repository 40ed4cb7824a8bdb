import { hex } from '@faultline/address';
import { type Agent, Cost, Location, type Task } from '@faultline/sim';
import {
  encodeLeaf,
  encodeTable,
  entryFrame,
  isLeaf,
  isPresent,
  leafAttributes,
  levelFrames,
  type TableLevel,
  tableIndex,
} from './entry.ts';
import type { InvalidationGather } from './invalidation-gather.ts';
import { PageTableError } from './page-table-error.ts';
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
 * generic_pt of Linux 7.3 does. Missing tables are installed by compare-and-swap against the empty entry; leaves are single
 * 64-bit stores. A table in the way of a large leaf is replaced if it is empty all the way down (its pages go to the
 * gather), otherwise the map fails and what it had mapped stays, as the core's caller then unmaps it.
 * @returns 4K pages mapped
 * @throws PageTableError EINVAL (no rights, zero length), ERANGE (outside input or output range), EADDRINUSE, ENOMEM
 */
export function* map(agent: Agent, table: TableState, request: MapRequest, gather: InvalidationGather): Task<number> {
  checkRequest(table, request);
  const { rights, attributes = 0n } = request;
  let { page, frame } = request;
  const end = request.page + request.pages;
  while (page < end) {
    const level = bestLevel(table, page, frame, end - page);
    const slot = yield* descend(agent, table, page, level);
    const index = tableIndex(page, level);
    yield agent.writes('install leaf', Location.entry, table.memory.location(slot, index), Cost.entryWrite);
    const present = table.memory.load(slot, index);
    if (isPresent(present)) {
      if (isLeaf(present, level) || !isVacant(table, entryFrame(present), level - 1)) throw inUse(page);
      table.memory.store(slot, index, 0n);
      gatherVacant(table, entryFrame(present), level - 1, page, gather);
    }
    table.memory.store(slot, index, encodeLeaf(level, frame, rights, attributes));
    table.leaves[level] = (table.leaves[level] as number) + 1;
    page += levelFrames(level);
    frame += levelFrames(level);
  }
  return request.pages;
}

function checkRequest(table: TableState, request: MapRequest): void {
  checkRange(table, request.page, request.pages);
  if ((request.rights & 3) === 0) throw new PageTableError('EINVAL', 'rights: neither read nor write');
  const { frame, pages, attributes = 0n } = request;
  if (attributes !== leafAttributes(attributes))
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

/** Goes down to the table at `level`, installing missing tables. @returns its frame */
function* descend(agent: Agent, table: TableState, page: number, level: number): Task<number> {
  const memory = table.memory;
  let current = table.rootPfn;
  for (let above = table.levels as number; above > level; above--) {
    const index = tableIndex(page, above);
    for (;;) {
      yield agent.reads('read table entry', Location.entry, memory.location(current, index), Cost.entryRead);
      const entry = memory.load(current, index);
      if (isPresent(entry)) {
        if (isLeaf(entry, above)) throw inUse(page);
        current = entryFrame(entry);
        break;
      }
      const child = yield* table.reserve.allocate(agent);
      if (child < 0) throw new PageTableError('ENOMEM', `no table page for iova ${hex(page * 4096)}`);
      yield agent.writes('install table', Location.entry, memory.location(current, index), Cost.tableBuild);
      if (memory.compareExchange(current, index, entry, encodeTable(child)) === entry) {
        table.tablePages++;
        current = child;
        break;
      }
      memory.free(child); // somebody else was faster: use theirs
    }
  }
  return current;
}

/** Whether a table and all tables below it hold no leaf. */
function isVacant(table: TableState, pfn: number, level: number): boolean {
  for (let index = 0; index < 512; index++) {
    const entry = table.memory.load(pfn, index);
    if (!isPresent(entry)) continue;
    if (isLeaf(entry, level) || !isVacant(table, entryFrame(entry), level - 1)) return false;
  }
  return true;
}

function gatherVacant(table: TableState, pfn: number, level: number, page: number, gather: InvalidationGather): void {
  for (let index = 0; level > 1 && index < 512; index++) {
    const entry = table.memory.load(pfn, index);
    if (isPresent(entry)) gatherVacant(table, entryFrame(entry), level - 1, page + index * levelFrames(level), gather);
  }
  gather.addTable(pfn, page, levelFrames(level + 1));
  table.tablePages--;
}

const inUse = (page: number): PageTableError =>
  new PageTableError('EADDRINUSE', `iova ${hex(page * 4096)} is mapped already`);
