import { Agent, runToEnd, TaskRun } from '@faultline/sim';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  encodeFirstStageLeaf,
  encodeFirstStageTable,
  FaultReason,
  type FirstStageOutcome,
  type FirstStageTable,
  FS_ACCESSED,
  FS_DIRTY,
  FS_PRESENT,
  FS_USER,
  FS_WRITE,
  firstStageEntryName,
  firstStageLayout,
  splitFirstStage,
  TableMemory,
  walkFirstStage,
} from '../src/index.ts';

const agent = new Agent('test');
const CAPABILITIES = { hostAddressWidth: 46, page1G: true };
const FRAME = 0x40_0000;

/** A table of four or five levels in which one entry of each leads to the next, down to the level of the leaf. */
function build(
  leafLevel: number,
  leaf: bigint,
  options: { coherent?: boolean; levels?: 4 | 5; above?: bigint[] } = {},
) {
  const { coherent = true, levels = 4, above = [] } = options;
  const memory = new TableMemory({ pages: 16, coherent });
  const rootPfn = memory.allocate();
  const places: { readonly pfn: number; readonly level: number }[] = [];
  let pfn = rootPfn;
  for (let level: number = levels; level > leafLevel; level--) {
    const next = memory.allocate();
    memory.store(pfn, 0, (above[level] ?? encodeFirstStageTable(0)) | (BigInt(next) << 12n));
    memory.flush(pfn, 0);
    places[level] = { pfn, level };
    pfn = next;
  }
  memory.store(pfn, 0, leaf);
  memory.flush(pfn, 0);
  places[leafLevel] = { pfn, level: leafLevel };
  const table: FirstStageTable = { memory, rootPfn, levels, capabilities: CAPABILITIES };
  const walk = (page: number, write = false): FirstStageOutcome => runToEnd(walkFirstStage(agent, table, page, write));
  const entry = (level: number): bigint => memory.load(places[level]?.pfn as number, 0);
  return { memory, table, walk, entry };
}

describe('first-stage entries', () => {
  it('have the reserved bits of tables 34 to 40, and no others', () => {
    for (const page1G of [false, true])
      for (const level of [1, 2, 3, 4, 5] as const)
        for (const leaf of [false, true]) {
          if (leaf && level > 3) continue;
          const { fields, reserved, name } = firstStageLayout(level, leaf, { hostAddressWidth: 46, page1G });
          const expected = new Set([46, 47, 48, 49, 50, 51]);
          if (level >= 4 || (level === 3 && !page1G)) expected.add(7);
          if (leaf && level === 2) for (let bit = 13; bit <= 20; bit++) expected.add(bit);
          if (leaf && level === 3) for (let bit = 13; bit <= 29; bit++) expected.add(bit);
          const bits = [...Array(64).keys()].filter((bit) => ((reserved[0] ?? 0n) >> BigInt(bit)) & 1n);
          expect([name, bits]).toEqual([firstStageEntryName(level), [...expected].sort((a, b) => a - b)]);
          expect(fields.reduce((sum, { high, low }) => sum + high - low + 1, 0)).toBe(64);
        }
  });
});

/** What 3.6 and table 30 say of the entries from the top down, for a request of user privilege. */
function expected(entries: readonly { level: number; entry: bigint }[], write: boolean, snoops: boolean): number {
  for (const { level, entry } of entries) {
    const has = (bit: number) => ((entry >> BigInt(bit)) & 1n) === 1n;
    const leaf = level === 1 || (level <= 3 && has(7));
    if (!has(0)) return 0x71;
    const [reserved = 0n] = firstStageLayout(level as 1, leaf, CAPABILITIES).reserved;
    if ((entry & reserved) !== 0n) return 0x72;
    if (!has(2)) return 0x81;
    if (leaf && write && !entries.every((other) => other.level < level || ((other.entry >> 1n) & 1n) === 1n))
      return 0x85;
    if (!snoops && (!has(5) || (leaf && write && !has(6)))) return 0x90;
    if (leaf) return 0;
  }
  return 0;
}

describe('a first-stage walk', () => {
  it('checks P, reserved bits, U/S, R/W and A as the specification says', () => {
    // Low bits at random, mostly as they should be, and now and then a reserved one.
    const bits = fc.tuple(fc.integer({ min: 0, max: 0x7f }), fc.constantFrom(0n, 0n, 0n, 1n << 47n, 1n << 63n));
    const reached = new Set<number>();
    const entryOf = ([low, high]: [number, bigint], usual: bigint): bigint =>
      low % 3 === 0 ? BigInt(low) | high : usual | high;
    fc.assert(
      fc.property(
        fc.constantFrom(1, 2, 3),
        fc.tuple(bits, bits, bits, bits),
        fc.boolean(),
        fc.boolean(),
        (leafLevel, random, write, coherent) => {
          const above: bigint[] = [];
          for (let level = 4; level > leafLevel; level--)
            above[level] = entryOf(random[4 - level] as [number, bigint], 0x27n) & ~0x80n;
          const usual = encodeFirstStageLeaf(leafLevel as 1, FRAME, true);
          const random4 = entryOf(random[3], usual) & ~0x80n;
          const leaf = random4 | (leafLevel > 1 ? 0x80n : 0n) | (BigInt(FRAME) << 12n);
          const { walk, entry } = build(leafLevel, leaf, { coherent, above });
          const levels = [4, 3, 2, 1].filter((level) => level >= leafLevel);
          const before = levels.map((level) => ({ level, entry: entry(level) }));
          const page = leafLevel === 1 ? 0 : 3;
          const { reason, frame } = walk(page, write);
          expect(reason).toBe(expected(before, write, coherent));
          expect(frame).toBe(reason === 0 ? FRAME + page : -1);
          reached.add(reason);
        },
      ),
      { numRuns: 400 },
    );
    expect([...reached].sort()).toEqual([0, 0x71, 0x72, 0x81, 0x85, 0x90]);
  });

  it('sets A in every entry used, and D in the leaf of a write only, if it snoops', () => {
    const { walk, entry } = build(2, encodeFirstStageLeaf(2, FRAME, true) & ~(FS_ACCESSED | FS_DIRTY), {
      above: [0n, 0n, 0n, FS_PRESENT | FS_WRITE | FS_USER, FS_PRESENT | FS_WRITE | FS_USER],
    });
    const flags = () => [4, 3, 2].map((level) => Number((entry(level) >> 5n) & 3n));
    expect(flags()).toEqual([0, 0, 0]);
    expect(walk(7)).toEqual({ frame: FRAME + 7, reason: 0, level: 2 });
    expect(flags()).toEqual([1, 1, 1]);
    walk(7, true);
    expect(flags()).toEqual([1, 1, 3]);
  });

  it('takes canonical addresses only, at both ends and with five levels', () => {
    for (const [levels, width] of [[4, 48] as const, [5, 57] as const]) {
      const { walk } = build(1, encodeFirstStageLeaf(1, FRAME, false), { levels });
      const half = 2 ** (width - 13);
      expect(
        [half - 1, half, 2 ** 52 - half - 1, 2 ** 52 - half, 2 ** 52 - 1].map((page) => walk(page).reason),
      ).toEqual([0x71, 0x80, 0x80, 0x71, 0x71]);
      expect(walk(0)).toEqual({ frame: FRAME, reason: 0, level: 1 });
    }
  });

  it('refuses what is no page', () => {
    const { walk } = build(1, encodeFirstStageLeaf(1, FRAME, false));
    for (const page of [-1, 0.5, 2 ** 52, Number.NaN]) expect(() => walk(page)).toThrow(`page: ${page} is not`);
  });

  it('names the table that is outside memory', () => {
    const { table, memory } = build(1, encodeFirstStageLeaf(1, FRAME, true));
    const outside = { ...table, rootPfn: 0 };
    expect(runToEnd(walkFirstStage(agent, outside, 0, false)).reason).toBe(FaultReason.firstStagePointer);
    memory.store(table.rootPfn, 1, encodeFirstStageTable(0));
    expect(runToEnd(walkFirstStage(agent, table, 2 ** 27, false))).toEqual({
      frame: -1,
      reason: FaultReason.firstStageAccess,
      level: 3,
    });
  });
});

describe('a first-stage split', () => {
  it('translates every page as before, with the same attributes', () => {
    // PWT, PCD, G, and bits for software; PAT, which moves.
    const attributes = fc.tuple(fc.integer({ min: 0, max: 0xf1f }), fc.boolean(), fc.bigInt({ min: 0n, max: 0xfffn }));
    fc.assert(
      fc.property(
        fc.constantFrom(2 as const, 3 as const),
        attributes,
        fc.boolean(),
        (level, [low, pat, high], write) => {
          const own = (BigInt(low) & 0xf18n) | (high << 52n);
          const leaf = encodeFirstStageLeaf(level, FRAME, write, own | (pat ? 1n << 12n : 0n));
          const { walk, table, memory, entry } = build(level, leaf);
          const part = 512 ** (level - 2);
          const pages = [0, 1, part, 511 * part, 512 * part - 1];
          const before = pages.map((page) => walk(page, write).frame);
          runToEnd(splitFirstStage(agent, table, 5));
          expect(pages.map((page) => walk(page, write))).toEqual(
            before.map((frame) => ({ frame, reason: 0, level: level - 1 })),
          );
          const child = Number((entry(level) & 0xf_ffff_ffff_f000n) >> 12n);
          for (const nth of [0, 255, 511]) {
            const moved = pat ? (level === 2 ? 1n << 7n : 1n << 12n) : 0n;
            const expectedPart = encodeFirstStageLeaf((level - 1) as 1, FRAME + nth * part, write, own | moved);
            expect(memory.load(child, nth)).toBe(expectedPart);
          }
        },
      ),
    );
  });

  it('is done again with the bits that hardware has set meanwhile', () => {
    const clean = encodeFirstStageLeaf(2, FRAME, true) & ~FS_DIRTY;
    const { table, memory, walk, entry } = build(2, clean);
    const split = new TaskRun(agent, splitFirstStage(agent, table, 5));
    split.advance();
    while (split.pending?.label !== 'install table') split.advance();
    walk(9, true);
    while (!split.done) split.advance();
    expect(memory.load(Number((entry(2) & 0xf_ffff_ffff_f000n) >> 12n), 3) & FS_DIRTY).toBe(FS_DIRTY);
    expect(memory.used).toBe(4);
  });

  it('by the posted patch faults: no U/S (D2), and on a unit that does not snoop no A either', () => {
    const patch = FS_PRESENT | FS_WRITE;
    for (const coherent of [true, false]) {
      const reasonWith = (bits: bigint): number => {
        const { table, walk } = build(2, encodeFirstStageLeaf(2, FRAME, true), { coherent });
        runToEnd(splitFirstStage(agent, table, 5, bits));
        return walk(5).reason;
      };
      expect(reasonWith(patch)).toBe(FaultReason.userPrivilege);
      expect(reasonWith(patch | FS_USER)).toBe(coherent ? 0 : FaultReason.firstStageUpdateNoSnoop);
      expect(reasonWith(patch | FS_USER | FS_ACCESSED)).toBe(0);
    }
  });

  it('refuses what it cannot split', () => {
    const { table, memory } = build(1, encodeFirstStageLeaf(1, FRAME, true));
    expect(() => runToEnd(splitFirstStage(agent, table, 0))).toThrow('no large first-stage leaf maps page 0x0');
    expect(() => runToEnd(splitFirstStage(agent, table, 512))).toThrow('no large first-stage leaf maps page 0x200');
    const large = build(2, encodeFirstStageLeaf(2, FRAME, true));
    while (large.memory.allocate() >= 0);
    expect(() => runToEnd(splitFirstStage(agent, large.table, 0))).toThrow('ENOMEM');
    expect(memory.used).toBe(4);
  });
});
