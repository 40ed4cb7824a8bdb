import type { ContextCache, PasidCache } from '@faultline/iotlb';
import { type Agent, Cost, Location, type Task } from '@faultline/sim';
import {
  AccessedDirtyMode,
  type AccessedDirtyModeCode,
  contextReserved,
  decodeContext,
  decodePasidDirectory,
  decodePasidEntry,
  decodeRoot,
  decodeScalableContext,
  FaultReason,
  pasidDirectoryReserved,
  pasidEntryReserved,
  rootReserved,
  type StructureCapabilities,
  scalableContextReserved,
  scalableRootReserved,
  type TableMemory,
  TranslationType,
} from '@faultline/vtd-pagetable';
import type { UnitCapabilities } from './capability.ts';
import { TranslationMode, type TranslationModeCode } from './translation-mode.ts';

/** How a requester's DMA is translated: PGTT of a PASID entry, or what TT of a legacy context entry amounts to. */
export const TranslationKind = { secondStage: 2, passThrough: 4 } as const;
/** 2 second stage, 4 pass-through, as PGTT numbers them. */
export type TranslationKindCode = (typeof TranslationKind)[keyof typeof TranslationKind];

/** What the tables say of a requester, with its PASID in scalable mode: all that a translation needs. */
export interface RequesterContext {
  readonly kind: TranslationKindCode;
  /** Frame of the second-stage table's root. */
  readonly tablePfn: number;
  /** Levels of that table. */
  readonly levels: number;
  readonly domainId: number;
  /** Tag of what is cached: the request's PASID, or RID_PASID for a request without one. */
  readonly pasid: number;
  /** Translation requests and translated requests are served: TT=01, or DTE. */
  readonly deviceTlb: boolean;
  /** What walks do with A and D. */
  readonly accessedDirty: AccessedDirtyModeCode;
  /** An FPD bit is set on the way here: qualified faults are not recorded. */
  readonly faultDisable: boolean;
}

/** A requester that the tables do not lead anywhere. */
export interface LookupFault {
  readonly reason: number;
  readonly faultDisable: boolean;
}

/** What a request is, as far as the structures care. */
export type RequestKind = 'untranslated' | 'translation request' | 'page request';

/** What a scalable-mode context entry says, as it is cached. */
export interface CachedScalableContext {
  readonly directoryPfn: number;
  /** PASIDs that the directory holds: 2^(PDTS+7) entries of 64. */
  readonly pasids: number;
  readonly deviceTlb: boolean;
  readonly pasidEnable: boolean;
  readonly pageRequestEnable: boolean;
  readonly ridPasid: number;
  readonly faultDisable: boolean;
}

/** What the look-up needs of its unit. */
export interface RequesterTables {
  readonly id: number;
  readonly memory: TableMemory;
  readonly capabilities: UnitCapabilities;
  /** The same for vtd-pagetable's structures. */
  readonly structures: StructureCapabilities;
  readonly contextCache: ContextCache<RequesterContext>;
  readonly scalableContextCache: ContextCache<CachedScalableContext>;
  readonly pasidCache: PasidCache<RequesterContext>;
  /** RTADDR as latched. */
  readonly rootPfn: number;
  readonly mode: TranslationModeCode;
  /** Counts executed invalidations: what was read before one must not be cached after it. */
  readonly epoch: number;
  /** A read of memory by the hardware. */
  countRead(): void;
}

const fault = (reason: number, faultDisable = false): LookupFault => ({ reason, faultDisable });
const anyBit = (words: readonly bigint[]): boolean => words.some((word) => word !== 0n);
const frameOf = (word: bigint): number => Number((word >> 12n) & 0xff_ffff_ffffn);
/** FPD is evaluated also where P is clear (9.3 to 9.6). */
const faultDisabled = (word: bigint): boolean => (word & 2n) !== 0n;

/**
 * Finds out how a requester is translated: context cache and PASID cache, else root, context, PASID-directory and PASID-table
 * entries from memory, one read a step (VT-d Rev 5.10, 3.4, and the conditions LRT to SPT of table 30 in their order).
 * @param pasid of the request, or -1 for one without
 * @returns an object with `reason` if the tables lead nowhere
 */
export function* lookupRequester(
  agent: Agent,
  unit: RequesterTables,
  sourceId: number,
  pasid: number,
  kind: RequestKind,
): Task<RequesterContext | LookupFault> {
  const blocked = modeFault(unit, pasid, kind);
  if (blocked !== 0) return fault(blocked);
  if (unit.mode === TranslationMode.legacy) return yield* legacyContext(agent, unit, sourceId, kind);
  for (;;) {
    const epoch = unit.epoch;
    const context = yield* scalableContext(agent, unit, sourceId);
    if ('reason' in context) return context;
    const refused = scalableFault(unit, context, pasid, kind);
    if (refused !== 0) return fault(refused, context.faultDisable);
    const found = yield* pasidContext(agent, unit, sourceId, context, pasid < 0 ? context.ridPasid : pasid, epoch);
    if (found !== null) return found;
  }
}

/** Conditions of the root table address register (RTA.1 to RTA.4). */
function modeFault(unit: RequesterTables, pasid: number, kind: RequestKind): number {
  switch (unit.mode) {
    case TranslationMode.reserved:
      return FaultReason.rootRegister;
    case TranslationMode.abort:
      return unit.capabilities.abortDmaMode ? FaultReason.abortDmaMode : FaultReason.rootRegister;
    case TranslationMode.scalable:
      return unit.capabilities.scalableMode ? 0 : FaultReason.rootRegister;
    default:
      if (kind === 'page request') return FaultReason.legacyModePageRequest;
      return pasid >= 0 ? FaultReason.legacyModePasid : 0;
  }
}

function* legacyContext(
  agent: Agent,
  unit: RequesterTables,
  sourceId: number,
  kind: RequestKind,
): Task<RequesterContext | LookupFault> {
  const cached = unit.contextCache.lookup(sourceId);
  const found = cached >= 0 ? unit.contextCache.valueAt(cached) : yield* readLegacyContext(agent, unit, sourceId);
  if ('reason' in found) return found;
  if (kind === 'translation request' && !found.deviceTlb)
    return fault(FaultReason.translationTypeBlocked, found.faultDisable);
  return found;
}

function* readLegacyContext(
  agent: Agent,
  unit: RequesterTables,
  sourceId: number,
): Task<RequesterContext | LookupFault> {
  const { memory, structures } = unit;
  for (;;) {
    const epoch = unit.epoch;
    const bus = sourceId >> 8;
    if (!memory.contains(unit.rootPfn)) return fault(FaultReason.rootAccess);
    const root = yield* readWords(agent, unit, 'read root entry', unit.rootPfn, bus * 2, 2, false);
    const rootEntry = decodeRoot(root);
    if (rootEntry === null) return fault(FaultReason.rootNotPresent);
    if (anyBit(rootReserved(root, structures))) return fault(FaultReason.rootReserved);
    if (!memory.contains(rootEntry.contextPfn)) return fault(FaultReason.contextAccess);
    const words = yield* readWords(
      agent,
      unit,
      'read context entry',
      rootEntry.contextPfn,
      (sourceId & 0xff) * 2,
      2,
      true,
    );
    const [lo = 0n, hi = 0n] = words;
    const faultDisable = faultDisabled(lo);
    const entry = decodeContext(lo, hi);
    if (entry === null) return fault(FaultReason.contextNotPresent, faultDisable);
    if (anyBit(contextReserved(words, structures))) return fault(FaultReason.contextReserved, faultDisable);
    const isPassThrough = entry.translationType === TranslationType.passThrough;
    const isUsable =
      hasLevels(unit, entry.addressWidth) &&
      (isPassThrough
        ? unit.capabilities.passThrough
        : entry.translationType !== 3 &&
          (entry.translationType === 0 || unit.capabilities.deviceTlb) &&
          memory.contains(entry.tablePfn));
    if (!isUsable) return fault(FaultReason.contextInvalid, faultDisable);
    if (epoch !== unit.epoch) continue;
    const context: RequesterContext = {
      kind: isPassThrough ? TranslationKind.passThrough : TranslationKind.secondStage,
      tablePfn: entry.tablePfn,
      levels: entry.addressWidth + 2,
      domainId: entry.domainId,
      pasid: 0,
      deviceTlb: entry.translationType === TranslationType.deviceTlb,
      accessedDirty: AccessedDirtyMode.off,
      faultDisable,
    };
    unit.contextCache.fill(sourceId, entry.domainId, context);
    return context;
  }
}

const hasLevels = (unit: RequesterTables, addressWidth: number): boolean =>
  (unit.capabilities.levels as readonly number[]).includes(addressWidth + 2);

/** The scalable-mode context entry of a function: its root entry has a half for functions 0 to 127 and one for the others. */
function* scalableContext(
  agent: Agent,
  unit: RequesterTables,
  sourceId: number,
): Task<CachedScalableContext | LookupFault> {
  const { memory, structures } = unit;
  const cached = unit.scalableContextCache.lookup(sourceId);
  if (cached >= 0) return unit.scalableContextCache.valueAt(cached);
  for (;;) {
    const epoch = unit.epoch;
    if (!memory.contains(unit.rootPfn)) return fault(FaultReason.scalableRootAccess);
    const root = yield* readWords(agent, unit, 'read root entry', unit.rootPfn, (sourceId >> 8) * 2, 2, false);
    const upper = (sourceId & 0x80) !== 0;
    const half = root[upper ? 1 : 0] as bigint;
    if ((half & 1n) === 0n) return fault(FaultReason.scalableRootNotPresent);
    if (anyBit(scalableRootReserved(root, structures))) return fault(FaultReason.scalableRootReserved);
    const contextPfn = frameOf(half);
    if (!memory.contains(contextPfn)) return fault(FaultReason.scalableContextAccess);
    const index = (sourceId & 0x7f) * 4;
    const words = yield* readWords(agent, unit, 'read context entry', contextPfn, index, 4, true);
    const faultDisable = faultDisabled(words[0] as bigint);
    const entry = decodeScalableContext(words);
    if (entry === null) return fault(FaultReason.scalableContextNotPresent, faultDisable);
    if (anyBit(scalableContextReserved(words, structures))) return fault(FaultReason.scalableContextReserved, faultDisable);
    const pasids = 2 ** (entry.pasidDirectorySize + 7) * 64;
    if ((entry.pageRequestEnable && !entry.deviceTlbEnable) || entry.ridPasid >= pasids)
      return fault(FaultReason.scalableContextInvalid, faultDisable);
    if (epoch !== unit.epoch) continue;
    const context: CachedScalableContext = {
      directoryPfn: entry.pasidDirectoryPfn,
      pasids,
      deviceTlb: entry.deviceTlbEnable,
      pasidEnable: entry.pasidEnable,
      pageRequestEnable: entry.pageRequestEnable,
      ridPasid: entry.ridPasid,
      faultDisable,
    };
    unit.scalableContextCache.fill(sourceId, 0, context);
    return context;
  }
}

/** What the context entry does not let this request do (SCT.5 to SCT.9, SGN.10). */
function scalableFault(
  unit: RequesterTables,
  context: CachedScalableContext,
  pasid: number,
  kind: RequestKind,
): number {
  if (kind === 'translation request' && !context.deviceTlb) return FaultReason.deviceTlbDisabled;
  if (kind === 'page request' && !context.pageRequestEnable) return FaultReason.pageRequestDisabled;
  if (pasid < 0) return 0;
  if (!context.pasidEnable) return FaultReason.pasidDisabled;
  if (pasid >= 2 ** unit.capabilities.pasidBits) return FaultReason.pasidBeyondSize;
  if (pasid >= context.pasids) return FaultReason.pasidBeyondDirectory;
  return pasid === context.ridPasid ? FaultReason.pasidIsRidPasid : 0;
}

/** The PASID-table entry. @returns null if an invalidation came in between, so that all must be looked up again */
function* pasidContext(
  agent: Agent,
  unit: RequesterTables,
  sourceId: number,
  context: CachedScalableContext,
  pasid: number,
  epoch: number,
): Task<RequesterContext | LookupFault | null> {
  const { memory, structures } = unit;
  const cached = unit.pasidCache.lookup(sourceId, pasid);
  if (cached >= 0) return unit.pasidCache.valueAt(cached);
  // Entries of the directory are 8 bytes, so one page of it serves 2^15 PASIDs.
  const slot = pasid >> 6;
  const directoryPfn = context.directoryPfn + (slot >> 9);
  if (!memory.contains(directoryPfn)) return fault(FaultReason.pasidDirectoryAccess);
  const directory = yield* readWords(agent, unit, 'read PASID-directory entry', directoryPfn, slot & 511, 1, false);
  const directoryDisable = context.faultDisable || faultDisabled(directory[0] as bigint);
  const table = decodePasidDirectory(directory);
  if (table === null) return fault(FaultReason.pasidDirectoryNotPresent, directoryDisable);
  if (anyBit(pasidDirectoryReserved(directory, structures)))
    return fault(FaultReason.pasidDirectoryReserved, directoryDisable);
  if (!memory.contains(table.tablePfn)) return fault(FaultReason.pasidEntryAccess);
  const words = yield* readWords(agent, unit, 'read PASID-table entry', table.tablePfn, (pasid & 63) * 8, 8, true);
  const faultDisable = directoryDisable || faultDisabled(words[0] as bigint);
  const entry = decodePasidEntry(words);
  if (entry === null) return fault(FaultReason.pasidEntryNotPresent, faultDisable);
  if (anyBit(pasidEntryReserved(words, structures))) return fault(FaultReason.pasidEntryReserved, faultDisable);
  const isPassThrough = entry.translationType === TranslationKind.passThrough && unit.capabilities.passThrough;
  const isSecondStage = entry.translationType === TranslationKind.secondStage && hasLevels(unit, entry.addressWidth);
  if (!isPassThrough && !isSecondStage) return fault(FaultReason.pasidEntryInvalid, faultDisable);
  if (isSecondStage && !memory.contains(entry.secondStagePfn)) return fault(FaultReason.secondStagePointer, faultDisable);
  if (epoch !== unit.epoch) return null;
  const snoops = unit.capabilities.pageWalkCoherent && entry.pageWalkSnoop;
  const found: RequesterContext = {
    kind: isPassThrough ? TranslationKind.passThrough : TranslationKind.secondStage,
    tablePfn: entry.secondStagePfn,
    levels: entry.addressWidth + 2,
    domainId: entry.domainId,
    pasid,
    deviceTlb: context.deviceTlb,
    accessedDirty: !entry.secondStageAccessedDirty
      ? AccessedDirtyMode.off
      : snoops
        ? AccessedDirtyMode.update
        : AccessedDirtyMode.fault,
    faultDisable,
  };
  unit.pasidCache.fill(sourceId, pasid, entry.domainId, found);
  return found;
}

/** Reads an entry of one or more words as hardware sees it, in one step. @param caches whether what was read goes into a cache at once */
function* readWords(
  agent: Agent,
  unit: RequesterTables,
  label: string,
  pfn: number,
  index: number,
  count: number,
  caches: boolean,
): Task<bigint[]> {
  const { memory } = unit;
  const step = agent.reads(label, Location.entry, memory.location(pfn, index), Cost.walkRead);
  yield caches ? agent.alsoWrites(step, Location.translationCache, unit.id) : step;
  unit.countRead();
  return Array.from({ length: count }, (_, i) => memory.hardwareLoad(pfn, index + i));
}
