import { runToEnd } from '@faultline/sim';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  accessedNow,
  InvalidationGather,
  readAndClearAccessed,
  SecondStageTable,
  SS_ACCESSED,
  SS_DIRTY,
  TableMemory,
} from '../src/index.ts';
import { slotOf } from './naive-table.ts';
import { PLAIN } from './plain-agent.ts';

const G = 262_144;
const rights = { read: true, write: true };
/** A 1G leaf, two 2M leaves and three 4K ones, in a row from G on. */
const PAGES = G + 1024 + 3;

function newTable(accessedDirty = true): SecondStageTable {
  const table = new SecondStageTable({ memory: new TableMemory({ pages: 16 }), accessedDirty });
  table.map({ page: G, frame: 0, pages: PAGES, rights });
  return table;
}

function setBits(table: SecondStageTable, page: number, bits: bigint): void {
  const { pfn, index } = slotOf(table, page) as { pfn: number; index: number };
  table.memory.store(pfn, index, table.memory.load(pfn, index) | bits);
}

function harvest(table: SecondStageTable, page: number, pages: number, clear: boolean) {
  const gather = new InvalidationGather();
  const reported: [number, number][] = [];
  const count = accessedNow(table, { page, pages, clear }, gather, (first, size) => reported.push([first, size]));
  expect(count).toBe(reported.length);
  return { reported, gather };
}

describe('a harvest of accessed bits', () => {
  it('reports whole leaves whatever part was asked for, clears A alone, and gathers the whole leaf', () => {
    const table = newTable();
    setBits(table, G, SS_ACCESSED | SS_DIRTY);
    setBits(table, 2 * G + 600, SS_ACCESSED);
    const { reported, gather } = harvest(table, G + 7, 1, true);
    expect([reported, gather.firstPage, gather.lastPage, gather.leafOnly]).toEqual([[[G, G]], G, 2 * G - 1, true]);
    expect((table.leafAt(G)?.entry ?? 0n) & (SS_ACCESSED | SS_DIRTY)).toBe(SS_DIRTY);
    expect(harvest(table, G, PAGES, false).reported).toEqual([[2 * G + 512, 512]]);
    expect(harvest(table, G, PAGES, false).gather.empty).toBe(true);
  });

  it('finds in any range the leaves that a look at each page finds', () => {
    const used = fc.array(fc.constantFrom(G, 2 * G, 2 * G + 512, 2 * G + 1024, 2 * G + 1025, 2 * G + 1026));
    const range = fc.record({ page: fc.nat(PAGES), pages: fc.constantFrom(1, 2, 500, 1024, G) });
    fc.assert(
      fc.property(used, range, fc.boolean(), (all, { page, pages }, clear) => {
        const table = newTable();
        for (const each of all) setBits(table, each, SS_ACCESSED);
        const expected = [...table.allLeaves()]
          .map((leaf) => ({ leaf, size: 512 ** (leaf.level - 1) }))
          .filter(({ leaf, size }) => leaf.page < G + page + pages && G + page < leaf.page + size)
          .filter(({ leaf }) => (leaf.entry & SS_ACCESSED) !== 0n)
          .map(({ leaf, size }) => [leaf.page, size]);
        expect(harvest(table, G + page, pages, clear).reported).toEqual(expected);
        expect(harvest(table, G + page, pages, clear).reported).toEqual(clear ? [] : expected);
      }),
    );
  });

  it('is one step as a task, and refused where hardware sets no A', () => {
    const table = newTable();
    setBits(table, G, SS_ACCESSED);
    const task = readAndClearAccessed(
      PLAIN,
      table,
      { page: G, pages: 1, clear: true },
      new InvalidationGather(),
      () => undefined,
    );
    expect(task.next().done).toBe(false);
    expect(task.next()).toEqual({ done: true, value: 1 });
    const none = () => undefined;
    const request = { page: G, pages: 1, clear: true };
    expect(() =>
      runToEnd(readAndClearAccessed(PLAIN, newTable(false), request, new InvalidationGather(), none)),
    ).toThrow('EOPNOTSUPP: the unit sets no accessed bits in this table');
  });
});
