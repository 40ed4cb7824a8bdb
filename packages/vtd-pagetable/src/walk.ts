import { type Agent, Cost, Location, type Task } from '@faultline/sim';
import { HI_ADDRESS, LO_PAGE_SIZE, LO_RIGHTS, type ReservedMasks } from './entry.ts';
import { FaultReason } from './fault-reason.ts';
import type { TableMemory } from './table-memory.ts';

/**
 * What a request asks for (VT-d Rev 5.10, 3.7.1): read, write, an atomic operation (both rights), or a read of no bytes, which is
 * allowed on a write-only page too (CAP.ZLR). `anything` is an ATS translation request: it learns what there is (4.2.3).
 */
export const WalkAccess = { read: 0, write: 1, atomic: 2, zeroLengthRead: 3, anything: 4 } as const;
/** One of {@link WalkAccess}. */
export type WalkAccessKind = (typeof WalkAccess)[keyof typeof WalkAccess];

/** By access: rights of which at least one must be there, and rights that must all be there (bit 0 R, bit 1 W). */
const NEEDS_ANY = [1, 2, 3, 3, 3] as const;
const NEEDS_ALL = [1, 2, 3, 0, 0] as const;

/** Which tables a walk is part of: reasons and the order of checks differ (Rev 5.10, 7.1.3). */
export const WalkMode = { legacy: 0, scalable: 1 } as const;
/** 0 legacy, 1 scalable. */
export type WalkModeCode = (typeof WalkMode)[keyof typeof WalkMode];

/** What a walk does with A and D bits: SSADE of the PASID entry, and whether it may (walks that snoop). */
export const AccessedDirtyMode = {
  /** SSADE = 0: the bits are ignored. */
  off: 0,
  /** A is set in every entry used, D in the leaf of a write. */
  update: 1,
  /** SSADE = 1 on a walk that does not snoop: an update that is needed is fault 7Ch. */
  fault: 2,
} as const;
/** One of {@link AccessedDirtyMode}. */
export type AccessedDirtyModeCode = (typeof AccessedDirtyMode)[keyof typeof AccessedDirtyMode];

const LO_ACCESSED = 0x100;
const LO_DIRTY = 0x200;

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
  /** Halves of the entry read last, A and D as this walk left them; after translation, of the leaf. */
  entryLo = 0;
  entryHi = 0;
  status: number = WalkStatus.walking;
  /** A {@link FaultReason} once faulted. */
  faultReason = 0;
  /** Memory reads made by this walk. */
  reads = 0;
  /** A {@link WalkMode}; kept from walk to walk. */
  mode: number = WalkMode.legacy;
  /** An {@link AccessedDirtyMode}; kept from walk to walk. */
  accessedDirty: number = AccessedDirtyMode.off;
  /** Whether a translation request may set D: not if it promises not to write (NW). Kept from walk to walk. */
  mayWrite = true;

  /** Loads the registers: from the root of a table, or from a paging-structure cache with the rights so far. */
  begin(tablePfn: number, level: number, iovaHi: number, iovaLo: number, access: number, rights = 3): void {
    this.iovaHi = iovaHi;
    this.iovaLo = iovaLo;
    this.access = access;
    this.level = level;
    this.tablePfn = tablePfn;
    this.rights = rights;
    this.status = 0;
    this.faultReason = 0;
    this.reads = 0;
  }

  /** Index into the table that is read next. */
  get index(): number {
    return walkIndex(this.level, this.iovaHi, this.iovaLo);
  }

  /** The 4K frame that a translated address falls into; a number below 2^40. */
  get framePfn(): number {
    // Literal numbers: this is hot. The leaf's own offset bits are zero, or it would have been a fault.
    const entryHi = this.entryHi;
    const low = (this.entryLo | (this.iovaLo & ((1 << (9 * this.level + 3)) - 1))) >>> 12;
    return (entryHi & 0xf_f800) === 0 ? (entryHi << 20) | low : (entryHi & 0xf_ffff) * 0x10_0000 + low;
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
 * Reads one entry, as the hardware does, and decides: translated, faulted, or one level down. Order of the checks in legacy mode:
 * the right asked for at each level, then reserved bits, then the kind of entry (as QEMU tests them). In scalable mode (Rev
 * 5.10, SSS.2, SSS.3, SGN.6, SGN.7): no right at all, then reserved bits, then at the leaf the right asked for. A and D are set by
 * one compare-and-swap on the entry as it was checked; if it has changed meanwhile it is read and checked again.
 */
export function walkLevel(memory: TableMemory, masks: ReservedMasks, state: WalkState): number {
  const level = state.level;
  const page = state.tablePfn - memory.basePfn;
  if (page < 0 || page >= memory.pages)
    return fault(state, state.mode === WalkMode.legacy ? FaultReason.tableAccess : FaultReason.secondStageAccess);
  const half = (page << 10) | (walkIndex(level, state.iovaHi, state.iovaLo) << 1);
  const halves = memory.halves;
  const above = state.rights;
  for (;;) {
    let lo = halves[half] as number;
    let hi = halves[half + 1] as number;
    if (memory.concurrent) {
      // Two 32-bit loads can be torn by a 64-bit store in another thread: the low half must be the same before and after.
      do {
        lo = Atomics.load(halves, half);
        hi = Atomics.load(halves, half + 1);
      } while (Atomics.load(halves, half) !== lo);
    }
    state.reads++;
    state.entryLo = lo;
    state.entryHi = hi;
    const rights = above & lo & LO_RIGHTS;
    state.rights = rights;
    const access = state.access;
    const isLegacy = state.mode === WalkMode.legacy;
    if (isLegacy) {
      if (lacks(rights, access)) return fault(state, legacyLack(rights, access));
    } else if (rights === 0) return fault(state, FaultReason.secondStageNoPermission);
    const leaf = level === 1 || (level <= 3 && (lo & LO_PAGE_SIZE) !== 0);
    const mask = (level << 1) | (leaf ? 1 : 0);
    if (((lo & (masks.lo[mask] as number)) | (hi & (masks.hi[mask] as number))) !== 0)
      return fault(state, isLegacy ? FaultReason.pagingReserved : FaultReason.secondStageReserved);
    if (leaf && !isLegacy && lacks(rights, access)) return fault(state, scalableLack(rights, access));
    if (state.accessedDirty !== AccessedDirtyMode.off) {
      const wanted = leaf && writes(state, rights) ? LO_ACCESSED | LO_DIRTY : LO_ACCESSED;
      if ((lo & wanted) !== wanted) {
        if (state.accessedDirty === AccessedDirtyMode.fault) return fault(state, FaultReason.secondStageUpdateNoSnoop);
        if (!setBits(memory, state, wanted)) continue;
      }
    }
    if (leaf) {
      state.status = WalkStatus.translated;
      return WalkStatus.translated;
    }
    // PS in a PML4E or PML5E is reserved and was caught above.
    state.tablePfn = (hi & HI_ADDRESS) * 0x10_0000 + (lo >>> 12);
    state.level = level - 1;
    return WalkStatus.walking;
  }
}

/** Whether the rights do not serve the access. */
const lacks = (rights: number, access: number): boolean =>
  (rights & (NEEDS_ANY[access] as number)) === 0 || (~rights & (NEEDS_ALL[access] as number)) !== 0;

/** 5h for a write or an atomic operation without W, else 6h. */
const legacyLack = (rights: number, access: number): number =>
  (access === WalkAccess.write || access === WalkAccess.atomic) && (rights & 2) === 0
    ? FaultReason.writeNotAllowed
    : FaultReason.readNotAllowed;

/** 85h for a write or an atomic operation without W, else 86h. */
const scalableLack = (rights: number, access: number): number =>
  (access === WalkAccess.write || access === WalkAccess.atomic) && (rights & 2) === 0
    ? FaultReason.scalableWriteNotAllowed
    : FaultReason.scalableReadNotAllowed;

/** Whether this walk makes a page dirty: a write, or a translation request that may write and is granted W (Rev 5.10, 4.2.3.1). */
const writes = (state: WalkState, rights: number): boolean =>
  state.access === WalkAccess.write ||
  state.access === WalkAccess.atomic ||
  (state.access === WalkAccess.anything && state.mayWrite && (rights & 2) !== 0);

/** Sets A or D in the entry that was read last. @returns false if it has changed since */
function setBits(memory: TableMemory, state: WalkState, wanted: number): boolean {
  const seen = state.entry;
  const updated = seen | BigInt(wanted);
  if (memory.compareExchange(state.tablePfn, state.index, seen, updated) !== seen) return false;
  state.entryLo |= wanted;
  return true;
}

/**
 * Walks to the end with nobody in between. If nothing is the matter with any entry, which is nearly always, no more is needed than
 * to see that; anything else is walked level by level from where it began. @returns the final {@link WalkStatus}
 *
 * {@link walkLevel} in a loop keeps every register in memory between two levels, and takes 41 ns for four levels where this takes 13. So
 * a walk of four levels, as most are, is written out beside it, in two functions that together with their caller stay within what
 * V8 inlines (460 bytes of bytecode each, 920 in all; these have 213 and 438), and with literal numbers, since a bundler makes
 * variables of a module's constants. Tables of three and five levels are walked level by level.
 */
export function walk(memory: TableMemory, masks: ReservedMasks, state: WalkState): number {
  let status = state.status;
  if (((state.level ^ 4) | status | state.accessedDirty) === 0 && memory.concurrent === false) {
    const { basePfn, halves } = memory;
    const page = state.tablePfn - basePfn;
    const half = (page << 10) | ((state.iovaHi >>> 6) & 0x3fe);
    const lo = halves[half]!;
    const hi = halves[half | 1]!;
    if (page >= 0 && page < memory.pages && (((lo ^ 3) & masks.tableLo) | (hi & masks.anyHi)) === 0)
      status = walkFromLevel3(memory, masks, state, ((hi << 20) | (lo >>> 12)) - basePfn);
  }
  return status === 0 ? walkLevels(memory, masks, state) : status;
}

/** The same, level by level. */
function walkLevels(memory: TableMemory, masks: ReservedMasks, state: WalkState): number {
  let status = 0;
  while (status === 0) status = walkLevel(memory, masks, state);
  return status;
}

/**
 * Walks from the level-3 table in that page of the memory down to the leaf. Leaves it to {@link walkLevel} if there is anything to look
 * at: a reserved bit, a table entry without R or W, a right that is missing, a frame of 2^31 or above. A page outside the memory reads
 * nothing (undefined, which the operators take for an entry that is not present), or is seen at the end by its number.
 * @returns translated, or walking with the state as it was
 */
function walkFromLevel3(memory: TableMemory, masks: ReservedMasks, state: WalkState, firstPage: number): number {
  const { basePfn, halves } = memory;
  const { tableLo, anyHi } = masks;
  const iovaLo = state.iovaLo;
  const indexBits = 0x3fe;
  const pageSize = 0x80;
  let reserved = 0;
  let level = 3;
  let page = firstPage;
  /** OR of the tables' page numbers. */
  let pages = page;
  let half = (page << 10) | ((state.iovaHi & 0x7f) << 3) | ((iovaLo >>> 29) & 6);
  let lo = halves[half]!;
  let hi = halves[half | 1]!;
  if (lo & pageSize) reserved = lo & masks.leafLo3;
  else {
    if (((lo ^ 3) & tableLo) | (hi & anyHi)) return 0;
    level = 2;
    page = ((hi << 20) | (lo >>> 12)) - basePfn;
    pages = pages | page;
    half = (page << 10) | ((iovaLo >>> 20) & indexBits);
    lo = halves[half]!;
    hi = halves[half | 1]!;
    if (lo & pageSize) reserved = lo & masks.leafLo2;
    else {
      if (((lo ^ 3) & tableLo) | (hi & anyHi)) return 0;
      level = 1;
      page = ((hi << 20) | (lo >>> 12)) - basePfn;
      pages = pages | page;
      half = (page << 10) | ((iovaLo >>> 11) & indexBits);
      lo = halves[half]!;
      hi = halves[half | 1]!;
      reserved = lo & masks.leafLo1;
    }
  }
  const rights = state.rights & lo & 3;
  // Read, write and atomic need rights 1, 2 and 3. What the other accesses need is no subset of the rights: they go level by level.
  if (reserved | (hi & anyHi) | (pages >>> 21) | ((state.access + 1) & ~rights)) return 0;
  state.rights = rights;
  state.entryLo = lo;
  state.entryHi = hi;
  state.tablePfn = (page + basePfn) | 0;
  state.level = level;
  state.reads = (state.reads + 5 - level) | 0;
  state.status = 1;
  return 1;
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
