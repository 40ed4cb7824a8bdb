export type {
  ContextCacheEntry,
  ContextCacheOptions,
  ContextCacheValue,
  FunctionMask,
} from './context-cache.ts';
export { ContextCache } from './context-cache.ts';
export type { IotlbCounters } from './counters.ts';
export type { DeviceTlbOptions } from './device-tlb.ts';
export { DeviceTlb, sizedAddressShift } from './device-tlb.ts';
export type { InvalidationVariant } from './invalidation-variant.ts';
export { INVALIDATION_VARIANTS } from './invalidation-variant.ts';
export { Iotlb } from './iotlb.ts';
export type {
  IotlbGeometry,
  IotlbGeometryBySize,
  IotlbOptions,
  PartialInvalidation,
  SharedGeometry,
  SpontaneousLoss,
} from './iotlb-options.ts';
export {
  DEFAULT_IOTLB_GEOMETRY,
  QEMU_7_2_IOTLB_OPTIONS,
  QEMU_IOTLB_GEOMETRY,
  QEMU_IOTLB_OPTIONS,
} from './iotlb-options.ts';
export type { LookupAgreement } from './lossy-comparison.ts';
export { LossyComparison } from './lossy-comparison.ts';
export type {
  PagingStructureCacheCounters,
  PagingStructureCacheGeometry,
  PagingStructureCacheGeometryByLevel,
  PagingStructureCacheOptions,
  PagingStructureEntry,
  TableLevel,
} from './paging-structure-cache.ts';
export { DEFAULT_PAGING_STRUCTURE_CACHE_GEOMETRY, PagingStructureCache } from './paging-structure-cache.ts';
export { ANY_PASID, EVERY_PASID, NO_PASID } from './pasid.ts';
export type { PasidCacheEntry, PasidCacheOptions } from './pasid-cache.ts';
export { PasidCache, PasidCacheGranularity } from './pasid-cache.ts';
export type { RandomSource, ReplacementPolicy } from './replacement.ts';
export type { SetAssociativeGeometry } from './set-associative.ts';
export type { IotlbEntry, LeafLevel } from './translation-entries.ts';
export { TranslationKind } from './translation-kind.ts';
