import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  capabilityRegister,
  DEFAULT_CAPABILITIES,
  extendedCapabilityRegister,
  FAULT_REGISTERS,
  IOTLB_REGISTERS,
  type UnitCapabilities,
  unitCapabilities,
  versionRegister,
} from '../src/index.ts';

type Value = (unit: UnitCapabilities) => boolean | number;

/** The fields of CAP (11.4.2) by their bits [high, low]; a number is a field that is always so. */
const CAP: readonly (readonly [number, number, Value | number])[] = [
  [2, 0, (unit) => (unit.domainIdBits - 4) / 2], // ND
  [4, 4, 0], // RWBF
  [5, 5, 0], // PLMR
  [6, 6, 0], // PHMR
  [7, 7, (unit) => unit.cachingMode], // CM
  [9, 9, (unit) => unit.levels.includes(3)], // SAGAW
  [10, 10, (unit) => unit.levels.includes(4)],
  [11, 11, (unit) => unit.levels.includes(5)],
  [21, 16, (unit) => unit.guestAddressWidth - 1], // MGAW
  [22, 22, (unit) => unit.zeroLengthRead], // ZLR
  [33, 24, FAULT_REGISTERS / 16], // FRO
  [34, 34, (unit) => unit.page2M], // SSLPS
  [35, 35, (unit) => unit.page2M && unit.page1G],
  [39, 39, (unit) => unit.pageSelective], // PSI
  [47, 40, (unit) => unit.faultRegisters - 1], // NFR
  [53, 48, (unit) => unit.maximumAddressMask], // MAMV
  [54, 54, 1], // DWD
  [55, 55, 1], // DRD
  [63, 63, (unit) => unit.enhancedSetRootTable], // ESRTPS
];

const scalable: Value = (unit) => unit.scalableMode;
const requests = (unit: UnitCapabilities) => unit.pageRequests && unit.deviceTlb && unit.scalableMode;
const snoops = (unit: UnitCapabilities) => unit.pageWalkCoherent && unit.scalableMode;
const pasids = (unit: UnitCapabilities) => (unit.scalableMode ? unit.pasidBits : 0);

/** The fields of ECAP (11.4.3), from what was asked for, with what each depends on. */
const ECAP: readonly (readonly [number, number, Value | number])[] = [
  [0, 0, (unit) => unit.coherent], // C
  [1, 1, 1], // QI
  [2, 2, (unit) => unit.deviceTlb], // DT
  [6, 6, (unit) => unit.passThrough], // PT
  [7, 7, (unit) => unit.snoopControl], // SC
  [17, 8, IOTLB_REGISTERS / 16], // IRO
  [29, 29, requests], // PRS
  [33, 33, (unit) => unit.noWriteFlag && unit.deviceTlb], // NWFS
  [39, 35, (unit) => Math.max(0, pasids(unit) - 1)], // PSS
  [40, 40, (unit) => pasids(unit) > 0], // PASID
  [42, 42, (unit) => unit.pageRequestDrain && unit.deviceTlb], // PDS
  [43, 43, scalable], // SMTS
  [45, 45, (unit) => unit.accessedDirty && snoops(unit)], // SSADS
  [46, 46, scalable], // SSTS
  [48, 48, snoops], // SMPWCS
  [49, 49, (unit) => unit.ridPasid && unit.scalableMode], // RPS
  [52, 52, (unit) => unit.abortDmaMode], // ADMS
  [58, 58, (unit) => unit.stopMarker && requests(unit)], // SMS
];

const compose = (fields: typeof CAP, asked: UnitCapabilities): bigint =>
  fields.reduce((register, [high, low, value]) => {
    const bits = BigInt(Number(typeof value === 'number' ? value : value(asked)));
    expect(bits >> BigInt(high - low + 1)).toBe(0n);
    return register | (bits << BigInt(low));
  }, 0n);

const flag = fc.boolean();
const asked: fc.Arbitrary<UnitCapabilities> = fc.record({
  majorVersion: fc.integer({ min: 1, max: 15 }),
  specRevision: fc.constantFrom('3.x' as const, '5.10' as const),
  domainIdBits: fc.constantFrom(4, 6, 8, 10, 12, 14, 16),
  levels: fc.subarray([3, 4, 5] as (3 | 4 | 5)[], { minLength: 1 }),
  guestAddressWidth: fc.integer({ min: 32, max: 64 }),
  hostAddressWidth: fc.integer({ min: 32, max: 52 }),
  page2M: flag,
  page1G: flag,
  pageSelective: flag,
  maximumAddressMask: fc.integer({ min: 0, max: 63 }),
  faultRegisters: fc.integer({ min: 1, max: 160 }),
  cachingMode: flag,
  zeroLengthRead: flag,
  enhancedSetRootTable: flag,
  coherent: flag,
  snoopControl: flag,
  passThrough: flag,
  deviceTlb: flag,
  scalableMode: flag,
  pageWalkCoherent: flag,
  accessedDirty: flag,
  pageRequests: flag,
  pageRequestDrain: flag,
  stopMarker: flag,
  noWriteFlag: flag,
  pasidBits: fc.integer({ min: 0, max: 20 }),
  ridPasid: flag,
  abortDmaMode: flag,
});

describe('capability registers', () => {
  it('are CAP and ECAP bit for bit, with what depends on something absent cleared', () => {
    fc.assert(
      fc.property(asked, (given) => {
        const unit = unitCapabilities(given);
        expect(capabilityRegister(unit)).toBe(compose(CAP, given));
        expect(extendedCapabilityRegister(unit)).toBe(compose(ECAP, given));
        expect(versionRegister(unit)).toBe(given.majorVersion * 16);
      }),
      { numRuns: 1000 },
    );
  });

  it('stay as they are when what they say is asked for again', () => {
    fc.assert(
      fc.property(asked, (given) => {
        const unit = unitCapabilities(given);
        expect(unitCapabilities(unit)).toEqual(unit);
      }),
    );
  });

  it('of the default unit', () => {
    const unit = unitCapabilities({});
    expect(unit).toEqual(DEFAULT_CAPABILITIES);
    expect(capabilityRegister(unit)).toBe(0x80d2_078c_6078_0c06n);
    expect(extendedCapabilityRegister(unit)).toBe(0x0413_6d9a_2000_5047n);
  });

  it('cannot say everything', () => {
    const cases: [Partial<UnitCapabilities>, string][] = [
      [{ majorVersion: 0 }, 'majorVersion: 0 is not an integer in 1..15'],
      [{ majorVersion: 16 }, 'majorVersion: 16 is not an integer in 1..15'],
      [{ domainIdBits: 18 }, 'domainIdBits: 18 is not an integer in 4..16'],
      [{ domainIdBits: 7 }, 'domainIdBits: 7 is not even'],
      [{ guestAddressWidth: 31 }, 'guestAddressWidth: 31 is not an integer in 32..64'],
      [{ hostAddressWidth: 53 }, 'hostAddressWidth: 53 is not an integer in 32..52'],
      [{ maximumAddressMask: 64 }, 'maximumAddressMask: 64 is not an integer in 0..63'],
      [{ pasidBits: 21 }, 'pasidBits: 21 is not an integer in 0..20'],
      [{ specRevision: '4.0' as '3.x' }, 'specRevision: 4.0 is not one of 3.x, 5.10'],
      [{ levels: [] }, 'levels: [] must hold some of 3, 4, 5'],
    ];
    for (const [options, message] of cases) expect(() => unitCapabilities(options)).toThrow(new RangeError(message));
  });
});
