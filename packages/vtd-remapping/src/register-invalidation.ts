import { field } from './bit-field.ts';
import { Granularity, type GranularityCode } from './descriptor.ts';
import { invalidateContexts, invalidateIotlb } from './invalidation.ts';
import type { RemappingUnit } from './remapping-unit.ts';
import { TranslationMode } from './translation-mode.ts';

/** What CAIG and IAIG say of a request that was not carried out. */
const ERROR = 0;

/** Invalidation by register is for legacy mode without a queue, up to major version 5 (VT-d Rev 5.10, 11.4.6). */
const isAllowed = (unit: RemappingUnit, granularity: number): boolean =>
  granularity !== 0 &&
  unit.mode === TranslationMode.legacy &&
  unit.capabilities.majorVersion < 6 &&
  !unit.invalidationQueue.enabled;

/** CCMD with ICC set (11.4.6.1). @returns CAIG: the granularity at which it was done, 0 for an error */
export function invalidateContextsByRegister(unit: RemappingUnit, command: bigint): number {
  const granularity = field(command, 62, 61);
  if (!isAllowed(unit, granularity)) return ERROR;
  unit.epoch++;
  unit.structureEpoch++;
  invalidateContexts(unit, {
    type: 'contextCache',
    granularity: granularity as GranularityCode,
    domainId: field(command, unit.capabilities.domainIdBits - 1, 0),
    sourceId: field(command, 31, 16),
    functionMask: field(command, 33, 32) as 0 | 1 | 2 | 3,
  });
  return granularity;
}

/** IOTLB_REG with IVT set (11.4.6.3), the address as IVA_REG holds it. @returns IAIG, 0 for an error */
export function invalidateIotlbByRegister(unit: RemappingUnit, command: bigint, address: bigint): number {
  const granularity = field(command, 61, 60);
  const addressMask = field(address, 5, 0);
  const { pageSelective, maximumAddressMask, domainIdBits, guestAddressWidth } = unit.capabilities;
  const isTooFine = granularity === Granularity.selective && (!pageSelective || addressMask > maximumAddressMask);
  if (!isAllowed(unit, granularity) || isTooFine) return ERROR;
  unit.epoch++;
  invalidateIotlb(unit, {
    type: 'iotlb',
    granularity: granularity as GranularityCode,
    domainId: field(command, 31 + domainIdBits, 32),
    page: field(address, guestAddressWidth - 1, 12),
    addressMask,
    leafOnly: field(address, 6, 6) === 1,
    drainReads: field(command, 49, 49) === 1,
    drainWrites: field(command, 48, 48) === 1,
  });
  return granularity;
}
