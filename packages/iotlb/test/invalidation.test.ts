import { describe, expect, test } from 'vitest';
import {
  ContextCache,
  INVALIDATION_VARIANTS,
  type InvalidationVariant,
  Iotlb,
  type IotlbGeometry,
  type IotlbOptions,
  NO_PASID,
  PagingStructureCache,
  PasidCache,
  QEMU_7_2_IOTLB_OPTIONS,
  QEMU_IOTLB_GEOMETRY,
  type ReplacementPolicy,
  TranslationKind,
} from '../src/index.ts';
import { type CacheUnderTest, checkCacheLaws, NaiveCache } from './laws.ts';
import {
  type Context,
  type ContextInvalidation,
  contextSpecification,
  hi,
  lo,
  PASID_SPECIFICATION,
  type PasidEntry,
  type PasidInvalidation,
  STRUCTURE_SPECIFICATION,
  type Structure,
  type StructureInvalidation,
  type Translation,
  type TranslationInvalidation,
  translationSpecification,
} from './specification.ts';

function iotlb(options: IotlbOptions): CacheUnderTest<Translation, TranslationInvalidation> {
  const cache = new Iotlb(options);
  return {
    fill(entry) {
      const leaf = (BigInt(entry.pfn) << 12n) | 3n;
      const [pasid, ridPasid] = entry.withPasid ? [entry.pasid, 0] : [NO_PASID, entry.pasid];
      const { sourceId, did, iova, level, rights, kind } = entry;
      cache.fill(sourceId, did, hi(iova), lo(iova), level, lo(leaf), hi(leaf), rights, pasid, ridPasid, kind);
    },
    invalidate(invalidation) {
      switch (invalidation.kind) {
        case 'global':
          return void cache.invalidateGlobal();
        case 'domain':
          return void cache.invalidateDomain(invalidation.did);
        case 'pages': {
          const { did, iova, am } = invalidation;
          return void cache.invalidatePages(did, hi(iova), lo(iova), am);
        }
        case 'pasid':
          return void cache.invalidatePasid(invalidation.did, invalidation.pasid);
        case 'pasidPages': {
          const { did, pasid, iova, am } = invalidation;
          return void cache.invalidatePasidPages(did, pasid, hi(iova), lo(iova), am);
        }
        case 'pageRequest': {
          const { did, iova } = invalidation;
          return void cache.invalidateForPageRequest(did, hi(iova), lo(iova));
        }
      }
    },
    held: () =>
      [...cache.entries()].map(({ sourceId, did, pasid, withPasid, kind, iova, level, originLevel, pfn, rights }) => ({
        ...{ sourceId, did, pasid, withPasid, kind, iova, level, pfn, rights, originLevel },
      })),
  };
}

function structures(variant: InvalidationVariant, shared: boolean): CacheUnderTest<Structure, StructureInvalidation> {
  const all = { sets: 1, ways: 256 };
  const geometry = shared ? { shared: all } : { pde: all, pdpe: all, pml4e: all, pml5e: all };
  const cache = new PagingStructureCache(geometry, variant.pagingStructures);
  return {
    fill: ({ did, iova, level, tablePfn, rights }) => void cache.fill(did, hi(iova), lo(iova), level, tablePfn, rights),
    invalidate(invalidation) {
      if (invalidation.kind === 'global') cache.invalidateGlobal();
      else if (invalidation.kind === 'domain') cache.invalidateDomain(invalidation.did);
      else {
        const { did, iova, am, hint } = invalidation;
        cache.invalidatePages(did, hi(iova), lo(iova), am, hint);
      }
    },
    held: () =>
      [...cache.entries()].map(({ did, iova, level, tablePfn, rights }) => ({ did, iova, level, tablePfn, rights })),
  };
}

function contexts(
  variant: InvalidationVariant,
  mode: 'legacy' | 'scalable',
): CacheUnderTest<Context, ContextInvalidation> {
  const cache = new ContextCache<string>({ ...variant.context, mode });
  return {
    fill: ({ sourceId, did, value }) => void cache.fill(sourceId, did, value),
    invalidate(invalidation) {
      if (invalidation.kind === 'global') cache.invalidateGlobal();
      else if (invalidation.kind === 'domain') cache.invalidateDomain(invalidation.did);
      else cache.invalidateDevice(invalidation.did, invalidation.sourceId, invalidation.functionMask);
    },
    held: () => [...cache.entries()].map(({ sourceId, did, value }) => ({ sourceId, did, value })),
  };
}

function pasids(variant: InvalidationVariant): CacheUnderTest<PasidEntry, PasidInvalidation> {
  const cache = new PasidCache<string>(variant.pasid);
  return {
    fill: ({ sourceId, pasid, did, value }) => void cache.fill(sourceId, pasid, did, value),
    invalidate: ({ granularity, did, pasid }) => void cache.invalidate(granularity, did, pasid),
    held: () => [...cache.entries()].map(({ sourceId, pasid, did, value }) => ({ sourceId, pasid, did, value })),
  };
}

const GEOMETRIES: Record<string, IotlbGeometry> = {
  'an array for each size': QEMU_IOTLB_GEOMETRY,
  sets: { '4K': { sets: 16, ways: 64 }, '2M': { sets: 8, ways: 64 }, '1G': { sets: 2, ways: 64 } },
  'one array for all': { shared: { sets: 1, ways: 256 } },
};

describe('each invalidation drops what it must, and an exact cache nothing else', () => {
  for (const [name, geometry] of Object.entries(GEOMETRIES)) {
    const variants: [string, IotlbOptions, Parameters<typeof translationSpecification>[0]][] = [
      ['exact', INVALIDATION_VARIANTS.exact.iotlb, {}],
      ['a large page goes for a part of it', { partialInvalidation: 'whole' }, { partial: 'whole' }],
      ['fractured to 4K', INVALIDATION_VARIANTS.fractured.iotlb, { largest: 1 }],
      ['fractured to 2M', { fracture: '2M' }, { largest: 2 }],
    ];
    for (const [variant, options, freedoms] of variants)
      test(`IOTLB, ${name}, ${variant}`, () => {
        checkCacheLaws(() => iotlb({ ...options, geometry }), translationSpecification(freedoms), { exact: true });
      });
    for (const options of [INVALIDATION_VARIANTS.coarse.iotlb, { finestInvalidation: 'global' } as const])
      test(`IOTLB, ${name}, nothing finer than ${options.finestInvalidation}: drops at least as much`, () => {
        checkCacheLaws(() => iotlb({ ...options, geometry }), translationSpecification({}), { exact: false });
      });
  }

  const replacements: ReplacementPolicy[] = ['pseudo-lru', { random: { below: () => 0 } }];
  for (const replacement of replacements)
    test(`IOTLB with replacement ${typeof replacement === 'string' ? replacement : 'random'}`, () => {
      const geometry = { shared: { sets: 1, ways: 256, replacement } };
      checkCacheLaws(() => iotlb({ geometry }), translationSpecification({}), { exact: true });
    });

  for (const [name, variant] of Object.entries(INVALIDATION_VARIANTS)) {
    const exact = name === 'exact' || name === 'fractured';
    for (const shared of [false, true])
      test(`paging-structure caches, ${name}, ${shared ? 'shared' : 'by level'}`, () => {
        checkCacheLaws(() => structures(variant, shared), STRUCTURE_SPECIFICATION, { exact });
      });
    for (const mode of ['legacy', 'scalable'] as const)
      test(`context cache, ${name}, ${mode}`, () => {
        checkCacheLaws(() => contexts(variant, mode), contextSpecification(mode), { exact: name !== 'coarse' });
      });
    test(`PASID cache, ${name}`, () => {
      checkCacheLaws(() => pasids(variant), PASID_SPECIFICATION, { exact: name !== 'coarse' });
    });
  }
});

describe('the laws themselves', () => {
  test('hold for the naive models', () => {
    const translations = translationSpecification({});
    checkCacheLaws(() => new NaiveCache(translations), translations, { exact: true });
    checkCacheLaws(() => new NaiveCache(STRUCTURE_SPECIFICATION), STRUCTURE_SPECIFICATION, { exact: true });
    checkCacheLaws(() => new NaiveCache(PASID_SPECIFICATION), PASID_SPECIFICATION, { exact: true });
    const context = contextSpecification('legacy');
    checkCacheLaws(() => new NaiveCache(context), context, { exact: true });
  });

  test('find a cache that drops too little, and an exact one that drops too much', () => {
    const right = translationSpecification({});
    const leaky = {
      ...right,
      mustDrop: (invalidation: TranslationInvalidation, entry: Translation) =>
        right.mustDrop(invalidation, entry) && !(invalidation.kind === 'pasid' && !entry.withPasid),
    };
    expect(() => checkCacheLaws(() => new NaiveCache(leaky), right, { exact: false, runs: 2000 })).toThrow(
      /Property failed/,
    );
    const greedy = translationSpecification({ partial: 'whole' });
    expect(() => checkCacheLaws(() => new NaiveCache(greedy), right, { exact: true, runs: 2000 })).toThrow(
      /Property failed/,
    );
    checkCacheLaws(() => new NaiveCache(greedy), right, { exact: false });
  });
});

describe('what coarse hardware drops, to the entry', () => {
  test('a page-selective request takes the domain, and no other', () => {
    const cache = iotlb(INVALIDATION_VARIANTS.coarse.iotlb);
    const entry: Translation = {
      ...{ sourceId: 8, did: 1, pasid: 0, withPasid: false, kind: 2, iova: 0n, level: 1, originLevel: 1, pfn: 5 },
      rights: 3,
    };
    for (const did of [1, 2])
      for (const page of [0n, 1n, 2n]) cache.fill({ ...entry, sourceId: did, did, iova: page << 12n });
    cache.invalidate({ kind: 'pages', did: 1, iova: 0n, am: 0 });
    expect(cache.held().map(({ did }) => did)).toEqual([2, 2, 2]);
    cache.invalidate({ kind: 'pasidPages', did: 2, pasid: 5, iova: 0n, am: 0 });
    expect(cache.held()).toEqual([]);
  });

  const requests: [string, (cache: Iotlb) => number, string[]][] = [
    ['a page of a domain', (cache) => cache.invalidatePages(1, 0, 0, 0), ['8/1/1/5', '8/1/2/-', '9/2/1/-']],
    ['a page request', (cache) => cache.invalidateForPageRequest(1, 0, 0), ['8/1/1/5', '8/1/2/-', '9/2/1/-']],
    ['a PASID', (cache) => cache.invalidatePasid(1, 5), ['8/1/1/-', '8/1/2/-', '9/2/1/-']],
    [
      'a page of a PASID, which has no first stage',
      (cache) => cache.invalidatePasidPages(1, 5, 0, 0, 0),
      ['8/1/1/-', '8/1/1/5', '8/1/2/-', '9/2/1/-'],
    ],
    ['a domain', (cache) => cache.invalidateDomain(1), ['9/2/1/-']],
  ];
  test.each(requests)('%s: as asked, its domain, or all; what went is counted', (_name, invalidate, exact) => {
    for (const [finestInvalidation, wanted] of [
      ['page', exact],
      ['domain', ['9/2/1/-']],
      ['global', []],
    ] as const) {
      const cache = new Iotlb({ finestInvalidation });
      cache.fill(8, 1, 0, 0, 1, 0x5003, 0, 3);
      cache.fill(8, 1, 0, 0x1000, 1, 0x6003, 0, 3, 5);
      // The same address as the first, but a page of the range's neighbour in the larger size.
      cache.fill(8, 1, 0, 0x20_0000, 2, 0x83, 0, 3);
      cache.fill(9, 2, 0, 0, 1, 0x7003, 0, 3);
      const held = () =>
        [...cache.entries()].map(
          ({ sourceId, did, level, pasid, withPasid }) => `${sourceId}/${did}/${level}/${withPasid ? pasid : '-'}`,
        );
      const dropped = invalidate(cache);
      expect(held().sort()).toEqual([...wanted].sort());
      expect([dropped, cache.size]).toEqual([4 - wanted.length, wanted.length]);
      expect(cache.counters).toMatchObject({ invalidations: 1, dropped });
    }
  });

  test('a device that knows no pages empties itself of the function, with the PASID or of all', () => {
    for (const [pasid, left] of [
      [undefined, 1],
      [NO_PASID, 2],
      [5, 2],
      [6, 3],
    ] as const) {
      const cache = new Iotlb({ finestInvalidation: 'domain' });
      cache.fill(8, 1, 0, 0, 1, 0x5003, 0, 3);
      cache.fill(8, 1, 0, 0x1000, 1, 0x5003, 0, 3, 5);
      cache.fill(9, 1, 0, 0, 1, 0x5003, 0, 3);
      const dropped = cache.invalidateSourcePages(8, 1, 0, 0, pasid);
      expect([dropped, cache.size]).toEqual([3 - left, left]);
    }
  });

  test('XEON E7 v2: hint 0 takes all non-leaf entries of the domain, hint 1 none; leaves go by page', () => {
    const { pagingStructures, iotlb: leaves } = INVALIDATION_VARIANTS.xeonE7v2;
    const cache = new PagingStructureCache(undefined, pagingStructures);
    for (const did of [1, 2]) for (const page of [0, 0x4000_0000]) cache.fill(did, 0, page, 1, 0x10, 3);
    expect(cache.invalidatePages(1, 0, 0, 0, 1)).toBe(0);
    expect(cache.invalidatePages(1, 0, 0, 0, 0)).toBe(2);
    expect([...cache.entries()].map(({ did }) => did)).toEqual([2, 2]);
    expect(leaves.finestInvalidation).toBe('page');
  });

  test('a page of a domain takes all that has a first stage along, and says how many went', () => {
    const cache = new Iotlb();
    cache.fill(8, 1, 0, 0, 1, 0x5003, 0, 3);
    cache.fill(8, 1, 0, 0x9000, 1, 0x5003, 0, 3);
    cache.fill(8, 1, 0, 0x1000, 1, 0x6003, 0, 3, 5, 0, TranslationKind.firstStage);
    cache.fill(8, 1, 0, 0x20_0000, 2, 0x83, 0, 3, 6, 0, TranslationKind.nested);
    cache.fill(9, 2, 0, 0x1000, 1, 0x6003, 0, 3, 5, 0, TranslationKind.firstStage);
    expect([cache.invalidatePages(1, 0, 0, 0), cache.size, cache.counters.dropped]).toEqual([3, 2, 3]);
    expect([...cache.entries()].map(({ did, iova }) => `${did}: ${iova.toString(16)}`).sort()).toEqual([
      '1: 9000',
      '2: 1000',
    ]);
  });

  test('QEMU 7.2 drops with a wider range all that it drops with a narrower one, and from 256 pages on the domain', () => {
    const left = (am: number) => {
      const cache = new Iotlb(QEMU_7_2_IOTLB_OPTIONS);
      for (let page = 0; page < 512; page++) cache.fill(8, 1, page & 3, page << 12, 1, 0x3, 0, 3);
      const dropped = cache.invalidatePages(1, 0, 0x5_5000, am);
      expect(dropped + cache.size).toBe(512);
      return cache.size;
    };
    for (let am = 0; am <= 63; am++) expect(left(am), `AM ${am}`).toBe(am < 8 ? 512 - 2 * 2 ** am : 0);
  });

  test('a non-leaf entry that grants nothing is not cached', () => {
    expect(new PagingStructureCache().fill(1, 0, 0, 1, 0x10, 0)).toBe(-1);
  });
});
