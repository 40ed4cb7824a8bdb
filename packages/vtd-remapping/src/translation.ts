import { NO_PASID } from '@faultline/iotlb';
import { type Agent, CachePart, Cost, Location, type Task, translationCacheLocation } from '@faultline/sim';
import {
  AccessedDirtyMode,
  FaultReason,
  isQualifiedFault,
  levelFrames,
  WalkAccess,
  WalkMode,
  WalkStatus,
  walkLevel,
  walkReadLabel,
} from '@faultline/vtd-pagetable';
import type { FaultRecord } from './fault-recording.ts';
import type { RemappingUnit } from './remapping-unit.ts';
import { lookupRequester, type RequesterContext } from './requester-lookup.ts';
import { TranslationMode } from './translation-mode.ts';
import type { DmaRequest, Walker } from './walker.ts';

/** An invalidation came in between: begin again. No fault reason has this value. */
export const RESTART = 0x10000;
/** A translation request without PASID for FEEx_xxxxh, of a function that may ask: no fault either, S.1 or S.2 of table 30. */
export const INTERRUPT_TRANSLATION = 0x10001;
/** In the upper half of a cached leaf: the entry stands for a fault, whose reason is the lower half (CAP.CM). */
const NEGATIVE = -1;
/** Page numbers of the interrupt address range FEEx_xxxxh, without their lower 8 bits. */
const INTERRUPT_RANGE = 0xfee;
/** R and W. */
export const IO_RIGHTS = 3;
/** PS in the lower half of an entry. */
export const LO_PAGE_SIZE = 0x80;
/** Errors of the tables at an address, whatever is asked of it. */
const ERRORS: ReadonlySet<number> = new Set([
  FaultReason.pagingReserved,
  FaultReason.tableAccess,
  FaultReason.secondStageAccess,
  FaultReason.secondStageNoPermission,
  FaultReason.secondStageReserved,
]);

/** The 4K page number of an address given by its halves. */
export const pageOf = (iovaHi: number, iovaLo: number): number => (iovaHi >>> 0) * 0x10_0000 + (iovaLo >>> 12);
const isInterruptRange = (page: number): boolean => Math.floor(page / 0x100) === INTERRUPT_RANGE;

/**
 * The miss path of an untranslated request. @returns the frame number, or minus a fault reason
 * @throws RangeError for an access that no DMA makes
 */
export function* translateDma(agent: Agent, unit: RemappingUnit, request: DmaRequest): Task<number> {
  const { sourceId, iovaHi, iovaLo, access, pasid = NO_PASID } = request;
  if (access !== 0 && access !== 1 && access !== 2 && access !== 3)
    throw new RangeError(`access: ${access} is not one of 0, 1, 2, 3`);
  const page = pageOf(iovaHi, iovaLo);
  if (!unit.enabled) return page;
  if (pasid === NO_PASID && isInterruptRange(page)) return interruptRequest(unit, request, page);
  const walker = unit.acquireWalker();
  try {
    walker.mayWrite = true;
    const needed = access === WalkAccess.zeroLengthRead && !unit.capabilities.zeroLengthRead ? WalkAccess.read : access;
    for (;;) {
      const reason = yield* walkFor(agent, unit, walker, { sourceId, iovaHi, iovaLo, pasid, access: needed });
      if (reason === RESTART) continue;
      if (reason === 0) return frameOf(walker, iovaHi, iovaLo);
      recordFault(unit, { sourceId, page, reason, ...kindOf(access) }, pasid, walker.faultDisable);
      return -reason;
    }
  } finally {
    unit.releaseWalker(walker);
  }
}

/** T1 and T2 of a record. */
const kindOf = (access: number): Pick<FaultRecord, 'write' | 'atomic'> =>
  access === WalkAccess.atomic ? { write: false, atomic: true } : { write: access === WalkAccess.write };

/**
 * A request without PASID to FEEx_xxxxh is no DMA: a write is an interrupt, a zero-length read completes, anything else is
 * blocked (VT-d Rev 5.10, 3.15).
 */
function interruptRequest(unit: RemappingUnit, request: DmaRequest, page: number): number {
  if (request.access === WalkAccess.write || request.access === WalkAccess.zeroLengthRead) return page;
  const reason = interruptReason(unit);
  recordFault(unit, { sourceId: request.sourceId, page, reason, ...kindOf(request.access) }, NO_PASID, false);
  return -reason;
}

/** LGN.4 or SGN.8. */
export const interruptReason = (unit: RemappingUnit): number =>
  unit.mode === TranslationMode.legacy ? FaultReason.interruptOutput : FaultReason.scalableInterruptOutput;

/** The 4K frame that a finished walk, or pass-through, translates an address to. */
export const frameOf = (walker: Walker, iovaHi: number, iovaLo: number): number =>
  walker.context?.passThrough ? pageOf(iovaHi, iovaLo) : walker.framePfn;

/** One request on its way through the structures and tables. */
interface WalkRequest {
  readonly sourceId: number;
  readonly iovaHi: number;
  readonly iovaLo: number;
  readonly pasid: number;
  readonly access: number;
}

/** One attempt: structures, caches, walk, fill. @returns 0 (the walker holds the leaf), a fault reason, or RESTART */
export function* walkFor(agent: Agent, unit: RemappingUnit, walker: Walker, request: WalkRequest): Task<number> {
  const { sourceId, iovaHi, iovaLo, pasid, access } = request;
  const kind = access === WalkAccess.anything ? 'translation request' : 'untranslated';
  const found = yield* lookupRequester(agent, unit, sourceId, pasid, kind);
  walker.faultDisable = found.faultDisable;
  if ('reason' in found) return found.reason;
  walker.context = found;
  if (access === WalkAccess.anything && pasid === NO_PASID && isInterruptRange(pageOf(iovaHi, iovaLo)))
    return INTERRUPT_TRANSLATION;
  const { structureEpoch } = unit;
  if (found.passThrough) {
    const step = agent.reads('look up context cache', Location.contextCache, unit.id, Cost.cacheLookup);
    yield agent.alsoWrites(step, Location.translationCache, translationCacheLocation(unit.id, CachePart.iotlb));
    return structureEpoch === unit.structureEpoch ? passThrough(unit, walker, request) : RESTART;
  }
  const beyond = widthFault(unit, found, iovaHi, iovaLo);
  if (beyond !== 0) return beyond;

  const structureCaches = translationCacheLocation(unit.id, CachePart.pagingStructures);
  // With CAP.CM the IOTLB may hold a fault of this page.
  const lookedUp = unit.capabilities.cachingMode ? translationCacheLocation(unit.id, CachePart.all) : structureCaches;
  yield agent.reads('look up paging-structure caches', Location.translationCache, lookedUp, Cost.cacheLookup);
  if (structureEpoch !== unit.structureEpoch) return RESTART;
  const { epoch } = unit;
  const negative = cachedFault(unit, request);
  if (negative !== 0) return negative;
  const lost = beginWalk(unit, walker, found, request);
  if (lost !== 0) return lost;
  let status: number = WalkStatus.walking;
  while (status === WalkStatus.walking) {
    const location = unit.memory.location(walker.tablePfn, walker.index);
    const label = walkReadLabel(walker.level);
    // Setting A or D is part of the same atomic action; what was read goes into the paging-structure caches at once, but for the
    // last level, which leads no further.
    const step =
      walker.accessedDirty === AccessedDirtyMode.update
        ? agent.writes(label, Location.entry, location, Cost.walkRead)
        : agent.reads(label, Location.entry, location, Cost.walkRead);
    yield walker.level > 1
      ? agent.alsoWrites(step, Location.translationCache, structureCaches)
      : agent.alsoReads(step, Location.translationCache, structureCaches);
    status = walkLevel(unit.memory, unit.masks, walker);
    unit.walkReads++;
    if (epoch !== unit.epoch) return RESTART;
    if (status === WalkStatus.walking)
      unit.pagingCache.fill(
        found.domainId,
        iovaHi,
        iovaLo,
        walker.level as 1 | 2 | 3 | 4,
        walker.tablePfn,
        walker.rights,
      );
  }
  const overlaps = status === WalkStatus.translated && overlapsInterrupts(walker.framePfn, walker.level);
  const reason =
    status === WalkStatus.faulted ? walker.faultReason : overlaps ? interruptOutput(unit, walker, access) : 0;
  if (reason !== 0 && !unit.capabilities.cachingMode) return reason;
  yield agent.writes(
    'fill IOTLB',
    Location.translationCache,
    translationCacheLocation(unit.id, CachePart.iotlb),
    Cost.free,
  );
  if (epoch !== unit.epoch) return RESTART;
  if (reason === 0 && !overlaps) cacheLeaf(unit, walker, request, found);
  else if (ERRORS.has(reason) || walker.rights === 0) cacheFault(unit, request, found, reason);
  return reason;
}

/**
 * Pass-through translates every host address to itself, with both rights (3.9). Only a request with PASID gets here with an
 * address in the interrupt range: it is blocked (3.15). For a translation request table 30 exempts pass-through from SGN.8.2, so
 * that the device is told that there is no right, and no fault is recorded.
 */
function passThrough(unit: RemappingUnit, walker: Walker, request: WalkRequest): number {
  const page = pageOf(request.iovaHi, request.iovaLo);
  walker.rights = IO_RIGHTS;
  if (page >= 2 ** (unit.capabilities.hostAddressWidth - 12))
    return unit.mode === TranslationMode.legacy ? FaultReason.addressBeyondWidth : FaultReason.hostAddressBeyondWidth;
  if (!isInterruptRange(page)) return 0;
  walker.rights = 0;
  return request.access === WalkAccess.anything ? 0 : interruptReason(unit);
}

/** The input address is limited by MGAW and by the table's own width (LGN.1.1, SGN.5). */
function widthFault(unit: RemappingUnit, context: RequesterContext, iovaHi: number, iovaLo: number): number {
  const bits = Math.min(9 * context.levels + 12, unit.capabilities.guestAddressWidth);
  if (pageOf(iovaHi, iovaLo) < 2 ** (bits - 12)) return 0;
  return unit.mode === TranslationMode.legacy ? FaultReason.addressBeyondWidth : FaultReason.inputBeyondWidth;
}

/**
 * From the deepest cached paging structure, or from the root of the table, if that is in memory. LCT.4.3 and SSS.4 are about the access to
 * its first entry: the context with such a pointer is cached, and the address's width comes first, as in QEMU. @returns 0 or a fault reason
 */
function beginWalk(unit: RemappingUnit, walker: Walker, context: RequesterContext, request: WalkRequest): number {
  const { iovaHi, iovaLo, access } = request;
  const isLegacy = unit.mode === TranslationMode.legacy;
  walker.mode = isLegacy ? WalkMode.legacy : WalkMode.scalable;
  walker.accessedDirty = context.accessedDirty;
  const { pagingCache } = unit;
  const cached = pagingCache.lookup(context.domainId, iovaHi, iovaLo);
  if (cached < 0) {
    if (!unit.memory.contains(context.tablePfn))
      return isLegacy ? FaultReason.contextInvalid : FaultReason.secondStagePointer;
    walker.begin(context.tablePfn, context.levels, iovaHi, iovaLo, access);
    return 0;
  }
  unit.pagingCacheHits++;
  const rights = pagingCache.rightsAt(cached);
  walker.begin(pagingCache.tablePfnAt(cached), pagingCache.levelAt(cached), iovaHi, iovaLo, access, rights);
  return 0;
}

/** Whether any page of the aligned block around a frame is in the interrupt address range. */
export function overlapsInterrupts(frame: number, level: number): boolean {
  const frames = levelFrames(level);
  const first = frame - (frame % frames);
  return first < (INTERRUPT_RANGE + 1) * 0x100 && first + frames > INTERRUPT_RANGE * 0x100;
}

/** Of an untranslated request the page counts, of a translation request the whole leaf (LGN.4, SGN.8). */
const interruptOutput = (unit: RemappingUnit, walker: Walker, access: number): number =>
  access === WalkAccess.anything || isInterruptRange(walker.framePfn) ? interruptReason(unit) : 0;

/**
 * With SSADE a clean leaf is cached without W, so that the first write walks again and sets D (6.2.4). A large leaf whose input range
 * reaches into FEEx_xxxxh is cached as its 4K page only (fractured, 6.2.4): requests there without PASID are no DMA, and the hit
 * path does not look.
 */
function cacheLeaf(unit: RemappingUnit, walker: Walker, request: WalkRequest, context: RequesterContext): void {
  const { sourceId, iovaHi, iovaLo, pasid } = request;
  const isClean = walker.accessedDirty === AccessedDirtyMode.update && (walker.entryLo & 0x200) === 0;
  const rights = isClean ? walker.rights & ~2 : walker.rights;
  if (rights === 0) return;
  const isFractured = pasid === NO_PASID && overlapsInterrupts(pageOf(iovaHi, iovaLo), walker.level);
  unit.iotlb.fill(
    sourceId,
    context.domainId,
    iovaHi,
    iovaLo,
    isFractured ? 1 : (walker.level as 1 | 2 | 3),
    isFractured ? (walker.framePfn << 12) | (walker.entryLo & 0xfff & ~LO_PAGE_SIZE) : walker.entryLo,
    walker.entryHi,
    rights,
    pasid,
    context.pasid,
  );
}

/** CAP.CM: a fault of the walk is cached, as a 4K entry without rights; only an invalidation makes hardware look again (6.1). */
function cacheFault(unit: RemappingUnit, request: WalkRequest, context: RequesterContext, reason: number): void {
  const { sourceId, iovaHi, iovaLo, pasid } = request;
  unit.iotlb.fill(sourceId, context.domainId, iovaHi, iovaLo, 1, reason, NEGATIVE, 0, pasid, context.pasid);
}

/** @returns the reason of a cached fault, or 0 */
function cachedFault(unit: RemappingUnit, request: WalkRequest): number {
  if (!unit.capabilities.cachingMode) return 0;
  const slot = unit.iotlb.peek(request.sourceId, request.iovaHi, request.iovaLo, request.pasid);
  if (slot < 0 || unit.iotlb.leafHiAt(slot) !== NEGATIVE || unit.iotlb.rightsAt(slot) !== 0) return 0;
  const reason = unit.iotlb.leafLoAt(slot);
  if (reason !== FaultReason.writeNotAllowed && reason !== FaultReason.readNotAllowed) return reason;
  // Legacy mode has no reason of its own for a page that is not present: it goes by what is asked for now.
  return request.access === WalkAccess.write ? FaultReason.writeNotAllowed : FaultReason.readNotAllowed;
}

/** Records a fault, unless an FPD bit suppresses it and its kind is one that FPD concerns. */
export function recordFault(unit: RemappingUnit, record: FaultRecord, pasid: number, faultDisable: boolean): void {
  // Before Rev 5.10 a reserved bit in a context entry was not qualified; QEMU has it so.
  const isOldExemption = unit.capabilities.specRevision === '3.x' && record.reason === FaultReason.contextReserved;
  if (faultDisable && isQualifiedFault(record.reason) && !isOldExemption) return;
  unit.faults.record(pasid === NO_PASID ? record : { ...record, pasid });
}
