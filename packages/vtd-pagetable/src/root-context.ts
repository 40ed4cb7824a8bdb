import { FaultReason } from './fault-reason.ts';
import type { TableMemory } from './table-memory.ts';

/** Translation type of a legacy context entry, bits 3:2 of its low quadword. */
export const TranslationType = {
  /** Second stage for untranslated requests; translation requests (ATS) are blocked. */
  untranslatedOnly: 0,
  /** Also translation requests and translated requests: the device has a device TLB. */
  deviceTlb: 1,
  /** Pass-through. */
  passThrough: 2,
} as const;

/** A legacy-mode context entry, decoded. */
export interface ContextEntry {
  /** FPD: faults are not recorded. */
  readonly faultProcessingDisabled: boolean;
  readonly translationType: number;
  /** SSPTPTR as a frame number. */
  readonly tablePfn: number;
  /** AW: 1 = 3 levels, 2 = 4, 3 = 5. */
  readonly addressWidth: number;
  /** DID, 16 bits. */
  readonly domainId: number;
}

/** Encodes a present legacy context entry (Rev 5.10, 9.3): low and high quadword. @throws RangeError for a field out of range */
export function encodeContext(entry: ContextEntry): { readonly lo: bigint; readonly hi: bigint } {
  checkField('domainId', entry.domainId, 0xffff);
  checkField('translationType', entry.translationType, 3);
  checkField('addressWidth', entry.addressWidth, 7);
  checkField('tablePfn', entry.tablePfn, 2 ** 40 - 1);
  const lo =
    1n |
    (entry.faultProcessingDisabled ? 2n : 0n) |
    (BigInt(entry.translationType) << 2n) |
    (BigInt(entry.tablePfn) << 12n);
  return { lo, hi: BigInt(entry.addressWidth) | (BigInt(entry.domainId) << 8n) };
}

function checkField(name: string, value: number, max: number): void {
  if (!Number.isInteger(value) || value < 0 || value > max)
    throw new RangeError(`${name}: ${value} is not in 0..${max}`);
}

/** Decodes a legacy context entry; null if P is clear. */
export function decodeContext(lo: bigint, hi: bigint): ContextEntry | null {
  if ((lo & 1n) === 0n) return null;
  return {
    faultProcessingDisabled: (lo & 2n) !== 0n,
    translationType: Number((lo >> 2n) & 3n),
    tablePfn: Number((lo >> 12n) & 0xff_ffff_ffffn),
    addressWidth: Number(hi & 7n),
    domainId: Number((hi >> 8n) & 0xffffn),
  };
}

/** Reserved bits of a root entry: low 11:1 and the whole high quadword (legacy mode). */
const ROOT_RESERVED_LO = 0xffen;
/** Reserved bits of a context entry: low 11:4; high 7 and 63:24. */
const CONTEXT_RESERVED_LO = 0xff0n;
const CONTEXT_RESERVED_HI = ~0xff_ff7fn & 0xffff_ffff_ffff_ffffn;

/** What a look-up of the context of a device gave: an entry, or a {@link FaultReason}. */
export type ContextLookup =
  | { readonly ok: true; readonly context: ContextEntry }
  | { readonly ok: false; readonly reason: number };

const failed = (reason: number): ContextLookup => ({ ok: false, reason });

/** Whether the root entry leads to a context table; its frame, or the reason. */
export function readRoot(memory: TableMemory, rootPfn: number, bus: number): { pfn: number; reason: number } {
  if (!memory.contains(rootPfn)) return { pfn: -1, reason: FaultReason.rootAccess };
  const lo = memory.load(rootPfn, bus * 2);
  if ((lo & 1n) === 0n) return { pfn: -1, reason: FaultReason.rootNotPresent };
  if ((lo & ROOT_RESERVED_LO) !== 0n || memory.load(rootPfn, bus * 2 + 1) !== 0n)
    return { pfn: -1, reason: FaultReason.rootReserved };
  const pfn = Number((lo >> 12n) & 0xff_ffff_ffffn);
  return memory.contains(pfn) ? { pfn, reason: 0 } : { pfn: -1, reason: FaultReason.contextAccess };
}

/** Reads and checks the context entry of a function (devfn) in a context table. `levels` says which AW the unit supports. */
export function readContext(
  memory: TableMemory,
  contextPfn: number,
  devfn: number,
  levels: ReadonlySet<number>,
): ContextLookup {
  const lo = memory.load(contextPfn, devfn * 2);
  const hi = memory.load(contextPfn, devfn * 2 + 1);
  const context = decodeContext(lo, hi);
  if (context === null) return failed(FaultReason.contextNotPresent);
  if ((lo & CONTEXT_RESERVED_LO) !== 0n || (hi & CONTEXT_RESERVED_HI) !== 0n)
    return failed(FaultReason.contextReserved);
  const usable = context.translationType === TranslationType.passThrough || memory.contains(context.tablePfn);
  if (context.translationType === 3 || !levels.has(context.addressWidth + 2) || !usable)
    return failed(FaultReason.contextInvalid);
  return { ok: true, context };
}

/**
 * Writes root and context entries as a driver does: the context entry's high quadword first, the one with P last.
 * Allocates the context table of a bus at its first device. @returns false if no table page could be had
 */
export function writeContext(memory: TableMemory, rootPfn: number, sourceId: number, entry: ContextEntry): boolean {
  const bus = sourceId >> 8;
  const devfn = sourceId & 0xff;
  let contextPfn = Number((memory.load(rootPfn, bus * 2) >> 12n) & 0xff_ffff_ffffn);
  if ((memory.load(rootPfn, bus * 2) & 1n) === 0n) {
    contextPfn = memory.allocate();
    if (contextPfn < 0) return false;
    memory.store(rootPfn, bus * 2, (BigInt(contextPfn) << 12n) | 1n);
  }
  const { lo, hi } = encodeContext(entry);
  memory.store(contextPfn, devfn * 2 + 1, hi);
  memory.store(contextPfn, devfn * 2, lo);
  return true;
}

/** Clears a device's context entry: P first. The caller then invalidates context cache and IOTLB. */
export function clearContext(memory: TableMemory, rootPfn: number, sourceId: number): void {
  const root = memory.load(rootPfn, (sourceId >> 8) * 2);
  if ((root & 1n) === 0n) return;
  const contextPfn = Number((root >> 12n) & 0xff_ffff_ffffn);
  memory.store(contextPfn, (sourceId & 0xff) * 2, 0n);
  memory.store(contextPfn, (sourceId & 0xff) * 2 + 1, 0n);
}
