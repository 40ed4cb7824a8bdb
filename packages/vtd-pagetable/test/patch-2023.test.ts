import { runToEnd } from '@faultline/sim';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  InvalidationGather,
  type Patch2023Defects,
  type PhysicalWords,
  SecondStageTable,
  SS_DIRTY,
  TableMemory,
  unmapByPatch2023,
} from '../src/index.ts';
import { MeddledMemory } from './meddled-memory.ts';
import { reachedTables, slotOf } from './naive-table.ts';
import { PLAIN } from './plain-agent.ts';
import { WatchedMemory } from './watched-memory.ts';

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

function newTable(pages = 64, reservePages = 4, memory = new TableMemory({ pages })): SecondStageTable {
  const table = new SecondStageTable({ memory, accessedDirty: true, reservePages });
  table.map({ page: G, frame: 5 * G, pages: 2 * G, rights, attributes: SOFTWARE_BITS });
  return table;
}

function unmap(
  table: SecondStageTable,
  page: number,
  pages: number,
  defects: Partial<Patch2023Defects> = {},
  physical: PhysicalWords = NO_MEMORY,
) {
  const gather = new InvalidationGather();
  const request = { page, pages, defects: { ...NONE, ...defects } };
  const result = runToEnd(unmapByPatch2023(PLAIN, table, request, gather, physical));
  return { ...result, gather };
}

const translations = (table: SecondStageTable) =>
  [...table.allLeaves()].map(({ level, page, frame, entry }) => [level, page, frame, entry]);

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

describe('entries that the range covers whole', () => {
  it('go with the tables below them, each of which is on the list once, at its place', () => {
    const table = newTable();
    expect(unmap(table, G + 700, 5).failed).toBeNull();
    expect([table.splits[2], table.splits[3]]).toEqual([1, 1]);
    const below = [...reachedTables(table)]
      .filter(([, { level }]) => level < 3)
      .map(([pfn, { level, page }]) => ({ pfn, level, page, leafLevel: 0 }));
    const { failed, unsplit, gather } = unmap(table, G, G);
    expect([failed, unsplit, table.leafCounts]).toEqual([null, null, { '4K': 0, '2M': 0, '1G': 1 }]);
    const byLevel = (a: { level: number }, b: { level: number }) => a.level - b.level;
    expect([...gather.lateTables].sort(byLevel)).toEqual([...below].sort(byLevel));
    expect([...gather.freedTables].sort()).toEqual(below.map(({ pfn }) => pfn).sort());
    expect([gather.firstPage, gather.lastPage]).toEqual([G, 2 * G - 1]);
    table.settle(gather);
    expect([table.tablePages, table.memory.used - table.reserve.held]).toEqual([2, 2]);
  });

  it('are owed after a failure, too, where tables went; leaves are not, since nothing was unmapped as far as the caller knows', () => {
    for (const splitBefore of [true, false]) {
      const table = newTable(64, 0);
      if (splitBefore) unmap(table, G + 700, 5);
      while (table.memory.allocate() >= 0);
      const { failed, gather } = unmap(table, G, G + 7);
      expect([failed, table.frameAt(G), table.frameAt(2 * G)]).toEqual(['ENOMEM', -1, 6 * G]);
      expect([gather.freedTables.length, gather.firstPage, gather.lastPage]).toEqual(
        splitBefore ? [2, G, 2 * G + 6] : [0, -1, -1],
      );
    }
  });

  it('stay where a table below leads to no memory: the kernel is dead by then', () => {
    const table = newTable();
    unmap(table, G + 700, 5);
    const { pfn, index } = slotOf(table, G) as { pfn: number; index: number };
    for (const nth of [5, 9]) table.memory.store(pfn, index + nth, (BigInt(0x90_0000 + nth) << 12n) | 3n);
    const { failed, unsplit, gather } = unmap(table, G, G);
    expect(unsplit).toEqual({
      ...{ mistaken: [], corrupted: [], freed: [0x90_0005] },
      badAddress: { level: 1, pfn: 0x90_0005, index: 0, word: 0n },
    });
    expect(gather.freedTables).not.toContain(pfn);
    expect([failed, table.frameAt(G)]).toEqual([null, 5 * G]);
  });
});

describe('a split', () => {
  it('that somebody else has done is used as it is', () => {
    const table = newTable();
    const steps = unmapByPatch2023(
      PLAIN,
      table,
      { page: G + 7, pages: 1, defects: NONE },
      new InvalidationGather(),
      NO_MEMORY,
    );
    for (let at = steps.next(); !at.done && at.value.label !== 'read leaf to split'; ) at = steps.next();
    table.cut(G + 7, 1, new InvalidationGather());
    const { splits, tablePages } = table;
    const before = [...splits, tablePages];
    while (!steps.next().done);
    expect([...splits, table.tablePages]).toEqual(before);
    expect([6, 7, 8].map((nth) => table.frameAt(G + nth))).toEqual([5 * G + 6, -1, 5 * G + 8]);
    expect(table.memory.used).toBe(table.tablePages + table.reserve.held);
  });

  it('asks the scheduler whether a table page is there where it decides that, and only there', () => {
    /** The `nth` allocation fails. */
    const run = (allocationMayFail: boolean, nth: number, D6: boolean) => {
      const table = new SecondStageTable({ memory: new TableMemory({ pages: 64 }), allocationMayFail });
      table.map({ page: G, frame: 5 * G, pages: G, rights });
      const request = { page: G + 7, pages: 1, defects: { ...NONE, D6 } };
      const steps = unmapByPatch2023(PLAIN, table, request, new InvalidationGather(), NO_MEMORY);
      let asked = 0;
      let at = steps.next();
      for (; !at.done; at = steps.next()) if (at.value.choices > 0) PLAIN.step.chosen = asked++ === nth ? 1 : 0;
      return [asked, at.value.failed, table.reserve.held];
    };
    expect(run(false, 0, true)).toEqual([0, null, 4]);
    expect(run(true, 2, true)).toEqual([2, null, 4]);
    for (const nth of [0, 1]) {
      expect(run(true, nth, true)).toEqual([nth + 1, 'ENOMEM', 4]);
      expect(run(true, nth, false)).toEqual([2, null, 3]);
    }
  });

  it('may put its table into frame 0', () => {
    const memory = new TableMemory({ pages: 8, basePfn: 0 });
    const first = memory.allocate();
    const table = new SecondStageTable({ memory, reservePages: 0 });
    table.map({ page: 0, frame: 0, pages: 512, rights });
    memory.free(first);
    expect([unmap(table, 7, 1).failed, table.frameAt(8), memory.isAllocated(0)]).toEqual([null, 8, true]);
  });

  it('that stays when the next one fails is where hardware looks', () => {
    const memory = new WatchedMemory({ pages: 3, coherent: false });
    const table = new SecondStageTable({ memory, reservePages: 0 });
    table.map({ page: G, frame: 5 * G, pages: G, rights });
    expect([unmap(table, G + 7, 1).failed, table.splits[3]]).toEqual(['ENOMEM', 1]);
    expect(memory.unflushed(table.rootPfn, table.levels)).toEqual([]);
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

  it('D4 splits a leaf only if the range is smaller: not for a range as large as the leaf', () => {
    expect(unmap(newTable(), G + 7, G, { D4: true }).unsplit?.badAddress).toMatchObject({ level: 2, pfn: 5 * G });
    expect(unmap(newTable(), G + 7, G - 1, { D4: true }).unsplit?.badAddress).toMatchObject({ level: 1 });
  });

  it('D4 clears what looks like an entry in guest memory, and puts on the list what looks like a table', () => {
    // The words of the guest's memory below 1G leaf, which is taken for a table of level 2, and of 2M that one of them names.
    const guest = new Map([
      [`${5 * G}.0`, 0x7_7003n],
      [`${5 * G}.5`, (BigInt(5 * G + 9) << 12n) | 3n],
      [`${5 * G}.6`, 0x7_7004n],
      [`${5 * G}.7`, 0x7_7083n],
      [`${5 * G + 9}.2`, 0x8_8003n],
    ]);
    const before = new Map(guest);
    const physical: PhysicalWords = {
      contains: (pfn) => pfn >= 5 * G && pfn < 7 * G,
      loadWord: (pfn, index) => guest.get(`${pfn}.${index}`) ?? 0n,
      storeWord: (pfn, index, word) => void guest.set(`${pfn}.${index}`, word),
    };
    const table = newTable();
    const { leafCounts } = table;
    const { failed, unsplit, gather } = unmap(table, G + 512, G, { D4: true }, physical);
    expect([failed, unsplit?.badAddress, unsplit?.freed]).toEqual([null, null, [5 * G + 9]]);
    // 511 entries of the first leaf, 512 below one of them, and one of the second leaf.
    expect(unsplit?.mistaken.length).toBe(511 + 512 + 1);
    expect(unsplit?.corrupted.map(({ level, pfn, index, word }) => [level, pfn, index, word])).toEqual(
      [5, 7].map((index) => [2, 5 * G, index, before.get(`${5 * G}.${index}`)]),
    );
    expect([...guest].filter(([at, word]) => before.get(at) !== word)).toEqual([
      [`${5 * G}.5`, 0n],
      [`${5 * G}.7`, 0n],
    ]);
    expect([gather.freedTables, gather.lateTables, table.leafCounts]).toEqual([[], [], leafCounts]);
  });

  it('D5 gives up where hardware sets A or D in the leaf meanwhile; off, the split is done with what is there now', () => {
    for (const D5 of [true, false]) {
      const memory = new MeddledMemory({ pages: 64 });
      const table = newTable(64, 4, memory);
      const { used } = memory;
      memory.meddling.push((entry) => entry | SS_DIRTY);
      const { failed, gather } = unmap(table, G + 7, 1, { D5 });
      expect([failed, table.frameAt(G + 7)]).toEqual(D5 ? ['EBUSY', 5 * G + 7] : [null, -1]);
      expect([memory.used - used, table.reserve.held]).toEqual([D5 ? 0 : 2, 4]);
      expect(table.settle(gather)).toEqual(D5 ? [] : [{ page: G, pages: G }]);
      expect((table.leafAt(G)?.entry ?? 0n) & SS_DIRTY).toBe(D5 ? SS_DIRTY : 0n);
    }
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
