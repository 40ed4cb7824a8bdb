import { FaultReason } from './fault-reason.ts';
import {
  at,
  conditional,
  decodeFields,
  encodeFields,
  type Layout,
  layout,
  perCapabilities,
  pointer,
  reservedBitsSet,
  used,
  yesNo,
} from './format/bit-field.ts';
import { faultProcessingField, presentField } from './format/shared-field.ts';
import { contextTableFor, presentContextTable } from './root-entry.ts';
import { EVERY_STRUCTURE_CAPABILITY, type StructureCapabilities } from './structure-capabilities.ts';
import type { TableMemory } from './table-memory.ts';

/** A scalable-mode context entry that is present. */
export interface ScalableContextEntry {
  /** FPD: qualified faults of this device are not recorded. */
  readonly faultProcessingDisabled: boolean;
  /** DTE: translation and translated requests (ATS) are allowed. */
  readonly deviceTlbEnable: boolean;
  /** PASIDE: requests with PASID are allowed. */
  readonly pasidEnable: boolean;
  /** PRE: page requests are allowed; needs DTE. */
  readonly pageRequestEnable: boolean;
  /** HPTE: translated requests are checked against the host permission table (Rev 5.x). Default false. */
  readonly hostPermissionTableEnable?: boolean;
  /** EPTR: translated requests may carry a PASID (Rev 5.x); needs PASIDE. Default false. */
  readonly pasidInTranslatedEnable?: boolean;
  /** PDTS, 0 .. 7: the directory has 2^(PDTS + 7) entries, for 2^(PDTS + 13) PASIDs. */
  readonly pasidDirectorySize: number;
  /** PASIDDIRPTR as a frame number. */
  readonly pasidDirectoryPfn: number;
  /** RID_PASID: the PASID that stands for requests without one. */
  readonly ridPasid: number;
  /** RID_PRIV: requests without PASID ask for supervisor privilege. */
  readonly ridPrivilege: boolean;
}

const flag = (bit: number, name: string, title: string, key: string, yes: string, no: string) => ({
  name,
  title,
  high: bit,
  low: bit,
  key,
  meaning: yesNo(yes, no),
});

/** Layout of a scalable-mode context entry: four quadwords (Rev 5.10, 9.4). */
export const scalableContextLayout: (capabilities: StructureCapabilities) => Layout = perCapabilities((unit) =>
  layout({
    name: 'scalable-mode context entry',
    source: '9.4',
    words: 4,
    fields: [
      conditional(
        unit.ridPrivilege,
        'ECAP.RPRIVS=0',
        flag(84, 'RID_PRIV', 'privilege of requests without PASID', 'ridPrivilege', 'supervisor', 'user'),
      ),
      conditional(unit.ridPasid, 'ECAP.RPS=0', {
        name: 'RID_PASID',
        title: 'PASID of requests without PASID',
        high: 83,
        low: 64,
        key: 'ridPasid',
        meaning: (value) => `PASID ${value}`,
      }),
      pointer(
        {
          name: 'PASIDDIRPTR',
          title: 'PASID directory pointer',
          low: 12,
          key: 'pasidDirectoryPfn',
          meaning: at('directory'),
        },
        unit.hostAddressWidth,
      ),
      used({
        name: 'PDTS',
        title: 'PASID directory size',
        high: 11,
        low: 9,
        key: 'pasidDirectorySize',
        meaning: (value) =>
          `${2 ** (Number(value) + 7)} entries, PASIDs below 0x${(1 << (Number(value) + 13)).toString(16)}`,
      }),
      conditional(
        unit.pasidInTranslated,
        'ECAP.PTRS=0',
        flag(6, 'EPTR', 'PASID in translated requests', 'pasidInTranslatedEnable', 'allowed', 'blocked'),
      ),
      conditional(
        unit.hostPermissionTable,
        'ECAP.HPTS=0',
        flag(5, 'HPTE', 'host permission table', 'hostPermissionTableEnable', 'checked', 'not used'),
      ),
      conditional(
        unit.pageRequest,
        'ECAP.PRS=0',
        flag(4, 'PRE', 'page requests', 'pageRequestEnable', 'allowed', 'blocked'),
      ),
      conditional(
        unit.pasid,
        'ECAP.PASID=0',
        flag(3, 'PASIDE', 'requests with PASID', 'pasidEnable', 'allowed', 'blocked'),
      ),
      conditional(
        unit.deviceTlb,
        'ECAP.DT=0',
        flag(2, 'DTE', 'device TLB (ATS)', 'deviceTlbEnable', 'translation requests allowed', 'ATS is blocked'),
      ),
      faultProcessingField(),
      presentField(),
    ],
  }),
);

const FIELDS = scalableContextLayout(EVERY_STRUCTURE_CAPABILITY);
/** Quadwords of an entry. */
const WORDS = 4;

/** Encodes a present scalable-mode context entry: four quadwords. @throws RangeError naming the field that does not fit */
export function encodeScalableContext(entry: ScalableContextEntry): readonly bigint[] {
  const words = encodeFields(FIELDS, entry);
  words[0] = (words[0] ?? 0n) | 1n;
  return words;
}

/** Decodes a scalable-mode context entry, with every property; null if P is clear. */
export const decodeScalableContext = (words: readonly bigint[]): Required<ScalableContextEntry> | null =>
  ((words[0] ?? 0n) & 1n) === 0n ? null : (decodeFields(FIELDS, words) as unknown as Required<ScalableContextEntry>);

/** Reserved bits of a scalable-mode context entry that are set, by quadword; all 0n if it is not present. */
export const scalableContextReserved = (
  words: readonly bigint[],
  capabilities: StructureCapabilities,
): readonly bigint[] =>
  ((words[0] ?? 0n) & 1n) === 0n ? [0n, 0n, 0n, 0n] : reservedBitsSet(scalableContextLayout(capabilities), words);

/** PASIDs that a directory of this PDTS reaches. */
export const pasidLimit = (pasidDirectorySize: number): number => 2 ** (pasidDirectorySize + 13);

/**
 * The fault reason that reading this scalable-mode context entry gives for any request, or 0: not present, reserved bits, or fields
 * that contradict each other (conditions SCT.2, SCT.3, SCT.4.1 and SCT.4.2; SCT.4.3 does not concern
 * every request, see {@link contradictsTranslatedPasid}).
 */
export function scalableContextReason(words: readonly bigint[], capabilities: StructureCapabilities): number {
  const context = decodeScalableContext(words);
  if (context === null) return FaultReason.scalableContextNotPresent;
  if (scalableContextReserved(words, capabilities).some((bits) => bits !== 0n))
    return FaultReason.scalableContextReserved;
  const pageRequestWithoutAts = context.pageRequestEnable && !context.deviceTlbEnable;
  const valid = !pageRequestWithoutAts && context.ridPasid < pasidLimit(context.pasidDirectorySize);
  return valid ? 0 : FaultReason.scalableContextInvalid;
}

/**
 * Condition SCT.4.3: EPTR without PASIDE. Table 30 applies it to untranslated and translation requests without PASID, translated
 * requests and page requests, but not to untranslated and translation requests with PASID, which PASIDE=0 blocks (SCT.6); the
 * reason is `scalableContextInvalid`.
 */
export const contradictsTranslatedPasid = (context: ScalableContextEntry): boolean =>
  context.pasidInTranslatedEnable === true && !context.pasidEnable;

const slotOf = (sourceId: number): { readonly half: number; readonly slot: number } => ({
  half: (sourceId >> 8) * 2 + ((sourceId & 0x80) >> 7),
  slot: (sourceId & 0x7f) * WORDS,
});

/**
 * Writes root and context entry of a device in scalable mode as a driver does: a context table for its half of the bus if there is
 * none, then the quadwords without P, the one with P last; each is flushed, which costs nothing if memory is coherent.
 * @returns false if no table page could be had
 * @throws RangeError for a field that does not fit, and for an entry that is present: clear and invalidate it first
 */
export function writeScalableContext(
  memory: TableMemory,
  rootPfn: number,
  sourceId: number,
  entry: ScalableContextEntry,
): boolean {
  const words = encodeScalableContext(entry);
  const { half, slot } = slotOf(sourceId);
  const contextPfn = contextTableFor(memory, rootPfn, half);
  if (contextPfn < 0) return false;
  if ((memory.load(contextPfn, slot) & 1n) !== 0n)
    throw new RangeError(`sourceId: 0x${sourceId.toString(16)} has a context entry already; clear it first`);
  for (let word = WORDS - 1; word >= 0; word--) {
    memory.store(contextPfn, slot + word, words[word] as bigint);
    memory.flush(contextPfn, slot + word);
  }
  return true;
}

/** Clears a device's scalable-mode context entry: P first. The caller then invalidates context cache, PASID cache and IOTLB. */
export function clearScalableContext(memory: TableMemory, rootPfn: number, sourceId: number): void {
  const { half, slot } = slotOf(sourceId);
  const contextPfn = presentContextTable(memory, rootPfn, half);
  if (contextPfn < 0) return;
  for (let word = 0; word < WORDS; word++) {
    memory.store(contextPfn, slot + word, 0n);
    memory.flush(contextPfn, slot + word);
  }
}
