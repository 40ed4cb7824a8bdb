import type { StructureCapabilities } from '../structure-capabilities.ts';
import { type BitField, namedValues, used, yesNo } from './bit-field.ts';

/** P, bit 0 of most structures. */
export const presentField = (low = 0, name = 'P', title = 'present'): BitField =>
  used({ name, title, high: low, low, meaning: yesNo('yes', 'no') });

/** FPD, bit 1: evaluated even if P is clear. */
export const faultProcessingField = (): BitField =>
  used({
    name: 'FPD',
    title: 'fault processing disable',
    high: 1,
    low: 1,
    key: 'faultProcessingDisabled',
    meaning: yesNo('qualified faults are not recorded', 'faults are recorded'),
  });

/** The fields of a domain-id from bit `low` on, as wide as the unit's. */
export const domainIdField = (low: number, capabilities: StructureCapabilities): BitField =>
  used({
    name: 'DID',
    title: 'domain identifier',
    high: low + capabilities.domainIdWidth - 1,
    low,
    key: 'domainId',
    meaning: (value) => `domain ${value}`,
  });

/** Values of AW in words. */
export const addressWidthMeaning = namedValues(['', '39 bits, 3 levels', '48 bits, 4 levels', '57 bits, 5 levels']);

/** Whether the unit can walk a table of this AW. */
export const supportsAddressWidth = (capabilities: StructureCapabilities, addressWidth: number): boolean =>
  capabilities.addressWidths.includes(addressWidth);

/**
 * FPD of a context, PASID directory or PASID table entry. Hardware evaluates it even if P is clear (Rev 5.10, 9.3-9.6), so it is read
 * from the words and not from a decoded entry.
 */
export const isFaultProcessingDisabled = (words: readonly bigint[]): boolean => ((words[0] ?? 0n) & 2n) !== 0n;
