import { runToEnd, type Task } from '@faultline/sim';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  collapse,
  InvalidationGather,
  readAndClearAccessed,
  readAndClearDirty,
  SecondStageTable,
  TableMemory,
} from '../src/index.ts';
import { slotOf } from './naive-table.ts';
import { PLAIN } from './plain-agent.ts';

const G = 262_144;
const rights = { read: true, write: true };

/** The two operations that look at a bit of a run of leaves, and the bit that they look at. */
const READS = [
  { bit: 0x200n, read: readAndClearDirty },
  { bit: 0x100n, read: readAndClearAccessed },
] as const;

function change(table: SecondStageTable, page: number, bits: (entry: bigint) => bigint): void {
  const { pfn, index } = slotOf(table, page) as { pfn: number; index: number };
  table.memory.store(pfn, index, bits(table.memory.load(pfn, index)));
}

/** Drives a task to before its nth step, and says how to go on. */
function paused(task: Task<number>, steps: number): () => number {
  for (let nth = 0; nth < steps; nth++) if (task.next().done) throw new Error(`ended before step ${steps}`);
  return () => runToEnd(task);
}

const setOf = (table: SecondStageTable, bit: bigint) =>
  [...table.allLeaves()]
    .filter(({ entry }) => (entry & bit) !== 0n)
    .map(({ page, level }) => [page, 512 ** (level - 1)]);

describe.each(READS)('a read of bit $bit', ({ bit, read }) => {
  const run = (table: SecondStageTable, page: number, pages: number, clear: boolean) => {
    const gather = new InvalidationGather();
    const reported: number[][] = [];
    const request = { page, pages, clear };
    const task = read(PLAIN, table, request, gather, (first, count) => reported.push([first, count]));
    return { task, reported, gather };
  };

  it('reports what is set and nothing else, wherever tables and frames are, and clears it and nothing else', () => {
    const leaves = fc.array(fc.tuple(fc.nat(1600), fc.constantFrom(0n, 0x100n, 0x200n, 0x300n)), { maxLength: 30 });
    const base = fc.constantFrom(0, 1, 2, 5, 0x1000);
    const frame = fc.constantFrom(0, 0x10_0000, 0x30_0001, 0x80_0000, 0x3ff_0000);
    fc.assert(
      fc.property(leaves, base, frame, fc.nat(1600), fc.boolean(), (marks, basePfn, first, page, clear) => {
        const memory = new TableMemory({ pages: 32, basePfn });

        const table = new SecondStageTable({ memory, accessedDirty: true, reservePages: 0 });
        table.map({ page: 0, frame: first, pages: 5, rights });
        table.map({ page: 7, frame: first + 7, pages: 505 + 1024, rights });
        for (const [at, bits] of marks) if (slotOf(table, at)) change(table, at, (entry) => entry | bits);
        const wanted = setOf(table, bit).filter(([at, size]) => (at as number) + (size as number) > page);
        const before = [...table.allLeaves()];
        const { task, reported, gather } = run(table, page, 2048 - page, clear);
        expect(runToEnd(task)).toBe(wanted.length);
        expect(reported).toEqual(wanted);
        const cleared = new Set(clear ? wanted.map(([at]) => at) : []);
        expect([...table.allLeaves()].map(({ entry }) => entry)).toEqual(
          before.map(({ page: at, entry }) => (cleared.has(at) ? entry & ~bit : entry)),
        );
        const last = wanted.at(-1) as [number, number] | undefined;
        expect([gather.firstPage, gather.lastPage]).toEqual(
          clear && last ? [wanted[0]?.[0], last[0] + last[1] - 1] : [-1, -1],
        );
      }),
      { numRuns: 150 },
    );
  });
  it.each([0, 1, 2, 3, 510])(
    'reads the entry of the page that it is asked for, page %d, of frames above 4 GiB',
    (page) => {
      const table = new SecondStageTable({ memory: new TableMemory({ pages: 16 }), accessedDirty: true });
      table.map({ page: 0, frame: 0x10_0000, pages: 511, rights });
      change(table, page, (entry) => entry | bit);
      const { task, reported } = run(table, page, 2, false);
      runToEnd(task);
      expect(reported).toEqual([[page, 1]]);
    },
  );
  it('does not report again what another read has reported and cleared meanwhile', () => {
    const table = new SecondStageTable({ memory: new TableMemory({ pages: 16 }), accessedDirty: true });
    table.map({ page: 0, frame: 1, pages: 2, rights });
    for (const page of [0, 1]) change(table, page, (entry) => entry | bit);
    const { memory } = table;
    const exchange = memory.compareExchange.bind(memory);
    let meddled = false;
    memory.compareExchange = (pfn, index, expected, replacement) => {
      if (!meddled) change(table, 0, (entry) => entry & ~bit);
      meddled = true;
      return exchange(pfn, index, expected, replacement);
    };
    const { task, reported } = run(table, 0, 2, true);
    runToEnd(task);
    expect(reported).toEqual([[1, 1]]);
  });
});

describe('a dirty read whose leaf becomes a table before its step', () => {
  /** Three 2M leaves; between look and step the middle one is cut, and one of its pages written. */
  function afterCut(clear: boolean, bits: bigint) {
    const table = new SecondStageTable({ memory: new TableMemory({ pages: 16 }), accessedDirty: true });
    table.map({ page: 512, frame: 512, pages: 1536, rights });
    const reported: number[][] = [];
    const request = { page: 512, pages: 1536, clear };
    const task = readAndClearDirty(PLAIN, table, request, new InvalidationGather(), (page, count) =>
      reported.push([page, count]),
    );
    const finish = paused(task, 1);
    table.cut(1030, 1, new InvalidationGather());
    change(table, 1031, (entry) => entry | 0x300n);
    change(table, 1536, (entry) => entry | 0x300n);
    // Hardware sets A in the entry that leads to the table, too; what is in the place of D says nothing there.
    const upper = slotOf(table, 512) as { pfn: number; index: number };
    const leading = table.memory.load(upper.pfn, upper.index + 1);
    table.memory.store(upper.pfn, upper.index + 1, leading | bits);
    finish();
    return { table, reported, leading: table.memory.load(upper.pfn, upper.index + 1) };
  }
  it.each([
    [false, 0n],
    [false, 0x300n],
    [true, 0n],
    [true, 0x300n],
  ])('reports the pages below it, and no page twice (clear: %s, bits above: %s)', (clear, bits) => {
    const { table, reported, leading } = afterCut(clear, bits);
    expect(reported).toEqual([
      [1031, 1],
      [1536, 512],
    ]);
    expect(leading & 0x300n).toBe(bits);
    expect(setOf(table, 0x200n)).toEqual(clear ? [] : reported);
  });
  it('and the other way round: of a table that became a leaf it reports the leaf', () => {
    const table = new SecondStageTable({ memory: new TableMemory({ pages: 16 }), accessedDirty: true });
    table.map({ page: G, frame: G, pages: 512, rights });
    table.cut(G + 1, 1, new InvalidationGather());
    change(table, G + 300, (entry) => entry | 0x300n);
    const reported: number[][] = [];
    const request = { page: G, pages: 512, clear: false };
    const task = readAndClearDirty(PLAIN, table, request, new InvalidationGather(), (page, count) =>
      reported.push([page, count]),
    );
    const finish = paused(task, 1);
    const gather = new InvalidationGather();
    runToEnd(collapse(PLAIN, table, G, 512, gather));
    finish();
    // The run that it had found is in the old table, which is there until the flush, with the bit.
    expect(reported).toEqual([[G + 300, 1]]);
    table.settle(gather);
    expect(setOf(table, 0x200n)).toEqual([[G, 512]]);
  });
  it('of a leaf that has gone it reports nothing, and goes on behind it', () => {
    const table = new SecondStageTable({ memory: new TableMemory({ pages: 16 }), accessedDirty: true });
    table.map({ page: 0, frame: 1, pages: 4, rights });
    for (const page of [1, 3]) change(table, page, (entry) => entry | 0x300n);
    const reported: number[] = [];
    const task = readAndClearDirty(PLAIN, table, { page: 0, pages: 4, clear: true }, new InvalidationGather(), (page) =>
      reported.push(page),
    );
    const finish = paused(task, 1);
    const gather = new InvalidationGather();
    table.unmap(1, 2, gather);
    expect(finish()).toBe(1);
    expect(reported).toEqual([3]);
    expect(table.settle(gather)).toEqual([{ page: 1, pages: 1 }]);
  });
});
