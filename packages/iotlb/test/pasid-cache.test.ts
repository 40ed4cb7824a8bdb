import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Iotlb, PasidCache, PasidCacheGranularity } from '../src/index.ts';

const sourceIdArbitrary = fc.constantFrom(0, 8, 0x100, 0xffff);
const pasidArbitrary = fc.constantFrom(0, 1, 8, 0xffff, 0xfffff);
const didArbitrary = fc.constantFrom(1, 2, 0xffff);
const operationArbitrary = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('fill' as const),
      sourceId: sourceIdArbitrary,
      pasid: pasidArbitrary,
      did: didArbitrary,
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('invalidate' as const),
      granularity: fc.constantFrom(...Object.values(PasidCacheGranularity)),
      did: didArbitrary,
      pasid: pasidArbitrary,
    }),
  },
);

describe('PasidCache', () => {
  for (const geometry of [
    { sets: 1, ways: 64 },
    { sets: 32, ways: 32 },
  ])
    test(`${geometry.sets} sets: look-up by source-id and PASID, invalidation by domain-id and PASID, against a map`, () => {
      fc.assert(
        fc.property(fc.array(operationArbitrary, { maxLength: 60 }), (program) => {
          const cache = new PasidCache<number>({ geometry });
          const map = new Map<string, { pasid: number; did: number; value: number }>();
          for (const [value, op] of program.entries()) {
            if (op.kind === 'fill') {
              cache.fill(op.sourceId, op.pasid, op.did, value);
              map.set(`${op.sourceId}/${op.pasid}`, { pasid: op.pasid, did: op.did, value });
            } else {
              const doomed = [...map].filter(([, entry]) => {
                if (op.granularity === 3) return true;
                return entry.did === op.did && (op.granularity === 0 || entry.pasid === op.pasid);
              });
              for (const [key] of doomed) map.delete(key);
              expect(cache.invalidate(op.granularity, op.did, op.pasid)).toBe(doomed.length);
            }
            const held = [...cache.entries()].map((e) => `${e.sourceId}/${e.pasid} ${e.did} ${e.value}`);
            expect(held.sort()).toEqual([...map].map(([key, e]) => `${key} ${e.did} ${e.value}`).sort());
            for (const [key, entry] of map) {
              const [sourceId, pasid] = key.split('/').map(Number) as [number, number];
              const slot = cache.lookup(sourceId, pasid);
              expect([cache.didAt(slot), cache.valueAt(slot)]).toEqual([entry.did, entry.value]);
            }
          }
        }),
      );
    });

  test('hardware with coarser granularities drops more', () => {
    const dropped = (['pasid', 'domain', 'global'] as const).map((finestInvalidation) => {
      const cache = new PasidCache<string>({ finestInvalidation });
      for (const pasid of [1, 2, 3]) for (const did of [1, 2]) cache.fill(did, pasid, did, 'entry');
      return cache.invalidatePasid(1, 2);
    });
    expect(dropped).toEqual([1, 3, 6]);
  });

  test('one PASID of many functions does not thrash a set', () => {
    const cache = new PasidCache<number>({ geometry: { sets: 16, ways: 1 } });
    for (let sourceId = 0; sourceId < 16; sourceId++) cache.fill(sourceId, 5, 1, sourceId);
    expect(cache.size).toBe(16);
  });

  test('the reserved granularity, and an unknown variant, are refused', () => {
    const cache = new PasidCache<number>();
    cache.fill(8, 1, 1, 7);
    for (const reserved of [2, 4, 0.5])
      expect(() => cache.invalidate(reserved as 0, 1, 1)).toThrow(`granularity: ${reserved} is not one of 0, 1, 3`);
    expect(cache.size).toBe(1);
    expect(() => new PasidCache({ finestInvalidation: 'page' as 'pasid' })).toThrow(
      'finestInvalidation: page is not one of pasid, domain, global',
    );
  });

  test('numbers that no request carries are refused in hexadecimal; an empty slot holds nothing', () => {
    const cache = new PasidCache<number>();
    expect(() => cache.fill(8, 0x100000, 1, 0)).toThrow('pasid: 0x100000 is not an integer in 0..0xfffff');
    expect(() => cache.fill(0x10000, 1, 1, 0)).toThrow('sourceId: 0x10000 is not an integer in 0..0xffff');
    for (const wrong of [-1, 0.5, Number.NaN, 2 ** 32, 2 ** 53]) {
      expect(() => cache.fill(8, wrong, 1, 0)).toThrow(RangeError);
      expect(() => cache.fill(wrong, 1, 1, 0)).toThrow(RangeError);
      expect(() => new Iotlb().fill(wrong, 1, 0, 0, 1, 3, 0, 3)).toThrow(RangeError);
    }
    const slot = cache.fill(8, 1, 1, 7);
    cache.invalidateGlobal();
    expect(() => cache.valueAt(slot)).toThrow(RangeError);
    expect(new PasidCache<number>({ geometry: { sets: 1, ways: 0 } }).fill(8, 1, 1, 7)).toBe(-1);
  });
});
