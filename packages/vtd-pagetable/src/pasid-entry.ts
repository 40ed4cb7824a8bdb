import { FaultReason } from './fault-reason.ts';
import { decodeFields, encodeFields, reservedBitsSet } from './format/bit-field.ts';
import { pasidLayout } from './format/pasid-entry-layout.ts';
import { supportsAddressWidth } from './format/shared-field.ts';
import { EVERY_STRUCTURE_CAPABILITY, type StructureCapabilities } from './structure-capabilities.ts';

/** PGTT: which translation a PASID entry asks for. */
export const PasidTranslationType = {
  firstStage: 1,
  secondStage: 2,
  nested: 3,
  passThrough: 4,
} as const;

/** A PASID table entry that is present. Optional properties are 0 or false by default. */
export interface PasidEntry {
  /** FPD: qualified faults of this PASID are not recorded. */
  readonly faultProcessingDisabled: boolean;
  /** AW of the second stage: 1 = 3 levels, 2 = 4, 3 = 5. */
  readonly addressWidth: number;
  /** SLEE: second-level execute enable, Rev 3.x only. */
  readonly secondLevelExecuteEnable?: boolean;
  /** PGTT, one of {@link PasidTranslationType}. */
  readonly translationType: number;
  /** SSADE: hardware sets A and D in second-stage entries. */
  readonly secondStageAccessedDirty: boolean;
  /** SSPTPTR as a frame number. */
  readonly secondStagePfn: number;
  /** DID, 16 bits. */
  readonly domainId: number;
  /** PWSNP: walks snoop the CPU's caches. */
  readonly pageWalkSnoop: boolean;
  /** PGSNP: all requests snoop. */
  readonly pageSnoop: boolean;
  /** CD: cache disable. */
  readonly cacheDisable?: boolean;
  /** EMTE: EMT of second-stage leaves counts. */
  readonly extendedMemoryTypeEnable?: boolean;
  /** EMT, Rev 3.x only: memory type of a stage without one of its own. */
  readonly extendedMemoryType?: number;
  /** PAT: eight memory types of 4 bits. */
  readonly pageAttributeTable?: number;
  /** SRE: supervisor requests are allowed. */
  readonly supervisorRequestEnable?: boolean;
  /** ERE: execute requests are allowed, Rev 3.x only. */
  readonly executeRequestEnable?: boolean;
  /** FSPM: 0 = 4 levels, 1 = 5. */
  readonly firstStagePagingMode?: number;
  /** WPE: supervisor writes respect read-only first-stage pages. */
  readonly writeProtectEnable?: boolean;
  /** EAFE: hardware sets EA in first-stage entries. */
  readonly extendedAccessedEnable?: boolean;
  /** FSPTPTR as a frame number; a guest frame if nested. */
  readonly firstStagePfn?: number;
  /** HPTSZ, 0 .. 3: the host permission table covers 49 .. 52 address bits (Rev 5.x). */
  readonly hostPermissionTableSize?: number;
  /** HPTPFD: no prefetch of host permissions (Rev 5.x). */
  readonly hostPermissionPrefetchDisable?: boolean;
  /** HPTPTR as a frame number (Rev 5.x). */
  readonly hostPermissionTablePfn?: number;
  /** HPTDID (Rev 5.x). */
  readonly hostPermissionDomainId?: number;
}

const FIELDS = pasidLayout(EVERY_STRUCTURE_CAPABILITY);

/** Encodes a present PASID table entry: eight quadwords. @throws RangeError naming the field that does not fit */
export function encodePasidEntry(entry: PasidEntry): readonly bigint[] {
  const words = encodeFields(FIELDS, entry);
  words[0] = (words[0] ?? 0n) | 1n;
  return words;
}

/** Decodes a PASID table entry, with every property; null if P is clear. */
export const decodePasidEntry = (words: readonly bigint[]): Required<PasidEntry> | null =>
  ((words[0] ?? 0n) & 1n) === 0n ? null : (decodeFields(FIELDS, words) as unknown as Required<PasidEntry>);

/** Reserved bits of a PASID table entry that are set, by quadword; all 0n if it is not present. */
export const pasidEntryReserved = (words: readonly bigint[], capabilities: StructureCapabilities): readonly bigint[] =>
  ((words[0] ?? 0n) & 1n) === 0n ? FIELDS.reserved.map(() => 0n) : reservedBitsSet(pasidLayout(capabilities), words);

/** The fault reason that reading this PASID table entry gives, or 0: not present, reserved bits, invalid (SPT.2-SPT.4). */
export function pasidEntryReason(words: readonly bigint[], capabilities: StructureCapabilities): number {
  const entry = decodePasidEntry(words);
  if (entry === null) return FaultReason.pasidEntryNotPresent;
  if (pasidEntryReserved(words, capabilities).some((bits) => bits !== 0n)) return FaultReason.pasidEntryReserved;
  return invalidPasidField(entry, capabilities) === null ? 0 : FaultReason.pasidEntryInvalid;
}

/** The field that makes a PASID entry invalid for the unit (condition SPT.4), by the specification's name; null if none. */
export function invalidPasidField(entry: Required<PasidEntry>, capabilities: StructureCapabilities): string | null {
  const { translationType, addressWidth, firstStagePagingMode } = entry;
  const { firstStage, secondStage, nested, passThrough } = PasidTranslationType;
  const supported =
    (translationType === firstStage && capabilities.firstStage) ||
    (translationType === secondStage && capabilities.secondStage) ||
    (translationType === nested && capabilities.nested) ||
    (translationType === passThrough && capabilities.passThrough);
  if (!supported) return 'PGTT';
  const walksSecond = translationType === secondStage || translationType === nested;
  if (walksSecond && !supportsAddressWidth(capabilities, addressWidth)) return 'AW';
  const walksFirst = translationType === firstStage || translationType === nested;
  if (walksFirst && firstStagePagingMode > (capabilities.firstStage5Level ? 1 : 0)) return 'FSPM';
  const guestBits = Math.min(capabilities.guestAddressWidth, 30 + 9 * addressWidth);
  if (translationType === nested && entry.firstStagePfn >= 2 ** (guestBits - 12)) return 'FSPTPTR';
  return null;
}
