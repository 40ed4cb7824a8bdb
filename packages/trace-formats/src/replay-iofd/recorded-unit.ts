import {
  capabilityRegister,
  extendedCapabilityRegister,
  type UnitCapabilities,
  unitCapabilities,
} from '@faultline/vtd-remapping';

/** CAP and ECAP of a unit. */
export interface CapabilityWords {
  readonly cap: bigint;
  readonly ecap: bigint;
}

/** QEMU 7.2's unit as the recordings have it: 3 and 4 levels, 48 bits, 2M and 1G leaves, page-selective invalidation, no scalable mode. */
export const QEMU_LEGACY_UNIT: CapabilityWords = { cap: 0xd2_008c_222f_0606n, ecap: 0xf0_0f4an };

/** Where registers lie: FRO in CAP, IRO in ECAP. They lie elsewhere here. */
const CAP_PLACES = 0x3ffn << 24n;
/** IRO, and what is not modelled: interrupt remapping (IR, EIM) and its handle mask (MHMV). */
const ECAP_PLACES = (0x3ffn << 8n) | (1n << 3n) | (1n << 4n) | (0xfn << 20n);

const bits = (word: bigint, low: number, width: number): number =>
  Number((word >> BigInt(low)) & ((1n << BigInt(width)) - 1n));
const bit = (word: bigint, position: number): boolean => bits(word, position, 1) === 1;

/** What the words say, for a unit of the model. It runs in legacy mode whatever they say. @throws RangeError for a unit that there cannot be */
export function recordedCapabilities({ cap, ecap }: CapabilityWords): UnitCapabilities {
  const levels = ([3, 4, 5] as const).filter((each) => bit(cap, 8 + each - 2));
  return unitCapabilities({
    majorVersion: 1,
    specRevision: '3.x',
    domainIdBits: 4 + 2 * bits(cap, 0, 3),
    cachingMode: bit(cap, 7),
    levels,
    guestAddressWidth: bits(cap, 16, 6) + 1,
    zeroLengthRead: bit(cap, 22),
    page2M: bit(cap, 34),
    page1G: bit(cap, 35),
    pageSelective: bit(cap, 39),
    faultRegisters: bits(cap, 40, 8) + 1,
    maximumAddressMask: bits(cap, 48, 6),
    enhancedSetRootTable: bit(cap, 63),
    coherent: bit(ecap, 0),
    deviceTlb: bit(ecap, 2),
    passThrough: bit(ecap, 6),
    snoopControl: bit(ecap, 7),
    scalableMode: false,
    abortDmaMode: bit(ecap, 52),
  });
}

/**
 * The unit's own words, with the recorded ones where they say only where a register lies or what of interrupt remapping there is. What is left
 * is what the model does, so that a comparison means something.
 */
export function reportedWords(unit: UnitCapabilities, recorded: CapabilityWords): CapabilityWords {
  const { cap, ecap } = recorded;
  return {
    cap: (capabilityRegister(unit) & ~CAP_PLACES) | (cap & CAP_PLACES),
    ecap: (extendedCapabilityRegister(unit) & ~ECAP_PLACES) | (ecap & ECAP_PLACES),
  };
}
