import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  DEFAULT_IOTLB_GEOMETRY,
  Iotlb,
  type IotlbOptions,
  type LeafLevel,
  NO_PASID,
  PagingStructureCache,
  QEMU_7_2_IOTLB_OPTIONS,
  QEMU_IOTLB_GEOMETRY,
  QEMU_IOTLB_OPTIONS,
} from '../src/index.ts';
import { type NaiveEntry, NaiveIotlb } from './naive-iotlb.ts';

const hi = (address: bigint): number => Number(BigInt.asIntN(32, address >> 32n));
const lo = (address: bigint): number => Number(BigInt.asIntN(32, address));

function fill(cache: Iotlb, entry: NaiveEntry): number {
  const { sourceId, did, iova, level, leaf, rights } = entry;
  return cache.fill(sourceId, did, hi(iova), lo(iova), level, lo(leaf), hi(leaf), rights);
}

type Operation =
  | { readonly kind: 'fill'; readonly entry: NaiveEntry }
  | { readonly kind: 'lookup' | 'peek'; readonly sourceId: number; readonly iova: bigint }
  | { readonly kind: 'pages' | 'sourcePages'; readonly id: number; readonly iova: bigint; readonly am: number }
  | { readonly kind: 'domain' | 'source'; readonly id: number }
  | { readonly kind: 'global' };

/** Addresses that collide: a few 1G regions (low, around 4G, top of 57 bits), a few 2M and 4K offsets inside. */
const iovaArbitrary = fc
  .tuple(fc.constantFrom(0n, 3n, 4n, 5n, 1n << 8n, (1n << 27n) - 1n), fc.nat(3), fc.nat(3), fc.nat(4095))
  .map(([g, m, k, offset]) => (g << 30n) + (BigInt(m * 170) << 21n) + (BigInt(k * 127) << 12n) + BigInt(offset));
const idArbitrary = fc.constantFrom(0, 1, 8, 0xffff);
const entryArbitrary: fc.Arbitrary<NaiveEntry> = fc.record({
  sourceId: idArbitrary,
  did: idArbitrary,
  iova: iovaArbitrary,
  level: fc.constantFrom<LeafLevel>(1, 2, 3),
  leaf: fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
  rights: fc.nat(3),
});
const operationArbitrary: fc.Arbitrary<Operation> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ kind: fc.constant('fill' as const), entry: entryArbitrary }) },
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constantFrom('lookup' as const, 'peek' as const),
      sourceId: idArbitrary,
      iova: iovaArbitrary,
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constantFrom('pages' as const, 'sourcePages' as const),
      id: idArbitrary,
      iova: iovaArbitrary,
      am: fc.oneof(fc.constantFrom(0, 9, 18), fc.nat(63)),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constantFrom('domain' as const, 'source' as const), id: idArbitrary }) },
  { weight: 1, arbitrary: fc.constant({ kind: 'global' as const }) },
);

function held(cache: Iotlb): string[] {
  return [...cache.entries()]
    .map((entry) => `${entry.sourceId}/${entry.level}/${entry.iova}/${entry.did}/${entry.leaf}/${entry.rights}`)
    .sort();
}

function invalidateBoth(cache: Iotlb, naive: NaiveIotlb, operation: Operation): [number, number] {
  switch (operation.kind) {
    case 'pages': {
      const { id, iova, am } = operation;
      return [
        cache.invalidatePages(id, hi(iova), lo(iova), am),
        naive.invalidatePages((entry) => entry.did === id, iova, am),
      ];
    }
    case 'sourcePages': {
      const { id, iova, am } = operation;
      return [
        cache.invalidateSourcePages(id, hi(iova), lo(iova), am),
        naive.invalidatePages((entry) => entry.sourceId === id, iova, am),
      ];
    }
    case 'domain':
      return [cache.invalidateDomain(operation.id), naive.invalidate((entry) => entry.did === operation.id)];
    case 'source':
      return [cache.invalidateSource(operation.id), naive.invalidate((entry) => entry.sourceId === operation.id)];
    default:
      return [cache.invalidateGlobal(), naive.invalidate(() => true)];
  }
}

/** An unbounded cache must equal the map; a bounded one may only miss more. */
function runProgram(cache: Iotlb, naive: NaiveIotlb, program: readonly Operation[], unbounded: boolean): void {
  for (const operation of program) {
    if (operation.kind === 'fill') {
      const slot = fill(cache, operation.entry);
      naive.fill(operation.entry);
      expect(cache.levelAt(slot)).toBe(operation.entry.level);
      expect(cache.didAt(slot)).toBe(operation.entry.did);
    } else if (operation.kind === 'lookup' || operation.kind === 'peek') {
      const { sourceId, iova } = operation;
      const slot = cache[operation.kind](sourceId, hi(iova), lo(iova));
      const expected = naive.lookup(sourceId, iova);
      if (unbounded) expect(slot >= 0).toBe(expected !== undefined);
      if (slot < 0) continue;
      if (unbounded && expected) {
        expect(cache.pfnAt(slot, hi(iova), lo(iova))).toBe(naive.pfn(expected, iova));
        expect(cache.rightsAt(slot)).toBe(expected.rights);
        expect(cache.leafAt(slot)).toBe(expected.leaf);
      }
    } else {
      const [dropped, expected] = invalidateBoth(cache, naive, operation);
      if (unbounded) expect(dropped).toBe(expected);
      else expect(dropped).toBeLessThanOrEqual(expected);
    }
    const naiveHeld = new Set(
      [...naive.entries.values()].map((e) => `${e.sourceId}/${e.level}/${e.iova}/${e.did}/${e.leaf}/${e.rights}`),
    );
    if (unbounded) expect(held(cache)).toEqual([...naiveHeld].sort());
    else for (const entry of held(cache)) expect(naiveHeld).toContain(entry);
  }
}

describe('Iotlb against a map', () => {
  const shapes = {
    'fully associative': QEMU_IOTLB_GEOMETRY,
    'many sets': { '4K': { sets: 64, ways: 64 }, '2M': { sets: 16, ways: 128 }, '1G': { sets: 4, ways: 128 } },
  };
  for (const [name, geometry] of Object.entries(shapes)) {
    for (const partialInvalidation of ['whole', 'none'] as const) {
      test(`${name}, partial invalidation drops ${partialInvalidation}: equal after every operation`, () => {
        fc.assert(
          fc.property(fc.array(operationArbitrary, { maxLength: 60 }), (program) => {
            const cache = new Iotlb({ geometry, partialInvalidation });
            runProgram(cache, new NaiveIotlb(partialInvalidation), program, true);
          }),
          { numRuns: 300 },
        );
      });
    }
  }

  test('a bounded cache holds a subset, never something else', () => {
    fc.assert(
      fc.property(fc.array(operationArbitrary, { maxLength: 120 }), (program) => {
        const cache = new Iotlb({ geometry: { ...DEFAULT_IOTLB_GEOMETRY, '4K': { sets: 2, ways: 2 } } });
        runProgram(cache, new NaiveIotlb('none'), program, false);
      }),
      { numRuns: 200 },
    );
  });
});

describe('replacement', () => {
  const tiny = { '4K': { sets: 2, ways: 2 }, '2M': { sets: 1, ways: 1 }, '1G': { sets: 1, ways: 0 } } as const;
  const fill4K = (cache: Iotlb, page: number): number => cache.fill(8, 1, 0, page << 12, 1, page << 12, 0, 3);

  test('the least recently used way of the set goes, peek is no use', () => {
    const cache = new Iotlb({ geometry: tiny });
    fill4K(cache, 0);
    fill4K(cache, 2);
    fill4K(cache, 1); // the other set
    cache.lookup(8, 0, 0);
    cache.peek(8, 0, 2 << 12);
    fill4K(cache, 4);
    expect(cache.peek(8, 0, 0)).toBeGreaterThanOrEqual(0);
    expect(cache.peek(8, 0, 2 << 12)).toBe(-1);
    expect(cache.peek(8, 0, 1 << 12)).toBeGreaterThanOrEqual(0);
    expect(cache.counters.evictions).toBe(1);
  });

  test('a dropped slot is used before anything is evicted', () => {
    const cache = new Iotlb({ geometry: tiny });
    fill4K(cache, 0);
    fill4K(cache, 2);
    expect(cache.invalidatePages(1, 0, 2 << 12, 0)).toBe(1);
    fill4K(cache, 4);
    expect(cache.counters.evictions).toBe(0);
    expect(cache.size).toBe(2);
  });

  test('exact LRU against a list', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(7), { maxLength: 200 }), (pages) => {
        const cache = new Iotlb({ geometry: { ...tiny, '4K': { sets: 1, ways: 3 } } });
        let list: number[] = [];
        for (const page of pages) {
          const hit = cache.lookup(8, 0, page << 12) >= 0;
          expect(hit).toBe(list.includes(page));
          if (!hit) fill4K(cache, page);
          list = [page, ...list.filter((other) => other !== page)].slice(0, 3);
        }
        expect(cache.counters.evictions).toBe(cache.counters.fills - cache.size);
      }),
    );
  });

  test('a size without ways is never cached', () => {
    const cache = new Iotlb({ geometry: tiny });
    expect(cache.fill(8, 1, 0, 0, 3, 0x83, 0, 3)).toBe(-1);
    expect(cache.lookup(8, 0, 0)).toBe(-1);
  });

  test('QEMU empties the whole cache when it is full', () => {
    const cache = new Iotlb(QEMU_IOTLB_OPTIONS);
    for (let page = 0; page < 1024; page++) fill4K(cache, page);
    expect(cache.size).toBe(1024);
    fill4K(cache, 5000);
    expect(cache.size).toBe(1);
    expect(cache.counters).toMatchObject({ resets: 1, evictions: 1024, fills: 1025 });
  });
});

test.each([
  ['an array for each size', DEFAULT_IOTLB_GEOMETRY],
  ['one array for all', { shared: { sets: 1, ways: 9 } }],
] as const)('every entry has a slot of its own, and is lost and looked up by it: %s', (_name, geometry) => {
  const cache = new Iotlb({ geometry });
  const slots = ([1, 2, 3] as const).flatMap((level) =>
    [1, 2, 3].map((nth) => cache.fill(8, 1, nth, 0, level, nth << 30, level, 3)),
  );
  expect(new Set(slots).size).toBe(9);
  expect([...cache.entries()].map(({ slot }) => slot).sort()).toEqual([...slots].sort());
  for (const [nth, slot] of slots.entries()) {
    expect(cache.levelAt(slot)).toBe(Math.floor(nth / 3) + 1);
    expect(cache.pfnAt(slot, (nth % 3) + 1, 0)).toBe(cache.levelAt(slot) * 2 ** 20 + (((nth % 3) + 1) << 18));
  }
  // The smaller sizes answer first, until they are lost.
  for (const [nth, slot] of slots.entries()) {
    const at = (nth % 3) + 1;
    expect([cache.lookup(8, at, 0), cache.peek(8, at, 0)]).toEqual([slot, slot]);
    cache.lose(slot);
  }
  expect(cache.counters).toMatchObject({ lost: 9, hits4K: 3, hits2M: 3, hits1G: 3, misses: 0 });
  expect(cache.size).toBe(0);
});

test('a reset counts what it empties, at the very entry that is one too many', () => {
  const cache = new Iotlb({ resetAtEntries: 4 });
  for (let page = 0; page < 4; page++) cache.fill(8, 1, 0, page << 12, 1, 3, 0, 3);
  expect([cache.size, cache.counters.resets]).toEqual([4, 0]);
  cache.fill(8, 1, 0, 0x1000_0000, 2, 0x83, 0, 3);
  expect([cache.size, cache.counters.resets, cache.counters.evictions]).toEqual([1, 1, 4]);
});

test('QEMU 7.2 keeps large pages that do not hold the address, and drops the one that does', () => {
  const filled = () => {
    const cache = new Iotlb(QEMU_7_2_IOTLB_OPTIONS);
    for (const [hi, lo] of [
      [0, 0x4020_0000],
      [0, 0x4040_0000],
      [1, 0x4020_0000],
    ] as const)
      cache.fill(8, 1, hi, lo, 2, 0x83, 0, 3);
    return cache;
  };
  const left = (cache: Iotlb) => [...cache.entries()].map(({ iova }) => iova.toString(16)).sort();
  const one = filled();
  expect(one.invalidatePages(1, 0, 0x4020_7000, 0)).toBe(1);
  expect(left(one)).toEqual(['140200000', '40400000']);
  // Page numbers are compared modulo 256, and all large pages start at a multiple of it.
  const all = filled();
  expect(all.invalidatePages(1, 0, 0x4020_0000, 0)).toBe(3);
  const other = filled();
  expect([other.invalidatePages(2, 0, 0x4020_0000, 0), other.size]).toEqual([0, 3]);
});

test('QEMU 7.2 drops every page of the domain that is equal modulo 256', () => {
  const cache = new Iotlb(QEMU_7_2_IOTLB_OPTIONS);
  for (let page = 0; page < 1024; page++) cache.fill(8, page === 256 ? 2 : 1, 0, page << 12, 1, 0x3, 0, 3);
  expect(cache.invalidatePages(1, 0, 0, 0)).toBe(3);
  expect(cache.peek(8, 0, 256 << 12)).toBeGreaterThanOrEqual(0);
  expect(cache.invalidatePages(1, 0, 4 << 12, 2)).toBe(16);
  expect(cache.invalidatePages(1, 0, 0, 8)).toBe(1024 - 3 - 16 - 1);
});

describe('PASID', () => {
  test('requests with and without PASID have entries of their own; invalidation finds both by DID and PASID', () => {
    const cache = new Iotlb();
    cache.fill(8, 3, 0, 0x1000, 1, 0x5003, 0, 3, NO_PASID, 7);
    cache.fill(8, 3, 0, 0x1000, 1, 0x6003, 0, 3, 7);
    cache.fill(8, 3, 0, 0x1000, 1, 0x7003, 0, 3, 9);
    const frame = (pasid?: number): number => {
      const slot = cache.lookup(8, 0, 0x1000, pasid);
      return slot < 0 ? -1 : cache.pfnAt(slot, 0, 0x1000);
    };
    expect([frame(), frame(7), frame(9), frame(0)]).toEqual([5, 6, 7, -1]);
    expect([...cache.entries()].map(({ pasid, withPasid }) => [pasid, withPasid]).sort()).toEqual(
      [
        [7, false],
        [7, true],
        [9, true],
      ].sort(),
    );
    expect(cache.invalidatePasid(2, 7)).toBe(0);
    expect(cache.invalidatePasid(3, 7)).toBe(2);
    expect([frame(), frame(7), frame(9)]).toEqual([-1, -1, 7]);
  });
});

describe('entries and tags', () => {
  test('two devices of one domain have their own entries; one invalidation drops both', () => {
    const cache = new Iotlb();
    cache.fill(0x08, 3, 0, 0x1000, 1, 0x5003, 0, 3);
    cache.fill(0x10, 3, 0, 0x1000, 1, 0x5003, 0, 3);
    cache.fill(0x18, 4, 0, 0x1000, 1, 0x6003, 0, 3);
    expect(cache.lookup(0x20, 0, 0x1000)).toBe(-1);
    expect(cache.invalidatePages(3, 0, 0x1000, 0)).toBe(2);
    expect([...cache.entries()].map((entry) => entry.sourceId)).toEqual([0x18]);
  });

  test('the smaller page answers when two sizes hold the address', () => {
    const cache = new Iotlb();
    cache.fill(8, 1, 0, 0, 2, 0x4000_0083, 0, 3);
    cache.fill(8, 1, 0, 0x1000, 1, 0x7003, 0, 3);
    expect(cache.levelAt(cache.lookup(8, 0, 0x1000))).toBe(1);
    expect(cache.levelAt(cache.lookup(8, 0, 0x2000))).toBe(2);
    expect(cache.counters).toMatchObject({ lookups: 2, hits: 2, hits4K: 1, hits2M: 1, hits1G: 0, misses: 0 });
  });

  test('frames above 31 bits of page number and addresses above 4G', () => {
    const cache = new Iotlb();
    const slot = cache.fill(8, 1, 0x1f, 0xc000_0000 | 0, 3, 0xc000_0083 | 0, 0x000f_ffff, 3);
    expect(cache.pfnAt(slot, 0x1f, 0xffff_f000 | 0)).toBe(2 ** 40 - 1);
    expect([...cache.entries()][0]).toMatchObject({ iova: 0x1f_c000_0000n, level: 3, leaf: 0xf_ffff_c000_0083n });
  });

  test('the address mask must fit the page: 0, 9 and 18 (partial invalidation drops nothing)', () => {
    for (const [level, exact] of [
      [1, 0],
      [2, 9],
      [3, 18],
    ] as const) {
      for (let am = 0; am <= 63; am++) {
        const cache = new Iotlb();
        cache.fill(8, 1, 0, 0x4000_0000, level, 0x83, 0, 3);
        expect(cache.invalidatePages(1, 0, 0x4000_0fff, am), `level ${level} AM ${am}`).toBe(am >= exact ? 1 : 0);
        expect(cache.size).toBe(am >= exact ? 0 : 1);
      }
    }
  });

  test('arguments that no descriptor can carry are refused', () => {
    expect(() => new Iotlb().invalidatePages(1, 0, 0, 64)).toThrow(RangeError);
    expect(() => new Iotlb({ geometry: { ...DEFAULT_IOTLB_GEOMETRY, '4K': { sets: 3, ways: 1 } } })).toThrow(
      /IOTLB 4K/,
    );
    expect(() => new Iotlb({ resetAtEntries: 0 })).toThrow(RangeError);
  });

  test('an entry that no hardware holds is refused, and nothing is cached', () => {
    const cache = new Iotlb();
    const fill = (did: number, level: number, rights: number) =>
      cache.fill(8, did, 0, 0, level as LeafLevel, 0x83, 0, rights);
    for (const level of [0, 4, 1.5, Number.NaN])
      expect(() => fill(1, level, 3)).toThrow(`level: ${level} is not one of 1, 2, 3`);
    for (const did of [-1, 0x10000, 0.5])
      expect(() => fill(did, 1, 3)).toThrow(/^domainId: .* is not an integer in 0\.\.0xffff$/);
    for (const rights of [-1, 4, 0.5])
      expect(() => fill(1, 1, rights)).toThrow(/^rights: .* is not an integer in 0\.\.3$/);
    expect(cache.size).toBe(0);
    expect(cache.counters.fills).toBe(0);
  });

  test('an option that means nothing is refused, not taken for the default', () => {
    const wrong = (options: Record<string, unknown>) => () => new Iotlb(options as IotlbOptions);
    expect(wrong({ fracture: '1G' })).toThrow('fracture: 1G is not one of never, 2M, 4K');
    expect(wrong({ partialInvalidation: 'all' })).toThrow('partialInvalidation: all is not one of none, whole');
    expect(wrong({ finestInvalidation: 'pages' })).toThrow(
      'finestInvalidation: pages is not one of page, domain, global',
    );
    expect(wrong({ comparedPageBits: 16 })).toThrow('comparedPageBits: 16 is not one of 8, 64');
    const geometry = { ...DEFAULT_IOTLB_GEOMETRY, '4K': { sets: 1, ways: 4, replacement: 'fifo' } };
    expect(wrong({ geometry })).toThrow('IOTLB 4K: replacement: fifo is not one of lru, pseudo-lru, { random }');
    expect(wrong({ geometry: { '4K': { sets: 1, ways: 4 } } })).toThrow(
      'IOTLB 2M: a geometry with sets and ways is missing',
    );
    const finestInvalidation = 'fine' as 'page';
    expect(() => new PagingStructureCache(undefined, { finestInvalidation })).toThrow(
      'finestInvalidation: fine is not one of page, domain, global',
    );
  });

  test('snapshot of the counters', () => {
    const cache = new Iotlb();
    cache.lookup(1, 0, 0);
    cache.invalidateGlobal();
    expect(cache.counters.snapshot()).toEqual({
      ...{ lookups: 1, hits: 0, misses: 1, hits4K: 0, hits2M: 0, hits1G: 0 },
      ...{ fills: 0, evictions: 0, invalidations: 1, dropped: 0, resets: 0, lost: 0 },
    });
  });
});
