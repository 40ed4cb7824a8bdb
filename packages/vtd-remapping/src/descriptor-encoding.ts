import { hex } from '@faultline/address';
import type { PasidCacheGranularity } from '@faultline/iotlb';
import { bit, field, flag, put } from './bit-field.ts';
import { type Descriptor, DescriptorType, type GranularityCode, type PasidIotlbGranularityCode } from './descriptor.ts';
import { TranslationMode, type TranslationModeCode } from './translation-mode.ts';

/** IQEI: why the invalidation queue stopped with IQE (VT-d Rev 5.10, 11.4.9.9). */
export const QueueErrorInfo = {
  /** The tail is beyond the queue. */
  invalidTail: 1,
  /** A descriptor could not be read. */
  fetchError: 2,
  /** A descriptor type that is unknown, absent in this unit, or not allowed in this translation mode (table 26). */
  invalidType: 3,
  /** A reserved field or value of a known type. */
  reservedField: 4,
  /** IQA.DW does not go with the translation mode or the unit. */
  invalidWidth: 5,
  /** The tail is not aligned to the descriptors. */
  misalignedTail: 6,
  /** RTADDR.TTM has a reserved value. */
  invalidTranslationMode: 7,
} as const;
/** 1 to 7. */
export type QueueErrorInfoCode = (typeof QueueErrorInfo)[keyof typeof QueueErrorInfo];

/** What decides which descriptors a queue takes. */
export interface DescriptorRules {
  /** IQA.DW: 256-bit descriptors. */
  readonly wide: boolean;
  /** RTADDR.TTM as latched; a mode that the unit lacks is as invalid as the reserved one (table 30, RTA.1). */
  readonly mode: TranslationModeCode;
  /** CAP.PSI. */
  readonly pageSelective: boolean;
  /** CAP.MAMV. */
  readonly maximumAddressMask: number;
  /** ECAP.DT. */
  readonly deviceTlb: boolean;
  /** ECAP.PRS. */
  readonly pageRequests: boolean;
  /** ECAP.PDS. */
  readonly pageRequestDrain: boolean;
  /** CAP.ND in bits: the upper ones of a domain-id are ignored. */
  readonly domainIdBits: number;
  /** CAP.MGAW + 1: higher bits of a second-stage address are ignored. */
  readonly guestAddressWidth: number;
  /** HAW: higher bits of a status address are ignored. */
  readonly hostAddressWidth: number;
}

const bits = (high: number, low: number): bigint => ((1n << BigInt(high - low + 1)) - 1n) << BigInt(low);

/** Reserved bits of the low and the high quadword by type. PFSID counts as reserved: ECAP.DIT is 0 here. */
const RESERVED: Readonly<Record<number, readonly [lo: bigint, hi: bigint]>> = {
  [DescriptorType.contextCache]: [bits(8, 6) | bits(15, 12) | bits(63, 50), bits(63, 0)],
  [DescriptorType.iotlb]: [bits(8, 8) | bits(15, 12) | bits(63, 32), bits(11, 7)],
  [DescriptorType.deviceTlb]: [bits(8, 4) | bits(15, 12) | bits(31, 21) | bits(63, 48), bits(11, 1)],
  [DescriptorType.interruptEntryCache]: [bits(8, 5) | bits(26, 12) | bits(63, 48), bits(63, 0)],
  [DescriptorType.wait]: [bits(8, 8) | bits(31, 12), bits(1, 0)],
  [DescriptorType.pasidIotlb]: [bits(8, 6) | bits(15, 12) | bits(63, 52), bits(11, 7)],
  [DescriptorType.pasidCache]: [bits(8, 6) | bits(15, 12) | bits(63, 52), bits(63, 0)],
  [DescriptorType.pasidDeviceTlb]: [bits(15, 12) | bits(63, 52), bits(10, 1)],
  [DescriptorType.pageGroupResponse]: [bits(8, 5) | bits(63, 52), bits(1, 0) | bits(63, 12)],
};

/**
 * Low and high quadword of a descriptor; 256-bit ones have two more, which are zero.
 * @throws RangeError naming a field whose value does not fit
 */
export function encodeDescriptor(descriptor: Descriptor): readonly [lo: bigint, hi: bigint] {
  const type = BigInt(DescriptorType[descriptor.type]);
  switch (descriptor.type) {
    case 'contextCache':
      return [
        type |
          put('granularity', descriptor.granularity, 2, 4) |
          put('domainId', descriptor.domainId, 16, 16) |
          put('sourceId', descriptor.sourceId, 16, 32) |
          put('functionMask', descriptor.functionMask, 2, 48),
        0n,
      ];
    case 'iotlb':
      return [
        type |
          put('granularity', descriptor.granularity, 2, 4) |
          bit(descriptor.drainWrites, 6) |
          bit(descriptor.drainReads, 7) |
          put('domainId', descriptor.domainId, 16, 16),
        encodeRange(descriptor),
      ];
    case 'deviceTlb':
      return [
        type | put('sourceId', descriptor.sourceId, 16, 32),
        encodeSized(descriptor.page, descriptor.sizeLog2, 0),
      ];
    case 'interruptEntryCache':
      return [
        type |
          bit(descriptor.indexSelective, 4) |
          put('indexMask', descriptor.indexMask, 5, 27) |
          put('index', descriptor.index, 16, 32),
        0n,
      ];
    case 'wait':
      return [
        type |
          bit(descriptor.interrupt, 4) |
          bit(descriptor.statusWrite, 5) |
          bit(descriptor.fence, 6) |
          bit(descriptor.pageRequestDrain, 7) |
          put('statusData', descriptor.statusData, 32, 32),
        checkedStatusAddress(descriptor.statusAddress),
      ];
    case 'pasidIotlb':
      return [
        type |
          put('granularity', descriptor.granularity, 2, 4) |
          put('domainId', descriptor.domainId, 16, 16) |
          put('pasid', descriptor.pasid, 20, 32),
        encodeRange(descriptor),
      ];
    case 'pasidCache':
      return [
        type |
          put('granularity', descriptor.granularity, 2, 4) |
          put('domainId', descriptor.domainId, 16, 16) |
          put('pasid', descriptor.pasid, 20, 32),
        0n,
      ];
    case 'pasidDeviceTlb':
      return [
        type | put('sourceId', descriptor.sourceId, 16, 16) | put('pasid', descriptor.pasid, 20, 32),
        encodeSized(descriptor.page, descriptor.sizeLog2, 11) | bit(descriptor.global, 0),
      ];
    case 'pageGroupResponse':
      return [
        type |
          bit(descriptor.pasid !== undefined, 4) |
          put('responseCode', descriptor.responseCode, 4, 12) |
          put('sourceId', descriptor.sourceId, 16, 16) |
          put('pasid', descriptor.pasid ?? 0, 20, 32),
        put('groupIndex', descriptor.groupIndex, 9, 3),
      ];
  }
}

function checkedStatusAddress(address: bigint): bigint {
  if (address < 0n || address >> 64n !== 0n || (address & 3n) !== 0n)
    throw new RangeError(`statusAddress: ${hex(address)} is not a multiple of 4 of at most 64 bits`);
  return address;
}

const encodeRange = (range: { page: number; addressMask: number; leafOnly: boolean }): bigint =>
  put('addressMask', range.addressMask, 6, 0) | bit(range.leafOnly, 6) | put('page', range.page, 52, 12);

/** S=1: the size is one above the lowest zero bit of the address at or above bit 12 (PCIe ATS). */
function encodeSized(page: number, sizeLog2: number, sizeBit: number): bigint {
  const address = put('page', page, 52, 12);
  if (sizeLog2 === 0) return address;
  if (!Number.isInteger(sizeLog2) || sizeLog2 < 0 || sizeLog2 > 52)
    throw new RangeError(`sizeLog2: ${sizeLog2} is not an integer in 0..52`);
  const base = (address >> BigInt(sizeLog2 + 12)) << BigInt(sizeLog2);
  const ones = (1n << BigInt(sizeLog2 - 1)) - 1n;
  return ((base | ones) << 12n) | (1n << BigInt(sizeBit));
}

function decodeSized(quadword: bigint, sizeBit: number): { page: number; sizeLog2: number } {
  const address = quadword >> 12n;
  if (!flag(quadword, sizeBit)) return { page: Number(address), sizeLog2: 0 };
  let ones = 0;
  while (ones < 51 && flag(address, ones)) ones++;
  const sizeLog2 = ones + 1;
  return { page: Number((address >> BigInt(sizeLog2)) << BigInt(sizeLog2)), sizeLog2 };
}

const decodeRange = (hi: bigint, width: number): { page: number; addressMask: number; leafOnly: boolean } => ({
  page: field(hi, width - 1, 12),
  addressMask: field(hi, 5, 0),
  leafOnly: flag(hi, 6),
});

/**
 * Decodes a descriptor as the hardware does before it executes it.
 * @param words two quadwords, or four of a 256-bit descriptor
 * @returns the descriptor, or the {@link QueueErrorInfo} with which the queue stops
 */
export function decodeDescriptor(words: readonly bigint[], rules: DescriptorRules): Descriptor | QueueErrorInfoCode {
  const [lo = 0n, hi = 0n, third = 0n, fourth = 0n] = words;
  const type = field(lo, 3, 0) | (field(lo, 11, 9) << 4);
  if (!isAllowed(type, rules)) return QueueErrorInfo.invalidType;
  const [reservedLo, reservedHi] = RESERVED[type] as readonly [bigint, bigint];
  if ((lo & reservedLo) !== 0n || (hi & reservedHi) !== 0n || (third | fourth) !== 0n)
    return QueueErrorInfo.reservedField;
  return decodeFields(type, lo, hi, rules);
}

/** Table 26, and what the unit has. There is no host permission table, so type 0xa is not here. */
function isAllowed(type: number, rules: DescriptorRules): boolean {
  if (type < DescriptorType.contextCache || type > DescriptorType.pageGroupResponse) return false;
  if (rules.mode === TranslationMode.reserved) return false;
  if (rules.mode === TranslationMode.legacy ? type > DescriptorType.wait : !rules.wide) return false;
  if (type === DescriptorType.deviceTlb || type === DescriptorType.pasidDeviceTlb) return rules.deviceTlb;
  return type !== DescriptorType.pageGroupResponse || rules.pageRequests;
}

function decodeFields(type: number, lo: bigint, hi: bigint, rules: DescriptorRules): Descriptor | QueueErrorInfoCode {
  const granularity = field(lo, 5, 4);
  const domainId = field(lo, 15 + rules.domainIdBits, 16);
  switch (type) {
    case DescriptorType.contextCache:
      if (granularity === 0) return QueueErrorInfo.reservedField;
      return {
        type: 'contextCache',
        granularity: granularity as GranularityCode,
        domainId,
        sourceId: field(lo, 47, 32),
        functionMask: field(lo, 49, 48) as 0 | 1 | 2 | 3,
      };
    case DescriptorType.iotlb: {
      const range = decodeRange(hi, rules.guestAddressWidth);
      const tooWide = !rules.pageSelective || range.addressMask > rules.maximumAddressMask;
      if (granularity === 0 || (granularity === 3 && tooWide)) return QueueErrorInfo.reservedField;
      return {
        type: 'iotlb',
        granularity: granularity as GranularityCode,
        domainId,
        ...range,
        drainWrites: flag(lo, 6),
        drainReads: flag(lo, 7),
      };
    }
    case DescriptorType.deviceTlb:
      return { type: 'deviceTlb', sourceId: field(lo, 47, 32), ...decodeSized(hi, 0) };
    case DescriptorType.interruptEntryCache:
      return {
        type: 'interruptEntryCache',
        indexSelective: flag(lo, 4),
        index: field(lo, 47, 32),
        indexMask: field(lo, 31, 27),
      };
    case DescriptorType.wait:
      if (flag(lo, 7) && !rules.pageRequestDrain) return QueueErrorInfo.reservedField;
      return {
        type: 'wait',
        statusAddress: BigInt.asUintN(rules.hostAddressWidth, hi),
        statusData: field(lo, 63, 32),
        interrupt: flag(lo, 4),
        statusWrite: flag(lo, 5),
        fence: flag(lo, 6),
        pageRequestDrain: flag(lo, 7),
      };
    default:
      return decodePasidFields(type, lo, hi, domainId);
  }
}

function decodePasidFields(type: number, lo: bigint, hi: bigint, domainId: number): Descriptor | QueueErrorInfoCode {
  const granularity = field(lo, 5, 4);
  const pasid = field(lo, 51, 32);
  switch (type) {
    case DescriptorType.pasidIotlb:
      if (granularity < 2) return QueueErrorInfo.reservedField;
      return {
        type: 'pasidIotlb',
        granularity: granularity as PasidIotlbGranularityCode,
        domainId,
        pasid,
        ...decodeRange(hi, 64),
      };
    case DescriptorType.pasidCache:
      if (granularity === 2) return QueueErrorInfo.reservedField;
      return {
        type: 'pasidCache',
        granularity: granularity as PasidCacheGranularity,
        domainId,
        pasid,
      };
    case DescriptorType.pasidDeviceTlb:
      return {
        type: 'pasidDeviceTlb',
        sourceId: field(lo, 31, 16),
        pasid,
        global: flag(hi, 0),
        ...decodeSized(hi, 11),
      };
    default:
      return {
        type: 'pageGroupResponse',
        responseCode: field(lo, 15, 12),
        sourceId: field(lo, 31, 16),
        groupIndex: field(hi, 11, 3),
        ...(flag(lo, 4) ? { pasid } : {}),
      };
  }
}
