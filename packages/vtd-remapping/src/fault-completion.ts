import { FaultReason } from '@faultline/vtd-pagetable';

/** How the root complex completes an ATS translation request. */
export const CompletionStatus = {
  /** The translation, or a success with the rights that there are, which may be none: a recoverable fault. */
  success: 0,
  /** UR: the root complex does not serve the request. */
  unsupportedRequest: 1,
  /** CA: completer abort. */
  completerAbort: 2,
} as const;
/** 0 success, 1 UR, 2 CA. */
export type CompletionStatusCode = (typeof CompletionStatus)[keyof typeof CompletionStatus];

/** Faults that complete a translation request with UR: the tables are sound and do not let this device ask. */
const UNSUPPORTED: ReadonlySet<number> = new Set([
  FaultReason.rootNotPresent,
  FaultReason.contextNotPresent,
  FaultReason.translationTypeBlocked,
  FaultReason.legacyModePasid,
  FaultReason.abortDmaMode,
  FaultReason.executeRequested,
  FaultReason.scalableRootNotPresent,
  FaultReason.scalableContextNotPresent,
  FaultReason.deviceTlbDisabled,
  FaultReason.pasidDisabled,
  FaultReason.pasidBeyondDirectory,
  FaultReason.pasidIsRidPasid,
  FaultReason.pasidBeyondSize,
]);

/** Faults that complete it with success and the rights that there are; the device may then ask for the page. */
const RECOVERABLE: ReadonlySet<number> = new Set([
  FaultReason.addressBeyondWidth,
  FaultReason.writeNotAllowed,
  FaultReason.readNotAllowed,
  FaultReason.pasidDirectoryNotPresent,
  FaultReason.pasidEntryNotPresent,
  FaultReason.executeUnsupported,
  FaultReason.supervisorDisabled,
  FaultReason.secondStageNoPermission,
  FaultReason.hostAddressBeyondWidth,
  FaultReason.inputBeyondWidth,
  FaultReason.scalableWriteNotAllowed,
  FaultReason.scalableReadNotAllowed,
]);

/**
 * How a translation request that meets this fault is completed (VT-d Rev 5.10, table 30, columns "Translation Req"). UR and CA are
 * recorded as faults, success is not. First-stage reasons do not occur here.
 */
export function translationCompletion(reason: number): CompletionStatusCode {
  if (RECOVERABLE.has(reason)) return CompletionStatus.success;
  return UNSUPPORTED.has(reason) ? CompletionStatus.unsupportedRequest : CompletionStatus.completerAbort;
}
