import { Agent } from '@faultline/sim';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type CutOptions, cut, InvalidationGather, SecondStageTable, TableMemory } from '../src/index.ts';
import { slotOf } from './naive-table.ts';
import { PLAIN } from './plain-agent.ts';

const G = 262_144;
const rights = { read: true, write: true };

function newTable(
  options: { pages?: number; allocationMayFail?: boolean; reservePages?: number } = {},
): SecondStageTable {
  const { pages = 64, ...rest } = options;
  return new SecondStageTable({ memory: new TableMemory({ pages }), accessedDirty: true, ...rest });
}

const entries = (table: SecondStageTable) => [...table.allLeaves()].map(({ page, entry }) => [page, entry]);

/** Any range in and around two 1G leaves and two 2M leaves at G. */
const ranges = fc
  .tuple(fc.nat(2 * G + 1023), fc.constantFrom(1, 2, 511, 512, 513, 5000, G - 1, G, G + 1))
  .map(([page, pages]) => ({ page: G + page, pages: Math.min(pages, 2 * G + 1024 - page) }));
const options = fc.record({
  installs: fc.constantFrom<NonNullable<CutOptions['installs']>>('one', 'two'),
  accessedDirty: fc.constantFrom<NonNullable<CutOptions['accessedDirty']>>('inherit', 'clear-after-harvest'),
});

describe('a cut by any policy', () => {
  it('is optimal: with the range unmapped, the leaves are those of two maps, left and right of it', () => {
    fc.assert(
      fc.property(ranges, options, ({ page, pages }, policy) => {
        const all = 2 * G + 1024;
        const table = newTable();
        table.map({ page: G, frame: 5 * G, pages: all, rights });
        const gather = new InvalidationGather();
        expect(table.cut(page, pages, gather, policy).ok).toBe(true);
        expect(table.unmap(page, pages, gather)).toBe(pages);
        const apart = newTable();
        if (page > G) apart.map({ page: G, frame: 5 * G, pages: page - G, rights });
        const end = page + pages;
        if (end < G + all) apart.map({ page: end, frame: 4 * G + end, pages: G + all - end, rights });
        expect(entries(table)).toEqual(entries(apart));
        expect(table.settle(gather)).toEqual([]);
        expect(table.leafCounts).toEqual(apart.leafCounts);
      }),
      { numRuns: 150 },
    );
  });
  it('with two installs goes through 2M, and keeps the first if the second finds no page', () => {
    const table = newTable();
    table.map({ page: G, frame: 0, pages: G, rights });
    const gather = new InvalidationGather();
    expect(table.cut(G + 700, 1, gather, { installs: 'two' })).toEqual({ ok: true, installs: 2, retries: 0 });
    expect([table.leafCounts, gather.firstPage, gather.lastPage]).toEqual([
      { '4K': 512, '2M': 511, '1G': 0 },
      G,
      2 * G - 1,
    ]);
    // Root, the table below it, and one more: no page for the second.
    const short = newTable({ pages: 3, reservePages: 0 });
    short.map({ page: G, frame: 0, pages: G, rights });
    const before = entries(short);
    expect(short.cut(G + 700, 1, gather)).toEqual({ ok: false, installs: 0, retries: 0 });
    expect([entries(short), short.memory.used]).toEqual([before, 2]);
    expect(short.cut(G + 700, 1, gather, { installs: 'two' })).toEqual({ ok: false, installs: 1, retries: 0 });
    expect([short.leafCounts, short.frameAt(G + 700), short.memory.used]).toEqual([
      { '4K': 0, '2M': 512, '1G': 0 },
      700,
      3,
    ]);
    short.destroy();
    expect(short.memory.used).toBe(0);
  });
});

describe('D of the old leaf', () => {
  function dirty(accessedDirty: CutOptions['accessedDirty'], page: number, bits: bigint) {
    const table = newTable();
    table.map({ page: G, frame: 0, pages: G + 512, rights });
    const { pfn, index } = slotOf(table, page) as { pfn: number; index: number };
    table.memory.store(pfn, index, table.memory.load(pfn, index) | bits);
    const gather = new InvalidationGather();
    table.cut(page, 1, gather, accessedDirty === undefined ? {} : { accessedDirty });
    const seen = new Set(
      [...table.allLeaves()].filter((leaf) => leaf.page >= G && leaf.page < 2 * G).map(({ entry }) => entry & 0x300n),
    );
    return { seen: [...seen], harvest: table.settle(gather), again: table.settle(gather) };
  }
  it('is inherited by every part, or reported whole by settle, once, and A is inherited either way', () => {
    const page = G + 70_001;
    expect(dirty('inherit', page, 0x300n)).toEqual({ seen: [0x300n], harvest: [], again: [] });
    expect(dirty(undefined, page, 0x300n).seen).toEqual([0x300n]);
    const harvest = [{ page: G, pages: G }];
    expect(dirty('clear-after-harvest', page, 0x300n)).toEqual({ seen: [0x100n], harvest, again: [] });
    expect(dirty('clear-after-harvest', page, 0x100n)).toEqual({ seen: [0x100n], harvest: [], again: [] });
  });
  it('set by hardware at any step before the install is harvested', () => {
    // Two reads on the way down, two tables, the install: five steps.
    for (let at = 0; at < 5; at++) {
      const table = newTable();
      table.map({ page: G, frame: 0, pages: G, rights });
      const { pfn, index } = slotOf(table, G) as { pfn: number; index: number };
      const gather = new InvalidationGather();
      const task = cut(PLAIN, table, G + 5, 1, gather, { accessedDirty: 'clear-after-harvest' });
      for (let count = 0; !task.next().done; count++)
        if (count === at) table.memory.store(pfn, index, table.memory.load(pfn, index) | 0x300n);
      expect(table.settle(gather)).toEqual([{ page: G, pages: G }]);
      expect([...table.allLeaves()].some(({ entry }) => (entry & 0x200n) !== 0n)).toBe(false);
    }
  });
});

it('the reserve says what it costs and how near it came to its end', () => {
  const table = newTable({ allocationMayFail: true });
  table.map({ page: G, frame: 0, pages: 2 * G, rights });
  expect([table.reserve.heldBytes, table.reserve.lowWater]).toEqual([16_384, 4]);
  const task = cut(new Agent('notifier'), table, G + 70_001, G, new InvalidationGather());
  for (let step = task.next(); !step.done; step = task.next()) if (step.value.choices > 0) step.value.chosen = 1;
  // Two tables for each end of the range, all from the reserve: what one range can need at most.
  expect([table.reserve.taken, table.reserve.heldBytes, table.reserve.lowWater]).toEqual([4, 0, 0]);
});

it.each([-1, 1.5, Number.NaN, Number.POSITIVE_INFINITY])(
  'a reserve of %s pages is refused, and no page is lost',
  (reservePages) => {
    const memory = new TableMemory({ pages: 8 });
    expect(() => new SecondStageTable({ memory, reservePages })).toThrow(
      new RangeError(`reservePages: ${reservePages} is not a number of pages`),
    );
    expect(memory.used).toBe(0);
  },
);

it('a reserve of more pages than there are takes what there is, at once', () => {
  const memory = new TableMemory({ pages: 8 });
  const table = new SecondStageTable({ memory, reservePages: Number.MAX_SAFE_INTEGER });
  expect([table.reserve.held, memory.used]).toEqual([7, 8]);
});

it.each([2, 6, 3.5])('a table of %s levels is refused, and no page is lost', (levels) => {
  const memory = new TableMemory({ pages: 8 });
  expect(() => new SecondStageTable({ memory, levels: levels as 3 })).toThrow(
    new RangeError(`levels: ${levels} is not 3, 4 or 5`),
  );
  expect(memory.used).toBe(0);
});

describe('a misspelled choice', () => {
  const refuses = (act: (table: SecondStageTable, gather: InvalidationGather) => unknown, message: string) => {
    const table = newTable();
    table.map({ page: G, frame: 0, pages: G, rights });
    const before = entries(table);
    const gather = new InvalidationGather();
    expect(() => act(table, gather)).toThrow(message);
    expect([entries(table), gather.empty]).toEqual([before, true]);
  };

  it('of a cut or an unmap is refused, and nothing is changed', () => {
    refuses((table, gather) => table.unmap(G, 1, gather, 'whole' as 'whole-leaf'), 'partialLeaf: "whole" is neither');
    refuses(
      (table, gather) => table.cut(G, 1, gather, { installs: 2 as never }),
      'installs: 2 is neither "one" nor "two"',
    );
    refuses(
      (table, gather) => table.cut(G, 1, gather, { accessedDirty: 'harvest' as 'inherit' }),
      'accessedDirty: "harvest" is neither "inherit" nor "clear-after-harvest"',
    );
  });
});
