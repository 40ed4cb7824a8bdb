import fc from 'fast-check';
import { expect, it } from 'vitest';
import { encodeLeaf, leafAttributes, type TableLevel, TableMemory } from '../src/index.ts';
import { fillLeaves, frameHi, frameLo, isLeafLo, pageBase } from '../src/leaf-run.ts';

it('a run of leaves is the run in bigints, over every carry into the high half and with any of the ignored bits', () => {
  const memory = new TableMemory({ pages: 2, basePfn: 0x1234 });
  memory.allocate();
  const table = memory.allocate();
  const run = fc.record({
    level: fc.constantFrom<TableLevel>(1, 2, 3),
    index: fc.nat(511),
    count: fc.nat(512),
    // Around multiples of 4 GiB, and up to 52 bits.
    block: fc.oneof(fc.nat(40), fc.integer({ min: 2 ** 20 - 40, max: 2 ** 20 - 1 })),
    back: fc.nat(600),
    attributes: fc.oneof(
      fc.constantFrom(0n, 0x800n, 0x300n, 1n << 52n, 1n << 63n, 0x7ffn << 52n, (1n << 52n) | 0x400n),
      fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }).map(leafAttributes),
    ),
  });
  fc.assert(
    fc.property(run, ({ level, index, count, block, back, attributes }) => {
      const size = 512 ** (level - 1);
      const frame = Math.max(0, Math.floor((block * 2 ** 20) / size) * size - back * size);
      const wanted = Math.min(count, 512 - index, Math.floor((2 ** 40 - frame) / size));
      memory.clear(table);
      const first = encodeLeaf(level, frame, 3, attributes);
      const hi = Number(BigInt.asIntN(32, first >> 32n));
      fillLeaves(memory, table, index, wanted, level, Number(BigInt.asIntN(32, first)), hi);
      for (let at = 0; at < 512; at++) {
        const inRun = at >= index && at < index + wanted;
        expect(memory.load(table, at)).toBe(inRun ? encodeLeaf(level, frame + (at - index) * size, 3, attributes) : 0n);
      }
      expect(memory.isEmpty(memory.basePfn)).toBe(true);
      expect((BigInt(frameHi(frame)) << 32n) | BigInt(frameLo(frame) >>> 0)).toBe(BigInt(frame) << 12n);
    }),
    { numRuns: 300, examples: [[{ level: 2, index: 0, count: 512, block: 40, back: 300, attributes: 0n }]] },
  );
});

it('which entries are leaves, and where they begin', () => {
  expect([1, 2, 3, 4, 5].map((level) => isLeafLo(0x83, level))).toEqual([true, true, true, false, false]);
  expect([1, 2, 3, 4, 5].map((level) => isLeafLo(0x3, level))).toEqual([true, false, false, false, false]);
  expect([1, 2, 3, 6].map((level) => pageBase(2 ** 45 - 1, level))).toEqual([
    2 ** 45 - 1,
    2 ** 45 - 512,
    2 ** 45 - 262_144,
    0,
  ]);
});
