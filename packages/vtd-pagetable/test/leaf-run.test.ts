import fc from 'fast-check';
import { expect, it } from 'vitest';
import { encodeLeaf, leafAttributes, type TableLevel } from '../src/index.ts';
import { fillLeaves, frameHi, frameLo, isLeafLo, pageBase } from '../src/leaf-run.ts';

it('a run of leaves in 32-bit halves is the run in bigints, over every carry into the high half', () => {
  const run = fc.record({
    level: fc.constantFrom<TableLevel>(1, 2, 3),
    index: fc.nat(511),
    count: fc.nat(512),
    // Around multiples of 4 GiB, and up to 52 bits.
    block: fc.oneof(fc.nat(40), fc.integer({ min: 2 ** 20 - 40, max: 2 ** 20 - 1 })),
    back: fc.nat(600),
    attributes: fc.constantFrom(0n, 0x800n, 0x300n, 1n << 63n, (1n << 52n) | 0x400n),
  });
  fc.assert(
    fc.property(run, ({ level, index, count, block, back, attributes }) => {
      const size = 512 ** (level - 1);
      const frame = Math.max(0, Math.floor((block * 2 ** 20) / size) * size - back * size);
      const wanted = Math.min(count, 512 - index, Math.floor((2 ** 40 - frame) / size));
      const halves = new Int32Array(1024);
      const first = encodeLeaf(level, frame, 3, leafAttributes(attributes));
      const hi = Number(BigInt.asIntN(32, first >> 32n));
      fillLeaves(halves, 2 * index, wanted, level, Number(BigInt.asIntN(32, first)), hi);
      const words = new BigUint64Array(halves.buffer);
      for (let at = 0; at < 512; at++) {
        const inRun = at >= index && at < index + wanted;
        expect(words[at]).toBe(inRun ? encodeLeaf(level, frame + (at - index) * size, 3, attributes) : 0n);
      }
      expect((BigInt(frameHi(frame)) << 32n) | BigInt(frameLo(frame) >>> 0)).toBe(BigInt(frame) << 12n);
    }),
    { numRuns: 300 },
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
