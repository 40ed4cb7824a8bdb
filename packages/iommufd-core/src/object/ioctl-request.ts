import type { MappableFile } from '../host-address-space.ts';
import type { IovaRange } from '../ioas/reserved-iovas.ts';
import type { FaultPolicy } from '../stage2/fault-policy.ts';
import type { FaultQueue } from './fault-object.ts';
import type { VeventQueue } from './veventq-object.ts';

/*
 * What the ioctls take and give back, named as in the uAPI. `size` and reserved fields belong to the binary door; so do file descriptors:
 * the typed one hands over the object behind one.
 */

/** What IOMMU_DESTROY takes. */
export interface DestroyRequest {
  readonly id: number;
}

/** What IOMMU_IOAS_ALLOC takes. */
export interface IoasAllocRequest {
  readonly flags: number;
}
/** What IOMMU_IOAS_ALLOC gives back. */
export interface IoasAllocReply {
  readonly outIoasId: number;
}

/** What IOMMU_IOAS_ALLOW_IOVAS takes. */
export interface IoasAllowIovasRequest {
  readonly ioasId: number;
  readonly allowedIovas: readonly IovaRange[];
}

/** What IOMMU_IOAS_IOVA_RANGES takes. */
export interface IoasIovaRangesRequest {
  readonly ioasId: number;
  /** Room in the caller's array. */
  readonly numIovas: number;
}
/** What IOMMU_IOAS_IOVA_RANGES gives back. */
export interface IoasIovaRangesReply {
  /** How many there are, whatever there is room for. */
  readonly numIovas: number;
  /** As many as there is room for. */
  readonly allowedIovas: readonly IovaRange[];
  readonly outIovaAlignment: bigint;
}

/** What IOMMU_IOAS_MAP takes. */
export interface IoasMapRequestFields {
  readonly flags: number;
  readonly ioasId: number;
  readonly userVa: bigint;
  readonly length: bigint;
  /** Ignored without FIXED_IOVA. */
  readonly iova: bigint;
  /** With UNPINNED only, and as that ours: what is mapped before and around faults. */
  readonly policy?: FaultPolicy;
}
/** What IOMMU_IOAS_MAP gives back. */
export interface IoasMapReply {
  readonly iova: bigint;
}

/** What IOMMU_IOAS_MAP_FILE takes. */
export interface IoasMapFileRequest {
  readonly flags: number;
  readonly ioasId: number;
  /** What the descriptor stands for; the binary door answers EBADF for one that is not open. */
  readonly file: MappableFile;
  readonly start: bigint;
  readonly length: bigint;
  readonly iova: bigint;
}

/** What IOMMU_IOAS_COPY takes. */
export interface IoasCopyRequest {
  readonly flags: number;
  readonly dstIoasId: number;
  readonly srcIoasId: number;
  readonly length: bigint;
  readonly dstIova: bigint;
  readonly srcIova: bigint;
}
/** What IOMMU_IOAS_COPY gives back. */
export interface IoasCopyReply {
  readonly dstIova: bigint;
}

/** What IOMMU_IOAS_UNMAP takes. */
export interface IoasUnmapRequest {
  readonly ioasId: number;
  readonly iova: bigint;
  readonly length: bigint;
}
/** What IOMMU_IOAS_UNMAP gives back. */
export interface IoasUnmapReply {
  /** Bytes unmapped. */
  readonly length: bigint;
}

/** What IOMMU_OPTION takes. */
export interface OptionRequest {
  readonly optionId: number;
  readonly op: number;
  readonly objectId: number;
  readonly val64: bigint;
}
/** What IOMMU_OPTION gives back. */
export interface OptionReply {
  readonly val64: bigint;
}

/** What IOMMU_VFIO_IOAS takes. */
export interface VfioIoasRequest {
  readonly ioasId: number;
  /** 0 GET, 1 SET, 2 CLEAR. */
  readonly op: number;
}
/** What IOMMU_VFIO_IOAS gives back. */
export interface VfioIoasReply {
  readonly ioasId: number;
}

/** What IOMMU_HWPT_ALLOC takes. */
export interface HwptAllocRequest {
  readonly flags: number;
  readonly devId: number;
  readonly ptId: number;
  readonly dataType: number;
  /** The driver's data; empty for NONE. */
  readonly data: Uint8Array;
  readonly faultId: number;
}
/** What IOMMU_HWPT_ALLOC gives back. */
export interface HwptAllocReply {
  readonly outHwptId: number;
}

/** What IOMMU_GET_HW_INFO takes. */
export interface GetHwInfoRequest {
  readonly flags: number;
  readonly devId: number;
  /** Meant with the flag INPUT_TYPE only. */
  readonly inDataType: number;
}
/** What IOMMU_GET_HW_INFO gives back. */
export interface GetHwInfoReply {
  readonly outDataType: number;
  readonly outMaxPasidLog2: number;
  readonly outCapabilities: bigint;
  /** The kernel's data: the binary door copies what fits, zeroes the rest and says this length. */
  readonly data: Uint8Array;
}

/** What IOMMU_HWPT_SET_DIRTY_TRACKING takes. */
export interface HwptSetDirtyTrackingRequest {
  readonly flags: number;
  readonly hwptId: number;
}

/** What IOMMU_HWPT_GET_DIRTY_BITMAP takes. */
export interface HwptGetDirtyBitmapRequest {
  readonly hwptId: number;
  readonly flags: number;
  readonly iova: bigint;
  readonly length: bigint;
  readonly pageSize: bigint;
  /** Bit i, from bit 0 of byte 0, is page i of the range; bits are OR-ed in. */
  readonly data: Uint8Array;
}

/** What IOMMU_HWPT_INVALIDATE takes. */
export interface HwptInvalidateRequest {
  readonly hwptId: number;
  readonly dataType: number;
  readonly entryLen: number;
  readonly entryNum: number;
  /** The entries; null for a null pointer. */
  readonly data: Uint8Array | null;
}
/** What IOMMU_HWPT_INVALIDATE gives back. */
export interface HwptInvalidateReply {
  /** Entries handled, also on an error. */
  readonly entryNum: number;
}

/** What IOMMU_FAULT_QUEUE_ALLOC takes. */
export interface FaultQueueAllocRequest {
  readonly flags: number;
}
/** What IOMMU_FAULT_QUEUE_ALLOC gives back. */
export interface FaultQueueAllocReply {
  readonly outFaultId: number;
  /** What the binary door puts behind `out_fault_fd`; counts as an open file until its `close`. */
  readonly outFaultFile: FaultQueue;
}

/** What IOMMU_VIOMMU_ALLOC takes. */
export interface ViommuAllocRequest {
  readonly flags: number;
  readonly type: number;
  readonly devId: number;
  readonly hwptId: number;
}
/** What IOMMU_VIOMMU_ALLOC gives back. */
export interface ViommuAllocReply {
  readonly outViommuId: number;
}

/** What IOMMU_VDEVICE_ALLOC takes. */
export interface VdeviceAllocRequest {
  readonly viommuId: number;
  readonly devId: number;
  readonly virtId: bigint;
}
/** What IOMMU_VDEVICE_ALLOC gives back. */
export interface VdeviceAllocReply {
  readonly outVdeviceId: number;
}

/** What IOMMU_VEVENTQ_ALLOC takes. */
export interface VeventqAllocRequest {
  readonly flags: number;
  readonly viommuId: number;
  readonly type: number;
  readonly veventqDepth: number;
}
/** What IOMMU_VEVENTQ_ALLOC gives back. */
export interface VeventqAllocReply {
  readonly outVeventqId: number;
  readonly outVeventqFile: VeventQueue;
}

/** What IOMMU_HW_QUEUE_ALLOC takes. */
export interface HwQueueAllocRequest {
  readonly flags: number;
  readonly viommuId: number;
  readonly type: number;
  readonly index: number;
  readonly nestingParentIova: bigint;
  readonly length: bigint;
}

/** What IOMMU_IOAS_NOIOMMU_GET_PA takes. */
export interface IoasNoiommuGetPaRequest {
  readonly flags: number;
  readonly ioasId: number;
  readonly iova: bigint;
  readonly length: bigint;
}
