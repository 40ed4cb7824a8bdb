import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { RandomStream } from '../src/index.ts';

const draw = (stream: RandomStream, count = 16): number[] => Array.from({ length: count }, () => stream.bits32());

describe('a random stream', () => {
  it('depends on its seed and name alone, not on what other streams do', () => {
    fc.assert(
      fc.property(fc.maxSafeInteger(), fc.string(), fc.string(), fc.nat(20), (seed, name, other, draws) => {
        const alone = draw(new RandomStream(seed, name));
        const between = new RandomStream(seed, name);
        const first = draw(between, 8);
        draw(new RandomStream(seed, other), draws);
        expect([...first, ...draw(between, 8)]).toEqual(alone);
      }),
    );
  });
  it('differs by name, and by every bit of the seed', () => {
    fc.assert(
      fc.property(fc.maxSafeInteger(), fc.nat(51), fc.string(), fc.string(), (seed, bit, name, other) => {
        const sequence = draw(new RandomStream(seed, name));
        const flipped = Number(BigInt.asIntN(53, BigInt(seed) ^ (1n << BigInt(bit))));
        if (Number.isSafeInteger(flipped)) expect(draw(new RandomStream(flipped, name))).not.toEqual(sequence);
        if (name !== other) expect(draw(new RandomStream(seed, other))).not.toEqual(sequence);
      }),
    );
  });
  it('is not correlated between neighbouring seeds', () => {
    let equalBits = 0;
    for (let seed = 0; seed < 2000; seed++) {
      const a = new RandomStream(seed, 'x').bits32();
      const b = new RandomStream(seed + 1, 'x').bits32();
      for (let same = ~(a ^ b); same !== 0; same &= same - 1) equalBits++;
    }
    expect(Math.abs(equalBits / 64_000 - 0.5)).toBeLessThan(0.01);
  });
  it('below stays in range and is even', () => {
    const stream = new RandomStream(1, 'dice');
    const counts = [0, 0, 0, 0, 0, 0];
    for (let i = 0; i < 60_000; i++) {
      const n = stream.below(6);
      counts[n] = (counts[n] as number) + 1;
    }
    for (const count of counts) expect(Math.abs(count - 10_000)).toBeLessThan(400);
    fc.assert(
      fc.property(fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }), (bound) => {
        const n = stream.below(bound);
        expect(Number.isInteger(n) && n >= 0 && n < bound).toBe(true);
      }),
    );
  });
  it('chance and pick follow their arguments', () => {
    const stream = new RandomStream(2, 'coin');
    let hits = 0;
    for (let i = 0; i < 40_000; i++) if (stream.chance(0.25)) hits++;
    expect(Math.abs(hits - 10_000)).toBeLessThan(400);
    expect([stream.chance(0), stream.chance(1)]).toEqual([false, true]);
    const seen = new Set(Array.from({ length: 100 }, () => stream.pick(['a', 'b', 'c'])));
    expect([...seen].sort()).toEqual(['a', 'b', 'c']);
  });
  it.each([0, -1, 1.5, Number.NaN, 2 ** 53])('refuses the bound %s', (bound) => {
    expect(() => new RandomStream(1, 'x').below(bound)).toThrow(RangeError);
  });
  it('refuses a seed that is no integer and an empty list', () => {
    expect(() => new RandomStream(0.5, 'x')).toThrow('seed: 0.5 is not an integer');
    expect(() => new RandomStream(1, 'x').pick([])).toThrow(RangeError);
  });
});
