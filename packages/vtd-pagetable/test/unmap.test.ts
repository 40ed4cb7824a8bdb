import { runToEnd } from '@faultline/sim';
import { describe, expect, it } from 'vitest';
import { InvalidationGather, SecondStageTable, TableMemory, type UnmapRequest, unmap } from '../src/index.ts';
import { MeddledMemory } from './meddled-memory.ts';
import { slotOf } from './naive-table.ts';
import { PLAIN } from './plain-agent.ts';

const rights = { read: true, write: true };
const G = 262_144;

function newTable(): SecondStageTable {
  const table = new SecondStageTable({ memory: new TableMemory({ pages: 64 }), reservePages: 0 });
  table.map({ page: G, frame: 0, pages: G, rights }); // one 1G leaf
  table.map({ page: 2 * G, frame: 0x1000, pages: 1024, rights }); // two 2M leaves
  table.map({ page: 2 * G + 1024, frame: 7, pages: 512, rights }); // 512 4K leaves
  return table;
}

function run(table: SecondStageTable, request: Partial<UnmapRequest> & { page: number; pages: number }) {
  const gather = new InvalidationGather();
  const whole = { partialLeaf: 'linux-7.3', holes: 'stop', ...request } as const;
  const pages = runToEnd(unmap(PLAIN, table, whole, gather));
  return { pages, gathered: [gather.firstPage, gather.lastPage], freed: gather.freedTables.length, gather };
}

describe('a large leaf that the range covers in part', () => {
  it.each([
    ['linux-7.3, at its head: the whole leaf goes', 'linux-7.3', G, 5, G],
    ['linux-7.3, inside: nothing is done and the call stops', 'linux-7.3', G + 1, G - 1 + 512, 0],
    ['linux-7.3, leaves before it and its head', 'linux-7.3', 2 * G, 513, 1024],
    ['whole-leaf, at its head', 'whole-leaf', G, 5, G],
    ['whole-leaf, inside', 'whole-leaf', G + 77, 1, G],
    ['whole-leaf, from inside one into the next', 'whole-leaf', 2 * G + 511, 2, 1024],
  ] as const)('%s', (_name, partialLeaf, page, pages, expected) => {
    const table = newTable();
    const mapped = table.mappedPages;
    const result = run(table, { page, pages, partialLeaf });
    expect(result.pages).toBe(expected);
    expect(table.mappedPages).toBe(mapped - expected);
    if (expected === 0) expect(result.gather.empty).toBe(true);
    // The gather has whole leaves, not the range asked for.
    else expect((result.gathered[1] as number) - (result.gathered[0] as number) + 1).toBe(expected);
  });
  it('at the head: the plain method does not run on into the next leaf', () => {
    const table = newTable();
    expect(table.unmap(2 * G, 1, new InvalidationGather())).toBe(512);
    expect(table.frameAt(2 * G + 512)).toBe(0x1200);
    expect(table.unmap(2 * G + 600, 1, new InvalidationGather(), 'whole-leaf')).toBe(512);
  });
});

describe('holes', () => {
  it('stop the call, or are skipped', () => {
    for (const [holes, expected] of [
      ['stop', 3],
      ['skip', 7],
    ] as const) {
      const table = newTable();
      run(table, { page: 2 * G + 1027, pages: 1 });
      expect(run(table, { page: 2 * G + 1024, pages: 8, holes }).pages).toBe(expected);
    }
    expect(run(newTable(), { page: 0, pages: 100 }).pages).toBe(0);
    expect(run(newTable(), { page: 0, pages: 3 * G, holes: 'skip' }).pages).toBe(G + 1536);
  });
});

describe('tables', () => {
  it('are unlinked only if their range is covered whole, and freed through the gather alone', () => {
    const table = newTable();
    const used = table.memory.used;
    const partly = run(table, { page: 2 * G + 1024, pages: 511 });
    expect([partly.freed, partly.gather.leafOnly, table.memory.used]).toEqual([0, true, used]);
    const last = run(table, { page: 2 * G + 1535, pages: 1 });
    expect([last.freed, table.memory.used]).toEqual([0, used]); // emptied piecemeal: it stays
    const covering = run(table, { page: 2 * G, pages: G, holes: 'skip' });
    expect([covering.freed, covering.pages, table.memory.used]).toEqual([2, 1024, used]);
    expect(covering.gathered).toEqual([2 * G, 3 * G - 1]);
    expect(covering.gather.leafOnly).toBe(false);
    table.freeTables(covering.gather);
    expect([table.memory.used, table.tablePages, covering.gather.freedTables.length]).toEqual([used - 2, used - 2, 0]);
  });
  it('that end in a hole are not unlinked by a call that stops there', () => {
    const table = newTable();
    run(table, { page: 2 * G + 1030, pages: 1 });
    expect(run(table, { page: 2 * G + 1024, pages: 512 })).toMatchObject({ pages: 6, freed: 0 });
  });
});

it('never allocates', () => {
  const table = newTable();
  const { memory } = table;
  while (memory.allocate() >= 0);
  const failures = table.reserve.failures;
  expect(run(table, { page: G, pages: 2 * G, holes: 'skip' }).pages).toBe(G + 1536);
  expect([table.reserve.failures, table.mappedPages]).toEqual([failures, 0]);
});

it.each([
  [-1, 1, 'EINVAL: page: -1'],
  [0, 0, 'EINVAL: pages: 0'],
  [2 ** 36, 1, 'ERANGE: iova: 0x1000000000000 + 0x1000 is beyond the 48-bit input range'],
])('refuses page %d, pages %d', (page, pages, message) => {
  expect(() => run(newTable(), { page, pages })).toThrow(message);
});

describe('a leaf that changes between the look and the clearing', () => {
  function untilClear(table: SecondStageTable, pages: number): () => number {
    const request = { page: G, pages, partialLeaf: 'linux-7.3', holes: 'stop' } as const;
    const task = unmap(PLAIN, table, request, new InvalidationGather());
    for (let step = task.next(); step.done || step.value.label !== 'clear leaf'; ) step = task.next();
    return () => runToEnd(task);
  }
  it('because hardware set a bit, is cleared all the same', () => {
    const table = newTable();
    const finish = untilClear(table, G);
    const slot = slotOf(table, G) as { pfn: number; index: number };
    table.memory.store(slot.pfn, slot.index, table.memory.load(slot.pfn, slot.index) | 0x300n);
    expect([finish(), table.frameAt(G), table.leafCounts['1G']]).toEqual([G, -1, 0]);
  });
  it('because somebody cut it, loses the part in the range and nothing more', () => {
    const table = newTable();
    const finish = untilClear(table, 512);
    table.cut(G + 512, 512, new InvalidationGather());
    expect(finish()).toBe(512);
    expect([table.frameAt(G + 511), table.frameAt(G + 512), table.leafCounts['2M']]).toEqual([-1, 512, 2 + 511]);
    const used = table.memory.used;
    expect(table.tablePages).toBe(used);
  });
  it('because somebody unmapped it, is not counted twice', () => {
    const table = newTable();
    const finish = untilClear(table, G);
    table.unmap(G, G, new InvalidationGather());
    expect([finish(), table.leafCounts['1G']]).toEqual([0, 0]);
  });
});

describe('at the very moment of the clearing', () => {
  function meddled(pages: number, ...meddling: ((entry: bigint) => bigint)[]) {
    const memory = new MeddledMemory({ pages: 64 });
    const table = new SecondStageTable({ memory, reservePages: 0, accessedDirty: true });
    table.map({ page: G, frame: 7, pages: 512, rights });
    memory.meddling.push(...meddling);
    return { table, ...run(table, { page: G, pages }), left: memory.meddling.length };
  }
  it('a bit that hardware sets in a leaf goes with it, and D is not lost', () => {
    const { table, pages, gather, left } = meddled(
      1,
      (entry) => entry | 0x100n,
      (entry) => entry | 0x200n,
    );
    expect([pages, left, table.frameAt(G), gather.dirtyLeaves]).toEqual([1, 0, -1, [{ page: G, pages: 1 }]]);
  });
  it('a leaf that somebody else clears is not counted twice, and nothing is owed for it', () => {
    const { table, pages, gather } = meddled(1, () => 0n);
    expect([pages, gather.empty, table.leafCounts['4K']]).toEqual([0, true, 512]);
  });
  it('A that hardware sets in the entry of a table does not keep it', () => {
    const accessed = (entry: bigint) => entry | 0x100n;
    const { table, pages, freed, left } = meddled(512, accessed, (entry) => entry & ~0x100n);
    expect([pages, freed, left, table.mappedPages, table.frameAt(G)]).toEqual([512, 1, 0, 0, -1]);
  });
});

describe('what somebody else does between the look and the step', () => {
  const small = () => {
    const table = new SecondStageTable({ memory: new TableMemory({ pages: 64 }), reservePages: 0 });
    table.map({ page: G, frame: 7, pages: 512, rights });
    return table;
  };
  /** Runs an unmap up to a step, lets `meddle` act, and ends it. */
  function meddled(table: SecondStageTable, until: string, request: Partial<UnmapRequest>, meddle: () => void) {
    const gather = new InvalidationGather();
    const whole = { page: G, pages: 512, partialLeaf: 'linux-7.3', holes: 'skip', ...request } as const;
    const task = unmap(PLAIN, table, whole, gather);
    for (let step = task.next(); step.done || step.value.label !== until; ) step = task.next();
    meddle();
    return { pages: runToEnd(task), gather };
  }
  it('a table that has gone is not unlinked twice', () => {
    const table = small();
    const { pages, gather } = meddled(table, 'unlink table', {}, () => table.unmap(G, 512, new InvalidationGather()));
    expect([pages, gather.empty, gather.freedTables, table.mappedPages]).toEqual([0, true, [], 0]);
  });
  it('a table that has gone is not gone down to', () => {
    const table = small();
    const steps: string[] = [];
    const request = { page: G, pages: 5, partialLeaf: 'linux-7.3', holes: 'skip' } as const;
    const task = unmap(PLAIN, table, request, new InvalidationGather());
    for (let step = task.next(); !step.done; step = task.next()) {
      steps.push(step.value.label);
      // About to go down to the leaves: the third entry on the way.
      if (steps.length === 3) table.unmap(G, 512, new InvalidationGather());
    }
    expect([steps, table.mappedPages]).toEqual([Array(4).fill('read entry'), 0]);
  });
  it.each([
    ['skip', G + 2],
    ['stop', G],
  ] as const)('a page that is mapped where a hole was is unmapped, too (%s)', (holes, page) => {
    const table = small();
    table.unmap(G, 8, new InvalidationGather());
    const request = { page: G, pages: 8, partialLeaf: 'linux-7.3', holes } as const;
    const task = unmap(PLAIN, table, request, new InvalidationGather());
    // Three entries on the way down, then the holes.
    for (let nth = 0; nth < 4; nth++) task.next();
    table.map({ page, frame: 1, pages: 1, rights });
    expect([runToEnd(task), table.frameAt(page)]).toEqual([1, -1]);
  });
});

describe('what an unmap pays for', () => {
  function stepsOf(table: SecondStageTable, request: Partial<UnmapRequest>): [string, number][] {
    const whole = { page: G, pages: 512, partialLeaf: 'linux-7.3', holes: 'skip', ...request } as const;
    const steps: [string, number][] = [];
    const task = unmap(PLAIN, table, whole, new InvalidationGather());
    for (let step = task.next(); !step.done; step = task.next()) steps.push([step.value.label, step.value.units]);
    return steps.filter(([label]) => label !== 'read entry');
  }
  const small = (coherent: boolean) => {
    const table = new SecondStageTable({ memory: new TableMemory({ pages: 64, coherent }), reservePages: 0 });
    table.map({ page: G, frame: 7, pages: 512, rights });
    return table;
  };
  it('each leaf below a table that is unlinked, and the line of the entry where walks do not snoop', () => {
    const paid: [string, number][] = [
      ['unlink table', 1],
      ['clear leaves', 512],
    ];
    expect(stepsOf(small(true), {})).toEqual(paid);
    expect(stepsOf(small(false), {})).toEqual([...paid, ['flush entries', 1]]);
  });
  it('one entry where it stops, and all that it skips', () => {
    const last = (holes: 'stop' | 'skip') => {
      const table = small(true);
      table.unmap(G, 8, new InvalidationGather());
      const task = unmap(
        PLAIN,
        table,
        { page: G, pages: 8, partialLeaf: 'linux-7.3', holes },
        new InvalidationGather(),
      );
      let units = 0;
      for (let step = task.next(); !step.done; step = task.next()) units = step.value.units;
      return units;
    };
    expect([last('stop'), last('skip')]).toEqual([1, 8]);
  });
  it('no line where there was nothing left to clear', () => {
    const table = small(false);
    const request = { page: G, pages: 1, partialLeaf: 'linux-7.3', holes: 'skip' } as const;
    const task = unmap(PLAIN, table, request, new InvalidationGather());
    for (let step = task.next(); step.done || step.value.label !== 'clear leaf'; ) step = task.next();
    table.unmap(G, 1, new InvalidationGather());
    expect([...task].map(({ label }) => label)).toEqual(['read entry']);
  });
  it('no leaf of an empty table; the line all the same', () => {
    const table = small(false);
    table.unmap(G, 256, new InvalidationGather());
    table.unmap(G + 256, 256, new InvalidationGather());
    expect(stepsOf(table, {})).toEqual([
      ['unlink table', 1],
      ['flush entries', 1],
    ]);
  });
  it('no line of a table that stays, because of a hole where the call stops', () => {
    const table = small(false);
    table.unmap(G, 1, new InvalidationGather());
    expect(stepsOf(table, { holes: 'stop' })).toEqual([['unlink table', 1]]);
  });
});

describe('a range over more tables than one', () => {
  /** Two tables of 4K leaves side by side. */
  const two = (accessedDirty = false) => {
    const table = new SecondStageTable({ memory: new TableMemory({ pages: 64 }), reservePages: 0, accessedDirty });
    table.map({ page: G, frame: 7, pages: 1024, rights });
    return table;
  };
  it.each([
    ['both whole', G, 1024, 2],
    ['a part of each', G + 500, 24, 0],
    ['all but the first page', G + 1, 1023, 1],
    ['all but the last page', G, 1023, 1],
  ])('%s: goes on in the next, and takes what it covers whole', (_of, page, pages, freed) => {
    const table = two();
    expect(run(table, { page, pages })).toMatchObject({ pages, freed, gathered: [page, page + pages - 1] });
    expect(table.mappedPages).toBe(1024 - pages);
  });
  it('counts every table below an entry that it unlinks, and leaves of all sizes', () => {
    const table = two();
    table.map({ page: 2 * G, frame: G, pages: G, rights });
    table.map({ page: 3 * G, frame: 512, pages: 512, rights });
    expect(run(two(), { page: G, pages: G, holes: 'skip' })).toMatchObject({ pages: 1024, freed: 3 });
    expect(run(table, { page: 0, pages: 512 * G, holes: 'skip' })).toMatchObject({ pages: G + 1536, freed: 5 });
    expect(table.leafCounts).toEqual({ '4K': 0, '2M': 0, '1G': 0 });
  });
  it('a hole deep below an entry that is covered whole stops the call there, too', () => {
    const table = new SecondStageTable({ memory: new TableMemory({ pages: 64 }), reservePages: 0 });
    table.map({ page: G, frame: 7, pages: 512, rights });
    table.map({ page: G + 512, frame: 512, pages: G - 512, rights });
    table.unmap(G + 3, 1, new InvalidationGather());
    expect(run(table, { page: G, pages: G })).toMatchObject({ pages: 3, freed: 0 });
  });
  it('an entry that allows neither reads nor writes is a hole, whatever else is in it', () => {
    const table = two();
    const { pfn, index } = slotOf(table, G + 3) as { pfn: number; index: number };
    table.unmap(G + 3, 1, new InvalidationGather());
    table.memory.store(pfn, index, 0x80n);
    expect(run(table, { page: G, pages: 512, holes: 'skip' }).pages).toBe(511);
  });
});

describe('D', () => {
  it.each([true, false])('is reported of leaves that have it, where the table has it at all (%s)', (accessedDirty) => {
    const table = new SecondStageTable({ memory: new TableMemory({ pages: 64 }), reservePages: 0, accessedDirty });
    table.map({ page: G, frame: 7, pages: 2, rights });
    const { pfn, index } = slotOf(table, G + 1) as { pfn: number; index: number };
    table.memory.store(pfn, index, table.memory.load(pfn, index) | 0x200n);
    const { gather } = run(table, { page: G, pages: 2 });
    expect(gather.dirtyLeaves).toEqual(accessedDirty ? [{ page: G + 1, pages: 1 }] : []);
  });
  it.each([true, false])(
    'is looked for once more in tables that were unlinked, where hardware sets it (%s)',
    (accessedDirty) => {
      const table = new SecondStageTable({ memory: new TableMemory({ pages: 64 }), reservePages: 0, accessedDirty });
      table.map({ page: G, frame: 7, pages: 512, rights });
      const { pfn } = slotOf(table, G) as { pfn: number };
      const { gather } = run(table, { page: G, pages: 512 });
      expect(gather.lateTables).toEqual(accessedDirty ? [{ pfn, level: 1, page: G, leafLevel: 0 }] : []);
    },
  );
});
