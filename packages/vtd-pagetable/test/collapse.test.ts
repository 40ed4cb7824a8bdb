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
import { MeddledMemory } from './meddled-memory.ts';
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

describe('at the very moment of the install', () => {
  function meddled(...meddling: ((entry: bigint) => bigint)[]) {
    const memory = new MeddledMemory({ pages: 64 });
    const table = new SecondStageTable({ memory, accessedDirty: true });
    table.map({ page: G, frame: 7 * G, pages: 512, rights, largest: 1 });
    const before = table.mappedPages;
    memory.meddling.push(...meddling);
    const { result, gather } = collapsed(table, G, 512);
    return { table, result, gather, left: memory.meddling.length, before };
  }
  it('A that hardware sets in the entry, however often, does not keep it from collapsing', () => {
    const accessed = (entry: bigint) => entry | 0x100n;
    for (const meddling of [[accessed], [accessed, (entry: bigint) => entry & ~0x100n, accessed]]) {
      const { table, result, left } = meddled(...meddling);
      expect([result.leaves['2M'], result.obstacles.changed, left]).toEqual([1, 0, 0]);
      expect(table.leafAt(G)?.level).toBe(2);
    }
  });
  it.each([
    ['its rights', (entry: bigint) => entry & ~2n],
    ['the table that it leads to', (entry: bigint) => entry + 0x1000n],
  ])(
    'what software changes in it, such as %s, does: the entry stays as it is, and nothing is counted',
    (_of, change) => {
      for (const meddling of [[change], [(entry: bigint) => entry | 0x100n, change]]) {
        const { table, result, gather, before } = meddled(...meddling);
        expect([result.leaves['2M'], result.obstacles.changed]).toEqual([0, 1]);
        expect([table.mappedPages, table.leafCounts['4K'], gather.empty, gather.freedTables]).toEqual([
          before,
          512,
          true,
          [],
        ]);
        expect([...table.collapses]).toEqual([0, 0, 0, 0]);
      }
    },
  );
});

describe('how far it goes', () => {
  const counts = (table: SecondStageTable, page: number, pages: number) => collapsed(table, page, pages).result.leaves;
  it.each<[string, number, number, CollapseResult['leaves']]>([
    ['all but the last page of a table: that stays', G + 69_632, 511, { '2M': 0, '1G': 0 }],
    [
      'all but the last 2M of a GiB: no 1G leaf, which would translate what nobody asked for',
      G,
      G - 512,
      { '2M': 1, '1G': 0 },
    ],
    ['a GiB that starts in the middle of one', G + 512, G, { '2M': 1, '1G': 0 }],
  ])('%s', (_of, page, pages, leaves) => expect(counts(cutUp(), page, pages)).toEqual(leaves));
  it('a GiB that fails does not keep the next one from 1G', () => {
    const table = newTable();
    table.map({ page: G, frame: 3 * G, pages: 2 * G, rights });
    for (const gib of [G, 2 * G]) table.cut(gib + 600, 1, new InvalidationGather());
    table.unmap(G + 600, 1, new InvalidationGather());
    expect(collapsed(table, G, 2 * G).result).toEqual({
      leaves: { '2M': 0, '1G': 1 },
      obstacles: { ...none, hole: 2 },
    });
  });
});

/** A block of 4K leaves. */
function smallLeaves(): SecondStageTable {
  const table = newTable();
  table.map({ page: G, frame: 7 * G, pages: 512, rights, largest: 1 });
  return table;
}

describe('what a leaf for all would not say', () => {
  it.each<[string, number, (entry: bigint) => bigint, Partial<CollapseResult['obstacles']>]>([
    ['another frame among those in a row', 5, (entry) => entry + 0x1000n, { frames: 1 }],
    ['a bit that software keeps in bit 7, which is no page size here', 5, (entry) => entry | 0x80n, { attributes: 1 }],
  ])('%s', (_of, at, bits, obstacles) => {
    const table = smallLeaves();
    change(table, G + at, bits);
    expect(collapsed(table, G, 512).result).toEqual({
      leaves: { '2M': 0, '1G': 0 },
      obstacles: { ...none, ...obstacles },
    });
  });
  it.each([
    ['reads', 1n, 3],
    ['writes', 2n, 3],
    ['reads', 1n, 2],
    ['writes', 2n, 2],
  ])('that the entry of a table allows no %s (%#x, level %d)', (_of, bit, level) => {
    const table = cutUp();
    const [pfn, index] = tableAbove(table, level);
    table.memory.store(pfn, index, table.memory.load(pfn, index) & ~bit);
    const { leaves, obstacles } = collapsed(table).result;
    expect([leaves['1G'], obstacles.attributes > 0]).toEqual([0, true]);
  });
});

/** Table and index of the entry at `level` that leads to the leaf of G + 70_001. */
function tableAbove(table: SecondStageTable, level: number): [number, number] {
  const page = G + 70_001;
  const above = [...reachedTables(table)].find(
    ([, of]) => of.level === level && of.page <= page && page < of.page + of.pages,
  );
  return [above?.[0] ?? -1, Math.floor(page / 512 ** (level - 1)) % 512];
}

describe('all leaves of a table changed alike between the look and the install', () => {
  it.each<[string, (entry: bigint) => bigint]>([
    ['frames, as a move of the memory would', (entry) => entry + (512n << 12n)],
    ['rights', (entry) => entry & ~2n],
  ])('%s: is noticed', (_of, bits) => {
    const table = smallLeaves();
    const task = collapse(PLAIN, table, G, 512, new InvalidationGather());
    for (let step = task.next(); !step.done && step.value.label !== 'install leaf for table'; ) step = task.next();
    for (let page = G; page < G + 512; page++) change(table, page, bits);
    expect(runToEnd(task)).toEqual({ leaves: { '2M': 0, '1G': 0 }, obstacles: { ...none, changed: 1 } });
    expect(table.leafCounts['4K']).toBe(512);
  });
  it('a table that goes before the look is no obstacle', () => {
    const table = smallLeaves();
    const task = collapse(PLAIN, table, G, 512, new InvalidationGather());
    task.next();
    table.unmap(G, 512, new InvalidationGather());
    expect(runToEnd(task)).toEqual({ leaves: { '2M': 0, '1G': 0 }, obstacles: none });
  });
});
