import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type Descriptor,
  decodeDescriptor,
  decodePageRequest,
  encodeDescriptor,
  encodePageRequest,
} from '../src/index.ts';

const id = fc.integer({ min: 0, max: 0xffff });
const page = fc.integer({ min: 0, max: 2 ** 45 - 1 });
const granularity = fc.constantFrom<1 | 2 | 3>(1, 2, 3);
const flag = fc.boolean();

const descriptor: fc.Arbitrary<Descriptor> = fc.oneof(
  fc.record({
    type: fc.constant('contextCache' as const),
    granularity,
    domainId: id,
    sourceId: id,
    functionMask: fc.constantFrom<0 | 1 | 2 | 3>(0, 1, 2, 3),
  }),
  fc.record({
    type: fc.constant('iotlb' as const),
    granularity,
    domainId: id,
    page,
    addressMask: fc.integer({ min: 0, max: 63 }),
    leafOnly: flag,
    drainReads: flag,
    drainWrites: flag,
  }),
  fc
    .record({ type: fc.constant('deviceTlb' as const), sourceId: id, page, sizeLog2: fc.integer({ min: 0, max: 51 }) })
    .map((sized) => ({ ...sized, page: Math.floor(sized.page / 2 ** sized.sizeLog2) * 2 ** sized.sizeLog2 })),
  fc.record({
    type: fc.constant('wait' as const),
    statusAddress: fc.bigInt({ min: 0n, max: 2n ** 62n - 1n }).map((words) => words * 4n),
    statusData: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
    statusWrite: flag,
    interrupt: flag,
    fence: flag,
    pageRequestDrain: flag,
  }),
  fc.record({
    type: fc.constant('pageGroupResponse' as const),
    sourceId: id,
    responseCode: fc.integer({ min: 0, max: 15 }),
    groupIndex: fc.integer({ min: 0, max: 511 }),
  }),
);

describe('descriptors', () => {
  it('decode to what was encoded', () => {
    fc.assert(
      fc.property(descriptor, (given) => {
        expect(decodeDescriptor(...encodeDescriptor(given))).toEqual(given);
      }),
      { numRuns: 1000 },
    );
  });

  it('have the bits of the specification', () => {
    const iotlb = { type: 'iotlb', granularity: 3, domainId: 0x1234, page: 0x40123, addressMask: 18 } as const;
    const flags = { leafOnly: true, drainReads: true, drainWrites: true };
    expect(encodeDescriptor({ ...iotlb, ...flags })).toEqual([0x1234_00f2n, (0x40123n << 12n) | 0x52n]);
    expect(
      encodeDescriptor({ type: 'contextCache', granularity: 3, domainId: 2, sourceId: 0x18, functionMask: 1 }),
    ).toEqual([0x0001_0018_0002_0031n, 0n]);
    expect(encodeDescriptor({ type: 'deviceTlb', sourceId: 0x18, page: 5, sizeLog2: 0 })).toEqual([
      0x0018_0000_0003n,
      0x5000n,
    ]);
    expect(encodeDescriptor({ type: 'pageGroupResponse', sourceId: 0x18, responseCode: 0xf, groupIndex: 5 })).toEqual([
      0x0018_f009n,
      5n << 3n,
    ]);
    const wait = { type: 'wait', statusAddress: 0x1000n, statusData: 2, interrupt: false } as const;
    expect(encodeDescriptor({ ...wait, statusWrite: true, fence: true, pageRequestDrain: true })).toEqual([
      0x2_0000_00e5n,
      0x1000n,
    ]);
  });

  it('size a device-TLB invalidation by the lowest zero bit of its address', () => {
    const encoded = (first: number, sizeLog2: number) =>
      encodeDescriptor({ type: 'deviceTlb', sourceId: 0, page: first, sizeLog2 })[1];
    expect(encoded(0x200, 1)).toBe(0x20_0001n);
    expect(encoded(0x200, 9)).toBe(0x2f_f001n);
    expect(encoded(0x40123, 18)).toBe(0x5fff_f001n);
    // A page inside the range stands for the range.
    expect(decodeDescriptor(3n, encoded(0x40123, 18))).toMatchObject({ page: 0x40000, sizeLog2: 18 });
    expect(decodeDescriptor(3n, ((2n ** 52n - 1n) << 12n) | 1n)).toMatchObject({ page: 0, sizeLog2: 53 });
  });

  it('of types that legacy mode does not have, or with no granularity, are refused', () => {
    for (const type of [0x0n, 0x4n, 0x6n, 0x7n, 0x8n, 0xan, 0xbn, 0xfn]) expect(decodeDescriptor(type, 0n)).toBe(null);
    expect(decodeDescriptor(0x1n, 0n)).toBe(null);
    expect(decodeDescriptor(0x2n, 0n)).toBe(null);
    // Bits 11:9 belong to the type.
    for (const upper of [9n, 10n, 11n]) expect(decodeDescriptor(0x12n | (1n << upper), 0n)).toBe(null);
  });
});

describe('page requests', () => {
  const request = fc.record({
    sourceId: id,
    page,
    read: flag,
    write: flag,
    last: flag,
    groupIndex: fc.integer({ min: 0, max: 511 }),
  });
  it('decode to what was encoded', () => {
    fc.assert(
      fc.property(request, (given) => {
        expect(decodePageRequest(...encodePageRequest(given))).toEqual(given);
      }),
    );
  });
  it('have the bits of the specification, and another type is none', () => {
    const given = { sourceId: 0x18, page: 0x40123, read: true, write: true, last: true, groupIndex: 5 };
    expect(encodePageRequest(given)).toEqual([0x0018_0001n, 0x4012_302fn]);
    expect(decodePageRequest(2n, 0n)).toBe(null);
  });
});
