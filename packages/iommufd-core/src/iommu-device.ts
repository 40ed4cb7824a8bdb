import type { Agent, Task } from '@faultline/sim';
import type { IommuDomain } from './iommu-domain.ts';

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

/** A driver's paging domain with what iommufd must know of its addresses. */
export interface PagingDomain {
  readonly domain: IommuDomain;
  /** First and last IOVA that it can map. */
  readonly aperture: { readonly start: bigint; readonly last: bigint };
  /** The least page size in bytes. */
  readonly minPageSize: number;
  /** Frees it; no device is attached any more. */
  destroy(): void;
}

/** A group of devices that the hardware cannot tell apart (iommu_group): the same object for each of them. */
export type IommuGroup = object;

/**
 * What iommufd asks of an IOMMU driver about one function. `VtdFunction` of `@faultline/vtd-remapping` fits. Errors of its tasks have a
 * `code`: EINVAL for a domain that does not fit the device (iommufd tries the next), others as they are.
 */
export interface IommuDevice {
  readonly name: string;
  readonly group: IommuGroup;
  /** The unit's identity, for VIOMMUs: the same object for devices behind one. */
  readonly unit: object;
  readonly reservedRegions: readonly ReservedRegion[];
  /** `type` and words of IOMMU_GET_HW_INFO, and its capabilities. */
  readonly hwInfo: {
    readonly type: number;
    readonly data: Uint8Array;
    readonly capabilities: bigint;
    readonly maxPasidLog2: number;
  };
  readonly capabilities: {
    readonly dirtyTracking: boolean;
    readonly nestParent: boolean;
    readonly pageRequests: boolean;
    /** A PCI virtual function: shares the PRI of its physical function. */
    readonly virtualFunction: boolean;
    readonly pasid: boolean;
  };
  /** @throws Error with code EOPNOTSUPP for a flag that it does not have, ENOMEM */
  allocatePaging(request: PagingDomainRequest): PagingDomain;
  /** Points the function to the domain, away from the one it had, if any. @throws Error with code EINVAL if they do not go together */
  attach(agent: Agent, domain: IommuDomain): Task<void>;
  /** Takes the function off its domain: DMA is blocked. */
  detach(agent: Agent): Task<void>;
}
