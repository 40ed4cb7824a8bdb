export { IommufdError } from './errno.ts';
export type { ContiguousRun, HostAddressSpace, HostNotifier, HostRange, MappableFile } from './host-address-space.ts';
export { VM_FAULT_COMPLETED, VM_FAULT_ERROR, VM_FAULT_OOM, VM_FAULT_RETRY } from './host-address-space.ts';
export { Area } from './ioas/area.ts';
export type { AreaSlice } from './ioas/io-pagetable.ts';
export { IoPagetable } from './ioas/io-pagetable.ts';
export type { IoasMapFile, IoasMapRequest } from './ioas/ioas.ts';
export { Ioas } from './ioas/ioas.ts';
export type { DomainGeometry, IoasPlacement } from './ioas/ioas-layout.ts';
export type { AccessUnmap } from './ioas/iopt.ts';
export { Iopt } from './ioas/iopt.ts';
export type { IoptPagesOptions } from './ioas/iopt-pages.ts';
export { IoptPages } from './ioas/iopt-pages.ts';
export type { AccountMode } from './ioas/locked-memory.ts';
export type { IovaRange } from './ioas/reserved-iovas.ts';
export type { PageSpan, PinnedRun } from './ioas/run-list.ts';
export type {
  DirtyOps,
  InvalidateRequest,
  IommuDevice,
  IommuGroup,
  NestedDomain,
  PagingDomain,
  PagingDomainRequest,
  ReservedRegion,
  ViommuDriver,
} from './iommu-device.ts';
export type {
  CollapseReport,
  DomainGather,
  DomainLeaf,
  IommuDomain,
  LeafRange,
  MistakenEntry,
  Patch2023Defects,
  Patch2023Report,
  UnsplitUnmapReport,
} from './iommu-domain.ts';
export type { IopfQueueOptions, PageRequestSource } from './iopf/iopf-queue.ts';
export { IopfQueue } from './iopf/iopf-queue.ts';
export type { DeliveredGroup, FaultingHwpt, IoPageRequest, IopfHandler } from './iopf/page-group.ts';
export type { AccessOps, AccessPage } from './object/access-object.ts';
export { AccessObject } from './object/access-object.ts';
export type { PageFaultHandler } from './object/driver-side.ts';
export type { FaultQueue, PageResponse, Pgfault, UserFault, UserFaultGroup } from './object/fault-object.ts';
export { FaultObject } from './object/fault-object.ts';
export {
  AccessFlag,
  DirtyBitmapFlag,
  DirtyTrackingFlag,
  HwCapability,
  HwInfoFlag,
  HwInfoType,
  HwptAllocFlag,
  HwptDataType,
  IOMMU_IOAS_MAP_UNPINNED,
  IoasMapFlag,
  IommuOption,
  IommuOptionOp,
  PageResponseCode,
  PgfaultFlag,
  PgfaultPerm,
  VeventFlag,
  ViommuType,
} from './object/ioctl-flags.ts';
export type {
  DestroyRequest,
  FaultQueueAllocReply,
  FaultQueueAllocRequest,
  GetHwInfoReply,
  GetHwInfoRequest,
  HwptAllocReply,
  HwptAllocRequest,
  HwptGetDirtyBitmapRequest,
  HwptInvalidateReply,
  HwptInvalidateRequest,
  HwptSetDirtyTrackingRequest,
  HwQueueAllocRequest,
  IoasAllocReply,
  IoasAllocRequest,
  IoasAllowIovasRequest,
  IoasCopyReply,
  IoasCopyRequest,
  IoasIovaRangesReply,
  IoasIovaRangesRequest,
  IoasMapFileRequest,
  IoasMapReply,
  IoasMapRequestFields,
  IoasNoiommuGetPaRequest,
  IoasUnmapReply,
  IoasUnmapRequest,
  OptionReply,
  OptionRequest,
  VdeviceAllocReply,
  VdeviceAllocRequest,
  VeventqAllocReply,
  VeventqAllocRequest,
  VfioIoasReply,
  VfioIoasRequest,
  ViommuAllocReply,
  ViommuAllocRequest,
} from './object/ioctl-request.ts';
export { Iommufd } from './object/iommufd.ts';
export type { IommufdOptions, IommufdVersion } from './object/iommufd-context.ts';
export type { ObjectType } from './object/object-table.ts';
export type { Vevent, VeventQueue } from './object/veventq-object.ts';
export { VeventqObject } from './object/veventq-object.ts';
export type { LockedMemory, ProcessCapability, ProcessOptions } from './process.ts';
export { Process } from './process.ts';
export type { CollapseOptions } from './stage2/cut-and-collapse.ts';
export { cutAndCollapse } from './stage2/cut-and-collapse.ts';
export type { FaultOutcomeCode } from './stage2/fault-handler.ts';
export { FaultOutcome } from './stage2/fault-handler.ts';
export type { FaultPolicy } from './stage2/fault-policy.ts';
export { DEFAULT_FAULT_POLICY } from './stage2/fault-policy.ts';
export { HwptPaging } from './stage2/hwpt-paging.ts';
export type { HwptObserver } from './stage2/hwpt-seat.ts';
export type { Patch2023Defect } from './stage2/patch-2023.ts';
export { PATCH_2023_DEFECTS, patch2023 } from './stage2/patch-2023.ts';
export type { StrategyName } from './stage2/strategies.ts';
export { STRATEGIES } from './stage2/strategies.ts';
export type {
  NotifierMemory,
  Strategy,
  StrategySeat,
  StrategyState,
  StrategyTraits,
  TakeAway,
  TakeAwayOutcome,
} from './stage2/strategy.ts';
export { statelessStrategy } from './stage2/strategy.ts';
export { StrategyCounters } from './stage2/strategy-counters.ts';
export { takeAwayByCut, takeAwayNaively, takeAwayWholeLeaf } from './stage2/take-away.ts';
export type { ErrnoName } from './uapi/errno-number.ts';
export { ERRNO, errnoName } from './uapi/errno-number.ts';
export type { OpenFile } from './uapi/file-table.ts';
export { FileTable } from './uapi/file-table.ts';
export type { IoctlEntry } from './uapi/ioctl-call.ts';
export type { IoctlOptions, IommufdMmapRequest } from './uapi/iommufd-file.ts';
export { IOCTL_TABLE, IommufdFile, ioctlCommand } from './uapi/iommufd-file.ts';
export type { FieldPlace, StructLayout } from './uapi/struct-layout.ts';
export { StructView } from './uapi/struct-layout.ts';
export { UAPI } from './uapi/uapi-structs.ts';
export type { UserMemory } from './uapi/user-memory.ts';
export { UserPages } from './uapi/user-memory.ts';
export type { IoctlArgument } from './uapi/vfio-compat.ts';
export { VfioCommand, VfioExtension } from './uapi/vfio-compat.ts';
export type { AttachOptions, DeviceFaults } from './vfio/device-pins.ts';
export { DevicePins } from './vfio/device-pins.ts';
export type { DevicePinning, DeviceRange, DeviceReport, PathReport, WhenMissing } from './vfio/device-report.ts';
export { pinningFor } from './vfio/device-report.ts';
export type { DeviceLie } from './vfio/lie-detector.ts';
export { LieDetector } from './vfio/lie-detector.ts';
export { RangeLearner } from './vfio/range-learner.ts';
