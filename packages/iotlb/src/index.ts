export type {
  ContextCacheEntry,
  ContextCacheOptions,
  ContextCacheValue,
  FunctionMask,
} from './context-cache.ts';
export { ContextCache } from './context-cache.ts';
export type { IotlbCounters } from './counters.ts';
export type { IotlbEntry, IotlbGeometry, IotlbOptions, LeafLevel, PartialInvalidation } from './iotlb.ts';
export {
  DEFAULT_IOTLB_GEOMETRY,
  Iotlb,
  QEMU_7_2_IOTLB_OPTIONS,
  QEMU_IOTLB_GEOMETRY,
  QEMU_IOTLB_OPTIONS,
  TranslationKind,
} from './iotlb.ts';
export type {
  PagingStructureCacheCounters,
  PagingStructureCacheGeometry,
  PagingStructureEntry,
  TableLevel,
} from './paging-structure-cache.ts';
export { DEFAULT_PAGING_STRUCTURE_CACHE_GEOMETRY, PagingStructureCache } from './paging-structure-cache.ts';
export { NO_PASID } from './pasid.ts';
export type { PasidCacheEntry, PasidCacheOptions } from './pasid-cache.ts';
export { PasidCache, PasidCacheGranularity } from './pasid-cache.ts';
export type { SetAssociativeGeometry } from './set-associative.ts';
