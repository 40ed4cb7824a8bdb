import fc from 'fast-check';
import { expect, it } from 'vitest';
import {
  encodeLeaf,
  encodeTable,
  entryFrame,
  InvalidationGather,
  isLeaf,
  leafAttributes,
  levelFrames,
  SecondStageTable,
  type TableLevel,
  TableMemory,
  tableIndex,
  WalkState,
  WalkStatus,
  walk,
} from '../src/index.ts';
import { NaiveTable, reachedTables, slotOf } from './naive-table.ts';

const G = 262_144;
const rights = { read: true, write: true };
/** Bits that software may use in any entry: 10, 52 to 60, 63. */
const SOFTWARE_BITS = [10, 52, 53, 54, 55, 56, 57, 58, 59, 60, 63].map((bit) => 1n << BigInt(bit));

/** A table of one geometry; at its end no page may be left, as each case of the kernel checks its page counter. */
export type Geometry = 3 | 4 | 5;

function withTable(levels: Geometry, use: (table: SecondStageTable) => void, pages = 600): void {
  const memory = new TableMemory({ pages });
  const table = new SecondStageTable({ memory, levels, accessedDirty: true });
  use(table);
  expect(table.tablePages).toBe(reachedTables(table).size);
  table.destroy();
  expect(memory.used).toBe(0);
}

function walked(table: SecondStageTable, page: number): WalkState {
  const state = new WalkState();
  walk(table.memory, table.masks, table.beginWalk(state, page, 0));
  return state;
}

/**
 * The facts that the KUnit cases of Linux 7.3's generic page table check, as laws of ours; the README says which case is
 * which law.
 */
export function kernelFormatLaws(levels: Geometry): void {
  it('init: an empty table is one zeroed page and maps nothing', () =>
    withTable(levels, (table) => {
      expect([table.memory.isEmpty(table.rootPfn), table.tablePages, table.mappedPages]).toEqual([true, 1, 0]);
      expect([...table.allLeaves()]).toEqual([]);
      expect(table.largestLeafLevel).toBe(3);
    }));
  it('bitops: sizes and indexes agree with shifts of bigints, at the limits too', () => {
    for (const page of [0, 1, 511, 512, 2 ** 27 - 1, 2 ** 36 - 1, 2 ** 45 - 1])
      for (let level = 1; level <= 5; level++) {
        expect(BigInt(levelFrames(level))).toBe(1n << BigInt(9 * (level - 1)));
        expect(BigInt(tableIndex(page, level))).toBe((BigInt(page) >> BigInt(9 * (level - 1))) & 511n);
      }
  });
  it('best_pgsize: the largest size that both addresses and the length allow', () => {
    const place = fc.tuple(fc.nat(2), fc.constantFrom(0, 1, 511), fc.constantFrom(0, 1, 511));
    const near = place.map(([giga, mega, small]) => giga * G + mega * 512 + small);
    fc.assert(
      fc.property(near, near, fc.constantFrom(1, 511, 512, 1024, G - 1, G), (page, frame, pages) =>
        withTable(levels, (table) => {
          if (page % 512 !== frame % 512 && pages > 4096) return;
          table.map({ page, frame, pages, rights });
          const fits = (size: number) => page % size === 0 && frame % size === 0 && size <= pages;
          expect(levelFrames(table.leafAt(page)?.level ?? 0)).toBe([G, 512].find(fits) ?? 1);
        }),
      ),
      { numRuns: 60 },
    );
  });
  it('pgsz_count: a run of equal leaves ends where a larger one fits or the length is used up', () =>
    withTable(levels, (table) => {
      table.map({ page: 509, frame: 509, pages: 3 + 2 * 512 + 5, rights });
      expect([...table.allLeaves()].map(({ level }) => level).join('')).toBe(`111${'22'}11111`);
      expect(table.leafCounts).toEqual({ '4K': 8, '2M': 2, '1G': 0 });
    }));
  it('table_ptr: a table entry gives its frame back, at each level, and is no leaf', () => {
    for (let level = 2; level <= levels; level++)
      for (const pfn of [1, 0x1000, 2 ** 34 - 1]) {
        const entry = encodeTable(pfn);
        expect([entryFrame(entry), isLeaf(entry, level), entry & 3n]).toEqual([pfn, false, 3n]);
      }
  });
  it('max_va: the last page of the input range is mapped, the next is out of range', () =>
    withTable(levels, (table) => {
      const last = table.inputPages - 1;
      table.map({ page: last, frame: 77, pages: 1, rights });
      expect([table.frameAt(last), walked(table, last).framePfn, table.frameAt(last + 1)]).toEqual([77, 77, -1]);
      expect(() => table.map({ page: last + 1, frame: 1, pages: 1, rights })).toThrow('ERANGE');
      expect(walked(table, last + 1).status).toBe(WalkStatus.faulted);
    }));
  it('table_radix: the levels tile the input address, with no gap and no overlap', () => {
    expect(levelFrames(levels + 1)).toBe(2 ** (12 + 9 * levels) / 4096);
    for (const page of [0, 1, 123_456_789, 2 ** (9 * levels) - 1]) {
      let sum = 0;
      for (let level = 1; level <= levels; level++) sum += tableIndex(page, level) * levelFrames(level);
      expect(sum).toBe(page);
    }
  });
  it('entry_possible_sizes: leaves at levels 1 to 3, and PS above is a fault', () =>
    withTable(levels, (table) => {
      for (const [level, pages] of [
        [1, 1],
        [2, 512],
        [3, G],
      ] as const) {
        table.map({ page: level * G, frame: 0, pages, rights });
        expect(table.leafAt(level * G)?.level).toBe(level);
      }
      if (levels === 3) return;
      table.memory.store(table.rootPfn, 1, encodeLeaf(3, 0, 3));
      expect(walked(table, levelFrames(levels)).faultReason).toBe(12);
      table.memory.store(table.rootPfn, 1, 0n);
    }));
  it('entry_oa: a leaf of each size gives its address back, through the whole page, and can be cleared', () =>
    withTable(
      levels,
      (table) => {
        for (const pages of [1, 512, G]) {
          const frame = 5 * G;
          table.map({ page: G, frame, pages, rights });
          for (const offset of [0, pages >> 1, pages - 1])
            expect([table.frameAt(G + offset), walked(table, G + offset).framePfn]).toEqual([
              frame + offset,
              frame + offset,
            ]);
          expect(table.unmap(G, pages, new InvalidationGather())).toBe(pages);
          expect(table.frameAt(G)).toBe(-1);
        }
      },
      64,
    ));
  it('attr_from_entry: the attributes read from a leaf write the same leaf again', () => {
    for (const level of [1, 2, 3] as TableLevel[])
      for (const bits of [1, 2, 3])
        for (const attributes of [0n, 0x800n, 0x300n, ...SOFTWARE_BITS]) {
          const entry = encodeLeaf(level, 9 * G, bits, attributes);
          expect(encodeLeaf(level, entryFrame(entry), Number(entry & 3n), leafAttributes(entry))).toBe(entry);
        }
  });
  it('dirty: made dirty, a leaf of each size is read, cleared, and read clean', () => {
    for (const pages of [1, 512, G])
      withTable(levels, (table) => {
        table.map({ page: G, frame: 0, pages, rights });
        const read = (clear: boolean) => {
          const found: bigint[] = [];
          const range = { iova: BigInt(G) << 12n, length: 4096n, clear };
          table.readAndClearDirty(range, new InvalidationGather(), (iova, length) => found.push(iova, length));
          return found;
        };
        expect(read(true)).toEqual([]);
        const { pfn, index } = slotOf(table, G) as { pfn: number; index: number };
        table.memory.store(pfn, index, table.memory.load(pfn, index) | 0x200n);
        const dirty = [BigInt(G) << 12n, BigInt(pages) << 12n];
        expect([read(false), read(true), read(true)]).toEqual([dirty, dirty, []]);
      });
  });
  it.each(['leaf', 'table'])('sw_bit_%s: each software bit is kept and changes no translation', (kind) =>
    withTable(levels, (table) => {
      table.map({ page: 3, frame: 33, pages: 1, rights });
      const leaf = slotOf(table, 3) as { pfn: number; index: number };
      const place = kind === 'leaf' ? leaf : { pfn: table.rootPfn, index: 0 };
      const entry = table.memory.load(place.pfn, place.index);
      for (const bit of SOFTWARE_BITS) {
        table.memory.store(place.pfn, place.index, entry | bit);
        expect([table.frameAt(3), walked(table, 3).framePfn]).toEqual([33, 33]);
        table.map({ page: 4, frame: 34, pages: 1, rights });
        expect(table.unmap(4, 1, new InvalidationGather())).toBe(1);
        expect(table.memory.load(place.pfn, place.index)).toBe(entry | bit);
      }
    }),
  );
}

/** The cases that map and unmap. */
export function kernelMapLaws(levels: Geometry): void {
  it.each([1, 512, G])('map_simple: %i pages are one entry, and go as one', (pages) =>
    withTable(levels, (table) => {
      table.map({ page: 2 * G, frame: 3 * G, pages, rights });
      expect([...table.allLeaves()]).toHaveLength(1);
      expect([table.frameAt(2 * G + pages - 1), table.frameAt(2 * G + pages)]).toEqual([3 * G + pages - 1, -1]);
      expect(table.unmap(2 * G, pages, new InvalidationGather())).toBe(pages);
      expect(table.mappedPages).toBe(0);
    }),
  );
  it('map_table_to_oa: emptied tables give way to a large leaf, tables with a leaf do not', () =>
    withTable(levels, (table) => {
      for (const pages of [512, G]) {
        for (const page of [0, 7, pages - 1]) table.map({ page, frame: 1, pages: 1, rights });
        expect(() => table.map({ page: 0, frame: 0, pages, rights })).toThrow('EADDRINUSE');
        for (const page of [0, 7, pages - 1]) table.unmap(page, 1, new InvalidationGather());
        const gather = new InvalidationGather();
        expect(table.map({ page: 0, frame: 0, pages, rights }, gather)).toBe(pages);
        expect(gather.freedTables.length).toBeGreaterThan(0);
        expect([...table.allLeaves()]).toHaveLength(1);
        table.settle(gather);
        expect(table.unmap(0, pages, gather)).toBe(pages);
      }
    }));
  it('unmap_split: a part at the head takes the large page whole, and not the next', () => {
    for (const pages of [512, G])
      withTable(levels, (table) => {
        table.map({ page: 0, frame: 0, pages: 2 * pages, rights });
        expect(table.unmap(0, 1, new InvalidationGather())).toBe(pages);
        expect([table.frameAt(pages - 1), table.frameAt(pages)]).toEqual([-1, pages]);
        expect(table.unmap(pages + 1, 1, new InvalidationGather())).toBe(0);
      });
  });
  it('random_map: 1000 random maps and unmaps leave what a plain map says', () => {
    let random = levels;
    const next = (count: number) => {
      random = (Math.imul(random, 1_103_515_245) + 12_345) >>> 0;
      return (random >>> 8) % count;
    };
    withTable(levels, (table) => {
      const model = new NaiveTable();
      let mapped = 0;
      for (let call = 0; call < 1000; call++) {
        const page = next(3) * G + next(4) * 512 + next(3) * 100;
        const pages = [1, 512 - (page % 512), 100 + next(600), G - (page % G)][next(4)] as number;
        if (next(2) === 0) {
          const expected = model.map(page, page + 5 * G, pages, 3n);
          const map = () => table.map({ page, frame: page + 5 * G, pages, rights });
          if (expected === pages) expect(map()).toBe(pages);
          else expect(map).toThrow('EADDRINUSE');
          mapped += expected;
        } else {
          const gather = new InvalidationGather();
          const { pages: expected } = model.unmap(page, pages, 'linux-7.3', 'stop');
          expect(table.unmap(page, pages, gather)).toBe(expected);
          table.settle(gather);
        }
      }
      expect(mapped).toBeGreaterThan(G);
      expect([...table.allLeaves()].map(({ page, entry }) => [page, entry])).toEqual(model.list());
    });
  });
  it('pgsize_boundary: 0x20000 bytes at 0xfef80000 to 0x208b95d000 are 32 small pages', () =>
    withTable(levels, (table) => {
      expect(table.mapRange({ iova: 0xfef8_0000n, paddr: 0x20_8b95_d000n, length: 0x2_0000n, rights })).toBe(0x2_0000n);
      expect(table.leafCounts).toEqual({ '4K': 32, '2M': 0, '1G': 0 });
      for (let at = 0n; at < 0x2_0000n; at += 0x1000n)
        expect(table.iovaToPhys(0xfef8_0000n + at)).toBe(0x20_8b95_d000n + at);
    }));
  it('mixed: 0x3fe400000 to 0x4c0600000 onto itself is 14 x 2M, 3 x 1G, 3 x 2M', () =>
    withTable(levels, (table) => {
      const iova = 0x3_fe40_0000n;
      table.mapRange({ iova, paddr: iova, length: 0x4_c060_0000n - iova, rights });
      expect([...table.allLeaves()].map(({ level }) => level).join('')).toBe(`${'2'.repeat(14)}333222`);
      for (const at of [iova, 0x4_0000_0000n, 0x4_bfff_ffffn, 0x4_c05f_ffffn]) expect(table.iovaToPhys(at)).toBe(at);
    }));
}
