import { hex } from '@faultline/address';
import type { ContextCache, PasidCache } from '@faultline/iotlb';
import { type Agent, Cost, Location, type Task } from '@faultline/sim';
import {
  AccessedDirtyMode,
  type AccessedDirtyModeCode,
  type ContextEntry,
  contextReason,
  decodeContext,
  decodePasidDirectoryEntry,
  decodePasidEntry,
  decodeScalableContext,
  FaultReason,
  isFaultProcessingDisabled,
  type PasidDirectoryEntry,
  type PasidEntry,
  PasidTranslationType,
  pasidDirectoryReason,
  pasidEntryReason,
  pasidLimit,
  rootReason,
  type ScalableContextEntry,
  type StructureCapabilities,
  scalableContextReason,
  scalableRootReason,
  type TableMemory,
  TranslationType,
} from '@faultline/vtd-pagetable';
import type { UnitCapabilities } from './capability.ts';
import { TranslationMode, type TranslationModeCode } from './translation-mode.ts';

/** What the tables say of a requester, with its PASID in scalable mode: all that a translation needs. */
export interface RequesterContext {
  /** Every host address is its own translation; otherwise the second stage translates. */
  readonly passThrough: boolean;
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
  /** Counts invalidations of the context and PASID caches: what was read before one must not be cached after it. */
  readonly structureEpoch: number;
  /** A read of memory by the hardware. */
  countRead(): void;
}

const fault = (reason: number, faultDisable = false): LookupFault => ({ reason, faultDisable });
const frameOf = (word: bigint): number => Number((word >> 12n) & 0xff_ffff_ffffn);

/**
 * Finds out how a requester is translated: context cache and PASID cache, else root, context, PASID-directory and PASID-table
 * entries from memory, one read a step (VT-d Rev 5.10, 3.4, and the conditions LRT to SPT of table 30 in their order).
 * @param pasid of the request, or -1 for one without
 * @returns an object with `reason` if the tables lead nowhere
 * @throws RangeError for a requester id above 16 bits
 */
export function* lookupRequester(
  agent: Agent,
  unit: RequesterTables,
  sourceId: number,
  pasid: number,
  kind: RequestKind,
): Task<RequesterContext | LookupFault> {
  if (!(sourceId >= 0 && sourceId <= 0xffff)) throw new RangeError(`sourceId: ${hex(sourceId)} is not in 0..0xffff`);
  const blocked = modeFault(unit, pasid, kind);
  if (blocked !== 0) return fault(blocked);
  if (unit.mode === TranslationMode.legacy) return yield* legacyContext(agent, unit, sourceId, kind);
  for (;;) {
    const epoch = unit.structureEpoch;
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
    const epoch = unit.structureEpoch;
    const bus = sourceId >> 8;
    if (!memory.contains(unit.rootPfn)) return fault(FaultReason.rootAccess);
    const root = yield* readWords(agent, unit, 'read root entry', unit.rootPfn, bus * 2, 2, false);
    const rootFault = rootReason(root, structures);
    if (rootFault !== 0) return fault(rootFault);
    const contextPfn = frameOf(root[0] as bigint);
    if (!memory.contains(contextPfn)) return fault(FaultReason.contextAccess);
    const index = (sourceId & 0xff) * 2;
    const words = yield* readWords(agent, unit, 'read context entry', contextPfn, index, 2, true);
    const faultDisable = isFaultProcessingDisabled(words);
    const reason = contextReason(words, structures);
    if (reason !== 0) return fault(reason, faultDisable);
    const entry = decodeContext(words[0] as bigint, words[1] as bigint) as ContextEntry;
    const passThrough = entry.translationType === TranslationType.passThrough;
    if (epoch !== unit.structureEpoch) continue;
    const context: RequesterContext = {
      passThrough,
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
    const epoch = unit.structureEpoch;
    if (!memory.contains(unit.rootPfn)) return fault(FaultReason.scalableRootAccess);
    const root = yield* readWords(agent, unit, 'read root entry', unit.rootPfn, (sourceId >> 8) * 2, 2, false);
    const half = (sourceId & 0x80) === 0 ? 0 : 1;
    const rootFault = scalableRootReason(root, half, structures);
    if (rootFault !== 0) return fault(rootFault);
    const contextPfn = frameOf(root[half] as bigint);
    if (!memory.contains(contextPfn)) return fault(FaultReason.scalableContextAccess);
    const index = (sourceId & 0x7f) * 4;
    const words = yield* readWords(agent, unit, 'read context entry', contextPfn, index, 4, true);
    const faultDisable = isFaultProcessingDisabled(words);
    const reason = scalableContextReason(words, structures);
    if (reason !== 0) return fault(reason, faultDisable);
    if (epoch !== unit.structureEpoch) continue;
    const entry = decodeScalableContext(words) as Required<ScalableContextEntry>;
    const context: CachedScalableContext = {
      directoryPfn: entry.pasidDirectoryPfn,
      pasids: pasidLimit(entry.pasidDirectorySize),
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

/** What the context entry does not let this request do (SCT.5 to SCT.9, and SGN.10, which page requests are free of). */
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
  if (kind !== 'page request' && pasid >= 2 ** unit.capabilities.pasidBits) return FaultReason.pasidBeyondSize;
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
  const directoryDisable = context.faultDisable || isFaultProcessingDisabled(directory);
  const directoryFault = pasidDirectoryReason(directory, structures);
  if (directoryFault !== 0) return fault(directoryFault, directoryDisable);
  const { pasidTablePfn } = decodePasidDirectoryEntry(directory) as PasidDirectoryEntry;
  if (!memory.contains(pasidTablePfn)) return fault(FaultReason.pasidEntryAccess);
  const words = yield* readWords(agent, unit, 'read PASID-table entry', pasidTablePfn, (pasid & 63) * 8, 8, true);
  const faultDisable = directoryDisable || isFaultProcessingDisabled(words);
  const reason = pasidEntryReason(words, structures);
  if (reason !== 0) return fault(reason, faultDisable);
  const entry = decodePasidEntry(words) as Required<PasidEntry>;
  const passThrough = entry.translationType === PasidTranslationType.passThrough;
  if (epoch !== unit.structureEpoch) return null;
  const snoops = unit.capabilities.pageWalkCoherent && entry.pageWalkSnoop;
  const update = snoops ? AccessedDirtyMode.update : AccessedDirtyMode.fault;
  const found: RequesterContext = {
    passThrough,
    tablePfn: entry.secondStagePfn,
    levels: entry.addressWidth + 2,
    domainId: entry.domainId,
    pasid,
    deviceTlb: context.deviceTlb,
    accessedDirty: entry.secondStageAccessedDirty ? update : AccessedDirtyMode.off,
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
  yield caches ? agent.alsoWrites(step, Location.contextCache, unit.id) : step;
  unit.countRead();
  return Array.from({ length: count }, (_, i) => memory.hardwareLoad(pfn, index + i));
}
