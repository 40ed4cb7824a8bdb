import { type Agent, Cost, Location, type Task } from '@faultline/sim';
import { HI_ADDRESS, LO_PAGE_SIZE, LO_RIGHTS, type ReservedMasks } from './entry.ts';
import { FaultReason } from './fault-reason.ts';
import type { TableMemory } from './table-memory.ts';

/** What a walk asks for: read (0), write (1). An atomic operation needs both and asks for write after read. */
export const WalkAccess = { read: 0, write: 1 } as const;
/** Read or write. */
export type WalkAccessKind = (typeof WalkAccess)[keyof typeof WalkAccess];

/** Where a walk stands. */
export const WalkStatus = { walking: 0, translated: 1, faulted: 2 } as const;

/**
 * The registers of one hardware page walker, reused from walk to walk. {@link walkLevel} reads one level; the plain
 * {@link walk} loops over it and {@link walkTask} yields between.
 */
export class WalkState {
  iovaHi = 0;
  iovaLo = 0;
  access: number = WalkAccess.read;
  /** Level of the table that is read next; after translation, the level of the leaf: 1, 2 or 3. */
  level = 0;
  /** Frame of the table that is read next. */
  tablePfn = 0;
  /** AND of R (bit 0) and W (bit 1) over the entries read so far. */
  rights = LO_RIGHTS;
  /** Halves of the entry read last; after translation, of the leaf. */
  entryLo = 0;
  entryHi = 0;
  status: number = WalkStatus.walking;
  /** A {@link FaultReason} once faulted. */
  faultReason = 0;
  /** Memory reads made by this walk. */
  reads = 0;

  /** Loads the registers: from the root of a table, or from a paging-structure cache with the rights so far. */
  begin(tablePfn: number, level: number, iovaHi: number, iovaLo: number, access: number, rights = LO_RIGHTS): void {
    this.iovaHi = iovaHi;
    this.iovaLo = iovaLo;
    this.access = access;
    this.level = level;
    this.tablePfn = tablePfn;
    this.rights = rights;
    this.status = WalkStatus.walking;
    this.faultReason = 0;
    this.reads = 0;
  }

  /** Index into the table that is read next. */
  get index(): number {
    return walkIndex(this.level, this.iovaHi, this.iovaLo);
  }

  /** The 4K frame that a translated address falls into; a number below 2^40. */
  get framePfn(): number {
    const offset =
      this.level === 1 ? 0 : this.level === 2 ? (this.iovaLo >>> 12) & 0x1ff : (this.iovaLo >>> 12) & 0x3ffff;
    return (this.entryHi & HI_ADDRESS) * 0x10_0000 + (this.entryLo >>> 12) + offset;
  }

  /** The leaf or last entry read, whole. */
  get entry(): bigint {
    return (BigInt(this.entryHi >>> 0) << 32n) | BigInt(this.entryLo >>> 0);
  }
}

/** Index into the table at `level` for an address given by its halves (bits 20:12, 29:21, 38:30, 47:39, 56:48). */
export function walkIndex(level: number, iovaHi: number, iovaLo: number): number {
  switch (level) {
    case 1:
      return (iovaLo >>> 12) & 0x1ff;
    case 2:
      return (iovaLo >>> 21) & 0x1ff;
    case 3:
      return ((iovaHi & 0x7f) << 2) | (iovaLo >>> 30);
    case 4:
      return (iovaHi >>> 7) & 0x1ff;
    default:
      return (iovaHi >>> 16) & 0x1ff;
  }
}

function fault(state: WalkState, reason: number): number {
  state.faultReason = reason;
  state.status = WalkStatus.faulted;
  return WalkStatus.faulted;
}

/**
 * Reads one entry, as the hardware does, and decides: translated, faulted, or one level down. Legacy-mode order of the
 * checks: the right asked for, then reserved bits, then the kind of entry (as QEMU; Rev 5.10 checks reserved bits only
 * where R or W is set, which this order includes).
 */
export function walkLevel(memory: TableMemory, masks: ReservedMasks, state: WalkState): number {
  const level = state.level;
  const page = state.tablePfn - memory.basePfn;
  if (page < 0 || page >= memory.pages) return fault(state, FaultReason.tableAccess);
  const half = (page << 10) | (walkIndex(level, state.iovaHi, state.iovaLo) << 1);
  const halves = memory.halves;
  // Two 32-bit loads can be torn by a 64-bit store in another thread: the low half must be the same before and after.
  let lo = Atomics.load(halves, half);
  let hi = Atomics.load(halves, half + 1);
  for (let again = Atomics.load(halves, half); again !== lo; again = Atomics.load(halves, half)) {
    lo = again;
    hi = Atomics.load(halves, half + 1);
  }
  state.reads++;
  state.entryLo = lo;
  state.entryHi = hi;
  const rights = state.rights & lo & LO_RIGHTS;
  state.rights = rights;
  const needed = state.access === WalkAccess.write ? 2 : 1;
  if ((rights & needed) === 0)
    return fault(state, needed === 2 ? FaultReason.writeNotAllowed : FaultReason.readNotAllowed);
  const leaf = level === 1 || (level <= 3 && (lo & LO_PAGE_SIZE) !== 0);
  const mask = (level << 1) | (leaf ? 1 : 0);
  const tableMask = level << 1;
  const unsupportedLeaf = leaf && level > 1 && ((masks.lo[tableMask] as number) & LO_PAGE_SIZE) !== 0;
  if (((lo & (masks.lo[mask] as number)) | (hi & (masks.hi[mask] as number))) !== 0 || unsupportedLeaf)
    return fault(state, FaultReason.pagingReserved);
  if (leaf) {
    state.status = WalkStatus.translated;
    return WalkStatus.translated;
  }
  // PS in a PML4E or PML5E is reserved and was caught above.
  state.tablePfn = (hi & HI_ADDRESS) * 0x10_0000 + (lo >>> 12);
  state.level = level - 1;
  return WalkStatus.walking;
}

/** Walks to the end with nobody in between. @returns the final {@link WalkStatus} */
export function walk(memory: TableMemory, masks: ReservedMasks, state: WalkState): number {
  let status = state.status;
  while (status === WalkStatus.walking) status = walkLevel(memory, masks, state);
  return status;
}

const READ_LABELS = ['', 'read SS-PTE', 'read SS-PDE', 'read SS-PDPTE', 'read SS-PML4E', 'read SS-PML5E'] as const;

/** Label of the step that reads an entry of a table at this level. */
export const walkReadLabel = (level: number): string => READ_LABELS[level] as string;

/** The same walk, one level a step. @returns the final {@link WalkStatus} */
export function* walkTask(agent: Agent, memory: TableMemory, masks: ReservedMasks, state: WalkState): Task<number> {
  let status = state.status;
  while (status === WalkStatus.walking) {
    const location = memory.location(state.tablePfn, state.index);
    yield agent.reads(walkReadLabel(state.level), Location.entry, location, Cost.walkRead);
    status = walkLevel(memory, masks, state);
  }
  return status;
}
