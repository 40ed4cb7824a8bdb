import { RandomStream } from '@faultline/sim';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Iotlb, type ReplacementPolicy } from '../src/index.ts';

/** One set of 4K entries of the given ways, as a plain list of the pages that it holds. */
function oneSet(ways: number, replacement: ReplacementPolicy) {
  const none = { sets: 1, ways: 0 };
  const cache = new Iotlb({ geometry: { '4K': { sets: 1, ways, replacement }, '2M': none, '1G': none } });
  return {
    cache,
    /** @returns whether it hit */
    use(page: number): boolean {
      if (cache.lookup(8, 0, page << 12) >= 0) return true;
      cache.fill(8, 1, 0, page << 12, 1, page << 12, 0, 3);
      return false;
    },
    drop: (page: number): number => cache.invalidatePages(1, 0, page << 12, 0),
    held: (): number[] => [...cache.entries()].map(({ iova }) => Number(iova >> 12n)).sort((a, b) => a - b),
  };
}

const program = fc.array(
  fc.oneof(
    { weight: 5, arbitrary: fc.record({ use: fc.nat(40) }) },
    { weight: 1, arbitrary: fc.record({ drop: fc.nat(40) }) },
  ),
  { maxLength: 200 },
);

describe('replacement', () => {
  for (const ways of [1, 3, 16, 17, 32])
    test(`lru, ${ways} ways: equal to a list by age`, () => {
      fc.assert(
        fc.property(program, (steps) => {
          const set = oneSet(ways, 'lru');
          let newestFirst: number[] = [];
          for (const step of steps) {
            if ('drop' in step) {
              expect(set.drop(step.drop)).toBe(newestFirst.includes(step.drop) ? 1 : 0);
              newestFirst = newestFirst.filter((page) => page !== step.drop);
            } else {
              expect(set.use(step.use)).toBe(newestFirst.includes(step.use));
              newestFirst = [step.use, ...newestFirst.filter((page) => page !== step.use)].slice(0, ways);
            }
          }
          expect(set.held()).toEqual([...newestFirst].sort((a, b) => a - b));
        }),
      );
    });

  test('pseudo-lru: equal to a tree written as nested halves', () => {
    /** The way that a half gives up: of two halves the one that was not used last, and so on down. */
    class Half {
      colder = 0;
      readonly first: number;
      readonly ways: number;
      readonly children: readonly Half[];
      constructor(first: number, ways: number) {
        this.first = first;
        this.ways = ways;
        this.children = ways === 1 ? [] : [new Half(first, ways / 2), new Half(first + ways / 2, ways / 2)];
      }
      used(way: number): void {
        if (this.ways === 1) return;
        const index = way < this.first + this.ways / 2 ? 0 : 1;
        this.colder = 1 - index;
        this.children[index]?.used(way);
      }
      victim(): number {
        return this.children[this.colder]?.victim() ?? this.first;
      }
    }
    fc.assert(
      fc.property(fc.constantFrom(1, 2, 4, 8), fc.array(fc.nat(20), { maxLength: 100 }), (ways, pages) => {
        const set = oneSet(ways, 'pseudo-lru');
        const tree = new Half(0, ways);
        const held: number[] = [];
        for (const page of pages) {
          let way = held.indexOf(page);
          expect(set.use(page)).toBe(way >= 0);
          if (way < 0) {
            way = held.length < ways ? held.length : tree.victim();
            held[way] = page;
          }
          tree.used(way);
          expect(set.held()).toEqual([...held].sort((a, b) => a - b));
        }
      }),
    );
  });

  test('random: the stream chooses the way, and only when the set is full', () => {
    const asked: number[] = [];
    const choices = [2, 0, 3];
    const below = (bound: number): number => {
      asked.push(bound);
      return choices[asked.length - 1] as number;
    };
    const set = oneSet(4, { random: { below } });
    for (const page of [10, 11, 12, 13]) set.use(page);
    expect(asked).toEqual([]);
    for (const page of [20, 21, 22]) set.use(page);
    expect(set.held()).toEqual([11, 20, 21, 22]);
    expect(asked).toEqual([4, 4, 4]);
  });

  test('random from a named stream: one seed, one result, and every way is chosen', () => {
    const run = (seed: number): number[] => {
      const set = oneSet(4, { random: new RandomStream(seed, 'iotlb') });
      for (let page = 0; page < 100; page++) set.use(page);
      return set.held();
    };
    expect(run(1)).toEqual(run(1));
    expect(new Set([1, 2, 3, 4, 5].map((seed) => run(seed).join())).size).toBeGreaterThan(1);
  });

  for (const replacement of ['pseudo-lru', { random: new RandomStream(1, 'iotlb') }] as const)
    test(`${replacement === 'pseudo-lru' ? replacement : 'random'}: a dropped way is used before anything is evicted`, () => {
      const set = oneSet(4, replacement);
      for (const page of [0, 1, 2, 3]) set.use(page);
      set.drop(1);
      set.drop(3);
      set.use(4);
      set.use(5);
      expect(set.held()).toEqual([0, 2, 4, 5]);
      expect(set.cache.counters.evictions).toBe(0);
      set.use(6);
      expect(set.cache.counters.evictions).toBe(1);
    });

  test('a tree needs a power of two', () => {
    expect(() => oneSet(3, 'pseudo-lru')).toThrow('IOTLB 4K: ways of a pseudo-LRU must be a power of two, got 3');
  });
});

describe('one array for all sizes', () => {
  test('sizes compete for its entries', () => {
    const cache = new Iotlb({ geometry: { shared: { sets: 1, ways: 2 } } });
    cache.fill(8, 1, 0, 0, 3, 0x83, 0, 3);
    cache.fill(8, 1, 1, 0, 1, 0x1003, 0, 3);
    cache.fill(8, 1, 2, 0, 2, 0x20_0083, 0, 3);
    expect([...cache.entries()].map(({ level, iova }) => [level, iova])).toEqual([
      [1, 1n << 32n],
      [2, 2n << 32n],
    ]);
    expect(cache.counters).toMatchObject({ fills: 3, evictions: 1 });
    expect([cache.lookup(8, 0, 0), cache.levelAt(cache.lookup(8, 2, 0x1f_f000))]).toEqual([-1, 2]);
  });

  test('the set is chosen by the page number of the entry’s own size', () => {
    const cache = new Iotlb({ geometry: { shared: { sets: 2, ways: 1 } } });
    cache.fill(8, 1, 0, 0x20_0000, 2, 0x20_0083, 0, 3); // 2M page 1: set 1
    cache.fill(8, 1, 0, 0x40_0000, 1, 0x3, 0, 3); // 4K page 0x400: set 0
    expect(cache.size).toBe(2);
    cache.fill(8, 1, 0, 0x40_1000, 1, 0x3, 0, 3); // 4K page 0x401: set 1
    expect([...cache.entries()].map(({ level }) => level)).toEqual([1, 1]);
  });

  test('is never larger than it is, whatever the sizes', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.constantFrom(1, 2, 3), fc.nat(30)), { maxLength: 100 }), (fills) => {
        const cache = new Iotlb({ geometry: { shared: { sets: 2, ways: 3 } } });
        for (const [level, page] of fills) {
          cache.fill(8, 1, page, 0, level as 1 | 2 | 3, 0x3, 0, 3);
          expect(cache.levelAt(cache.lookup(8, page, 0))).toBeLessThanOrEqual(level);
        }
        expect(cache.size).toBe([...cache.entries()].length);
        expect(cache.size).toBeLessThanOrEqual(6);
      }),
    );
  });
});
