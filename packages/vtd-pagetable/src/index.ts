export type { AccessedRequest } from './accessed.ts';
export { accessedNow, readAndClearAccessed } from './accessed.ts';
export type { CollapseObstacle, CollapseResult } from './collapse.ts';
export { collapse } from './collapse.ts';
export type { ContextEntry, ContextLookup } from './context-entry.ts';
export {
  clearContext,
  contextLayout,
  contextReason,
  contextReserved,
  decodeContext,
  encodeContext,
  readContext,
  TranslationType,
  writeContext,
} from './context-entry.ts';
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
export type { EntryAccount, EntryVerdict } from './explain/entry-account.ts';
export { explainEntry } from './explain/entry-account.ts';
export type { EntryKind } from './explain/entry-kind.ts';
export { ENTRY_KINDS, levelOfKind, wordsOfKind } from './explain/entry-kind.ts';
export type { EntryRun, TableAccount } from './explain/table-account.ts';
export { explainTable } from './explain/table-account.ts';
export type { DumpRow, TranslationDump } from './explain/translation-dump.ts';
export { parseTranslationDump } from './explain/translation-dump.ts';
export type { FaultAccount, Verdict } from './explain/verdict.ts';
export type { WalkAccount } from './explain/walk-account.ts';
export { explainDump } from './explain/walk-account.ts';
export type { FieldAccount, WordsAccount } from './explain/words-account.ts';
export { explainWords } from './explain/words-account.ts';
export type { FaultCondition, FaultReasonCode } from './fault-reason.ts';
export { FaultReason, faultCondition, faultReasonText, isQualifiedFault, isWalkError } from './fault-reason.ts';
export {
  encodeFirstStageLeaf,
  encodeFirstStageTable,
  FS_ACCESSED,
  FS_DIRTY,
  FS_PRESENT,
  FS_TABLE,
  FS_USER,
  FS_WRITE,
} from './first-stage-entry.ts';
export { splitFirstStage } from './first-stage-split.ts';
export type { FirstStageOutcome, FirstStageTable } from './first-stage-walk.ts';
export { walkFirstStage } from './first-stage-walk.ts';
export type { BitField, Layout } from './format/bit-field.ts';
export { layout, namedValues, yesNo } from './format/bit-field.ts';
export type { FirstStageCapabilities } from './format/first-stage-layout.ts';
export { firstStageEntryName, firstStageLayout } from './format/first-stage-layout.ts';
export { pagingEntryLayout } from './format/paging-entry-layout.ts';
export { pasidLayout } from './format/pasid-entry-layout.ts';
export { isFaultProcessingDisabled } from './format/shared-field.ts';
export type { DirtyRange, LateTable } from './invalidation-gather.ts';
export { InvalidationGather } from './invalidation-gather.ts';
export type { MapRequest } from './map.ts';
export { map } from './map.ts';
export type { MistakenWord, NaiveUnmapReport, PhysicalWords } from './mistaken-words.ts';
export { naiveUnmap } from './naive-unmap.ts';
export { PageTableError } from './page-table-error.ts';
export type { PasidDirectoryEntry } from './pasid-directory-entry.ts';
export {
  decodePasidDirectoryEntry,
  encodePasidDirectoryEntry,
  pasidDirectoryLayout,
  pasidDirectoryReason,
  pasidDirectoryReserved,
} from './pasid-directory-entry.ts';
export type { PasidEntry } from './pasid-entry.ts';
export {
  decodePasidEntry,
  encodePasidEntry,
  invalidPasidField,
  PasidTranslationType,
  pasidEntryReason,
  pasidEntryReserved,
} from './pasid-entry.ts';
export { clearPasidEntry, clearPasidPresent, setPasidAccessedDirty, writePasidEntry } from './pasid-table.ts';
export type { Patch2023Defects, Patch2023Request, Patch2023Result } from './patch-2023.ts';
export { unmapByPatch2023 } from './patch-2023.ts';
export type { ProtectRequest } from './protect.ts';
export { protect } from './protect.ts';
export { SS_FLUSHED } from './publication.ts';
export type { RootEntry, ScalableRootEntry } from './root-entry.ts';
export {
  decodeRoot,
  decodeScalableRoot,
  encodeRoot,
  encodeScalableRoot,
  readRoot,
  rootLayout,
  rootReason,
  rootReserved,
  scalableRootLayout,
  scalableRootReason,
  scalableRootReserved,
} from './root-entry.ts';
export type { ScalableContextEntry } from './scalable-context-entry.ts';
export {
  clearScalableContext,
  contradictsTranslatedPasid,
  decodeScalableContext,
  encodeScalableContext,
  pasidLimit,
  scalableContextLayout,
  scalableContextReason,
  scalableContextReserved,
  writeScalableContext,
} from './scalable-context-entry.ts';
export type { MapRangeRequest } from './second-stage-table.ts';
export { SecondStageTable } from './second-stage-table.ts';
export type { StructureCapabilities } from './structure-capabilities.ts';
export { DEFAULT_STRUCTURE_CAPABILITIES } from './structure-capabilities.ts';
export type { TableMemoryOptions } from './table-memory.ts';
export { TableMemory } from './table-memory.ts';
export { TablePlaces } from './table-places.ts';
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
