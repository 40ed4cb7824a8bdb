/** A successful translation: the answer that QEMU gave to a device. */
export interface QemuTranslate {
  readonly kind: 'translate';
  readonly sid: number;
  /** Start of the page, in bytes. */
  readonly iova: bigint;
  /** Where the page is, in bytes. */
  readonly gpa: bigint;
  /** Page size in bytes, minus 1. */
  readonly mask: bigint;
}

/** A walk that ended in a leaf (`pageUpdate`), or a look-up that an IOTLB entry answered (`pageHit`). */
export interface QemuPageLookup {
  readonly kind: 'pageUpdate' | 'pageHit';
  readonly sid: number;
  /** The address asked for, in bytes, not aligned. */
  readonly iova: bigint;
  /** The leaf entry. */
  readonly slpte: bigint;
  readonly did: number;
}

/** A page-selective IOTLB invalidation. */
export interface QemuInvalidatePages {
  readonly kind: 'invalidatePages';
  readonly did: number;
  /** In bytes. */
  readonly address: bigint;
  /** log2 of the number of 4K pages. */
  readonly addressMask: number;
}

/** A context entry read from memory and cached. */
export interface QemuContextUpdate {
  readonly kind: 'contextUpdate';
  readonly sid: number;
  readonly high: bigint;
  readonly low: bigint;
}

/** A fault of a DMA. */
export interface QemuFault {
  readonly kind: 'fault';
  readonly sid: number;
  readonly reason: number;
  readonly address: bigint;
  readonly write: boolean;
}

/** Events with a domain-id, a source-id, an on/off state, or nothing. */
export type QemuSimpleEvent =
  | { readonly kind: 'invalidateDomain'; readonly did: number }
  | { readonly kind: 'invalidateGlobal' }
  | { readonly kind: 'invalidatePasid'; readonly did: number; readonly pasid: number }
  | {
      readonly kind: 'invalidatePasidPages';
      readonly did: number;
      readonly pasid: number;
      readonly address: bigint;
      readonly addressMask: number;
    }
  | { readonly kind: 'contextInvalidateGlobal' }
  | { readonly kind: 'contextInvalidateDomain'; readonly did: number }
  | { readonly kind: 'contextInvalidateDevice'; readonly sid: number }
  | { readonly kind: 'contextInvalidateDevices'; readonly sid: number; readonly compared: number }
  | { readonly kind: 'contextReset' }
  | { readonly kind: 'iotlbReset'; readonly reason: string }
  | { readonly kind: 'dmarEnable'; readonly enabled: boolean }
  | { readonly kind: 'waitStatus'; readonly address: bigint; readonly data: number };

/** An event of QEMU's `vtd_*` trace that carries data used here. Source-ids are bus << 8 | device << 3 | function. */
export type QemuVtdEvent =
  | QemuTranslate
  | QemuPageLookup
  | QemuInvalidatePages
  | QemuContextUpdate
  | QemuFault
  | QemuSimpleEvent;
