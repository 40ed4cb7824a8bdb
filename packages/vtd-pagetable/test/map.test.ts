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
