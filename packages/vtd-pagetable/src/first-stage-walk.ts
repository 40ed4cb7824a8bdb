import { type Agent, Cost, Location, type Task } from '@faultline/sim';
import { type TableLevel, tableIndex } from './entry.ts';
import { FaultReason } from './fault-reason.ts';
import {
  FS_ACCESSED,
  FS_DIRTY,
  FS_PRESENT,
  FS_USER,
  FS_WRITE,
  firstStageFrame,
  isFirstStageLeaf,
} from './first-stage-entry.ts';
import { type FirstStageCapabilities, firstStageLayout } from './format/first-stage-layout.ts';
import type { TableMemory } from './table-memory.ts';

/** A first-stage table, as a PASID table entry leads to it. */
export interface FirstStageTable {
  /** Walks snoop the CPU's caches (ECAP.SMPWC and PWSNP) if and only if it is coherent. */
  readonly memory: TableMemory;
  /** FSPTPTR. */
  readonly rootPfn: number;
  /** FSPM: 4 or 5 levels. */
  readonly levels: 4 | 5;
  readonly capabilities: FirstStageCapabilities;
}

/** How a first-stage walk ended. */
export interface FirstStageOutcome {
  /** The 4K frame, or -1 for a fault. */
  readonly frame: number;
  /** A `FaultReason`; 0 if translated. */
  readonly reason: number;
  /** Level of the entry that was read last. */
  readonly level: number;
}

/** Address bits from 63 down to here have to be alike. */
const CANONICAL_BITS = { 4: 47, 5: 56 } as const;

/**
 * A first-stage walk for a request of user privilege, one entry a step (VT-d Rev 5.10, 3.6). In each entry P, reserved bits and U/S are checked, at
 * the leaf the right to write, over all levels; then A is set in it, and D by a write, by one compare-and-swap. Requests of supervisor
 * privilege, EA, and the check of the output against the interrupt range are not here.
 * @param page bits 63:12 of the address
 * @throws RangeError for a page that is no such number
 */
export function* walkFirstStage(
  agent: Agent,
  table: FirstStageTable,
  page: number,
  write: boolean,
): Task<FirstStageOutcome> {
  const { memory, levels } = table;
  if (!Number.isInteger(page) || page < 0 || page >= 2 ** 52)
    throw new RangeError(`page: ${page} is not an integer in 0..2^52-1`);
  const half = 2 ** (CANONICAL_BITS[levels] - 12);
  if (page >= half && page < 2 ** 52 - half) return fault(FaultReason.notCanonical, levels);
  let pfn = table.rootPfn;
  let writable = true;
  for (let level: number = levels; ; level--) {
    if (!memory.contains(pfn))
      return fault(level === levels ? FaultReason.firstStagePointer : FaultReason.firstStageAccess, level);
    const index = tableIndex(page, level);
    const location = memory.location(pfn, index);
    // Where hardware snoops it may set A or D in the same step.
    yield memory.coherent
      ? agent.writes('read first-stage entry', Location.entry, location, Cost.walkRead)
      : agent.reads('read first-stage entry', Location.entry, location, Cost.walkRead);
    const entry = memory.hardwareLoad(pfn, index);
    const leaf = isFirstStageLeaf(entry, level);
    writable &&= (entry & FS_WRITE) !== 0n;
    const reason =
      reasonOf(table, entry, level as TableLevel) ||
      (leaf && write && !writable ? FaultReason.scalableWriteNotAllowed : 0);
    if (reason !== 0) return fault(reason, level);
    const wanted = leaf && write ? FS_ACCESSED | FS_DIRTY : FS_ACCESSED;
    if ((entry & wanted) !== wanted) {
      if (!memory.coherent) return fault(FaultReason.firstStageUpdateNoSnoop, level);
      // Nobody is in between: the read above and this are one step.
      memory.compareExchange(pfn, index, entry, entry | wanted);
    }
    pfn = firstStageFrame(entry, level);
    if (leaf) return { frame: pfn + (page % 512 ** (level - 1)), reason: 0, level };
  }
}

const fault = (reason: number, level: number): FirstStageOutcome => ({ frame: -1, reason, level });

/** What is wrong with an entry for every request of user privilege, or 0. */
function reasonOf({ capabilities }: FirstStageTable, entry: bigint, level: TableLevel): number {
  if ((entry & FS_PRESENT) === 0n) return FaultReason.firstStageNotPresent;
  const [reserved = 0n] = firstStageLayout(level, isFirstStageLeaf(entry, level), capabilities).reserved;
  if ((entry & reserved) !== 0n) return FaultReason.firstStageReserved;
  return (entry & FS_USER) === 0n ? FaultReason.userPrivilege : 0;
}
