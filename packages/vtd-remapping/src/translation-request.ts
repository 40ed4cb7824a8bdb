import { NO_PASID } from '@faultline/iotlb';
import type { Agent, Task } from '@faultline/sim';
import { FaultReason, levelFrames, WalkAccess } from '@faultline/vtd-pagetable';
import { CompletionStatus, type CompletionStatusCode, translationCompletion } from './fault-completion.ts';
import { AddressType } from './fault-recording.ts';
import type { RemappingUnit } from './remapping-unit.ts';
import {
  frameOf,
  INTERRUPT_TRANSLATION,
  IO_RIGHTS,
  interruptReason,
  LO_PAGE_SIZE,
  overlapsInterrupts,
  pageOf,
  RESTART,
  recordFault,
  walkFor,
} from './translation.ts';
import { TranslationMode } from './translation-mode.ts';
import type { TranslationRequest, Walker } from './walker.ts';

/** Completion of an ATS translation request. */
export interface TranslationCompletion {
  readonly status: CompletionStatusCode;
  /** Frame of the 4K page asked for; -1 without any right. */
  readonly frame: number;
  /** Size of the translation: 1 = 4K, 2 = 2M, 3 = 1G. */
  readonly level: 1 | 2 | 3;
  /** R in bit 0, W in bit 1; 0: a recoverable fault. */
  readonly rights: number;
  /** U: the range may only be used by untranslated requests, and `frame` is the page itself (special condition S.1). */
  readonly untranslatedOnly: boolean;
  /** The leaf, as two halves. */
  readonly leafLo: number;
  readonly leafHi: number;
  /** Why there is no right, or no success; 0 otherwise. */
  readonly reason: number;
}

/** An ATS translation request (4.2.3): what there is, cached or walked, or how it is refused (table 30). */
export function* translateForDevice(
  agent: Agent,
  unit: RemappingUnit,
  request: TranslationRequest,
): Task<TranslationCompletion> {
  const { sourceId, iovaHi, iovaLo, pasid = NO_PASID } = request;
  const noWrite = request.noWrite && unit.capabilities.noWriteFlag;
  if (!unit.enabled || !unit.capabilities.deviceTlb) return refused(CompletionStatus.unsupportedRequest, 0);
  const page = pageOf(iovaHi, iovaLo);
  const cached = fromIotlb(unit, request, pasid, noWrite);
  if (cached !== null) return cached;
  const walker = unit.acquireWalker();
  try {
    walker.mayWrite = !noWrite;
    for (;;) {
      const access = WalkAccess.anything;
      const reason = yield* walkFor(agent, unit, walker, { sourceId, iovaHi, iovaLo, pasid, access });
      if (reason === RESTART) continue;
      if (reason === INTERRUPT_TRANSLATION) return interruptCompletion(page, noWrite);
      if (reason === 0) return completionOf(unit, walker, noWrite, iovaHi, iovaLo);
      const status = translationCompletion(reason);
      if (status !== CompletionStatus.success)
        recordFault(
          unit,
          { sourceId, page, reason, write: false, addressType: AddressType.translationRequest },
          pasid,
          walker.faultDisable,
        );
      return refused(status, reason);
    }
  } finally {
    unit.releaseWalker(walker);
  }
}

const refused = (status: CompletionStatusCode, reason: number): TranslationCompletion => ({
  status,
  frame: -1,
  level: 1,
  rights: 0,
  untranslatedOnly: false,
  leafLo: 0,
  leafHi: 0,
  reason,
});

/** Special conditions S.1 and S.2 of table 30: a device may ask for a translation of its own interrupt messages. */
const interruptCompletion = (page: number, noWrite: boolean): TranslationCompletion => ({
  ...refused(CompletionStatus.success, 0),
  ...(noWrite ? {} : { frame: page, rights: 2, untranslatedOnly: true, leafLo: (page << 12) | 2 }),
});

/**
 * A cached translation serves if it has all that may be asked for: both rights, or R for a device that will not write. Untranslated
 * requests fill the IOTLB too, so that the context has to say that this function may ask (LCT.5, SCT.5).
 */
function fromIotlb(
  unit: RemappingUnit,
  request: TranslationRequest,
  pasid: number,
  noWrite: boolean,
): TranslationCompletion | null {
  const { iotlb } = unit;
  const { iovaHi, iovaLo } = request;
  const slot = iotlb.lookup(request.sourceId, iovaHi, iovaLo, pasid);
  if (slot < 0) return null;
  const wanted = noWrite ? 1 : IO_RIGHTS;
  if ((iotlb.rightsAt(slot) & wanted) !== wanted || !hasDeviceTlb(unit, request.sourceId)) return null;
  return {
    status: CompletionStatus.success,
    frame: iotlb.pfnAt(slot, iovaHi, iovaLo),
    level: iotlb.levelAt(slot),
    rights: wanted,
    untranslatedOnly: false,
    leafLo: iotlb.leafLoAt(slot),
    leafHi: iotlb.leafHiAt(slot),
    reason: 0,
  };
}

/** Whether a cached context lets a function ask for translations; if none is cached, the walk finds out. */
function hasDeviceTlb(unit: RemappingUnit, sourceId: number): boolean {
  const cache = unit.mode === TranslationMode.legacy ? unit.contextCache : unit.scalableContextCache;
  const slot = cache.lookup(sourceId);
  return slot >= 0 && cache.valueAt(slot).deviceTlb;
}

function completionOf(
  unit: RemappingUnit,
  walker: Walker,
  noWrite: boolean,
  iovaHi: number,
  iovaLo: number,
): TranslationCompletion {
  const isPassThrough = walker.context?.passThrough === true;
  const frame = frameOf(walker, iovaHi, iovaLo);
  const rights = noWrite ? walker.rights & 1 : walker.rights;
  if (rights === 0) return refused(CompletionStatus.success, noRightsReason(unit, isPassThrough));
  const level = isPassThrough ? passThroughLevel(unit, frame) : (walker.level as 1 | 2 | 3);
  return {
    status: CompletionStatus.success,
    frame,
    level,
    rights,
    untranslatedOnly: false,
    leafLo: isPassThrough ? (iovaLo & -(levelFrames(level) * 0x1000)) | LO_PAGE_SIZE | IO_RIGHTS : walker.entryLo,
    leafHi: isPassThrough ? iovaHi : walker.entryHi,
    reason: 0,
  };
}

/** Of a page in the interrupt address range, or of a page without R for a device that will not write. */
function noRightsReason(unit: RemappingUnit, isPassThrough: boolean): number {
  if (isPassThrough) return interruptReason(unit);
  return unit.mode === TranslationMode.legacy ? FaultReason.readNotAllowed : FaultReason.scalableReadNotAllowed;
}

/** Pass-through gives as large a range as the unit has pages of (4.2.3), but none that reaches into the interrupt address range. */
function passThroughLevel({ capabilities }: RemappingUnit, page: number): 1 | 2 | 3 {
  if (capabilities.page1G && !overlapsInterrupts(page, 3)) return 3;
  return capabilities.page2M && !overlapsInterrupts(page, 2) ? 2 : 1;
}
