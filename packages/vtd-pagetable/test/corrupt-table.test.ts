import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  InvalidationGather,
  PageTableError,
  SecondStageTable,
  TableMemory,
  WalkState,
  WalkStatus,
  walk,
} from '../src/index.ts';
import { reachedTables } from './naive-table.ts';

const G = 262_144;
const rights = { read: true, write: true };

/** 4K leaves at G and around G + 70,000, 2M leaves beside them. */
function newTable(memory = new TableMemory({ pages: 64 })): SecondStageTable {
  const table = new SecondStageTable({ memory, accessedDirty: true });
  table.map({ page: G, frame: 0, pages: G, rights });
  table.cut(G + 70_000, 3, new InvalidationGather());
  return table;
}

/** The tables on the way to the 4K leaves, by level. */
function path(table: SecondStageTable): Record<number, number> {
  return Object.fromEntries([...reachedTables(table)].map(([pfn, { level }]) => [level, pfn]));
}

const operations: [string, (table: SecondStageTable, gather: InvalidationGather) => unknown][] = [
  ['allLeaves', (table) => [...table.allLeaves()]],
  ['frameAt', (table) => table.frameAt(G + 70_001)],
  ['map', (table) => table.map({ page: G + 70_001, frame: 0, pages: 1, rights })],
  ['unmap of a page', (table, gather) => table.unmap(G + 70_001, 1, gather)],
  ['unmap of a GiB', (table, gather) => table.unmap(G, G, gather)],
  ['cut', (table, gather) => table.cut(G + 70_001, 1, gather)],
  ['collapse', (table, gather) => table.collapse(0, 4 * G, gather)],
  ['protect', (table, gather) => table.protectRange(BigInt(G) << 12n, BigInt(G) << 12n, rights, gather)],
  [
    'dirty read',
    (table, gather) =>
      table.readAndClearDirty(
        { iova: BigInt(G) << 12n, length: BigInt(G) << 12n, clear: true },
        gather,
        () => undefined,
      ),
  ],
];

/** Corrupts the SS-PDE that leads to the 4K leaves. */
const corruptions: [string, (table: SecondStageTable) => bigint, string][] = [
  ['a cycle', (table) => (BigInt(table.rootPfn) << 12n) | 3n, 'is not the table of this place'],
  ['the table itself', (table) => (BigInt(path(table)[2] as number) << 12n) | 3n, 'is not the table of this place'],
  ['a frame outside table memory', () => 0x1234_5000n | 3n, 'frame 0x12345 is not the table of this place'],
  ['a frame beyond all memory', () => 0x3fff_ffff_f000n | 3n, 'is not the table of this place'],
  ['a reserved bit', (table) => (BigInt(path(table)[1] as number) << 12n) | 0x803n, 'reserved bits are set'],
  [
    'an address above the host width',
    (table) => (BigInt(path(table)[1] as number) << 12n) | (1n << 50n) | 3n,
    'reserved',
  ],
];

describe.each(corruptions)('an entry that leads to %s', (_name, entryOf, why) => {
  it.each(operations)('is an error that names it, in %s', (_operation, run) => {
    const table = newTable();
    const { 2: directory = 0 } = path(table);
    const index = Math.floor(70_000 / 512);
    const entry = entryOf(table);
    table.memory.store(directory, index, entry);
    let thrown: unknown;
    try {
      run(table, new InvalidationGather());
    } catch (error) {
      thrown = error;
    }
    expect(thrown).toBeInstanceOf(PageTableError);
    const { message, code } = thrown as PageTableError;
    expect(code).toBe('EIO');
    expect(message).toContain(
      `corrupt SS-PDE 0x${entry.toString(16)} at 0x${(directory * 4096 + index * 8).toString(16)}`,
    );
    expect(message).toContain(why);
  });
  it('does not hang a walk or stop the table from being destroyed', () => {
    const table = newTable();
    table.memory.store(path(table)[2] as number, Math.floor(70_000 / 512), entryOf(table));
    const state = table.beginWalk(new WalkState(), G + 70_001, 0);
    expect(walk(table.memory, table.masks, state)).not.toBe(WalkStatus.walking);
    table.destroy();
    expect(table.memory.used).toBe(0);
  });
});

it('another domain’s table is not followed, and not freed with this one', () => {
  const memory = new TableMemory({ pages: 64 });
  const [table, other] = [newTable(memory), newTable(memory)];
  const foreign = path(other)[1] as number;
  memory.store(path(table)[2] as number, Math.floor(70_000 / 512), (BigInt(foreign) << 12n) | 3n);
  expect(() => table.unmap(G, G, new InvalidationGather())).toThrow('is not the table of this place');
  table.destroy();
  expect([memory.isAllocated(foreign), other.frameAt(G + 70_001)]).toEqual([true, 70_001]);
  other.destroy();
  expect(memory.used).toBe(0);
});

it('a large leaf with address bits below its size is not cut', () => {
  const table = newTable();
  const { 2: directory = 0 } = path(table);
  table.memory.store(directory, 0, table.memory.load(directory, 0) | 0x1000n);
  expect(() => table.cut(G + 1, 1, new InvalidationGather())).toThrow(/EIO: corrupt SS-PDE 0x1083 .* below the size/);
});

it.each([true, false])(
  'what a map wrote before it met a corrupt entry is counted, and flushed; coherent: %s',
  (coherent) => {
    const table = new SecondStageTable({ memory: new TableMemory({ pages: 16, coherent }), reservePages: 0 });
    table.map({ page: 3 * 512, frame: 1, pages: 1, rights });
    const directory = path(table)[2] as number;
    const sound = table.memory.load(directory, 3);
    table.memory.store(directory, 3, (BigInt(directory) << 12n) | 3n);
    table.memory.flush(directory, 3);
    expect(() => table.map({ page: 0, frame: 0, pages: 6 * 512, rights })).toThrow(
      `EIO: corrupt SS-PDE 0x${directory.toString(16)}003`,
    );
    expect(table.memory.isUnflushed(directory, 0)).toBe(false);
    table.memory.store(directory, 3, sound);
    expect([...table.allLeaves()].map(({ page, level }) => [page, level])).toEqual([
      [0, 2],
      [512, 2],
      [1024, 2],
      [1536, 1],
    ]);
    expect(table.leafCounts).toEqual({ '4K': 1, '2M': 3, '1G': 0 });
  },
);

it('a root full of entries that lead back to it ends at once, in everything', () => {
  for (const [, run] of operations) {
    const table = newTable();
    for (let index = 0; index < 512; index++)
      table.memory.store(table.rootPfn, index, (BigInt(table.rootPfn) << 12n) | 3n);
    expect(() => run(table, new InvalidationGather())).toThrow('EIO: corrupt SS-PML4E');
    table.destroy();
    expect(table.memory.used).toBe(0);
  }
});

it('random words in tables: every operation ends, and fails only with an errno', () => {
  const word = fc.oneof(
    fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
    fc.nat(80).map((pfn) => BigInt(0x1000 + pfn) * 4096n + 3n),
  );
  const damage = fc.array(fc.tuple(fc.nat(6), fc.constantFrom(0, 1, 136, 137, 511), word), {
    minLength: 1,
    maxLength: 6,
  });
  fc.assert(
    fc.property(damage, fc.nat(operations.length - 1), (words, nth) => {
      const table = newTable();
      for (const [page, index, entry] of words) table.memory.store(0x1000 + page, index, entry);
      const gather = new InvalidationGather();
      try {
        operations[nth]?.[1](table, gather);
      } catch (thrown) {
        expect(thrown).toBeInstanceOf(PageTableError);
      }
      table.settle(gather);
      table.destroy();
      expect(table.memory.used).toBe(0);
    }),
    { numRuns: 500 },
  );
});
