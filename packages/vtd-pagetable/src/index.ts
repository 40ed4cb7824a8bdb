export type { CutResult } from './cut.ts';
export { cut } from './cut.ts';
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
export type { FaultCondition, FaultReasonCode } from './fault-reason.ts';
export { FaultReason, faultCondition, faultReasonText, isQualifiedFault, isWalkError } from './fault-reason.ts';
export { InvalidationGather } from './invalidation-gather.ts';
export type { MapRequest } from './map.ts';
export { map } from './map.ts';
export type { MistakenWord, NaiveUnmapReport, PhysicalWords } from './naive-unmap.ts';
export { naiveUnmap } from './naive-unmap.ts';
export { PageTableError } from './page-table-error.ts';
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
export { SecondStageTable } from './second-stage-table.ts';
export type { TableMemoryOptions } from './table-memory.ts';
export { TableMemory } from './table-memory.ts';
export type { TableReserveOptions } from './table-reserve.ts';
export { TableReserve } from './table-reserve.ts';
export type { LeafView, SecondStageTableOptions } from './table-state.ts';
export { checkRange, TableState } from './table-state.ts';
export type { PartialLeafRule, UnmapRequest } from './unmap.ts';
export { unmap } from './unmap.ts';
export type { AccessedDirtyModeCode, WalkAccessKind, WalkModeCode } from './walk.ts';
export {
  AccessedDirtyMode,
  WalkAccess,
  WalkMode,
  WalkState,
  WalkStatus,
  walk,
  walkIndex,
  walkLevel,
  walkReadLabel,
  walkTask,
} from './walk.ts';
