/** Invalidation-queue descriptor types, bits 3:0 of the low quadword (VT-d Rev 5.10, 6.5.2). */
export const DescriptorType = {
  contextCache: 0x1,
  iotlb: 0x2,
  deviceTlb: 0x3,
  wait: 0x5,
  pageGroupResponse: 0x9,
} as const;

/** Granularity of an invalidation, bits 5:4: the value that the descriptor carries. */
export const Granularity = { global: 1, domain: 2, selective: 3 } as const;
/** 1 global, 2 domain-selective, 3 page- or device-selective. */
export type GranularityCode = (typeof Granularity)[keyof typeof Granularity];

/** Response codes of a page group response (Rev 5.10, table 32). */
export const ResponseCode = { success: 0x0, invalid: 0x1, failure: 0xf } as const;
/** 0 success, 1 invalid request, 0xf response failure. */
export type ResponseCodeValue = (typeof ResponseCode)[keyof typeof ResponseCode];

/** A decoded invalidation-queue descriptor. Addresses are 4K page numbers. */
export type Descriptor =
  | {
      readonly type: 'contextCache';
      readonly granularity: GranularityCode;
      readonly domainId: number;
      readonly sourceId: number;
      readonly functionMask: 0 | 1 | 2 | 3;
    }
  | {
      readonly type: 'iotlb';
      readonly granularity: GranularityCode;
      readonly domainId: number;
      /** First page; aligned to the mask by hardware. */
      readonly page: number;
      /** AM: log2 of the number of pages. */
      readonly addressMask: number;
      /** IH: only leaf entries changed. */
      readonly leafOnly: boolean;
      readonly drainReads: boolean;
      readonly drainWrites: boolean;
    }
  | {
      readonly type: 'deviceTlb';
      readonly sourceId: number;
      readonly page: number;
      /** log2 of the number of pages, carried in the address by the S bit. */
      readonly sizeLog2: number;
    }
  | {
      readonly type: 'wait';
      readonly statusAddress: bigint;
      readonly statusData: number;
      readonly statusWrite: boolean;
      readonly interrupt: boolean;
      /** FN: nothing after this descriptor starts before it completes. */
      readonly fence: boolean;
      /** PD: drain page requests first. */
      readonly pageRequestDrain: boolean;
    }
  | {
      readonly type: 'pageGroupResponse';
      readonly sourceId: number;
      readonly responseCode: number;
      /** PRGI, 9 bits. */
      readonly groupIndex: number;
    };

const bit = (value: boolean, position: number): bigint => (value ? 1n << BigInt(position) : 0n);
const field = (quadword: bigint, high: number, low: number): number =>
  Number((quadword >> BigInt(low)) & ((1n << BigInt(high - low + 1)) - 1n));

/** Encodes a 128-bit descriptor: low and high quadword. */
export function encodeDescriptor(descriptor: Descriptor): readonly [lo: bigint, hi: bigint] {
  switch (descriptor.type) {
    case 'contextCache':
      return [
        BigInt(DescriptorType.contextCache | (descriptor.granularity << 4)) |
          (BigInt(descriptor.domainId) << 16n) |
          (BigInt(descriptor.sourceId) << 32n) |
          (BigInt(descriptor.functionMask) << 48n),
        0n,
      ];
    case 'iotlb':
      return [
        BigInt(DescriptorType.iotlb | (descriptor.granularity << 4)) |
          bit(descriptor.drainWrites, 6) |
          bit(descriptor.drainReads, 7) |
          (BigInt(descriptor.domainId) << 16n),
        BigInt(descriptor.addressMask) | bit(descriptor.leafOnly, 6) | (BigInt(descriptor.page) << 12n),
      ];
    case 'deviceTlb':
      return [
        BigInt(DescriptorType.deviceTlb) | (BigInt(descriptor.sourceId) << 32n),
        encodeSized(descriptor.page, descriptor.sizeLog2),
      ];
    case 'wait':
      return [
        BigInt(DescriptorType.wait) |
          bit(descriptor.interrupt, 4) |
          bit(descriptor.statusWrite, 5) |
          bit(descriptor.fence, 6) |
          bit(descriptor.pageRequestDrain, 7) |
          (BigInt(descriptor.statusData >>> 0) << 32n),
        descriptor.statusAddress & ~3n,
      ];
    case 'pageGroupResponse':
      return [
        BigInt(DescriptorType.pageGroupResponse) |
          (BigInt(descriptor.responseCode) << 12n) |
          (BigInt(descriptor.sourceId) << 16n),
        BigInt(descriptor.groupIndex) << 3n,
      ];
  }
}

/** S=1: the size is one above the lowest zero bit of the address at or above bit 12. */
function encodeSized(page: number, sizeLog2: number): bigint {
  if (sizeLog2 === 0) return BigInt(page) << 12n;
  const base = (BigInt(page) >> BigInt(sizeLog2)) << BigInt(sizeLog2);
  const ones = (1n << BigInt(sizeLog2 - 1)) - 1n;
  return ((base | ones) << 12n) | 1n;
}

function decodeSized(quadword: bigint): { page: number; sizeLog2: number } {
  const address = quadword >> 12n;
  if ((quadword & 1n) === 0n) return { page: Number(address), sizeLog2: 0 };
  let ones = 0;
  while (((address >> BigInt(ones)) & 1n) === 1n) ones++;
  return { page: Number((address >> BigInt(ones + 1)) << BigInt(ones + 1)), sizeLog2: ones + 1 };
}

/** Decodes a 128-bit descriptor; null for a type or granularity that is reserved or not modelled (an IQE). */
export function decodeDescriptor(lo: bigint, hi: bigint): Descriptor | null {
  const granularity = field(lo, 5, 4) as GranularityCode;
  if (field(lo, 11, 9) !== 0) return null;
  switch (field(lo, 3, 0)) {
    case DescriptorType.contextCache:
      if ((granularity as number) === 0) return null;
      return {
        type: 'contextCache',
        granularity,
        domainId: field(lo, 31, 16),
        sourceId: field(lo, 47, 32),
        functionMask: field(lo, 49, 48) as 0 | 1 | 2 | 3,
      };
    case DescriptorType.iotlb:
      if ((granularity as number) === 0) return null;
      return {
        type: 'iotlb',
        granularity,
        domainId: field(lo, 31, 16),
        page: field(hi, 63, 12),
        addressMask: field(hi, 5, 0),
        leafOnly: field(hi, 6, 6) === 1,
        drainWrites: field(lo, 6, 6) === 1,
        drainReads: field(lo, 7, 7) === 1,
      };
    case DescriptorType.deviceTlb:
      return { type: 'deviceTlb', sourceId: field(lo, 47, 32), ...decodeSized(hi) };
    case DescriptorType.wait:
      return {
        type: 'wait',
        statusAddress: hi & ~3n,
        statusData: field(lo, 63, 32),
        interrupt: field(lo, 4, 4) === 1,
        statusWrite: field(lo, 5, 5) === 1,
        fence: field(lo, 6, 6) === 1,
        pageRequestDrain: field(lo, 7, 7) === 1,
      };
    case DescriptorType.pageGroupResponse:
      return {
        type: 'pageGroupResponse',
        responseCode: field(lo, 15, 12),
        sourceId: field(lo, 31, 16),
        groupIndex: field(hi, 11, 3),
      };
    default:
      return null;
  }
}
