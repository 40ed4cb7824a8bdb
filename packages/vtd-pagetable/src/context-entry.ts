import { FaultReason } from './fault-reason.ts';
import {
  at,
  decodeFields,
  encodeFields,
  type Layout,
  layout,
  namedValues,
  perCapabilities,
  pointer,
  reservedBitsSet,
  used,
} from './format/bit-field.ts';
import { addressWidthMeaning, domainIdField, faultProcessingField, presentField } from './format/shared-field.ts';
import { contextTableFor, presentContextTable } from './root-entry.ts';
import {
  DEFAULT_STRUCTURE_CAPABILITIES,
  EVERY_STRUCTURE_CAPABILITY,
  type StructureCapabilities,
} from './structure-capabilities.ts';
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

/** Layout of a legacy context entry: two quadwords (Rev 5.10, 9.3). */
export const contextLayout: (capabilities: StructureCapabilities) => Layout = perCapabilities((capabilities) =>
  layout({
    name: 'context entry',
    source: '9.3',
    words: 2,
    fields: [
      domainIdField(72, capabilities),
      { name: 'ignored', title: 'for software', high: 70, low: 67, use: 'ignored' },
      used({
        name: 'AW',
        title: 'address width',
        high: 66,
        low: 64,
        key: 'addressWidth',
        meaning: addressWidthMeaning,
      }),
      pointer(
        {
          name: 'SSPTPTR',
          title: 'second-stage page table pointer',
          low: 12,
          key: 'tablePfn',
          meaning: at('table'),
        },
        capabilities.hostAddressWidth,
      ),
      used({
        name: 'TT',
        title: 'translation type',
        high: 3,
        low: 2,
        key: 'translationType',
        meaning: namedValues([
          'second stage; ATS is blocked',
          'second stage; ATS allowed (device TLB)',
          'pass-through; SSPTPTR is ignored',
        ]),
      }),
      faultProcessingField(),
      presentField(),
    ],
  }),
);

const FIELDS = contextLayout(EVERY_STRUCTURE_CAPABILITY);

/** Encodes a present legacy context entry: low and high quadword. @throws RangeError naming the field that does not fit */
export function encodeContext(entry: ContextEntry): { readonly lo: bigint; readonly hi: bigint } {
  const [lo = 0n, hi = 0n] = encodeFields(FIELDS, entry);
  return { lo: lo | 1n, hi };
}

/** Decodes a legacy context entry; null if P is clear. */
export const decodeContext = (lo: bigint, hi: bigint): ContextEntry | null =>
  (lo & 1n) === 0n ? null : (decodeFields(FIELDS, [lo, hi]) as unknown as ContextEntry);

/** Reserved bits of a legacy context entry that are set, low and high quadword; 0n and 0n if it is not present. */
export const contextReserved = (words: readonly bigint[], capabilities: StructureCapabilities): readonly bigint[] =>
  ((words[0] ?? 0n) & 1n) === 0n ? [0n, 0n] : reservedBitsSet(contextLayout(capabilities), words);

/**
 * The fault reason that using this legacy context entry for an untranslated request gives, or 0: not present, reserved bits, AW or TT
 * that the unit does not have. Whether the table can be read is for the caller to find out (also `contextInvalid`).
 */
export function contextReason(words: readonly bigint[], capabilities: StructureCapabilities): number {
  const context = decodeContext(words[0] ?? 0n, words[1] ?? 0n);
  if (context === null) return FaultReason.contextNotPresent;
  if (contextReserved(words, capabilities).some((bits) => bits !== 0n)) return FaultReason.contextReserved;
  const valid = capabilities.addressWidths.includes(context.addressWidth) && hasType(capabilities, context);
  return valid ? 0 : FaultReason.contextInvalid;
}

/** Whether the unit has the translation type of an entry (condition LCT.4.2). */
const hasType = ({ deviceTlb, passThrough }: StructureCapabilities, { translationType }: ContextEntry): boolean =>
  [true, deviceTlb, passThrough, false][translationType] === true;

/** What a look-up of the context of a device gave: an entry, or a {@link FaultReason}. */
export type ContextLookup =
  | { readonly ok: true; readonly context: ContextEntry }
  | { readonly ok: false; readonly reason: number };

/**
 * Reads and checks the context entry of a function (devfn) in a context table. `levels` says which AW the unit supports, instead of
 * `capabilities.addressWidths`.
 */
export function readContext(
  memory: TableMemory,
  contextPfn: number,
  devfn: number,
  levels: ReadonlySet<number>,
  capabilities: StructureCapabilities = DEFAULT_STRUCTURE_CAPABILITIES,
): ContextLookup {
  const lo = memory.load(contextPfn, devfn * 2);
  const hi = memory.load(contextPfn, devfn * 2 + 1);
  const context = decodeContext(lo, hi);
  if (context === null) return { ok: false, reason: FaultReason.contextNotPresent };
  if (contextReserved([lo, hi], capabilities).some((bits) => bits !== 0n))
    return { ok: false, reason: FaultReason.contextReserved };
  const usable = context.translationType === TranslationType.passThrough || memory.contains(context.tablePfn);
  if (!hasType(capabilities, context) || !levels.has(context.addressWidth + 2) || !usable)
    return { ok: false, reason: FaultReason.contextInvalid };
  return { ok: true, context };
}

/**
 * Writes root and context entries as a driver does: the context entry's high quadword first, the one with P last; each is flushed, which
 * costs nothing if memory is coherent. Allocates the context table of a bus at its first device.
 * @returns false if no table page could be had
 */
export function writeContext(memory: TableMemory, rootPfn: number, sourceId: number, entry: ContextEntry): boolean {
  const { lo, hi } = encodeContext(entry);
  const contextPfn = contextTableFor(memory, rootPfn, (sourceId >> 8) * 2);
  if (contextPfn < 0) return false;
  const slot = (sourceId & 0xff) * 2;
  memory.store(contextPfn, slot + 1, hi);
  memory.flush(contextPfn, slot + 1);
  memory.store(contextPfn, slot, lo);
  memory.flush(contextPfn, slot);
  return true;
}

/** Clears a device's context entry: P first. The caller then invalidates context cache and IOTLB. */
export function clearContext(memory: TableMemory, rootPfn: number, sourceId: number): void {
  const contextPfn = presentContextTable(memory, rootPfn, (sourceId >> 8) * 2);
  if (contextPfn < 0) return;
  const slot = (sourceId & 0xff) * 2;
  for (const index of [slot, slot + 1]) {
    memory.store(contextPfn, index, 0n);
    memory.flush(contextPfn, index);
  }
}
