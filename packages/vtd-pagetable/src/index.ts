export type { CollapseObstacle, CollapseResult } from './collapse.ts';
export { collapse } from './collapse.ts';
export type { CutOptions, CutResult } from './cut.ts';
export { cut } from './cut.ts';
export type { DirtyReport, DirtyRequest } from './dirty.ts';
export { readAndClearDirty } from './dirty.ts';
export type { EntryCapabilities, ReservedMasks, Rights, TableLevel } from './entry.ts';
export {
  DEFAULT_ENTRY_CAPABILITIES,
  encodeLeaf,
  encodeTable,
  entryFrame,
  entryName,
  HI_ADDRESS,
  isLeaf,
  isPresent,
  LO_RIGHTS,
  leafAttributes,
  levelFrameShift,
  levelFrames,
  reservedMasks,
  rightsBits,
  SS_ACCESSED,
  SS_ADDRESS_MASK,
  SS_DIRTY,
  SS_PAGE_SIZE,
  SS_READ,
  SS_SNOOP,
  SS_WRITE,
  tableIndex,
} from './entry.ts';
export type { FaultReasonCode } from './fault-reason.ts';
export { FaultReason, faultReasonText, isWalkError } from './fault-reason.ts';
export type { DirtyRange, LateTable } from './invalidation-gather.ts';
export { InvalidationGather } from './invalidation-gather.ts';
export type { MapRequest } from './map.ts';
export { map } from './map.ts';
export type { MistakenWord, NaiveUnmapReport, PhysicalWords } from './naive-unmap.ts';
export { naiveUnmap } from './naive-unmap.ts';
export { PageTableError } from './page-table-error.ts';
export type { ProtectRequest } from './protect.ts';
export { protect } from './protect.ts';
export { SS_FLUSHED } from './publication.ts';
export type { ContextEntry, ContextLookup } from './root-context.ts';
export {
  clearContext,
  decodeContext,
  encodeContext,
  readContext,
  readRoot,
  TranslationType,
  writeContext,
} from './root-context.ts';
export type { MapRangeRequest } from './second-stage-table.ts';
export { SecondStageTable } from './second-stage-table.ts';
export type { TableMemoryOptions } from './table-memory.ts';
export { TableMemory } from './table-memory.ts';
export { TablePlaces } from './table-places.ts';
export type { TableReserveOptions } from './table-reserve.ts';
export { TableReserve } from './table-reserve.ts';
export type { LeafView, SecondStageTableOptions } from './table-state.ts';
export { checkRange, TableState } from './table-state.ts';
export type { PartialLeafRule, UnmapRequest } from './unmap.ts';
export { unmap } from './unmap.ts';
export type { WalkAccessKind } from './walk.ts';
export { WalkAccess, WalkState, WalkStatus, walk, walkIndex, walkLevel, walkReadLabel, walkTask } from './walk.ts';
