import { NO_PASID } from '@faultline/iotlb';
import { Agent, runToEnd } from '@faultline/sim';
import { FaultReason } from '@faultline/vtd-pagetable';
import { AddressType } from './fault-recording.ts';
import type { RemappingUnit } from './remapping-unit.ts';
import { lookupRequester } from './requester-lookup.ts';
import { recordFault } from './translation.ts';
import { TranslationMode } from './translation-mode.ts';

/** A request whose address a device TLB has translated (AT=10), without PASID. */
export interface TranslatedRequest {
  readonly sourceId: number;
  /** The host page that it names. */
  readonly page: number;
  readonly write: boolean;
}

const DEVICE = new Agent('translated request');

/**
 * The unit's check of a translated request: the function's structures have to be there and let it have a device TLB (LCT.5, SCT.5), as they have
 * for a translation request. Cached structures answer until they are invalidated. Part of the caller's step, as the request arrives at memory in it;
 * a refusal is recorded. @returns 0 or a fault reason
 */
export function checkTranslatedRequest(unit: RemappingUnit, { sourceId, page, write }: TranslatedRequest): number {
  const found = unit.enabled && unit.capabilities.deviceTlb ? lookUp(unit, sourceId) : BLOCKED;
  if (!('reason' in found)) return 0;
  const record = { sourceId, page, reason: found.reason, write, addressType: AddressType.translated };
  if (found.reason !== 0) recordFault(unit, record, NO_PASID, found.faultDisable);
  return found.reason || blockedReason(unit);
}

/** Not recorded: the unit has no device TLBs to serve (completer abort of the platform's choosing). */
const BLOCKED = { reason: 0, faultDisable: true };

const blockedReason = (unit: RemappingUnit): number =>
  unit.mode === TranslationMode.legacy ? FaultReason.translationTypeBlocked : FaultReason.deviceTlbDisabled;

const lookUp = (unit: RemappingUnit, sourceId: number) =>
  runToEnd(lookupRequester(DEVICE, unit, sourceId, NO_PASID, 'translation request'));
