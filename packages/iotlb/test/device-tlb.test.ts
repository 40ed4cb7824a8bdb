import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { DeviceTlb, NO_PASID, sizedAddressShift } from '../src/index.ts';
import { hi, lo } from './specification.ts';

/** The address field for a range of 2^shift bytes: with S, ones below the size's top bit, which is zero. */
function sized(address: bigint, shift: number): { hi: number; lo: number; size: boolean } {
  if (shift === 12) return { hi: hi(address), lo: lo(address), size: false };
  const bytes = 1n << BigInt(shift);
  const field = BigInt.asUintN(64, (address / bytes) * bytes + (bytes / 2n - 1n));
  return { hi: hi(field), lo: lo(field) & ~0xfff, size: true };
}

const everything = (tlb: DeviceTlb): string[] =>
  [...tlb.entries()].map(({ iova, level, pasid, withPasid }) => `${withPasid ? pasid : '-'}/${level}/${iova}`).sort();

describe('the size in an address field', () => {
  test('known values', () => {
    expect(sizedAddressShift(0, 0x1000, false)).toBe(12);
    expect(sizedAddressShift(0, 0x0000, true)).toBe(13); // 8K
    expect(sizedAddressShift(0, 0x1000, true)).toBe(14);
    expect(sizedAddressShift(0, 0x000f_f000, true)).toBe(21); // 2M
    expect(sizedAddressShift(0, 0x1fff_f000, true)).toBe(30); // 1G
    expect(sizedAddressShift(0x7fff_ffff, 0xffff_f000 | 0, true)).toBe(64);
    expect(sizedAddressShift(-1, 0xffff_f000 | 0, true)).toBe(64);
  });

  test('is what was encoded, for every size', () => {
    for (let shift = 12; shift <= 64; shift++) {
      const field = sized(0x1234_5678_9abc_d000n, shift);
      expect(sizedAddressShift(field.hi, field.lo, field.size)).toBe(shift);
    }
  });
});

describe('DeviceTlb', () => {
  const page = (tlb: DeviceTlb, iova: bigint, pasid = NO_PASID): number => {
    const slot = tlb.lookup(hi(iova), lo(iova), pasid);
    return slot < 0 ? -1 : tlb.pfnAt(slot, hi(iova), lo(iova));
  };

  test('caches what a completion says, as the largest page inside its range', () => {
    const anywhere = fc.bigInt({ min: 0n, max: (1n << 52n) - 1n });
    for (let shift = 12; shift <= 64; shift++)
      fc.assert(
        fc.property(anywhere, anywhere, (iova, translated) => {
          const bytes = 1n << BigInt(shift);
          const tlb = new DeviceTlb();
          const field = sized(translated, shift);
          const slot = tlb.fill(hi(iova), lo(iova), field.hi, field.lo, field.size, 3);
          expect(tlb.levelAt(slot)).toBe(shift >= 30 ? 3 : shift >= 21 ? 2 : 1);
          const cached = 1n << BigInt([0, 12, 21, 30][tlb.levelAt(slot)] as number);
          const frame = (address: bigint): number => Number(((translated / bytes) * bytes + (address % bytes)) >> 12n);
          const first = (iova / cached) * cached;
          for (const address of [iova, first, first + cached - 1n]) expect(page(tlb, address)).toBe(frame(address));
          expect(page(tlb, first + cached)).toBe(-1);
        }),
        { numRuns: 10 },
      );
  });

  test('a look without a use finds what a look-up finds, and counts nothing; an entry says its rights', () => {
    const tlb = new DeviceTlb();
    const slots = [NO_PASID, 5].map((pasid, nth) => tlb.fill(1, 0x1000, 0, 0x5000, false, nth + 1, pasid));
    expect([tlb.peek(1, 0x1fff), tlb.peek(1, 0x1000, 5), tlb.peek(1, 0x1000, 6), tlb.peek(0, 0x1000)]).toEqual([
      ...slots,
      -1,
      -1,
    ]);
    expect(slots.map((slot) => tlb.rightsAt(slot))).toEqual([1, 2]);
    expect(tlb.counters).toMatchObject({ lookups: 0, hits: 0, misses: 0 });
  });

  test('a device may lose an entry by itself: it is asked for again, and the others stay', () => {
    const tlb = new DeviceTlb();
    const slots = [0, 1].map((nth) => tlb.fill(0, nth << 12, 0, 0x5000, false, 3));
    tlb.lose(slots[0] as number);
    expect([page(tlb, 0n), page(tlb, 0x1000n), tlb.size]).toEqual([-1, 5, 1]);
    expect(tlb.counters).toMatchObject({ lost: 1, dropped: 0 });
  });

  test('a completion that grants nothing is not cached', () => {
    const tlb = new DeviceTlb();
    expect(tlb.fill(0, 0x1000, 0, 0x5000, false, 0)).toBe(-1);
    expect(tlb.size).toBe(0);
  });

  test('an invalidation drops the pages in its range, of requests with its PASID or without one', () => {
    const addresses = [0n, 0x1000n, 0x20_0000n, 0x4000_0000n, 0x100_0000_0000n];
    for (const shift of [12, 13, 14, 21, 30, 39, 52, 64])
      for (const target of addresses) {
        const tlb = new DeviceTlb({ geometry: { shared: { sets: 1, ways: 64 } } });
        const kept: string[] = [];
        const bytes = 1n << BigInt(shift);
        for (const address of addresses)
          for (const pasid of [NO_PASID, 5, 6]) {
            const field = sized(0x7000_0000n, 12);
            tlb.fill(hi(address), lo(address), field.hi, field.lo, false, 1, pasid);
            const hit = pasid === 5 && address / bytes === target / bytes;
            if (!hit) kept.push(`${pasid < 0 ? '-' : pasid}/1/${address}`);
          }
        const field = sized(target, shift);
        tlb.invalidate(field.hi, field.lo, field.size, 5);
        expect(everything(tlb)).toEqual(kept.sort());
      }
  });

  test('without PASID only entries without; with G those of every PASID; a reset takes all', () => {
    const filled = (): DeviceTlb => {
      const tlb = new DeviceTlb();
      for (const pasid of [NO_PASID, 5, 6]) tlb.fill(0, 0x1000, 0, 0x5000, false, 3, pasid);
      return tlb;
    };
    const [plain, global, reset] = [filled(), filled(), filled()];
    expect(plain.invalidate(0, 0x1000, false)).toBe(1);
    expect([page(plain, 0x1000n), page(plain, 0x1000n, 5), page(plain, 0x1000n, 6)]).toEqual([-1, 5, 5]);
    expect(global.invalidate(0, 0x1000, false, 5, true)).toBe(2);
    expect([page(global, 0x1000n), page(global, 0x1000n, 5), page(global, 0x1000n, 6)]).toEqual([5, -1, -1]);
    expect(reset.clear()).toBe(3);
    expect(reset.counters).toMatchObject({ fills: 3, dropped: 3 });
  });

  test('a large page goes only for its whole, or for a part, or by fractions', () => {
    const left = (options: ConstructorParameters<typeof DeviceTlb>[0]): string[] => {
      const tlb = new DeviceTlb(options);
      const field = sized(0x4000_0000n, 21);
      for (const iova of [0x1000n, 0x2000n]) tlb.fill(hi(iova), lo(iova), field.hi, field.lo, true, 3);
      tlb.invalidate(0, 0x1000, false);
      return everything(tlb);
    };
    expect(left({})).toEqual(['-/2/0']);
    expect(left({ partialInvalidation: 'whole' })).toEqual([]);
    expect(left({ fracture: '4K' })).toEqual(['-/1/8192']);
  });
});
