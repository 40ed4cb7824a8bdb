import { type Agent, ANY_LOCATION, Cost, Location, type Task } from '@faultline/sim';
import { frameLo } from './leaf-run.ts';
import type { TableMemory } from './table-memory.ts';

/**
 * Bit 10 of a table entry where walks are not coherent: its cache line has been flushed. Linux 7.3 uses the lowest of its
 * software bits for this, so that a mapper that finds a table which another has just installed does not report a mapping
 * that hardware cannot reach yet.
 */
export const SS_FLUSHED = 1n << 10n;

/** Low half of the entry by which a private table points to another: R, W, and flushed before anybody can look. */
export const privateTableLo = (memory: TableMemory, pfn: number): number =>
  frameLo(pfn) | (memory.coherent ? 0x3 : 0x403);

/** The entry for a table: R and W set, as Linux writes it. */
export const tableEntry = (pfn: number): bigint => BigInt(pfn * 4096 + 3);

const lines = (index: number, count: number): number => Math.floor((index + count - 1) / 8) - Math.floor(index / 8) + 1;

/**
 * Writes a private table back to memory before anything points to it: D1 of the posted patch is that nobody does. Only for
 * memory without coherency.
 */
export function* flushPrivateTable(agent: Agent, memory: TableMemory, pfn: number): Task<void> {
  yield agent.spends('flush new table', Cost.entryWrite, 64);
  memory.flush(pfn, 0, 512);
}

/** Writes entries of a published table back to memory. Only for memory without coherency. */
export function* flushEntries(
  agent: Agent,
  memory: TableMemory,
  pfn: number,
  index: number,
  count: number,
): Task<void> {
  const location = count === 1 ? memory.location(pfn, index) : ANY_LOCATION;
  yield agent.writes('flush entries', Location.entry, location, Cost.entryWrite, lines(index, count));
  memory.flush(pfn, index, count);
}

/** Writes the entry that leads to a table back to memory and marks it so. Only for memory without coherency. */
export function* flushTableEntry(agent: Agent, memory: TableMemory, pfn: number, index: number): Task<void> {
  yield* flushEntries(agent, memory, pfn, index, 1);
  const flushed = memory.load(pfn, index);
  yield agent.writes('mark entry flushed', Location.entry, memory.location(pfn, index), Cost.entryWrite);
  // If it has changed, whoever changed it flushes it.
  if ((flushed & 3n) !== 0n) memory.compareExchange(pfn, index, flushed, flushed | SS_FLUSHED);
}
