import type { PasidCacheGranularity } from '@faultline/iotlb';

/** Types of invalidation-queue descriptors: bits 11:9 and 3:0 of the low quadword together (VT-d Rev 5.10, 6.5.2). */
export const DescriptorType = {
  contextCache: 0x1,
  iotlb: 0x2,
  deviceTlb: 0x3,
  interruptEntryCache: 0x4,
  wait: 0x5,
  pasidIotlb: 0x6,
  pasidCache: 0x7,
  pasidDeviceTlb: 0x8,
  pageGroupResponse: 0x9,
} as const;

/** Granularity of a context-cache or IOTLB invalidation, bits 5:4: the value that the descriptor carries. */
export const Granularity = { global: 1, domain: 2, selective: 3 } as const;
/** 1 global, 2 domain-selective, 3 page- or device-selective. */
export type GranularityCode = (typeof Granularity)[keyof typeof Granularity];

/** Granularity of a PASID-based IOTLB invalidation (6.5.2.4). */
export const PasidIotlbGranularity = { pasid: 2, page: 3 } as const;
/** 2 PASID-selective, 3 page-selective within the PASID. */
export type PasidIotlbGranularityCode = (typeof PasidIotlbGranularity)[keyof typeof PasidIotlbGranularity];

/** Response codes of a page group response (Rev 5.10, table 32). */
export const ResponseCode = { success: 0x0, invalid: 0x1, failure: 0xf } as const;
/** 0 success, 1 invalid request, 0xf response failure. */
export type ResponseCodeValue = (typeof ResponseCode)[keyof typeof ResponseCode];

/** Context-cache invalidation (6.5.2.1). */
export interface ContextCacheDescriptor {
  readonly type: 'contextCache';
  readonly granularity: GranularityCode;
  readonly domainId: number;
  readonly sourceId: number;
  /** FM: how many function bits of the source-id are ignored (table 21). */
  readonly functionMask: 0 | 1 | 2 | 3;
}

/** IOTLB invalidation (6.5.2.3): IOTLB and paging-structure caches, for second-stage tables. */
export interface IotlbDescriptor {
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

/** Device-TLB invalidation of requests without PASID (6.5.2.5). */
export interface DeviceTlbDescriptor {
  readonly type: 'deviceTlb';
  readonly sourceId: number;
  readonly page: number;
  /** log2 of the number of pages, carried in the address by the S bit; 52 is everything. */
  readonly sizeLog2: number;
}

/** Interrupt entry cache invalidation (6.5.2.8); there is no interrupt remapping here, so it does nothing. */
export interface InterruptEntryCacheDescriptor {
  readonly type: 'interruptEntryCache';
  readonly indexSelective: boolean;
  readonly index: number;
  readonly indexMask: number;
}

/** Invalidation wait (6.5.2.9). */
export interface WaitDescriptor {
  readonly type: 'wait';
  /** Physical address of the status word, a multiple of 4. */
  readonly statusAddress: bigint;
  readonly statusData: number;
  /** SW. */
  readonly statusWrite: boolean;
  /** IF: sets ICS.IWC, and an invalidation completion event. */
  readonly interrupt: boolean;
  /** FN: nothing after this descriptor starts before it completes. */
  readonly fence: boolean;
  /** PD: ordered behind the page requests received before. */
  readonly pageRequestDrain: boolean;
}

/** PASID-based IOTLB invalidation (6.5.2.4), for first-stage tables and for a PASID entry. */
export interface PasidIotlbDescriptor {
  readonly type: 'pasidIotlb';
  readonly granularity: PasidIotlbGranularityCode;
  readonly domainId: number;
  readonly pasid: number;
  readonly page: number;
  readonly addressMask: number;
  readonly leafOnly: boolean;
}

/** PASID-cache invalidation (6.5.2.2). */
export interface PasidCacheDescriptor {
  readonly type: 'pasidCache';
  readonly granularity: PasidCacheGranularity;
  readonly domainId: number;
  readonly pasid: number;
}

/** Device-TLB invalidation of requests with PASID (6.5.2.6). */
export interface PasidDeviceTlbDescriptor {
  readonly type: 'pasidDeviceTlb';
  readonly sourceId: number;
  readonly pasid: number;
  /** GI: for every PASID. */
  readonly global: boolean;
  readonly page: number;
  readonly sizeLog2: number;
}

/** Page group response (7.6.1). */
export interface PageGroupResponseDescriptor {
  readonly type: 'pageGroupResponse';
  readonly sourceId: number;
  /** The PASID of the requests; absent without one. */
  readonly pasid?: number;
  /** A {@link ResponseCode}, or a reserved one, which goes to the device as it is. */
  readonly responseCode: number;
  /** PRGI, 9 bits. */
  readonly groupIndex: number;
}

/** A decoded invalidation-queue descriptor. Addresses are 4K page numbers. */
export type Descriptor =
  | ContextCacheDescriptor
  | IotlbDescriptor
  | DeviceTlbDescriptor
  | InterruptEntryCacheDescriptor
  | WaitDescriptor
  | PasidIotlbDescriptor
  | PasidCacheDescriptor
  | PasidDeviceTlbDescriptor
  | PageGroupResponseDescriptor;

/** A device-TLB invalidation of everything: S=1 and address bits 62:12 set (6.5.3.3). */
export const WHOLE_ADDRESS_SPACE = { page: 0, sizeLog2: 52 } as const;
