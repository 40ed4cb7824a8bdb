import { FaultReason } from './fault-reason.ts';
import {
  at,
  decodeFields,
  encodeFields,
  type Layout,
  layout,
  perCapabilities,
  pointer,
  reservedBitsSet,
} from './format/bit-field.ts';
import { faultProcessingField, presentField } from './format/shared-field.ts';
import { EVERY_STRUCTURE_CAPABILITY, type StructureCapabilities } from './structure-capabilities.ts';

/** A PASID directory entry that is present. */
export interface PasidDirectoryEntry {
  /** FPD: qualified faults of these 64 PASIDs are not recorded. */
  readonly faultProcessingDisabled: boolean;
  /** SMPTBLPTR as a frame number: a table of 64 PASID entries. */
  readonly pasidTablePfn: number;
}

/** Layout of a PASID directory entry: one quadword (Rev 5.10, 9.5). */
export const pasidDirectoryLayout: (capabilities: StructureCapabilities) => Layout = perCapabilities(
  ({ hostAddressWidth }) =>
    layout({
      name: 'PASID directory entry',
      source: '9.5',
      words: 1,
      fields: [
        pointer(
          {
            name: 'SMPTBLPTR',
            title: 'PASID table pointer',
            low: 12,
            key: 'pasidTablePfn',
            meaning: at('table'),
          },
          hostAddressWidth,
        ),
        faultProcessingField(),
        presentField(),
      ],
    }),
);

const FIELDS = pasidDirectoryLayout(EVERY_STRUCTURE_CAPABILITY);

/** Encodes a present PASID directory entry: one quadword. @throws RangeError naming the field that does not fit */
export const encodePasidDirectoryEntry = (entry: PasidDirectoryEntry): readonly bigint[] =>
  encodeFields(FIELDS, entry).map((word) => word | 1n);

/** Decodes a PASID directory entry; null if P is clear. */
export const decodePasidDirectoryEntry = (words: readonly bigint[]): PasidDirectoryEntry | null =>
  ((words[0] ?? 0n) & 1n) === 0n ? null : (decodeFields(FIELDS, words) as unknown as PasidDirectoryEntry);

/** Reserved bits of a PASID directory entry that are set; 0n if it is not present. */
export const pasidDirectoryReserved = (
  words: readonly bigint[],
  capabilities: StructureCapabilities,
): readonly bigint[] =>
  ((words[0] ?? 0n) & 1n) === 0n ? [0n] : reservedBitsSet(pasidDirectoryLayout(capabilities), words);

/** The fault reason that reading this PASID directory entry gives, or 0: not present, reserved bits. */
export function pasidDirectoryReason(words: readonly bigint[], capabilities: StructureCapabilities): number {
  if (((words[0] ?? 0n) & 1n) === 0n) return FaultReason.pasidDirectoryNotPresent;
  return pasidDirectoryReserved(words, capabilities)[0] === 0n ? 0 : FaultReason.pasidDirectoryReserved;
}
