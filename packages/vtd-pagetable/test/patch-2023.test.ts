import { runToEnd } from '@faultline/sim';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  InvalidationGather,
  type Patch2023Defects,
  SecondStageTable,
  SS_DIRTY,
  TableMemory,
  unmapByPatch2023,
} from '../src/index.ts';
import { slotOf } from './naive-table.ts';
import { PLAIN } from './plain-agent.ts';

const G = 262_144;
const rights = { read: true, write: true };
const NONE: Patch2023Defects = {
  D1: false,
  D3: false,
  D4: false,
  D5: false,
  D6: false,
  D7: false,
  D8: false,
  D9: false,
};
/** No memory beside the tables: whoever reads a word of it has taken a leaf for a table. */
const NO_MEMORY = { contains: () => false, loadWord: () => 0n, storeWord: () => undefined };
const SOFTWARE_BITS = 0x8550_0000_0000_0000n;

function newTable(pages = 64, reservePages = 4): SecondStageTable {
  const table = new SecondStageTable({ memory: new TableMemory({ pages }), accessedDirty: true, reservePages });
  table.map({ page: G, frame: 5 * G, pages: 2 * G, rights, attributes: SOFTWARE_BITS });
  return table;
}

function unmap(table: SecondStageTable, page: number, pages: number, defects: Partial<Patch2023Defects> = {}) {
  const gather = new InvalidationGather();
  const request = { page, pages, defects: { ...NONE, ...defects } };
  const result = runToEnd(unmapByPatch2023(PLAIN, table, request, gather, NO_MEMORY));
  return { ...result, gather };
}

const translations = (table: SecondStageTable) =>
  [...table.allLeaves()].map(({ level, page, frame, entry }) => [level, page, frame, entry >> 52n]);

const ranges = fc
  .tuple(fc.nat(2 * G - 1), fc.constantFrom(1, 511, 512, 513, 5000, G - 1, G, G + 1))
  .map(([page, pages]) => ({ page: G + page, pages: Math.min(pages, 2 * G - page) }));

describe('the posted patch without its defects', () => {
  it('leaves what a cut in two installs and an unmap leave, and gives the same tables back', () => {
    fc.assert(
      fc.property(ranges, ({ page, pages }) => {
        const table = newTable();
        const { failed, unsplit, gather } = unmap(table, page, pages);
        const other = newTable();
        const owed = new InvalidationGather();
        other.cut(page, pages, owed, { installs: 'two' });
        expect(other.unmap(page, pages, owed)).toBe(pages);
        expect([failed, unsplit, translations(table)]).toEqual([null, null, translations(other)]);
        expect(table.leafCounts).toEqual(other.leafCounts);
        // Both owe the whole of every leaf that was split.
        expect([gather.firstPage, gather.lastPage]).toEqual([owed.firstPage, owed.lastPage]);
        for (const [each, debts] of [
          [table, gather],
          [other, owed],
        ] as const)
          each.settle(debts);
        expect(table.tablePages).toBe(other.tablePages);
        table.destroy();
        expect(table.memory.used).toBe(0);
      }),
      { numRuns: 60 },
    );
  });

  it('can be read at every step, under no lock', () => {
    const table = newTable();
    unmap(table, G + 700, 5);
    const request = { page: G, pages: 1024, defects: NONE };
    const steps = unmapByPatch2023(PLAIN, table, request, new InvalidationGather(), NO_MEMORY);
    let seen = 0;
    while (!steps.next().done)
      for (const page of [G, G + 600, G + 701, G + 1024]) {
        table.leafAt(page);
        seen++;
      }
    expect(seen).toBeGreaterThan(1000);
    expect(table.leafAt(G + 600)).toBeNull();
  });

  it('fails whole when not even the reserve has a table page, and says so', () => {
    const table = newTable(3, 0);
    while (table.memory.allocate() >= 0);
    const before = translations(table);
    expect([unmap(table, G + 7, 1).failed, translations(table)]).toEqual(['ENOMEM', before]);
  });
});

describe('its defect', () => {
  it('D3 reports success where the second split has failed', () => {
    const short = (): SecondStageTable => newTable(3, 0); // root, its table, and one for the first split
    expect(unmap(short(), G + 7, 1).failed).toBe('ENOMEM');
    const table = short();
    expect([unmap(table, G + 7, 1, { D3: true }).failed, table.frameAt(G + 7)]).toEqual([null, 5 * G + 7]);
  });

  it('D4 takes a leaf for a table that a longer range covers only in part', () => {
    const { unsplit } = unmap(newTable(), G + 7, 700, { D4: true });
    expect(unsplit?.badAddress).toMatchObject({ level: 1, pfn: 5 * G, index: 7 });
    expect(unmap(newTable(), G + 7, 700).unsplit).toBe(null);
  });

  it('D6 asks only the host for a table page', () => {
    const table = newTable(64, 4);
    while (table.memory.allocate() >= 0);
    expect(unmap(table, G + 7, 1, { D6: true }).failed).toBe('ENOMEM');
    expect([unmap(table, G + 7, 1).failed, table.frameAt(G + 7), table.frameAt(G + 8)]).toEqual([null, -1, 5 * G + 8]);
  });

  it('D7 makes one dirty 1G leaf 1,022 dirty leaves and one reported page; off, the old leaf is reported once', () => {
    const dirtyLeaves = (table: SecondStageTable) =>
      [...table.allLeaves()].filter(({ page, entry }) => page < 2 * G && (entry & SS_DIRTY) !== 0n).length;
    for (const D7 of [true, false]) {
      const table = newTable();
      const { pfn, index } = slotOf(table, G) as { pfn: number; index: number };
      table.memory.store(pfn, index, table.memory.load(pfn, index) | SS_DIRTY);
      const { gather } = unmap(table, G + 7, 1, { D7 });
      // 511 of 2M and 511 of 4K; the page itself goes, and is reported.
      expect(dirtyLeaves(table)).toBe(D7 ? 1022 : 0);
      expect(table.settle(gather)).toEqual([D7 ? { page: G + 7, pages: 1 } : { page: G, pages: G }]);
    }
  });

  it('D8 loses the bits above the address', () => {
    const high = (table: SecondStageTable) => (table.leafAt(G + 8)?.entry ?? 0n) & SOFTWARE_BITS;
    const [lost, kept] = [newTable(), newTable()];
    unmap(lost, G + 7, 1, { D8: true });
    unmap(kept, G + 7, 1);
    expect([high(lost), high(kept)]).toEqual([0n, SOFTWARE_BITS]);
  });

  it('D9 owes only the range', () => {
    const { gather } = unmap(newTable(), G + 7, 1, { D9: true });
    expect([gather.firstPage, gather.lastPage]).toEqual([G + 7, G + 7]);
  });

  it('D1 publishes a table that hardware cannot read yet', () => {
    for (const D1 of [true, false]) {
      const table = new SecondStageTable({ memory: new TableMemory({ pages: 64, coherent: false }) });
      table.map({ page: 0, frame: 0, pages: 512, rights });
      const request = { page: 7, pages: 1, defects: { ...NONE, D1 } };
      runToEnd(unmapByPatch2023(PLAIN, table, request, new InvalidationGather(), NO_MEMORY));
      const { pfn } = slotOf(table, 100) as { pfn: number };
      expect([table.memory.hardwareLoad(pfn, 100) === 0n, table.memory.load(pfn, 100) === 0n]).toEqual([D1, false]);
    }
  });
});
