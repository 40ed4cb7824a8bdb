import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type Descriptor,
  type DescriptorRules,
  DescriptorType,
  decodeDescriptor,
  decodePageRequest,
  encodeDescriptor,
  encodePageRequest,
  isStopMarker,
  type PageRequest,
  QueueErrorInfo,
  type TranslationModeCode,
  WHOLE_ADDRESS_SPACE,
} from '../src/index.ts';

/** A unit with everything, in scalable mode. */
const RULES: DescriptorRules = {
  wide: true,
  mode: 1,
  pageSelective: true,
  maximumAddressMask: 63,
  deviceTlb: true,
  pageRequests: true,
  pageRequestDrain: true,
  domainIdBits: 16,
  guestAddressWidth: 64,
  hostAddressWidth: 64,
};

const decode = (words: readonly bigint[], rules: Partial<DescriptorRules> = {}) =>
  decodeDescriptor(words, { ...RULES, ...rules });

const id = fc.integer({ min: 0, max: 0xffff });
const page = fc.integer({ min: 0, max: 2 ** 52 - 1 });
const pasid = fc.integer({ min: 0, max: 2 ** 20 - 1 });
const granularity = fc.constantFrom<1 | 2 | 3>(1, 2, 3);
const flag = fc.boolean();
const constant = <T extends string>(type: T) => fc.constant(type);

/** Aligned to its size, as decoding gives it. */
const sized = { page, sizeLog2: fc.integer({ min: 0, max: 52 }) };
const aligned = <T extends { page: number; sizeLog2: number }>(range: T): T => ({
  ...range,
  page: Number((BigInt(range.page) >> BigInt(range.sizeLog2)) << BigInt(range.sizeLog2)),
});

/** A descriptor of each type, with every field that it has. */
const BY_TYPE = {
  contextCache: fc.record({
    type: constant('contextCache'),
    granularity,
    domainId: id,
    sourceId: id,
    functionMask: fc.constantFrom<0 | 1 | 2 | 3>(0, 1, 2, 3),
  }),
  iotlb: fc.record({
    type: constant('iotlb'),
    granularity,
    domainId: id,
    page,
    addressMask: fc.integer({ min: 0, max: 63 }),
    leafOnly: flag,
    drainReads: flag,
    drainWrites: flag,
  }),
  deviceTlb: fc.record({ type: constant('deviceTlb'), sourceId: id, ...sized }).map(aligned),
  interruptEntryCache: fc.record({
    type: constant('interruptEntryCache'),
    indexSelective: flag,
    index: id,
    indexMask: fc.integer({ min: 0, max: 31 }),
  }),
  wait: fc.record({
    type: constant('wait'),
    statusAddress: fc.bigInt({ min: 0n, max: 2n ** 62n - 1n }).map((words) => words * 4n),
    statusData: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
    statusWrite: flag,
    interrupt: flag,
    fence: flag,
    pageRequestDrain: flag,
  }),
  pasidIotlb: fc.record({
    type: constant('pasidIotlb'),
    granularity: fc.constantFrom<2 | 3>(2, 3),
    domainId: id,
    pasid,
    page,
    addressMask: fc.integer({ min: 0, max: 63 }),
    leafOnly: flag,
  }),
  pasidCache: fc.record({
    type: constant('pasidCache'),
    granularity: fc.constantFrom<0 | 1 | 3>(0, 1, 3),
    domainId: id,
    pasid,
  }),
  pasidDeviceTlb: fc
    .record({ type: constant('pasidDeviceTlb'), sourceId: id, pasid, global: flag, ...sized })
    .map(aligned),
  pageGroupResponse: fc.record(
    {
      type: constant('pageGroupResponse'),
      sourceId: id,
      pasid,
      responseCode: fc.integer({ min: 0, max: 15 }),
      groupIndex: fc.integer({ min: 0, max: 511 }),
    },
    { requiredKeys: ['type', 'sourceId', 'responseCode', 'groupIndex'] },
  ),
} satisfies Record<Descriptor['type'], fc.Arbitrary<Descriptor>>;
const TYPES = Object.keys(BY_TYPE) as Descriptor['type'][];

/**
 * Figures 6-1 to 6-6, 6-8, 6-9 and 7-2, restated: the bits of a descriptor that have a meaning, or that hardware ignores, as
 * ranges [high, low] over all 128. Bits 11:9 and 3:0 are the type.
 */
const MEANT: Record<Descriptor['type'], readonly (readonly [number, number])[]> = {
  contextCache: [
    [5, 4],
    [31, 16],
    [47, 32],
    [49, 48],
  ],
  iotlb: [
    [5, 4],
    [6, 6],
    [7, 7],
    [31, 16],
    [69, 64],
    [70, 70],
    [127, 76],
  ],
  // PFSID (15:12, 63:52) is reserved without ECAP.DIT.
  deviceTlb: [
    [20, 16],
    [47, 32],
    [64, 64],
    [127, 76],
  ],
  interruptEntryCache: [
    [4, 4],
    [31, 27],
    [47, 32],
  ],
  wait: [
    [4, 4],
    [5, 5],
    [6, 6],
    [7, 7],
    [63, 32],
    [127, 66],
  ],
  pasidIotlb: [
    [5, 4],
    [31, 16],
    [51, 32],
    [69, 64],
    [70, 70],
    [127, 76],
  ],
  pasidCache: [
    [5, 4],
    [31, 16],
    [51, 32],
  ],
  pasidDeviceTlb: [
    [8, 4],
    [31, 16],
    [51, 32],
    [64, 64],
    [75, 75],
    [127, 76],
  ],
  // 66 is ignored.
  pageGroupResponse: [
    [4, 4],
    [15, 12],
    [31, 16],
    [51, 32],
    [66, 66],
    [75, 67],
  ],
};
const isMeant = (type: Descriptor['type'], bit: number): boolean =>
  bit <= 3 || (bit >= 9 && bit <= 11) || MEANT[type].some(([high, low]) => bit <= high && bit >= low);

const withBit = ([lo = 0n, hi = 0n]: readonly bigint[], bit: number): [bigint, bigint] =>
  bit < 64 ? [lo | (1n << BigInt(bit)), hi] : [lo, hi | (1n << BigInt(bit - 64))];

describe('descriptors', () => {
  it.each(TYPES)('of type %s decode to what was encoded', (type) => {
    fc.assert(
      fc.property(BY_TYPE[type] as fc.Arbitrary<Descriptor>, (given) => {
        expect(decode(encodeDescriptor(given))).toEqual(given);
        expect(decode([...encodeDescriptor(given), 0n, 0n])).toEqual(given);
      }),
      { numRuns: 300 },
    );
  });

  it('have the bits of the specification', () => {
    const iotlb = { type: 'iotlb', granularity: 3, domainId: 0x1234, page: 0x40123, addressMask: 18 } as const;
    const flags = { leafOnly: true, drainReads: true, drainWrites: true };
    const wait = { type: 'wait', statusAddress: 0x1000n, statusData: 2, interrupt: false } as const;
    const expected: [Descriptor, bigint, bigint][] = [
      [{ ...iotlb, ...flags }, 0x1234_00f2n, (0x40123n << 12n) | 0x52n],
      [
        { type: 'contextCache', granularity: 3, domainId: 2, sourceId: 0x18, functionMask: 1 },
        0x0001_0018_0002_0031n,
        0n,
      ],
      [{ type: 'deviceTlb', sourceId: 0x18, page: 5, sizeLog2: 0 }, 0x0018_0000_0003n, 0x5000n],
      [{ type: 'interruptEntryCache', indexSelective: true, index: 0x1234, indexMask: 3 }, 0x1234_1800_0014n, 0n],
      [{ ...wait, statusWrite: true, fence: true, pageRequestDrain: true }, 0x2_0000_00e5n, 0x1000n],
      [
        { type: 'pasidIotlb', granularity: 3, domainId: 2, pasid: 0xabcde, page: 5, addressMask: 9, leafOnly: true },
        0xabcde_0002_0036n,
        0x5049n,
      ],
      [{ type: 'pasidCache', granularity: 1, domainId: 2, pasid: 0xabcde }, 0xabcde_0002_0017n, 0n],
      [
        { type: 'pasidDeviceTlb', sourceId: 0x18, pasid: 0xabcde, global: true, page: 4, sizeLog2: 1 },
        0xabcde_0018_0008n,
        0x4801n,
      ],
      [{ type: 'pageGroupResponse', sourceId: 0x18, responseCode: 0xf, groupIndex: 5 }, 0x0018_f009n, 5n << 3n],
      [
        { type: 'pageGroupResponse', sourceId: 0x18, pasid: 1, responseCode: 1, groupIndex: 511 },
        0x1_0018_1019n,
        0xff8n,
      ],
    ];
    for (const [given, lo, hi] of expected) expect(encodeDescriptor(given)).toEqual([lo, hi]);
  });

  it.each(TYPES)('of type %s have every reserved bit checked, and no other', (type) => {
    fc.assert(
      fc.property(BY_TYPE[type] as fc.Arbitrary<Descriptor>, fc.integer({ min: 0, max: 127 }), (given, bit) => {
        fc.pre(bit > 3 && (bit < 9 || bit > 11));
        const outcome = decode(withBit(encodeDescriptor(given), bit));
        if (!isMeant(type, bit)) expect(outcome).toBe(QueueErrorInfo.reservedField);
        // Granularity 10b of a PASID-cache invalidation is reached by setting a bit of 00b.
        else if (type !== 'pasidCache' || bit !== 5) expect(outcome).toMatchObject({ type });
      }),
      { numRuns: 1000 },
    );
  });

  it.each(TYPES)('of type %s have a zero upper half in a 256-bit queue', (type) => {
    fc.assert(
      fc.property(
        BY_TYPE[type] as fc.Arbitrary<Descriptor>,
        fc.integer({ min: 0, max: 63 }),
        flag,
        (given, bit, third) => {
          const extra = 1n << BigInt(bit);
          const words = [...encodeDescriptor(given), third ? extra : 0n, third ? 0n : extra];
          expect(decode(words)).toBe(QueueErrorInfo.reservedField);
        },
      ),
    );
  });

  it('size a device-TLB invalidation by the lowest zero bit of its address', () => {
    const encoded = (first: number, sizeLog2: number) =>
      encodeDescriptor({ type: 'deviceTlb', sourceId: 0, page: first, sizeLog2 })[1];
    expect(encoded(0x200, 1)).toBe(0x20_0001n);
    expect(encoded(0x200, 9)).toBe(0x2f_f001n);
    expect(encoded(0x40123, 18)).toBe(0x5fff_f001n);
    // A page inside the range stands for the range.
    expect(decode([3n, encoded(0x40123, 18)])).toMatchObject({ page: 0x40000, sizeLog2: 18 });
    // Everything: S and bits 62:12, whatever bit 63 is.
    const { page: first, sizeLog2 } = WHOLE_ADDRESS_SPACE;
    expect(encoded(first, sizeLog2)).toBe(0x7fff_ffff_ffff_f001n);
    for (const address of [0x7fff_ffff_ffff_f001n, 0xffff_ffff_ffff_f001n])
      expect(decode([3n, address])).toMatchObject(WHOLE_ADDRESS_SPACE);
    for (let size = 1; size <= 52; size++) {
      const ones = (1n << BigInt(size - 1)) - 1n;
      expect(decode([3n, (ones << 12n) | 1n])).toMatchObject({ page: 0, sizeLog2: size });
      expect(decode([8n, (ones << 12n) | 0x800n])).toMatchObject({ page: 0, sizeLog2: size });
    }
  });

  it('of a value that does not fit are refused, or they would change another field', () => {
    const wait = { statusAddress: 0x1000n, statusData: 1, statusWrite: true, interrupt: false, fence: false };
    const examples: readonly [string, Record<string, unknown>, Record<string, unknown>][] = [
      ['contextCache', { granularity: 3, domainId: 1, sourceId: 8, functionMask: 0 }, { functionMask: 4 }],
      ['iotlb', { granularity: 3, domainId: 1, page: 1, addressMask: 0, leafOnly: false }, { addressMask: 64 }],
      ['iotlb', { granularity: 3, domainId: 1, page: 1, addressMask: 0, leafOnly: false }, { page: 2 ** 52 }],
      ['iotlb', { granularity: 2, domainId: 1, page: 1, addressMask: 0, leafOnly: false }, { domainId: 0x10007 }],
      ['deviceTlb', { sourceId: 8, page: 1, sizeLog2: 0 }, { sizeLog2: 53 }],
      ['interruptEntryCache', { indexSelective: true, index: 1, indexMask: 0 }, { indexMask: 32 }],
      ['wait', { ...wait, pageRequestDrain: false }, { statusAddress: 0x1002n }],
      ['wait', { ...wait, pageRequestDrain: false }, { statusData: 2 ** 32 }],
      ['pasidIotlb', { granularity: 2, domainId: 1, pasid: 1, page: 1, addressMask: 0 }, { pasid: 2 ** 20 }],
      ['pasidCache', { granularity: 1, domainId: 1, pasid: 1 }, { granularity: 4 }],
      ['pasidDeviceTlb', { sourceId: 8, pasid: 1, global: false, page: 1, sizeLog2: 0 }, { sourceId: -1 }],
      ['pageGroupResponse', { sourceId: 8, responseCode: 0, groupIndex: 1 }, { groupIndex: 0x200 }],
      ['pageGroupResponse', { sourceId: 8, responseCode: 0, groupIndex: 1 }, { responseCode: 16 }],
    ];
    for (const [type, right, wrong] of examples) {
      expect(() => encodeDescriptor({ type, ...right } as unknown as Descriptor)).not.toThrow();
      const [name] = Object.keys(wrong) as [string];
      expect(() => encodeDescriptor({ type, ...right, ...wrong } as unknown as Descriptor)).toThrow(
        new RegExp(`^${name}: (0x|-0x|\\d)`),
      );
    }
  });
  it('lose the bits that hardware ignores', () => {
    const narrow = { domainIdBits: 8, guestAddressWidth: 48, hostAddressWidth: 46 };
    const iotlb = encodeDescriptor({
      type: 'iotlb',
      granularity: 3,
      domainId: 0x1234,
      page: 2 ** 40 + 5,
      addressMask: 0,
      leafOnly: false,
      drainReads: false,
      drainWrites: false,
    });
    expect(decode(iotlb, narrow)).toMatchObject({ domainId: 0x34, page: 5 });
    expect(decode([0x1234_0027n | (3n << 4n), 0n], narrow)).toMatchObject({ type: 'pasidCache', domainId: 0x34 });
    expect(decode([0x25n, (1n << 46n) | 0x1000n], narrow)).toMatchObject({ statusAddress: 0x1000n });
    // First-stage addresses have all 64 bits.
    expect(decode([0x36n, 0xffff_8000_0000_0000n], narrow)).toMatchObject({ page: 0xf_fff8_0000_0000 });
  });
});

describe('which descriptors are invalid', () => {
  /** A valid low quadword of each type. */
  const valid = (type: number): bigint => BigInt(type) | (type === 1 || type === 2 || type === 6 ? 0x30n : 0n);

  it('by type, mode and width: table 26', () => {
    const legal = (mode: number, wide: boolean): readonly number[] => {
      if (mode === 0) return [1, 2, 3, 4, 5];
      return mode === 2 || !wide ? [] : [1, 2, 3, 4, 5, 6, 7, 8, 9]; // 0xa needs host permission tables
    };
    for (const mode of [0, 1, 2, 3] as TranslationModeCode[])
      for (const wide of [false, true])
        for (let type = 0; type < 128; type++) {
          const lo = valid(type & 15) | (BigInt(type >> 4) << 9n);
          const words = wide ? [lo, 0n, 0n, 0n] : [lo, 0n];
          const outcome = decode(words, { mode, wide });
          if (legal(mode, wide).includes(type)) expect(outcome).toMatchObject({ type: expect.any(String) });
          else expect(outcome, `type ${type} mode ${mode} wide ${wide}`).toBe(QueueErrorInfo.invalidType);
        }
  });

  it('by what the unit lacks: ECAP.DT and ECAP.PRS make a type unknown, ECAP.PDS makes PD reserved', () => {
    for (const type of [DescriptorType.deviceTlb, DescriptorType.pasidDeviceTlb]) {
      expect(decode([valid(type), 0n], { deviceTlb: false })).toBe(QueueErrorInfo.invalidType);
      expect(decode([valid(type), 0n], { pageRequests: false })).toMatchObject({ sizeLog2: 0 });
    }
    const response = [valid(DescriptorType.pageGroupResponse), 0n];
    expect(decode(response, { pageRequests: false })).toBe(QueueErrorInfo.invalidType);
    expect(decode([0x85n, 0n], { pageRequestDrain: false })).toBe(QueueErrorInfo.reservedField);
    expect(decode([0x65n, 0n], { pageRequestDrain: false })).toMatchObject({ pageRequestDrain: false });
  });

  it('by granularity', () => {
    const invalid = { 1: [0], 2: [0], 6: [0, 1], 7: [2] };
    for (const [type, refused] of Object.entries(invalid))
      for (let value = 0; value < 4; value++) {
        const outcome = decode([BigInt(type) | (BigInt(value) << 4n), 0n]);
        if (refused.includes(value)) expect(outcome).toBe(QueueErrorInfo.reservedField);
        else expect(outcome).toMatchObject({ granularity: value });
      }
  });

  it('by CAP.PSI and CAP.MAMV, for page-selective IOTLB invalidations only', () => {
    fc.assert(
      fc.property(
        granularity,
        fc.integer({ min: 0, max: 63 }),
        fc.integer({ min: 0, max: 63 }),
        flag,
        (each, addressMask, maximumAddressMask, pageSelective) => {
          const words = [0x2n | (BigInt(each) << 4n), BigInt(addressMask)];
          const refused = each === 3 && (!pageSelective || addressMask > maximumAddressMask);
          const outcome = decode(words, { pageSelective, maximumAddressMask });
          if (refused) expect(outcome).toBe(QueueErrorInfo.reservedField);
          else expect(outcome).toMatchObject({ granularity: each, addressMask });
          // "With any defined address mask", whatever MAMV is (11.4.2).
          expect(decode([0x36n, BigInt(addressMask)], { pageSelective, maximumAddressMask })).toMatchObject({
            addressMask,
          });
        },
      ),
    );
  });
});

describe('page requests', () => {
  const request = fc.record(
    {
      sourceId: id,
      page,
      read: flag,
      write: flag,
      last: flag,
      groupIndex: fc.integer({ min: 0, max: 511 }),
      pasid,
      privileged: fc.constant(true),
      execute: fc.constant(true),
    },
    { requiredKeys: ['sourceId', 'page', 'read', 'write', 'last', 'groupIndex'] },
  );
  it('decode to what was encoded', () => {
    fc.assert(
      fc.property(request, (given) => {
        expect(decodePageRequest(...encodePageRequest(given))).toEqual(given);
      }),
      { numRuns: 500 },
    );
  });
  it('have the bits of the specification, and another type is none', () => {
    const given = { sourceId: 0x18, page: 0x40123, read: true, write: true, last: true, groupIndex: 5 };
    expect(encodePageRequest(given)).toEqual([0x0018_0001n, 0x4012_302fn]);
    const tagged = { ...given, write: false, pasid: 0xabcde, execute: true, privileged: true };
    expect(encodePageRequest(tagged)).toEqual([0x3a_bcde_0018_0101n, 0x4012_302dn]);
    for (let type = 0n; type < 256n; type++) expect(decodePageRequest(type, 0n) === null).toBe(type !== 1n);
  });
  it('of a value that does not fit are refused, or they would ask for another page', () => {
    const given = { sourceId: 0x18, page: 8, read: true, write: true, last: true, groupIndex: 5 };
    const wrong = (change: Partial<PageRequest>) => () => encodePageRequest({ ...given, ...change });
    expect(wrong({ groupIndex: 0x200 })).toThrow('groupIndex: 0x200 is not an integer in 0x0..0x1ff');
    expect(wrong({ page: 2 ** 52 })).toThrow('page: 0x10000000000000 is not an integer in 0x0..0xfffffffffffff');
    expect(wrong({ pasid: 0x100000 })).toThrow('pasid: 0x100000 is not an integer in 0x0..0xfffff');
    expect(wrong({ sourceId: -1 })).toThrow('sourceId: -0x1 is not an integer in 0x0..0xffff');
    expect(wrong({ page: 1.5 })).toThrow('page: 1.5 is not an integer');
  });
  it('that ask for nothing and end a group are stop markers', () => {
    fc.assert(
      fc.property(request, (given) => {
        expect(isStopMarker(given)).toBe(given.last && !given.read && !given.write);
      }),
    );
  });
});
