import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { PagingStructureCache, type TableLevel } from '../src/index.ts';

const hi = (address: bigint): number => Number(BigInt.asIntN(32, address >> 32n));
const lo = (address: bigint): number => Number(BigInt.asIntN(32, address));
const span = (level: number): bigint => 1n << BigInt(12 + 9 * level);
const big = { sets: 1, ways: 512 };
const unbounded = { pde: big, pdpe: big, pml4e: big, pml5e: big };

const iovaArbitrary = fc
  .tuple(fc.nat(2), fc.nat(2), fc.nat(2), fc.nat(2), fc.nat(511))
  .map(([p5, p4, g, m, k]) =>
    [
      BigInt(p5) << 48n,
      BigInt(p4 * 200) << 39n,
      BigInt(g * 200) << 30n,
      BigInt(m * 200) << 21n,
      BigInt(k) << 12n,
    ].reduce((sum, part) => sum + part),
  );
const didArbitrary = fc.constantFrom(1, 2, 0xffff);

describe('PagingStructureCache against a map', () => {
  test('look-up, fill, page invalidation with every address mask and both hints', () => {
    const operation = fc.oneof(
      fc.record({
        kind: fc.constant('fill' as const),
        did: didArbitrary,
        iova: iovaArbitrary,
        level: fc.constantFrom<TableLevel>(1, 2, 3, 4),
        pfn: fc.integer({ min: 0, max: 2 ** 40 - 1 }),
      }),
      fc.record({ kind: fc.constant('lookup' as const), did: didArbitrary, iova: iovaArbitrary }),
      fc.record({
        kind: fc.constant('pages' as const),
        did: didArbitrary,
        iova: iovaArbitrary,
        am: fc.nat(63),
        ih: fc.constantFrom<0 | 1>(0, 0, 1),
      }),
      fc.record({ kind: fc.constant('domain' as const), did: didArbitrary }),
    );
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 80 }), (program) => {
        const cache = new PagingStructureCache(unbounded);
        const map = new Map<string, { did: number; level: number; start: bigint; pfn: number }>();
        const drop = (matches: (entry: { did: number; level: number; start: bigint }) => boolean): number => {
          const doomed = [...map].filter(([, entry]) => matches(entry));
          for (const [key] of doomed) map.delete(key);
          return doomed.length;
        };
        for (const op of program) {
          if (op.kind === 'fill') {
            const start = (op.iova / span(op.level)) * span(op.level);
            const slot = cache.fill(op.did, hi(op.iova), lo(op.iova), op.level, op.pfn, 3);
            expect(cache.levelAt(slot)).toBe(op.level);
            map.set(`${op.did}/${op.level}/${start}`, { did: op.did, level: op.level, start, pfn: op.pfn });
          } else if (op.kind === 'lookup') {
            const slot = cache.lookup(op.did, hi(op.iova), lo(op.iova));
            const expected = [1, 2, 3, 4]
              .map((level) => map.get(`${op.did}/${level}/${(op.iova / span(level)) * span(level)}`))
              .find((entry) => entry !== undefined);
            expect(slot < 0 ? undefined : [cache.levelAt(slot), cache.tablePfnAt(slot)]).toEqual(
              expected && [expected.level, expected.pfn],
            );
          } else if (op.kind === 'domain') {
            expect(cache.invalidateDomain(op.did)).toBe(drop((entry) => entry.did === op.did));
          } else {
            const length = 1n << BigInt(12 + op.am);
            const start = (op.iova / length) * length;
            const dropped = cache.invalidatePages(op.did, hi(op.iova), lo(op.iova), op.am, op.ih);
            const overlaps = (entry: { level: number; start: bigint }): boolean =>
              entry.start < start + length && start < entry.start + span(entry.level);
            expect(dropped).toBe(op.ih === 1 ? 0 : drop((entry) => entry.did === op.did && overlaps(entry)));
          }
          expect(cache.size).toBe(map.size);
        }
        expect([...cache.entries()].map((e) => `${e.did}/${e.level}/${e.iova}/${e.tablePfn}`).sort()).toEqual(
          [...map.values()].map((e) => `${e.did}/${e.level}/${e.start}/${e.pfn}`).sort(),
        );
        expect(cache.invalidateGlobal()).toBe(map.size);
      }),
      { numRuns: 300 },
    );
  });

  test('a level that has no cache is refused', () => {
    for (const level of [0, 5, 1.5])
      expect(() => new PagingStructureCache().fill(1, 0, 0, level as TableLevel, 0x10, 3)).toThrow(
        `level: ${level} is not one of 1, 2, 3, 4`,
      );
  });

  test('the deepest entry answers; counters say from which level', () => {
    const cache = new PagingStructureCache();
    cache.fill(1, 0, 0, 3, 0x30, 3);
    cache.fill(1, 0, 0, 1, 0x10, 1);
    expect(cache.tablePfnAt(cache.lookup(1, 0, 0x1f_f000))).toBe(0x10);
    expect(cache.rightsAt(cache.lookup(1, 0, 0))).toBe(1);
    expect(cache.tablePfnAt(cache.lookup(1, 0, 0x20_0000))).toBe(0x30);
    expect(cache.lookup(2, 0, 0)).toBe(-1);
    expect(cache.counters).toMatchObject({ lookups: 4, hitsByLevel: [0, 2, 0, 1, 0], fills: 2 });
  });

  test('a level without ways caches nothing, and counts nothing as cached', () => {
    const cache = new PagingStructureCache({ ...unbounded, pde: { sets: 1, ways: 0 } });
    expect([cache.fill(1, 0, 0, 1, 0x10, 3), cache.fill(1, 0, 0, 2, 0x20, 3) >= 0]).toEqual([-1, true]);
    expect([cache.size, cache.counters.fills, cache.levelAt(cache.lookup(1, 0, 0))]).toEqual([1, 1, 2]);
  });

  test.each([
    ['each level its own array', { pde: { sets: 1, ways: 2 }, pdpe: { sets: 1, ways: 2 }, pml4e: big, pml5e: big }],
    ['one array for all', { shared: { sets: 1, ways: 3 } }],
  ] as const)('every entry has a slot of its own, and each that had to make room is counted: %s', (_name, geometry) => {
    const cache = new PagingStructureCache(geometry);
    for (let nth = 0; nth < 7; nth++) cache.fill(1, nth, 0, ((nth % 2) + 1) as TableLevel, nth, 3);
    const entries = [...cache.entries()];
    expect(entries.map(({ slot }) => Number.isInteger(slot) && slot >= 0)).not.toContain(false);
    expect(new Set(entries.map(({ slot }) => slot)).size).toBe(cache.size);
    expect(cache.counters).toMatchObject({ fills: 7, evictions: 7 - cache.size });
    for (const { slot, level, tablePfn } of entries)
      expect([cache.levelAt(slot), cache.tablePfnAt(slot)]).toEqual([level, tablePfn]);
  });

  test('hardware that knows only global invalidations drops other domains, too; each is counted once', () => {
    const filled = (finestInvalidation: 'page' | 'domain' | 'global') => {
      const cache = new PagingStructureCache(unbounded, { finestInvalidation });
      for (const did of [1, 2]) for (const g of [0, 1]) cache.fill(did, 0, g << 30, 1, 0x10, 3);
      return cache;
    };
    const left = (cache: PagingStructureCache) => [...cache.entries()].map(({ did, iova }) => `${did}/${iova >> 30n}`);
    for (const [finest, byDomain, byPage] of [
      ['page', ['2/0', '2/1'], ['1/1', '2/0', '2/1']],
      ['domain', ['2/0', '2/1'], ['2/0', '2/1']],
      ['global', [], []],
    ] as const) {
      const domain = filled(finest);
      expect(domain.invalidateDomain(1)).toBe(4 - byDomain.length);
      expect(left(domain).sort()).toEqual(byDomain);
      expect(domain.counters).toMatchObject({ invalidations: 1, dropped: 4 - byDomain.length });
      const page = filled(finest);
      page.invalidatePages(1, 0, 0, 0, 0);
      expect(left(page).sort()).toEqual(byPage);
      page.invalidatePages(1, 0, 0, 0, 1);
      expect(page.counters).toMatchObject({ invalidations: 2, dropped: 4 - byPage.length });
    }
  });
});
