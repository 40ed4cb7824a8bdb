import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type DirtyRange, InvalidationGather, SecondStageTable, TableMemory } from '../src/index.ts';
import { ADDRESS, reachedTables, slotOf } from './naive-table.ts';

const G = 262_144;
const rights = { read: true, write: true };

/** A leaf of an unlinked table, in which hardware still sets bits. */
interface OldLeaf {
  readonly pfn: number;
  readonly index: number;
  readonly page: number;
  readonly pages: number;
  readonly frame: number;
}

/** A GiB at G of leaves as large as fit, cut at one page; frames from `frame` on. */
function newTable(frame = G, cutAt = 0): SecondStageTable {
  const table = new SecondStageTable({ memory: new TableMemory({ pages: 64 }), accessedDirty: true });
  table.map({ page: G, frame, pages: G, rights });
  if (cutAt >= 0) table.cut(G + cutAt, 1, new InvalidationGather());
  return table;
}

function leavesIn(table: SecondStageTable, tables: ReturnType<typeof reachedTables>): OldLeaf[] {
  const leaves: OldLeaf[] = [];
  for (const [pfn, { level, page }] of tables)
    for (let index = 0; index < 512; index++) {
      const entry = table.memory.load(pfn, index);
      if ((entry & 3n) === 0n || (level > 1 && (entry & 0x80n) === 0n)) continue;
      const pages = 512 ** (level - 1);
      leaves.push({ pfn, index, page: page + index * pages, pages, frame: Number((entry & ADDRESS) >> 12n) });
    }
  return leaves;
}

function setBits(table: SecondStageTable, { pfn, index }: { pfn: number; index: number }, bits: bigint): void {
  table.memory.store(pfn, index, table.memory.load(pfn, index) | bits);
}

const dirtyPages = (table: SecondStageTable): DirtyRange[] =>
  [...table.allLeaves()]
    .filter(({ entry }) => (entry & 0x200n) !== 0n)
    .map(({ page, level }) => ({ page, pages: 512 ** (level - 1) }));

/** What happens between the collapse and its flush. */
const meanwhile = fc.array(
  fc.record({
    what: fc.constantFrom('cut', 'unmap', 'same frames again', 'other frames'),
    page: fc.constantFrom(0, 1, 7, 511, 512, 1024, 70_000),
    pages: fc.constantFrom(1, 3, 512, 1024),
  }),
  { maxLength: 4 },
);

describe('bits that hardware sets in a table that a leaf has replaced', () => {
  it('are in the leaf of the same frames if it stands for all of the old one; else what is dirty is reported', () => {
    const marks = fc.array(fc.tuple(fc.nat(2000), fc.constantFrom(0x100n, 0x200n, 0x300n)), { maxLength: 6 });
    fc.assert(
      fc.property(
        meanwhile,
        marks,
        fc.constantFrom(0, 1, 600, 70_001),
        fc.constantFrom(0, G),
        (acts, set, cutAt, frame) => {
          const table = newTable(frame, cutAt);
          const before = reachedTables(table);
          const gather = new InvalidationGather();
          table.collapse(G, G, gather);
          const old = leavesIn(table, new Map([...before].filter(([pfn]) => gather.freedTables.includes(pfn))));
          for (const { what, page, pages } of acts) {
            table.cut(G + page, pages, gather);
            if (what === 'cut') continue;
            table.unmap(G + page, pages, gather);
            if (what === 'unmap') continue;
            const to = frame + page + (what === 'other frames' ? 2 * G : 0);
            for (let at = 0; at < pages; at++)
              if (table.frameAt(G + page + at) < 0)
                table.map({ page: G + page + at, frame: to + at, pages: 1, rights }, gather);
          }
          const reported: DirtyRange[] = [];
          const wanted = new Map([...table.allLeaves()].map((leaf) => [leaf.page, { leaf, bits: leaf.entry }]));
          const marked = new Map(set.map(([nth, bits]) => [nth % old.length, bits]));
          for (const [nth, bits] of [...marked].sort(([a], [b]) => a - b)) {
            const late = old[nth] as OldLeaf;
            setBits(table, late, bits);
            const now = table.leafAt(late.page);
            const covers =
              now !== null && 512 ** (now.level - 1) >= late.pages && now.frame + late.page - now.page === late.frame;
            const target = covers ? wanted.get(now.page) : undefined;
            if (target) target.bits |= bits;
            else if ((bits & 0x200n) !== 0n) reported.push({ page: late.page, pages: late.pages });
          }
          const byPage = (ranges: DirtyRange[]) => [...ranges].sort((a, b) => a.page - b.page);
          expect(byPage(table.settle(gather))).toEqual(byPage(reported));
          expect([...table.allLeaves()].map(({ entry }) => entry)).toEqual(
            [...wanted.values()].map(({ bits }) => bits),
          );
          table.destroy();
          expect(table.memory.used).toBe(0);
        },
      ),
      { numRuns: 80 },
    );
  });
  it('are not lost if hardware sets another in the leaf in the same moment', () => {
    const table = newTable();
    const slot = slotOf(table, G) as { pfn: number; index: number };
    const gather = new InvalidationGather();
    table.collapse(G, G, gather);
    setBits(table, slot, 0x200n);
    const { memory } = table;
    const exchange = memory.compareExchange.bind(memory);
    let meddled = false;
    memory.compareExchange = (pfn, index, expected, replacement) => {
      if (!meddled) setBits(table, { pfn, index }, 0x100n);
      meddled = true;
      return exchange(pfn, index, expected, replacement);
    };
    expect(table.settle(gather)).toEqual([]);
    expect((table.leafAt(G)?.entry ?? 0n) & 0x300n).toBe(0x300n);
  });
  it('are reported where the way to the leaf is corrupt', () => {
    const table = newTable();
    const slot = slotOf(table, G + 5) as { pfn: number; index: number };
    const gather = new InvalidationGather();
    table.collapse(G, G, gather);
    setBits(table, slot, 0x200n);
    // It leads to a page that is no table of this one, though what is in it looks like the leaf.
    const { memory } = table;
    const foreign = memory.allocate();
    memory.store(foreign, 1, table.leafAt(G)?.entry ?? 0n);
    memory.store(table.rootPfn, 0, (BigInt(foreign) << 12n) | 3n);
    expect(table.settle(gather)).toEqual([{ page: G + 5, pages: 1 }]);
  });
  it('are reported where nothing is mapped any more, the first frame of memory too', () => {
    const table = newTable(0);
    const slot = slotOf(table, G) as { pfn: number; index: number };
    const gather = new InvalidationGather();
    table.collapse(G, G, gather);
    table.cut(G, 1, gather);
    table.unmap(G, 1, gather);
    setBits(table, slot, 0x200n);
    expect(table.settle(gather)).toEqual([{ page: G, pages: 1 }]);
    expect(slotOf(table, G)).toBeNull();
  });
});

describe('bits in a table that was unmapped', () => {
  /** Unmaps a table of 4K leaves; `set` acts on it, as hardware does, before it is settled. */
  function settled(set: (table: SecondStageTable, pfn: number) => void): { dirty: DirtyRange[]; left: DirtyRange[] } {
    const table = newTable();
    const { pfn } = slotOf(table, G) as { pfn: number };
    const gather = new InvalidationGather();
    table.unmap(G, G, gather);
    set(table, pfn);
    const dirty = table.settle(gather);
    return { dirty, left: dirtyPages(table) };
  }
  it('are reported if they are D, leaf by leaf, to the last', () => {
    const { dirty } = settled((table, pfn) => {
      for (const index of [0, 3, 511]) setBits(table, { pfn, index }, 0x200n);
      setBits(table, { pfn, index: 5 }, 0x100n);
    });
    expect(dirty).toEqual([0, 3, 511].map((index) => ({ page: G + index, pages: 1 })));
  });
  it('are reported, and not left to a leaf that maps the same frames again', () => {
    const { dirty, left } = settled((table, pfn) => {
      setBits(table, { pfn, index: 3 }, 0x200n);
      table.map({ page: G, frame: G, pages: 512, rights });
    });
    expect([dirty, left]).toEqual([[{ page: G + 3, pages: 1 }], []]);
  });
  it('mean nothing in an entry that is not present, or that leads to a table', () => {
    const { dirty } = settled((table, pfn) => {
      table.memory.store(pfn, 9, 0x200n);
      // The table that led to it: its first entry is no leaf, and bit 9 of it is ignored by hardware.
      const above = [pfn - 1, pfn + 1].find((other) => (table.memory.load(other, 0) & ADDRESS) === BigInt(pfn) << 12n);
      if (above === undefined) throw new Error('the table above was not found');
      setBits(table, { pfn: above, index: 0 }, 0x300n);
    });
    expect(dirty).toEqual([]);
  });
});
