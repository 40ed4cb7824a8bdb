export { IommufdError } from './errno.ts';
export type { ContiguousRun, HostAddressSpace, HostNotifier, HostRange } from './host-address-space.ts';
export { VM_FAULT_ERROR, VM_FAULT_OOM } from './host-address-space.ts';
export type { Area, AreaSlice } from './ioas/io-pagetable.ts';
export { IoPagetable } from './ioas/io-pagetable.ts';
export type { IoasMapRequest } from './ioas/ioas.ts';
export { Ioas } from './ioas/ioas.ts';
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
export type { IoPageRequest, IopfQueueOptions, PageRequestSource } from './iopf/iopf-queue.ts';
export { IopfQueue } from './iopf/iopf-queue.ts';
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
export type { DeviceReport, PathReport, WhenMissing } from './vfio/device-report.ts';
export { rangesToPin } from './vfio/device-report.ts';
