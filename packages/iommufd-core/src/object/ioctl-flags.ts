/** Flags of IOMMU_IOAS_MAP, IOMMU_IOAS_MAP_FILE and IOMMU_IOAS_COPY; {@link IOMMU_IOAS_MAP_UNPINNED} is one more. */
export const IoasMapFlag = { FIXED_IOVA: 1, WRITEABLE: 2, READABLE: 4 } as const;
/**
 * Bit 31 of the map flags: nothing is pinned, pages are mapped as far as they are resident and faulted in otherwise. Ours; no kernel has it, and
 * it is refused with EOPNOTSUPP unless the `Iommufd` was opened with a strategy for stage-2 faults.
 */
export const IOMMU_IOAS_MAP_UNPINNED = 0x8000_0000;
/** Flags of IOMMU_HWPT_ALLOC. */
export const HwptAllocFlag = { NEST_PARENT: 1, DIRTY_TRACKING: 2, FAULT_ID_VALID: 4, PASID: 8 } as const;
/** `data_type` of IOMMU_HWPT_ALLOC and, from VTD_S1 on, IOMMU_HWPT_INVALIDATE. */
export const HwptDataType = { NONE: 0, VTD_S1: 1, ARM_SMMUV3: 2, AMD_GUEST: 3 } as const;
/** Types of IOMMU_GET_HW_INFO. */
export const HwInfoType = { NONE: 0, DEFAULT: 0, INTEL_VTD: 1, ARM_SMMUV3: 2, TEGRA241_CMDQV: 3, AMD: 4 } as const;
/** Flags of IOMMU_GET_HW_INFO. */
export const HwInfoFlag = { INPUT_TYPE: 1 } as const;
/** `out_capabilities` of IOMMU_GET_HW_INFO. */
export const HwCapability = { DIRTY_TRACKING: 1n, PASID_EXEC: 2n, PASID_PRIV: 4n, ATS_NOT_SUPPORTED: 8n } as const;
/** Flags of IOMMU_HWPT_SET_DIRTY_TRACKING. */
export const DirtyTrackingFlag = { ENABLE: 1 } as const;
/** Flags of IOMMU_HWPT_GET_DIRTY_BITMAP. */
export const DirtyBitmapFlag = { NO_CLEAR: 1 } as const;
/** `option_id` of IOMMU_OPTION. */
export const IommuOption = { RLIMIT_MODE: 0, HUGE_PAGES: 1 } as const;
/** `op` of IOMMU_OPTION. */
export const IommuOptionOp = { SET: 0, GET: 1 } as const;
/** Flags of a page fault that user space reads (struct iommu_hwpt_pgfault). */
export const PgfaultFlag = { PASID_VALID: 1, LAST_PAGE: 2 } as const;
/** `perm` of a page fault. */
export const PgfaultPerm = { READ: 1, WRITE: 2, EXEC: 4, PRIV: 8 } as const;
/** `code` of a page response. */
export const PageResponseCode = { SUCCESS: 0, INVALID: 1 } as const;
/** `type` of IOMMU_VIOMMU_ALLOC. */
export const ViommuType = { DEFAULT: 0, ARM_SMMUV3: 1, TEGRA241_CMDQV: 2 } as const;
/** Flags of struct iommufd_vevent_header. */
export const VeventFlag = { LOST_EVENTS: 1 } as const;
/** IOMMU_FLAGS of an access's read, write or pin (ours to name: kernel-internal). */
export const AccessFlag = { READ: 0, WRITE: 1 } as const;
