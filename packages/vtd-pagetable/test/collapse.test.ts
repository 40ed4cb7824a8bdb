import { runToEnd } from '@faultline/sim';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type CollapseResult,
  collapse,
  DEFAULT_ENTRY_CAPABILITIES,
  InvalidationGather,
  SecondStageTable,
  TableMemory,
  WalkState,
  WalkStatus,
  walk,
} from '../src/index.ts';
import { NaiveTable, reachedTables, slotOf } from './naive-table.ts';
import { PLAIN } from './plain-agent.ts';

const G = 262_144;
const rights = { read: true, write: true };
const none = { hole: 0, frames: 0, attributes: 0, changed: 0 };

function newTable(pages = 64): SecondStageTable {
  return new SecondStageTable({ memory: new TableMemory({ pages }), reservePages: 0 });
}

/** A GiB of small leaves at G, over frames from `frame` on. */
function cutUp(frame = 7 * G, page = G + 70_001): SecondStageTable {
  const table = newTable();
  table.map({ page: G, frame, pages: G, rights, attributes: 1n << 63n });
  table.cut(page, 1, new InvalidationGather());
  return table;
}

function collapsed(
  table: SecondStageTable,
  page = G,
  pages = G,
): { result: CollapseResult; gather: InvalidationGather } {
  const gather = new InvalidationGather();
  return { result: table.collapse(page, pages, gather), gather };
}

function change(table: SecondStageTable, page: number, bits: (entry: bigint) => bigint): void {
  const { pfn, index } = slotOf(table, page) as { pfn: number; index: number };
  table.memory.store(pfn, index, bits(table.memory.load(pfn, index)));
}

const entries = (table: SecondStageTable) => [...table.allLeaves()].map(({ page, entry }) => [page, entry]);

describe('a collapse', () => {
  it('undoes any cuts, at once from 4K to 1G, and says what it owes', () => {
    const cuts = fc.array(fc.tuple(fc.nat(G - 1), fc.constantFrom(1, 3, 512, 5000)), { minLength: 1, maxLength: 4 });
    fc.assert(
      fc.property(cuts, (ranges) => {
        const table = newTable();
        table.map({ page: G, frame: 3 * G, pages: 2 * G, rights, attributes: 1n << 63n });
        const before = entries(table);
        for (const [page, pages] of ranges) table.cut(G + page, pages, new InvalidationGather());
        const used = table.memory.used;
        const { result, gather } = collapsed(table, G, 2 * G);
        expect(entries(table)).toEqual(before);
        expect(result).toEqual({ leaves: { '2M': 0, '1G': result.leaves['1G'] }, obstacles: none });
        expect([gather.leafOnly, gather.firstPage % G, (gather.lastPage + 1) % G]).toEqual([
          used === 2,
          gather.empty ? -1 : 0,
          0,
        ]);
        expect([table.memory.used, table.tablePages]).toEqual([used, reachedTables(table).size]);
        expect(gather.freedTables).toHaveLength(used - table.tablePages);
        expect(table.settle(gather)).toEqual([]);
        expect([table.memory.used, table.leafCounts]).toEqual([table.tablePages, { '4K': 0, '2M': 0, '1G': 2 }]);
        table.destroy();
        expect(table.memory.used).toBe(0);
      }),
      { numRuns: 60 },
    );
  });
  it('is hitless: at every yield every address translates as before', () => {
    const table = cutUp();
    const task = collapse(PLAIN, table, G, G, new InvalidationGather());
    const state = new WalkState();
    let steps = 0;
    for (let step = task.next(); ; step = task.next()) {
      for (const page of [0, 1, 511, 512, 70_000, 70_001, 70_002, G - 1]) {
        const status = walk(table.memory, table.masks, table.beginWalk(state, G + page, 1));
        expect([status, state.framePfn]).toEqual([WalkStatus.translated, 7 * G + page]);
      }
      if (step.done) break;
      steps++;
    }
    expect(steps).toBe(2);
  });
  it('takes the parts of a GiB that go, and counts why the others do not', () => {
    const table = newTable(600);
    const unit = { ...DEFAULT_ENTRY_CAPABILITIES, page2M: false, page1G: false };
    const small = new SecondStageTable({ memory: table.memory, capabilities: unit });
    small.map({ page: G, frame: 0, pages: 6 * 512, rights });
    expect(collapsed(small, G, 3072).result).toEqual({ leaves: { '2M': 0, '1G': 0 }, obstacles: none });
    // Six blocks of 4K leaves: whole, with a hole, frames out of order, read only in part, not aligned, whole.
    for (let block = 0; block < 6; block++)
      for (const half of [0, 256]) {
        const page = G + block * 512 + half;
        const frame = block * 512 + half + (block === 4 ? 256 : 0);
        if (block === 2) table.map({ page, frame: block * 512 + 256 - half, pages: 256, rights });
        else table.map({ page, frame, pages: 256, rights: { read: true, write: block !== 3 || half === 0 } });
      }
    table.unmap(G + 512 + 77, 1, new InvalidationGather());
    const { result } = collapsed(table);
    // The GiB as a whole fails first, by its first hole; then block by block.
    expect(result).toEqual({
      leaves: { '2M': 2, '1G': 0 },
      obstacles: { hole: 2, frames: 2, attributes: 1, changed: 0 },
    });
    expect([...table.collapses]).toEqual([0, 0, 2, 0]);
    expect(table.leafAt(G)?.level).toBe(2);
    expect(table.leafAt(G + 5 * 512)?.level).toBe(2);
  });
  it('leaves alone what the range covers in part, and a 1G leaf that the unit has not', () => {
    const table = cutUp();
    expect(collapsed(table, G + 69_633, 511).result).toEqual({ leaves: { '2M': 0, '1G': 0 }, obstacles: none });
    expect(collapsed(table, G + 69_632, 512).result.leaves).toEqual({ '2M': 1, '1G': 0 });
    const capabilities = { ...DEFAULT_ENTRY_CAPABILITIES, page1G: false };
    const unit = new SecondStageTable({ memory: new TableMemory({ pages: 64 }), capabilities });
    unit.map({ page: G, frame: 0, pages: G, rights });
    expect(collapsed(unit).result).toEqual({ leaves: { '2M': 0, '1G': 0 }, obstacles: none });
    expect(collapsed(newTable(), 0, 5 * G).result).toEqual({ leaves: { '2M': 0, '1G': 0 }, obstacles: none });
  });
  it('does not take rights that a table entry withholds', () => {
    const table = cutUp();
    const [[root = 0] = []] = [...reachedTables(table)].filter(([, { level }]) => level === 3);
    table.memory.store(root, 1, table.memory.load(root, 1) & ~2n);
    // The 1G candidate's own entry says read only: the leaf would allow writes.
    expect(collapsed(table).result.obstacles.attributes).toBeGreaterThan(0);
    expect(table.leafAt(G)?.level).toBe(2);
  });
});

describe('A and D', () => {
  it('are folded by OR', () => {
    const table = cutUp();
    change(table, G + 70_100, (entry) => entry | 0x100n);
    change(table, G + 5, (entry) => entry | 0x200n);
    collapsed(table);
    expect((table.leafAt(G) as { entry: bigint }).entry & 0x300n).toBe(0x300n);
  });
  it.each([
    ['in the old table after the install, are in the leaf when the table is freed', 'late'],
    ['in the old table after a dirty read of the leaf, too', 'read'],
    ['for a leaf that has gone meanwhile, are reported', 'unmapped'],
    ['for a leaf that has been cut meanwhile, are in its part', 'cut'],
  ] as const)('that hardware sets %s', (_name, kind) => {
    const table = new SecondStageTable({ memory: new TableMemory({ pages: 64 }), accessedDirty: true });
    table.map({ page: G, frame: 7 * G, pages: G, rights });
    table.cut(G + 70_001, 1, new InvalidationGather());
    const slot = slotOf(table, G + 70_001) as { pfn: number; index: number };
    if (kind === 'read') change(table, G, (entry) => entry | 0x200n);
    const { gather } = collapsed(table);
    if (kind === 'read') {
      const range = { iova: BigInt(G) << 12n, length: 0x1000n, clear: true };
      expect(table.readAndClearDirty(range, gather, () => undefined)).toBe(1);
    }
    if (kind === 'unmapped') table.unmap(G, G, gather);
    if (kind === 'cut') table.cut(G + 70_001, 1, gather);
    table.memory.store(slot.pfn, slot.index, table.memory.load(slot.pfn, slot.index) | 0x300n);
    const dirty = table.settle(gather);
    expect(dirty).toEqual(kind === 'unmapped' ? [{ page: G + 70_001, pages: 1 }] : []);
    const leaf = table.leafAt(G + 70_001);
    if (kind === 'unmapped') expect(leaf).toBeNull();
    else expect([leaf?.level, (leaf?.entry ?? 0n) & 0x300n]).toEqual([kind === 'cut' ? 1 : 3, 0x300n]);
    if (kind === 'cut') expect((table.leafAt(G + 70_002)?.entry ?? 0n) & 0x300n).toBe(0n);
  });
});

describe('between the look and the install', () => {
  /** Runs a collapse of one GiB up to its install, lets `meddle` act, and ends it. */
  function meddled(meddle: (table: SecondStageTable) => void): { table: SecondStageTable; result: CollapseResult } {
    const table = cutUp();
    const task = collapse(PLAIN, table, G, G, new InvalidationGather());
    for (let step = task.next(); !step.done && step.value.label !== 'install leaf for table'; ) step = task.next();
    meddle(table);
    return { table, result: runToEnd(task) };
  }
  it('bits of hardware are taken along', () => {
    const { table, result } = meddled((t) => {
      change(t, G + 70_001, (entry) => entry | 0x300n);
      const [[root = 0] = []] = [...reachedTables(t)].filter(([, { level }]) => level === 3);
      t.memory.store(root, 1, t.memory.load(root, 1) | 0x100n);
    });
    expect(result.leaves['1G']).toBe(1);
    expect((table.leafAt(G) as { entry: bigint }).entry & 0x300n).toBe(0x300n);
  });
  it.each<[string, (table: SecondStageTable) => void]>([
    ['an unmap', (table) => table.unmap(G + 70_001, 1, new InvalidationGather())],
    [
      'other rights',
      (table) =>
        table.protectRange(BigInt(G + 70_001) << 12n, 4096n, { read: true, write: false }, new InvalidationGather()),
    ],
    ['a collapse by somebody else', (table) => collapsed(table)],
  ])('%s is noticed, and nothing is done', (_name, meddle) => {
    let mapped = -1;
    const { table, result } = meddled((t) => {
      meddle(t);
      mapped = t.mappedPages;
    });
    expect(result.obstacles.changed).toBeGreaterThan(0);
    expect([result.leaves['1G'], table.mappedPages]).toEqual([0, mapped]);
    const state = new WalkState();
    walk(table.memory, table.masks, table.beginWalk(state, G + 70_002, 0));
    expect(state.framePfn).toBe(7 * G + 70_002);
  });
});

it('a model that maps the same again agrees', () => {
  const table = newTable();
  const model = new NaiveTable();
  table.map({ page: 512, frame: 512, pages: 1024, rights });
  model.map(512, 512, 1024, 3n);
  table.cut(700, 1, new InvalidationGather());
  collapsed(table, 0, 2048);
  expect(entries(table)).toEqual(model.list());
});
