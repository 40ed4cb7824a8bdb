import { FaultReason } from './fault-reason.ts';
import {
  at,
  encodeFields,
  fieldValue,
  type Layout,
  layout,
  perCapabilities,
  pointer,
  reservedBitsSet,
} from './format/bit-field.ts';
import { presentField } from './format/shared-field.ts';
import {
  DEFAULT_STRUCTURE_CAPABILITIES,
  EVERY_STRUCTURE_CAPABILITY,
  type StructureCapabilities,
} from './structure-capabilities.ts';
import type { TableMemory } from './table-memory.ts';

/** A legacy-mode root entry that is present. */
export interface RootEntry {
  /** CTP as a frame number. */
  readonly contextPfn: number;
}

/** A scalable-mode root entry; a half that is not present is null. */
export interface ScalableRootEntry {
  /** LCTP: frame of the context table for devices 0-15 (devfn 0-127). */
  readonly lowerContextPfn: number | null;
  /** UCTP: frame of the context table for devices 16-31 (devfn 128-255). */
  readonly upperContextPfn: number | null;
}

/** Layout of a legacy-mode root entry: two quadwords (Rev 5.10, 9.1). */
export const rootLayout: (capabilities: StructureCapabilities) => Layout = perCapabilities(({ hostAddressWidth }) =>
  layout({
    name: 'root entry',
    source: '9.1',
    words: 2,
    fields: [
      pointer(
        { name: 'CTP', title: 'context-table pointer', low: 12, key: 'contextPfn', meaning: at('table') },
        hostAddressWidth,
      ),
      presentField(),
    ],
  }),
);

/** Layout of a scalable-mode root entry: two quadwords (Rev 5.10, 9.2). */
export const scalableRootLayout: (capabilities: StructureCapabilities) => Layout = perCapabilities(
  ({ hostAddressWidth }) =>
    layout({
      name: 'scalable-mode root entry',
      source: '9.2',
      words: 2,
      fields: [
        pointer(
          {
            name: 'UCTP',
            title: 'upper context-table pointer',
            low: 76,
            key: 'upperContextPfn',
            meaning: at('devfn 0x80-0xff: table'),
          },
          hostAddressWidth,
        ),
        presentField(64, 'UP', 'upper present'),
        pointer(
          {
            name: 'LCTP',
            title: 'lower context-table pointer',
            low: 12,
            key: 'lowerContextPfn',
            meaning: at('devfn 0-0x7f: table'),
          },
          hostAddressWidth,
        ),
        presentField(0, 'LP', 'lower present'),
      ],
    }),
);

const FIELDS = rootLayout(EVERY_STRUCTURE_CAPABILITY);
const SCALABLE_FIELDS = scalableRootLayout(EVERY_STRUCTURE_CAPABILITY);
const PFN_FIELD = FIELDS.fields.find(({ name }) => name === 'CTP') as Layout['fields'][number];

const present = (word: bigint | undefined): boolean => ((word ?? 0n) & 1n) !== 0n;
const pfnOf = (word: bigint): number => Number(fieldValue(PFN_FIELD, [word]));

/** Encodes a present legacy root entry. @throws RangeError naming the field that does not fit */
export function encodeRoot(entry: RootEntry): readonly bigint[] {
  const [lo = 0n, hi = 0n] = encodeFields(FIELDS, entry);
  return [lo | 1n, hi];
}

/** Decodes a legacy root entry; null if P is clear. */
export const decodeRoot = ([lo = 0n]: readonly bigint[]): RootEntry | null =>
  present(lo) ? { contextPfn: pfnOf(lo) } : null;

/** Reserved bits of a legacy root entry that are set, by quadword; 0n and 0n if it is not present. */
export const rootReserved = (words: readonly bigint[], capabilities: StructureCapabilities): readonly bigint[] =>
  present(words[0]) ? reservedBitsSet(rootLayout(capabilities), words) : [0n, 0n];

/** The fault reason that reading this legacy root entry gives, or 0: not present, reserved bits. */
export function rootReason(words: readonly bigint[], capabilities: StructureCapabilities): number {
  if (!present(words[0])) return FaultReason.rootNotPresent;
  return rootReserved(words, capabilities).some((bits) => bits !== 0n) ? FaultReason.rootReserved : 0;
}

/** Encodes a scalable-mode root entry. @throws RangeError naming the field that does not fit */
export function encodeScalableRoot(entry: ScalableRootEntry): readonly bigint[] {
  const { lowerContextPfn, upperContextPfn } = entry;
  const [lower = 0n, upper = 0n] = encodeFields(SCALABLE_FIELDS, {
    lowerContextPfn: lowerContextPfn ?? 0,
    upperContextPfn: upperContextPfn ?? 0,
  });
  return [lower | (lowerContextPfn === null ? 0n : 1n), upper | (upperContextPfn === null ? 0n : 1n)];
}

/** Decodes a scalable-mode root entry; null if neither half is present. */
export function decodeScalableRoot([lower = 0n, upper = 0n]: readonly bigint[]): ScalableRootEntry | null {
  if (!present(lower) && !present(upper)) return null;
  return {
    lowerContextPfn: present(lower) ? pfnOf(lower) : null,
    upperContextPfn: present(upper) ? pfnOf(upper) : null,
  };
}

/** Reserved bits of a scalable-mode root entry that are set, by half; 0n for a half that is not present: hardware ignores it. */
export const scalableRootReserved = (
  words: readonly bigint[],
  capabilities: StructureCapabilities,
): readonly bigint[] =>
  reservedBitsSet(scalableRootLayout(capabilities), words).map((bits, half) => (present(words[half]) ? bits : 0n));

/** The fault reason that reading one half (0 lower, 1 upper) of this scalable-mode root entry gives, or 0. */
export function scalableRootReason(words: readonly bigint[], half: 0 | 1, capabilities: StructureCapabilities): number {
  if (!present(words[half])) return FaultReason.scalableRootNotPresent;
  return scalableRootReserved(words, capabilities)[half] === 0n ? 0 : FaultReason.scalableRootReserved;
}

/** Whether the legacy root entry of a bus leads to a context table; its frame, or the reason. */
export function readRoot(
  memory: TableMemory,
  rootPfn: number,
  bus: number,
  capabilities: StructureCapabilities = DEFAULT_STRUCTURE_CAPABILITIES,
): { pfn: number; reason: number } {
  if (!memory.contains(rootPfn)) return { pfn: -1, reason: FaultReason.rootAccess };
  const words = [memory.load(rootPfn, bus * 2), memory.load(rootPfn, bus * 2 + 1)];
  const reason = rootReason(words, capabilities);
  if (reason !== 0) return { pfn: -1, reason };
  const pfn = pfnOf(words[0] ?? 0n);
  return memory.contains(pfn) ? { pfn, reason: 0 } : { pfn: -1, reason: FaultReason.contextAccess };
}

/**
 * The frame that one quadword of a root table leads to, for a driver; a context table is allocated, and its contents flushed before
 * the quadword, if there is none.
 * @returns the frame, or -1 if no page could be had
 */
export function contextTableFor(memory: TableMemory, rootPfn: number, index: number): number {
  const word = memory.load(rootPfn, index);
  if (present(word)) return pfnOf(word);
  const pfn = memory.allocate();
  if (pfn < 0) return -1;
  memory.flush(pfn, 0, 512);
  memory.store(rootPfn, index, encodeRoot({ contextPfn: pfn })[0] as bigint);
  memory.flush(rootPfn, index);
  return pfn;
}

/** The frame that one quadword of a root table leads to, or -1. */
export function presentContextTable(memory: TableMemory, rootPfn: number, index: number): number {
  const word = memory.load(rootPfn, index);
  return present(word) ? pfnOf(word) : -1;
}
