import type { Agent, Task } from '@faultline/sim';
import type { IommuDomain } from './iommu-domain.ts';
import type { DeviceFaults } from './vfio/device-pins.ts';
import type { DeviceReport } from './vfio/device-report.ts';
import type { DeviceLie } from './vfio/lie-detector.ts';

/** A reserved region of a device (iommu_get_resv_regions). */
export interface ReservedRegion {
  readonly start: bigint;
  readonly last: bigint;
  /** `direct-relaxable` does not keep the user from its IOVAs; the others do. */
  readonly type: 'direct' | 'direct-relaxable' | 'reserved' | 'msi' | 'sw-msi';
}

/** What iommufd asks a driver for a paging domain with (domain_alloc_paging_flags). */
export interface PagingDomainRequest {
  readonly nestParent: boolean;
  readonly dirtyTracking: boolean;
  readonly pasid: boolean;
}

/** Dirty tracking of a domain that was allocated with it (iommu_dirty_ops). */
export interface DirtyOps {
  setTracking(agent: Agent, enabled: boolean): Task<void>;
  /** The leaves of a range that were written to, whole; D is cleared and flushed if asked. Pages are IOVA >> 12. */
  readAndClear(
    agent: Agent,
    page: number,
    pages: number,
    clear: boolean,
  ): Task<readonly { readonly page: number; readonly pages: number }[]>;
}

/** A driver's paging domain with what iommufd must know of it. */
export interface PagingDomain {
  readonly domain: IommuDomain;
  /** First and last IOVA that it can map. */
  readonly aperture: { readonly start: bigint; readonly last: bigint };
  /** The least page size in bytes. */
  readonly minPageSize: number;
  /** Null if it was allocated without. */
  readonly dirty: DirtyOps | null;
  /** Frees it; no device is attached any more. */
  destroy(): void;
}

/** A driver's first stage on top of a nest parent, from the user's data. */
export interface NestedDomain {
  /** Takes entries of IOMMU_HWPT_INVALIDATE, in order. @returns how many were done, and the errno that ended it, or null */
  invalidate?(agent: Agent, request: InvalidateRequest): Task<{ readonly done: number; readonly error: string | null }>;
  destroy(): void;
}

/** Entries of IOMMU_HWPT_INVALIDATE: `entryNum` of `entryLen` bytes each. */
export interface InvalidateRequest {
  readonly dataType: number;
  readonly entryLen: number;
  readonly entryNum: number;
  readonly data: Uint8Array;
}

/** What a driver offers for virtual IOMMUs; VT-d's offers nothing. */
export interface ViommuDriver {
  /** IOMMU_VIOMMU_TYPE_*. */
  readonly type: number;
  invalidate?: NestedDomain['invalidate'];
}

/** A group of devices that the hardware cannot tell apart (iommu_group). */
export interface IommuGroup {
  /** Attached and detached together. */
  readonly devices: readonly IommuDevice[];
  /** Whose DMA they do; set by iommufd while one of them is bound. */
  owner: object | null;
}

/**
 * What iommufd asks of an IOMMU driver about one function. `VtdFunction` of `@faultline/vtd-remapping` fits. Errors have a
 * `code`: EINVAL for a domain that does not fit the device (iommufd tries the next), others as they are.
 */
export interface IommuDevice {
  readonly name: string;
  readonly group: IommuGroup;
  /** The unit's identity, for VIOMMUs: the same object for devices behind one. */
  readonly unit: object;
  readonly reservedRegions: readonly ReservedRegion[];
  /** What IOMMU_GET_HW_INFO says. */
  readonly hwInfo: { readonly type: number; readonly data: Uint8Array; readonly maxPasidLog2: number };
  readonly capabilities: {
    readonly dirtyTracking: boolean;
    readonly pageRequests: boolean;
    /** The device has ATS, and its unit takes it. */
    readonly ats: boolean;
    /** A PCI virtual function: the PRI that it has is its physical function's. */
    readonly virtualFunction: boolean;
  };
  /** What its driver says of its DMA paths, for unpinned IOASes; without it no path is taken to be faultable. */
  readonly report?: DeviceReport;
  /** Where its page requests go, if they are handled here: a detach or replace answers those that are under way. */
  readonly pageFaults?: DeviceFaults;
  /** Told when the device does what its report says that it does not. */
  readonly onLie?: (lie: DeviceLie) => void;
  /** Null if the driver has no virtual IOMMUs. */
  readonly viommu?: ViommuDriver;
  /** @throws Error with code EOPNOTSUPP for what it does not have, ENOMEM */
  allocatePaging(request: PagingDomainRequest): PagingDomain;
  /** A first stage over a nest parent. Without this, EOPNOTSUPP. @throws Error with code EINVAL for data that it does not take */
  allocateNested?(parent: IommuDomain, request: { readonly dataType: number; readonly data: Uint8Array }): NestedDomain;
  /** Points the function to a domain, away from the one it had, if any. @throws Error with code EINVAL if they do not go together */
  attach(agent: Agent, domain: IommuDomain | NestedDomain): Task<void>;
  /** Takes the function off its domain: its DMA is blocked. */
  detach(agent: Agent): Task<void>;
}
