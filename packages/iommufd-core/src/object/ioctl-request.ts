import type { MappableFile } from '../host-address-space.ts';
import type { FaultQueue } from './fault-queue.ts';
import type { VeventQueue } from './vevent-queue.ts';

/*
 * What the ioctls take and give back, named as in the uAPI. `size` and reserved fields belong to the binary door; so do file descriptors:
 * the typed one hands over the object behind one.
 */

/** First and last IOVA of a range. */
export interface IovaRange {
  readonly start: bigint;
  readonly last: bigint;
}

export interface DestroyRequest {
  readonly id: number;
}

export interface IoasAllocRequest {
  readonly flags: number;
}
export interface IoasAllocReply {
  readonly outIoasId: number;
}

export interface IoasAllowIovasRequest {
  readonly ioasId: number;
  readonly allowedIovas: readonly IovaRange[];
}

export interface IoasIovaRangesRequest {
  readonly ioasId: number;
  /** Room in the caller's array. */
  readonly numIovas: number;
}
export interface IoasIovaRangesReply {
  /** How many there are, whatever there is room for. */
  readonly numIovas: number;
  /** As many as there is room for. */
  readonly allowedIovas: readonly IovaRange[];
  readonly outIovaAlignment: bigint;
}

export interface IoasMapRequestFields {
  readonly flags: number;
  readonly ioasId: number;
  readonly userVa: bigint;
  readonly length: bigint;
  /** Ignored without FIXED_IOVA. */
  readonly iova: bigint;
}
export interface IoasMapReply {
  readonly iova: bigint;
}

export interface IoasMapFileRequest {
  readonly flags: number;
  readonly ioasId: number;
  /** What the descriptor stands for; the binary door answers EBADF for one that is not open. */
  readonly file: MappableFile;
  readonly start: bigint;
  readonly length: bigint;
  readonly iova: bigint;
}

export interface IoasCopyRequest {
  readonly flags: number;
  readonly dstIoasId: number;
  readonly srcIoasId: number;
  readonly length: bigint;
  readonly dstIova: bigint;
  readonly srcIova: bigint;
}
export interface IoasCopyReply {
  readonly dstIova: bigint;
}

export interface IoasUnmapRequest {
  readonly ioasId: number;
  readonly iova: bigint;
  readonly length: bigint;
}
export interface IoasUnmapReply {
  /** Bytes unmapped. */
  readonly length: bigint;
}

export interface OptionRequest {
  readonly optionId: number;
  readonly op: number;
  readonly objectId: number;
  readonly val64: bigint;
}
export interface OptionReply {
  readonly val64: bigint;
}

export interface VfioIoasRequest {
  readonly ioasId: number;
  /** 0 GET, 1 SET, 2 CLEAR. */
  readonly op: number;
}
export interface VfioIoasReply {
  readonly ioasId: number;
}

export interface HwptAllocRequest {
  readonly flags: number;
  readonly devId: number;
  readonly ptId: number;
  readonly dataType: number;
  /** The driver's data; empty for NONE. */
  readonly data: Uint8Array;
  readonly faultId: number;
}
export interface HwptAllocReply {
  readonly outHwptId: number;
}

export interface GetHwInfoRequest {
  readonly flags: number;
  readonly devId: number;
  /** Meant with the flag INPUT_TYPE only. */
  readonly inDataType: number;
}
export interface GetHwInfoReply {
  readonly outDataType: number;
  readonly outMaxPasidLog2: number;
  readonly outCapabilities: bigint;
  /** The kernel's data: the binary door copies what fits, zeroes the rest and says this length. */
  readonly data: Uint8Array;
}

export interface HwptSetDirtyTrackingRequest {
  readonly flags: number;
  readonly hwptId: number;
}

export interface HwptGetDirtyBitmapRequest {
  readonly hwptId: number;
  readonly flags: number;
  readonly iova: bigint;
  readonly length: bigint;
  readonly pageSize: bigint;
  /** Bit i, from bit 0 of byte 0, is page i of the range; bits are OR-ed in. */
  readonly data: Uint8Array;
}

export interface HwptInvalidateRequest {
  readonly hwptId: number;
  readonly dataType: number;
  readonly entryLen: number;
  readonly entryNum: number;
  /** The entries; null for a null pointer. */
  readonly data: Uint8Array | null;
}
export interface HwptInvalidateReply {
  /** Entries handled, also on an error. */
  readonly entryNum: number;
}

export interface FaultQueueAllocRequest {
  readonly flags: number;
}
export interface FaultQueueAllocReply {
  readonly outFaultId: number;
  /** What the binary door puts behind `out_fault_fd`; counts as an open file until its `close`. */
  readonly outFaultFile: FaultQueue;
}

export interface ViommuAllocRequest {
  readonly flags: number;
  readonly type: number;
  readonly devId: number;
  readonly hwptId: number;
}
export interface ViommuAllocReply {
  readonly outViommuId: number;
}

export interface VdeviceAllocRequest {
  readonly viommuId: number;
  readonly devId: number;
  readonly virtId: bigint;
}
export interface VdeviceAllocReply {
  readonly outVdeviceId: number;
}

export interface VeventqAllocRequest {
  readonly flags: number;
  readonly viommuId: number;
  readonly type: number;
  readonly veventqDepth: number;
}
export interface VeventqAllocReply {
  readonly outVeventqId: number;
  readonly outVeventqFile: VeventQueue;
}

export interface HwQueueAllocRequest {
  readonly flags: number;
  readonly viommuId: number;
  readonly type: number;
  readonly index: number;
  readonly nestingParentIova: bigint;
  readonly length: bigint;
}

export interface IoasNoiommuGetPaRequest {
  readonly flags: number;
  readonly ioasId: number;
  readonly iova: bigint;
  readonly length: bigint;
}
