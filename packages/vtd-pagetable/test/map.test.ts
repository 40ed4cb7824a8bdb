import { runToEnd } from '@faultline/sim';
import { describe, expect, it } from 'vitest';
import {
  InvalidationGather,
  type MapRequest,
  map,
  SecondStageTable,
  TableMemory,
  WalkState,
  WalkStatus,
  walk,
} from '../src/index.ts';
import { slotOf } from './naive-table.ts';
import { PLAIN } from './plain-agent.ts';

const rights = { read: true, write: true };
const G = 262_144;

function newTable(pages = 64, levels: 3 | 4 | 5 = 4): SecondStageTable {
  return new SecondStageTable({ memory: new TableMemory({ pages }), levels, reservePages: 0 });
}

/** Bytes to a map request. */
const bytes = (iova: bigint, paddr: bigint, length: bigint) => ({
  page: Number(iova >> 12n),
  frame: Number(paddr >> 12n),
  pages: Number(length >> 12n),
  rights,
});

describe('map picks the largest leaves that fit', () => {
  it.each([3, 4, 5] as const)('the mixed case of the kernel, %i levels', (levels) => {
    const table = newTable(64, levels);
    table.map(bytes(0x3fe400000n, 0x3fe400000n, 0x4c0600000n - 0x3fe400000n));
    expect(table.leafCounts).toEqual({ '4K': 0, '2M': 17, '1G': 3 });
    expect([...table.allLeaves()].map(({ level }) => level).join('')).toBe(`${'2'.repeat(14)}333222`);
    expect(table.frameAt(0x4c05ff)).toBe(0x4c05ff);
    expect([table.frameAt(0x3fe3ff), table.frameAt(0x4c0600)]).toEqual([-1, -1]);
  });
  it('the page size boundary case of the kernel', () => {
    const table = newTable();
    table.map(bytes(0xfef80000n, 0x208b95d000n, 0x20000n));
    expect(table.leafCounts).toEqual({ '4K': 32, '2M': 0, '1G': 0 });
    for (let i = 0; i < 32; i++) expect(table.frameAt(0xfef80 + i)).toBe(0x208b95d + i);
    expect([table.frameAt(0xfef7f), table.frameAt(0xfefa0)]).toEqual([-1, -1]);
  });
  it('no larger than asked for', () => {
    for (const [largest, counts] of [
      [1, { '4K': 1024, '2M': 0 }],
      [2, { '4K': 0, '2M': 2 }],
      [5, { '4K': 0, '2M': 2 }],
    ] as const) {
      const table = newTable();
      table.map({ page: 512, frame: 1024, pages: 1024, rights, largest });
      expect(table.leafCounts).toMatchObject(counts);
      expect([table.frameAt(512), table.frameAt(1535)]).toEqual([1024, 2047]);
    }
  });

  it('4K pages where one side alone is aligned', () => {
    for (const [page, frame] of [
      [512, 1029],
      [517, 1024],
    ] as const) {
      const table = newTable();
      table.map({ page, frame, pages: 600, rights });
      expect(table.leafCounts['4K']).toBe(600);
      for (let nth = 0; nth < 600; nth++) expect(table.frameAt(page + nth)).toBe(frame + nth);
    }
  });

  it('up to the last page of the input range', () => {
    for (const levels of [3, 4, 5] as const) {
      const table = newTable(64, levels);
      const page = table.inputPages - G;
      table.map({ page, frame: 0, pages: G, rights });
      const state = table.beginWalk(new WalkState(), table.inputPages - 1, 0);
      expect(walk(table.memory, table.masks, state)).toBe(WalkStatus.translated);
      expect([state.framePfn, table.leafCounts['1G']]).toEqual([G - 1, 1]);
    }
  });
});

describe('map refuses', () => {
  const request = { page: 16, frame: 16, pages: 4, rights: 3 };
  const refusal = (change: Partial<MapRequest>, table = newTable()): unknown => {
    const before = table.memory.used;
    try {
      runToEnd(map(PLAIN, table, { ...request, ...change }, new InvalidationGather()));
    } catch (thrown) {
      expect([table.mappedPages, table.memory.used]).toEqual([0, before]);
      return `${(thrown as Error).message} [${(thrown as { code?: string }).code}]`;
    }
    return 'mapped';
  };
  it.each<[string, Partial<MapRequest>]>([
    ['EINVAL: rights: neither read nor write', { rights: 0 }],
    ['EINVAL: pages: 0 is not a positive number of pages', { pages: 0 }],
    ['EINVAL: page: -1 is not a page number', { page: -1 }],
    ['EINVAL: page: 0.5 is not a page number', { page: 0.5 }],
    ['EINVAL: attributes: 0x1000 has bits of the address, R, W or PS', { attributes: 0x1000n }],
    ['EINVAL: attributes: 0x80 has bits of the address, R, W or PS', { attributes: 0x80n }],
    ['EINVAL: attributes: 0x10000000000000000 is not a 64-bit value', { attributes: 1n << 64n }],
    ['EINVAL: attributes: -0x8000000000000000 is not a 64-bit value', { attributes: -(1n << 63n) }],
    ['EINVAL: largest: 0 is not a level, 1 to 5', { largest: 0 as 1 }],
    ['EINVAL: largest: 6 is not a level, 1 to 5', { largest: 6 as 1 }],
    ['EINVAL: largest: 1.5 is not a level, 1 to 5', { largest: 1.5 as 1 }],
    ['ERANGE: iova: 0xffffffffd000 + 0x4000 is beyond the 48-bit input range', { page: 2 ** 36 - 3 }],
    ['ERANGE: paddr: 0x3fffffffd000 + 0x4000 is beyond the 46-bit host address width', { frame: 2 ** 34 - 3 }],
    ['ERANGE: paddr: -0x1000 + 0x4000 is beyond the 46-bit host address width', { frame: -1 }],
    ['EINVAL: frame: NaN is not a frame number', { frame: Number.NaN }],
    ['EINVAL: frame: 0.5 is not a frame number', { frame: 0.5 }],
    ['EINVAL: frame: 5 is not a frame number', { frame: 5n as unknown as number }],
  ])('%s', (message, change) => {
    expect(refusal(change)).toBe(`${message} [${message.split(':')[0]}]`);
    // The last that is not refused.
    expect(refusal({ page: 2 ** 36 - 4 })).toBe('mapped');
    expect(refusal({ frame: 2 ** 34 - 4 })).toBe('mapped');
  });
  it('what is mapped already: overwrites nothing, and what came before stays', () => {
    const table = newTable();
    table.map({ page: 700, frame: 5000, pages: 1, rights: { read: true, write: false } });
    const before = slotOf(table, 700);
    const word = table.memory.load(before?.pfn as number, before?.index as number);
    expect(() => table.map({ page: 690, frame: 690, pages: 100, rights })).toThrow(
      'EADDRINUSE: iova 0x2bc000 is mapped already',
    );
    expect(table.memory.load(before?.pfn as number, before?.index as number)).toBe(word);
    expect([table.mappedPages, table.frameAt(699), table.frameAt(701)]).toEqual([11, 699, -1]);
    // A large leaf over a table with one page, a page in a large leaf, and a large leaf over a large leaf.
    expect(() => table.map({ page: 512, frame: 512, pages: 512, rights })).toThrow('EADDRINUSE: iova 0x200000');
    expect(() => table.map({ page: 0, frame: G, pages: G, rights })).toThrow('EADDRINUSE: iova 0x0');
    table.map({ page: G, frame: 0, pages: G, rights });
    expect(() => table.map({ page: G + 5, frame: 0, pages: 1, rights })).toThrow('EADDRINUSE: iova 0x40005000');
    expect(() => table.map({ page: G, frame: 0, pages: G, rights })).toThrow('EADDRINUSE: iova 0x40000000');
    expect(table.mappedPages).toBe(11 + G);
  });
  it('what is mapped already among large leaves: says where, and keeps those before', () => {
    const table = newTable();
    table.map({ page: 1024, frame: 0, pages: 512, rights });
    expect(() => table.map({ page: 0, frame: 0, pages: 2048, rights })).toThrow('EADDRINUSE: iova 0x400000 is mapped');
    expect([table.leafCounts['2M'], table.frameAt(1023), table.frameAt(1536)]).toEqual([3, 1023, -1]);
  });
  it('when table pages run out: says where, keeps what it mapped, loses no page', () => {
    const table = newTable(4); // root and three tables: one path down to the 4K pages
    expect(() => table.map({ page: 510, frame: 0, pages: 4, rights })).toThrow(
      'ENOMEM: no table page for iova 0x200000',
    );
    expect([table.mappedPages, table.tablePages, table.memory.used]).toEqual([2, 4, 4]);
    expect(table.reserve.failures).toBe(1);
    table.destroy();
    expect(table.memory.used).toBe(0);
    expect(() => new SecondStageTable({ memory: fullMemory() })).toThrow('ENOMEM: no table page for the root');
  });
});

describe('the leaves of a map', () => {
  /** Bits of both halves, with bit 63 among them, and one that makes the entry no subnormal double. */
  const ATTRIBUTES = 0x8550_0000_0000_0f74n;
  it.each([0n, ATTRIBUTES])(
    'have address, rights and the attributes %d, and no other bit, at each level',
    (attributes) => {
      for (const [level, size] of [
        [1, 1],
        [2, 512],
        [3, G],
      ] as const) {
        const table = newTable();
        const entries = () => [...table.allLeaves()].map(({ entry }) => entry.toString(16));
        const wanted = (nth: number) =>
          ((BigInt(7 * G + nth * size) << 12n) | 1n | (level > 1 ? 0x80n : 0n) | attributes).toString(16);
        // Into a table that nobody sees yet, and into one that is in use.
        for (const [first, leaves] of [
          [0, 3],
          [3, 2],
          [5, 1],
        ] as const) {
          const request = { page: first * size, frame: 7 * G + first * size, pages: leaves * size, largest: level };
          table.map({ ...request, rights: { read: true, write: false }, attributes });
        }
        expect(entries()).toEqual([0, 1, 2, 3, 4, 5].map(wanted));
      }
    },
  );
  it('are paid for one by one, wherever they are written, and tables by themselves', () => {
    const table = newTable();
    const cost = (page: number, pages: number) => {
      const running = map(PLAIN, table, { page, frame: page, pages, rights: 3 }, new InvalidationGather());
      const paid: Record<string, number> = {};
      for (let at = running.next(); !at.done; at = running.next())
        paid[at.value.label] = (paid[at.value.label] ?? 0) + at.value.units;
      return paid;
    };
    expect(cost(0, 4)).toEqual({ 'read table entry': 3, 'write leaves': 4, 'install table': 3 });
    expect(cost(4, 1)).toEqual({ 'read table entry': 3, 'install leaf': 1 });
    // Two pages, and a large leaf in the table above, which is known from them.
    expect(cost(510, 514)).toEqual({ 'read table entry': 3, 'install leaf': 3 });
    expect(cost(1026, 513)).toEqual({ 'read table entry': 4, 'write leaves': 513, 'install table': 2 });
  });
  it.each([1, 512])('are alone in table pages that have been tables before: %i pages', (pages) => {
    const memory = new TableMemory({ pages: 8 });
    const old = new SecondStageTable({ memory, reservePages: 0 });
    old.map({ page: 0, frame: 1, pages: 1024, rights });
    old.destroy(); // which leaves entries in them that lead nowhere
    const table = new SecondStageTable({ memory, reservePages: 0 });
    table.map({ page: 1024, frame: 1, pages, rights });
    expect([[...table.allLeaves()].length, table.frameAt(1024 + pages - 1)]).toEqual([pages, pages]);
  });
});

describe('the way to a leaf', () => {
  it('is not the one of a map before, whose tables are gone', () => {
    const table = newTable();
    table.map({ page: 0, frame: 1, pages: 512, rights });
    const gather = new InvalidationGather();
    table.unmap(0, 512, gather);
    table.freeTables(gather);
    const used = table.memory.used;
    table.map({ page: 0, frame: 9, pages: 1, rights });
    expect([table.frameAt(0), table.memory.used]).toEqual([9, used + 1]);
  });
  it('may lead through frame 0', () => {
    const memory = new TableMemory({ pages: 8, basePfn: 0 });
    const first = memory.allocate();
    const table = new SecondStageTable({ memory, reservePages: 0 });
    memory.free(first);
    table.map({ page: 0, frame: 5, pages: 1, rights });
    table.map({ page: 1, frame: 6, pages: 1, rights });
    expect([table.frameAt(0), table.frameAt(1), table.tablePages, memory.isAllocated(0)]).toEqual([5, 6, 4, true]);
  });
  it('goes through entries that are not present, whatever bits that hardware ignores are in them', () => {
    const table = newTable();
    table.memory.store(table.rootPfn, 0, 0x7ff0_0000_0000_0ffcn);
    table.map({ page: 0, frame: 5, pages: 1, rights });
    expect([table.frameAt(0), table.tablePages, table.memory.used]).toEqual([5, 4, 4]);
  });
  it('ends where the scheduler lets an allocation fail; otherwise it is not asked', () => {
    /** @returns the labels of the steps, with the scheduler's refusal at the nth choice */
    const steps = (allocationMayFail: boolean, refusal: number) => {
      const table = new SecondStageTable({ memory: new TableMemory({ pages: 8 }), reservePages: 0, allocationMayFail });
      const request = { page: 0, frame: 5, pages: 1, rights: 3 };
      const running = map(PLAIN, table, request, new InvalidationGather());
      let asked = 0;
      try {
        for (let at = running.next(); !at.done; at = running.next())
          if (at.value.choices > 0 && asked++ === refusal) at.value.chosen = 1;
      } catch (thrown) {
        return [asked, (thrown as Error).message, table.memory.used];
      }
      return [asked, table.frameAt(0), table.memory.used];
    };
    expect(steps(false, 0)).toEqual([0, 5, 4]);
    expect(steps(true, 3)).toEqual([3, 5, 4]);
    for (const nth of [0, 1, 2])
      expect(steps(true, nth)).toEqual([nth + 1, 'ENOMEM: no table page for iova 0x0', 1 + nth]);
  });
});

function fullMemory(): TableMemory {
  const memory = new TableMemory({ pages: 1 });
  memory.allocate();
  return memory;
}

describe('a table in the way of a large leaf', () => {
  function vacated(): SecondStageTable {
    const table = newTable();
    for (const page of [0, 512, 1024]) table.map({ page, frame: 3, pages: 1, rights });
    for (const page of [0, 512, 1024]) table.unmap(page, 1, new InvalidationGather());
    expect([table.mappedPages, table.tablePages]).toEqual([0, 6]); // emptied piecemeal: the tables stay
    return table;
  }
  it('is replaced if it is vacant all the way down, and its pages are gathered', () => {
    const table = vacated();
    const gather = new InvalidationGather();
    table.map({ page: 0, frame: 0, pages: G, rights }, gather);
    expect([table.leafCounts['1G'], table.tablePages, table.memory.used]).toEqual([1, 2, 6]);
    expect([gather.freedTables.length, gather.firstPage, gather.lastPage, gather.leafOnly]).toEqual([
      4,
      0,
      G - 1,
      false,
    ]);
    table.freeTables(gather);
    expect(table.memory.used).toBe(2);
  });
  it('is replaced beside another, each named by its own address', () => {
    const table = vacated();
    const gather = new InvalidationGather();
    table.map({ page: 512, frame: 512, pages: 1024, rights }, gather);
    expect([table.leafCounts['2M'], gather.freedTables.length, gather.firstPage, gather.lastPage]).toEqual([
      2, 2, 512, 1535,
    ]);
    table.freeTables(gather);
    expect(table.memory.used).toBe(4);
  });
  it('owes no page before the leaf or after it', () => {
    const table = newTable();
    for (const page of [G, G + 512, G + 5 * 512]) table.map({ page, frame: 3, pages: 1, rights });
    for (const page of [G, G + 512, G + 5 * 512]) table.unmap(page, 1, new InvalidationGather());
    const gather = new InvalidationGather();
    table.map({ page: G, frame: 0, pages: G, rights }, gather);
    expect([gather.freedTables.length, gather.firstPage, gather.lastPage]).toEqual([4, G, 2 * G - 1]);
  });
  it('ends where its page ends, whatever the next page of the memory holds', () => {
    const table = newTable();
    // Two tables of level 2, one after the other; the second one begins with a leaf.
    for (const page of [0, G]) table.map({ page, frame: 0, pages: 512, rights });
    table.unmap(0, 512, new InvalidationGather());
    const gather = new InvalidationGather();
    table.map({ page: 0, frame: 0, pages: G, rights }, gather);
    expect([table.leafCounts, gather.freedTables.length]).toEqual([{ '4K': 0, '2M': 1, '1G': 1 }, 1]);
  });
  it('is freed at once where there is no gather', () => {
    const table = vacated();
    table.map({ page: 0, frame: 0, pages: G, rights });
    expect([table.tablePages, table.memory.used]).toEqual([2, 2]);
    table.destroy();
    expect(table.memory.used).toBe(0);
  });
});

describe('tasks that map at once', () => {
  it('share a new table: the loser of the race frees its page', () => {
    const table = newTable();
    const tasks = [0, 1].map((page) =>
      map(PLAIN, table, { page, frame: 100 + page, pages: 1, rights: 3 }, new InvalidationGather()),
    );
    while (tasks.filter((task) => !task.next().done).length > 0);
    expect([table.frameAt(0), table.frameAt(1), table.tablePages, table.memory.used]).toEqual([100, 101, 4, 4]);
    expect(table.memory.peak).toBeGreaterThan(4);
  });
  it('each write their own leaf, also where the other has put the table that it goes into', () => {
    for (let lead = 0; lead < 12; lead++) {
      const table = newTable();
      const slow = map(PLAIN, table, { page: 0, frame: 100, pages: 1, rights: 3 }, new InvalidationGather());
      for (let nth = 0; nth < lead; nth++) slow.next();
      table.map({ page: 1, frame: 101, pages: 1, rights });
      while (!slow.next().done);
      expect([table.frameAt(0), table.frameAt(1), table.mappedPages, table.memory.used]).toEqual([100, 101, 2, 4]);
    }
  });
});

it('the parts of a map that walks see are single stores: never an error on the way', () => {
  const table = newTable();
  const state = new WalkState();
  const task = map(PLAIN, table, { page: 510, frame: 510, pages: 1030, rights: 3 }, new InvalidationGather());
  while (!task.next().done)
    for (const page of [509, 510, 511, 512, 1023, 1535, 1539, 1540]) {
      walk(table.memory, table.masks, table.beginWalk(state, page, 0));
      expect([0, 6]).toContain(state.faultReason);
      if (state.status === WalkStatus.translated) expect(state.framePfn).toBe(page);
    }
  expect(table.mappedPages).toBe(1030);
});
