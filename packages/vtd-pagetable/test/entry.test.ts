import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  DEFAULT_ENTRY_CAPABILITIES,
  type EntryCapabilities,
  encodeLeaf,
  encodeTable,
  entryFrame,
  entryName,
  FaultReason,
  faultReasonText,
  isLeaf,
  isPresent,
  isWalkError,
  leafAttributes,
  levelFrameShift,
  levelFrames,
  reservedMasks,
  rightsBits,
  SecondStageTable,
  SS_ACCESSED,
  SS_ADDRESS_MASK,
  SS_DIRTY,
  SS_PAGE_SIZE,
  SS_SNOOP,
  type TableLevel,
  TableMemory,
  tableIndex,
  WalkAccess,
  WalkState,
  walk,
} from '../src/index.ts';
import { isReserved } from './naive-table.ts';

const frames = fc.integer({ min: 0, max: 2 ** 40 - 1 });
const attributes = fc
  .bigInt({ min: 0n, max: 2n ** 64n - 1n })
  .map((bits) => bits & ~(SS_ADDRESS_MASK | SS_PAGE_SIZE | 3n));

describe('encoding', () => {
  it('a leaf decodes to what it was made of', () => {
    fc.assert(
      fc.property(fc.constantFrom<TableLevel>(1, 2, 3), frames, fc.nat(3), attributes, (level, frame, rights, bits) => {
        const entry = encodeLeaf(level, frame, rights, bits);
        expect(entryFrame(entry)).toBe(frame);
        expect(Number(entry & 3n)).toBe(rights);
        expect(isPresent(entry)).toBe(rights !== 0);
        expect(isLeaf(entry, level)).toBe(true);
        expect(leafAttributes(entry)).toBe(bits);
        expect(entry < 1n << 64n && (entry & SS_PAGE_SIZE) !== 0n).toBe(level > 1);
      }),
    );
  });
  it('a table entry has R and W and nothing else', () => {
    fc.assert(
      fc.property(frames, (frame) => {
        expect(encodeTable(frame)).toBe((BigInt(frame) << 12n) | 3n);
        for (const level of [2, 3, 4, 5]) expect(isLeaf(encodeTable(frame), level)).toBe(false);
      }),
    );
  });
  it('known values', () => {
    expect(encodeLeaf(1, 0x12345, 3)).toBe(0x12345003n);
    expect(encodeLeaf(2, 0x200, 1, SS_ACCESSED | SS_DIRTY)).toBe(0x200381n);
    expect(encodeLeaf(3, 0x40000, 3, SS_SNOOP)).toBe(0x40000883n);
    expect([rightsBits({ read: true, write: false }), rightsBits({ read: false, write: true })]).toEqual([1, 2]);
    expect(isPresent(0x12345004n)).toBe(false);
    // PS means a leaf in an SS-PDE and SS-PDPTE only.
    expect([1, 2, 3, 4, 5].map((level) => isLeaf(0x83n, level))).toEqual([true, true, true, false, false]);
    expect([1, 2, 3, 4, 5].map((level) => isLeaf(0x03n, level))).toEqual([true, false, false, false, false]);
  });
  it('levels tile the address space', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 2 ** 45 - 1 }), (page) => {
        let rebuilt = 0;
        for (const level of [1, 2, 3, 4, 5]) {
          expect(levelFrames(level)).toBe(2 ** levelFrameShift(level));
          rebuilt += tableIndex(page, level) * levelFrames(level);
        }
        expect(rebuilt).toBe(page);
      }),
    );
  });
  it('names and reasons are those of the specification', () => {
    expect([1, 2, 3, 4, 5].map(entryName)).toEqual(['SS-PTE', 'SS-PDE', 'SS-PDPTE', 'SS-PML4E', 'SS-PML5E']);
    expect(entryName(6)).toBe('level-6 entry');
    expect(faultReasonText(FaultReason.pagingReserved)).toBe('reserved bit in paging entry (0xc)');
    expect(faultReasonText(99)).toBe('unknown reason (0x63)');
    expect([4, 5, 6, 7, 12].map(isWalkError)).toEqual([false, false, false, true, true]);
  });
});

const units: fc.Arbitrary<EntryCapabilities> = fc.record({
  hostAddressWidth: fc.integer({ min: 32, max: 52 }),
  page2M: fc.boolean(),
  page1G: fc.boolean(),
  snoopControl: fc.boolean(),
  specRevision: fc.constantFrom('3.x', '5.10'),
  deviceTlb: fc.boolean(),
});

/** Walks to an entry at `level` whose upper levels are plain tables, and gives the reason of the fault, or 0. */
function reasonFor(unit: EntryCapabilities, level: TableLevel, entry: bigint): number {
  const memory = new TableMemory({ pages: 8 });
  const tables = [1, 2, 3, 4, 5].map(() => memory.allocate());
  for (let at = 5; at > level; at--) memory.store(tables[5 - at] as number, 0, encodeTable(tables[6 - at] as number));
  memory.store(tables[5 - level] as number, 0, entry);
  const state = new WalkState();
  state.begin(tables[0] as number, 5, 0, 0, WalkAccess.read);
  walk(memory, reservedMasks(unit), state);
  // A table entry that passes leads to an empty table.
  return state.faultReason === FaultReason.readNotAllowed && state.level < level ? 0 : state.faultReason;
}

describe('reserved bits', () => {
  it('each bit of each kind of entry, for any unit, is as tables 43-47 say', () => {
    fc.assert(
      fc.property(units, fc.constantFrom<TableLevel>(1, 2, 3, 4, 5), fc.boolean(), (unit, level, large) => {
        const supported = level === 1 || (level === 2 && unit.page2M) || (level === 3 && unit.page1G);
        const leaf = level === 1 || (large && supported);
        const base = leaf ? encodeLeaf(level, 0, 3) : encodeTable(0x1001 + 5 - level);
        expect(reasonFor(unit, level, base)).toBe(0);
        for (let bit = 2; bit < 64; bit++) {
          const inAddress = bit >= 12 && bit < unit.hostAddressWidth;
          if ((!leaf && inAddress) || (bit === 7 && supported && level > 1)) continue;
          const expected =
            isReserved(bit, level, leaf, unit) && (bit !== 7 || level > 1) ? FaultReason.pagingReserved : 0;
          expect(reasonFor(unit, level, base | (1n << BigInt(bit))), `level ${level} bit ${bit}`).toBe(expected);
        }
      }),
      { numRuns: 150 },
    );
  });
  it('count only where R or W is set', () => {
    const junk = 0x7fff_ffff_ffff_fffcn;
    for (const level of [1, 2, 3, 4, 5] as const)
      expect(reasonFor(DEFAULT_ENTRY_CAPABILITIES, level, junk)).toBe(FaultReason.readNotAllowed);
  });
  it.each([31, 53, 46.5, Number.NaN])('refuse a host address width of %s', (hostAddressWidth) => {
    expect(() => reservedMasks({ ...DEFAULT_ENTRY_CAPABILITIES, hostAddressWidth })).toThrow('hostAddressWidth');
  });
  it('of a unit that has no leaf size are never written by map', () => {
    const rights = { read: true, write: true };
    for (const [page2M, page1G, sizes] of [
      [true, true, ['1G']],
      [true, false, ['2M']],
      [false, false, ['4K']],
      [false, true, ['4K']],
    ] as const) {
      const capabilities = { ...DEFAULT_ENTRY_CAPABILITIES, page2M, page1G };
      const table = new SecondStageTable({ memory: new TableMemory({ pages: 600 }), capabilities });
      table.map({ page: 0, frame: 0, pages: 262144, rights });
      expect(Object.entries(table.leafCounts).flatMap(([size, count]) => (count > 0 ? [size] : []))).toEqual(sizes);
      walk(table.memory, table.masks, table.beginWalk(new WalkState(), 12345, WalkAccess.write));
      expect(table.frameAt(12345)).toBe(12345);
    }
  });
});
