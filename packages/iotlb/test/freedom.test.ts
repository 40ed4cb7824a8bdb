import { RandomStream } from '@faultline/sim';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Iotlb, LossyComparison, NO_PASID, QEMU_IOTLB_GEOMETRY, TranslationKind } from '../src/index.ts';

const fill4K = (cache: Iotlb, page: number): number => cache.fill(8, 1, 0, page << 12, 1, (page + 100) << 12, 0, 3);

describe('fractured large pages', () => {
  test('only what was asked for is cached, and says where it came from', () => {
    const cache = new Iotlb({ fracture: '4K' });
    const slot = cache.fill(8, 1, 0, 0x4123_4567, 3, 0xc000_0883 | 0, 5, 3);
    expect([cache.levelAt(slot), cache.originLevelAt(slot)]).toEqual([1, 3]);
    expect(cache.pfnAt(slot, 0, 0x4123_4fff)).toBe(0x5_c123_4);
    expect(cache.leafAt(slot)).toBe(0x5_c123_4883n);
    expect(cache.snoopAt(slot)).toBe(true);
    expect(cache.lookup(8, 0, 0x4123_5000)).toBe(-1);
    expect([...cache.entries()]).toMatchObject([{ iova: 0x4123_4000n, level: 1, originLevel: 3, pfn: 0x5c1234 }]);
  });

  test('a level and leaf that are handed on to another cache fit each other', () => {
    const first = new Iotlb({ fracture: '2M' });
    const slot = first.fill(8, 1, 0, 0x4ffe_d000, 3, 0x8000_0083 | 0, 1, 3);
    const second = new Iotlb();
    const copy = second.fill(8, 1, 0, 0x4ffe_d000, first.levelAt(slot), first.leafLoAt(slot), first.leafHiAt(slot), 3);
    expect(second.pfnAt(copy, 0, 0x4ffe_d000)).toBe(first.pfnAt(slot, 0, 0x4ffe_d000));
    expect(second.pfnAt(copy, 0, 0x4fe0_0000)).toBe(0x18fe00);
  });

  test('a 4K invalidation inside a large page reaches the whole, one fraction, or nothing', () => {
    const pages = [0, 1, 2].map((page) => page << 12);
    const left = (options: ConstructorParameters<typeof Iotlb>[0]): boolean[] => {
      const cache = new Iotlb(options);
      for (const page of pages) cache.fill(8, 1, 0, page, 2, 0x83, 0, 3);
      cache.invalidatePages(1, 0, 0x1000, 0);
      return pages.map((page) => cache.peek(8, 0, page) >= 0);
    };
    expect(left({ partialInvalidation: 'whole' })).toEqual([false, false, false]);
    expect(left({ fracture: '4K' })).toEqual([true, false, true]);
    expect(left({})).toEqual([true, true, true]);
  });

  test('a page request drops the entry that serves its address: a large one, or its fraction alone', () => {
    const left = (options: ConstructorParameters<typeof Iotlb>[0]): boolean[] => {
      const cache = new Iotlb(options);
      for (const page of [0, 0x1000]) cache.fill(8, 1, 0, page, 2, 0x83, 0, 1);
      cache.fill(8, 2, 0, 0x1000, 1, 0x3, 0, 1, 5);
      cache.invalidateForPageRequest(1, 0, 0x1000);
      return [cache.peek(8, 0, 0) >= 0, cache.peek(8, 0, 0x1000) >= 0, cache.peek(8, 0, 0x1000, 5) >= 0];
    };
    expect(left({})).toEqual([false, false, true]);
    expect(left({ fracture: '4K' })).toEqual([true, false, true]);
  });
});

describe('what an entry carries', () => {
  test('SNP and D of the leaf, by kind', () => {
    const cache = new Iotlb();
    const flags = (leafLo: number, kind: TranslationKind): [boolean, boolean] => {
      const slot = cache.fill(8, 1, 0, 0, 1, leafLo, 0, 3, NO_PASID, 0, kind);
      expect(cache.kindAt(slot)).toBe(kind);
      return [cache.snoopAt(slot), cache.dirtyAt(slot)];
    };
    expect(flags(0x803, TranslationKind.secondStage)).toEqual([true, false]);
    expect(flags(0x203, TranslationKind.secondStage)).toEqual([false, true]);
    expect(flags(0x843, TranslationKind.firstStage)).toEqual([false, true]);
    expect(flags(0x203, TranslationKind.nested)).toEqual([false, false]);
    expect(flags(-1, TranslationKind.passThrough)).toEqual([false, false]);
  });

  test('a request with PASID may hit an entry without, if allowed and of the same address space', () => {
    for (const options of [{}, { pasidHitsRidEntries: false }, { pasidHitsRidEntries: true }]) {
      const { pasidHitsRidEntries = false } = options;
      const cache = new Iotlb(options);
      const slot = cache.fill(8, 1, 0, 0x1000, 1, 0x5003, 0, 3, NO_PASID, 7);
      expect(cache.lookup(8, 0, 0x1000, 7)).toBe(pasidHitsRidEntries ? slot : -1);
      expect(cache.lookup(8, 0, 0x1000, 6)).toBe(-1);
      expect(cache.lookup(9, 0, 0x1000, 7)).toBe(-1);
      expect(cache.lookup(8, 0, 0x1000)).toBe(slot);
      cache.fill(8, 1, 0, 0x1000, 1, 0x6003, 0, 3, 7);
      expect(cache.pfnAt(cache.lookup(8, 0, 0x1000, 7), 0, 0x1000)).toBe(6);
      expect(cache.counters).toMatchObject({ lookups: 5, hits: pasidHitsRidEntries ? 3 : 2 });
    }
  });
});

describe('entries that get lost', () => {
  test('about as often as asked, each a miss, a count and an entry less; one seed, one result', () => {
    const run = (): [number, number, number] => {
      const mayLoseEntries = { random: new RandomStream(7, 'loss'), oneIn: 10 };
      const cache = new Iotlb({ geometry: QEMU_IOTLB_GEOMETRY, mayLoseEntries });
      for (let i = 0; i < 10_000; i++) if (cache.lookup(8, 0, (i % 50) << 12) < 0) fill4K(cache, i % 50);
      const { lost, misses, fills } = cache.counters;
      expect([misses, fills]).toEqual([50 + lost, 50 + lost]);
      return [lost, misses, cache.size];
    };
    const [lost] = run();
    expect(lost).toBeGreaterThan(800);
    expect(lost).toBeLessThan(1200);
    expect(run()).toEqual(run());
  });

  test('peek loses nothing; a rate below one is refused', () => {
    const random = { below: () => 0 };
    const cache = new Iotlb({ mayLoseEntries: { random, oneIn: 1 } });
    fill4K(cache, 1);
    expect(cache.peek(8, 0, 0x1000)).toBeGreaterThanOrEqual(0);
    expect(cache.lookup(8, 0, 0x1000)).toBe(-1);
    expect(cache.size).toBe(0);
    expect(() => new Iotlb({ mayLoseEntries: { random, oneIn: 0 } })).toThrow('oneIn: 0 is below 1');
  });

  test('an implementation that evicts and over-invalidates is legal against an upper bound', () => {
    const step = fc.record({ page: fc.nat(30), kind: fc.constantFrom('use', 'use', 'use', 'drop') });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 200 }), fc.integer(), (steps, seed) => {
        const observed = new Iotlb({
          geometry: { shared: { sets: 1, ways: 8 } },
          finestInvalidation: 'domain',
          mayLoseEntries: { random: new RandomStream(seed, 'loss'), oneIn: 5 },
        });
        const comparison = new LossyComparison(new Iotlb({ geometry: QEMU_IOTLB_GEOMETRY }));
        for (const { page, kind } of steps) {
          if (kind === 'drop') {
            for (const cache of [observed, comparison.model]) cache.invalidatePages(1, 0, page << 12, 0);
            continue;
          }
          const slot = observed.lookup(8, 0, page << 12);
          comparison.lookup(8, 0, page << 12, slot < 0 ? -1 : observed.pfnAt(slot, 0, page << 12));
          if (slot < 0) for (const cache of [observed, comparison.model]) fill4K(cache, page);
        }
        expect(comparison.legal).toBe(true);
        const { agree, lost } = comparison.counts;
        expect(agree + lost).toBe(observed.counters.lookups);
      }),
    );
  });

  test('what cannot be explained by a loss is told apart', () => {
    const comparison = new LossyComparison(new Iotlb());
    expect(comparison.lookup(8, 0, 0x1000, 5)).toBe('unexpected');
    fill4K(comparison.model, 1);
    expect(comparison.lookup(8, 0, 0x1000, 101)).toBe('agree');
    expect(comparison.lookup(8, 0, 0x1000, 5)).toBe('different');
    expect(comparison.lookup(8, 0, 0x1000, -1)).toBe('lost');
    expect(comparison.lookup(8, 0, 0x1000, -1)).toBe('agree');
    expect(comparison.lookup(8, 0, 0x1000, 101)).toBe('unexpected');
    expect(comparison.counts).toEqual({ agree: 2, lost: 1, unexpected: 2, different: 1 });
    expect(comparison.legal).toBe(false);
  });

  test('a miss means that no size answered', () => {
    const comparison = new LossyComparison(new Iotlb());
    fill4K(comparison.model, 1);
    comparison.model.fill(8, 1, 0, 0, 2, 0x83, 0, 3);
    expect(comparison.lookup(8, 0, 0x1000, -1)).toBe('lost');
    expect(comparison.lookup(8, 0, 0x1000, -1)).toBe('agree');
    expect(comparison.model.counters.lost).toBe(2);
  });
});
