import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PhysicalMemory, wordOfTag } from '../src/index.ts';

const memory = (): PhysicalMemory => new PhysicalMemory({ firstPfn: 0x40000, frames: 4096 });
const tagOf = (m: PhysicalMemory, pfn: number): bigint =>
  (BigInt(m.tagHi(pfn) >>> 0) << 32n) | BigInt(m.tagLo(pfn) >>> 0);
const index = fc.nat(511);
const word = fc.bigInt({ min: 0n, max: (1n << 64n) - 1n });

describe('PhysicalMemory', () => {
  it('is zero until written, and knows what it contains', () => {
    const m = memory();
    expect([m.tagLo(0x40000), m.tagHi(0x40fff), m.loadWord(0x40001, 511)]).toEqual([0, 0, 0n]);
    expect([m.contains(0x3ffff), m.contains(0x40000), m.contains(0x40fff), m.contains(0x41000)]).toEqual([
      false,
      true,
      true,
      false,
    ]);
    expect(() => m.writeTag(0x41000, 1, 1)).toThrow(/no frame 0x41000/);
    expect(() => m.loadWord(0x40000, 512)).toThrow(RangeError);
    expect(() => m.storeWord(0x40000, 0, 1n << 64n)).toThrow(/value/);
    expect(() => m.writeWords(0x40000, new BigUint64Array(3))).toThrow(/words/);
  });

  it('gives words that follow from the tag', () => {
    const m = memory();
    m.writeTag(0x40000, 1, -2);
    const tag = tagOf(m, 0x40000);
    const words = Array.from({ length: 512 }, (_, i) => m.loadWord(0x40000, i));
    expect(words).toEqual(words.map((_, i) => wordOfTag(tag, i)));
    expect(new Set(words).size).toBe(512);
    // Frozen, from SplitMix64 with seed 1 (its first output is well known) computed elsewhere.
    expect(wordOfTag(1n, 0)).toBe(0x910a2dec89025cc1n);
    expect(wordOfTag(1n, 511)).toBe(0x619b42a21ecc04b3n);
  });

  it('agrees with arrays of words, and shows every change in the tag', () => {
    const store = fc.record({ index, value: word });
    fc.assert(
      fc.property(fc.integer(), fc.array(store, { maxLength: 20 }), (lo, stores) => {
        const m = memory();
        m.writeTag(0x40005, lo, 9);
        const before = tagOf(m, 0x40005);
        const model = Array.from({ length: 512 }, (_, i) => wordOfTag(before, i));
        for (const { index: i, value } of stores) {
          const changes = model[i] !== value;
          const old = tagOf(m, 0x40005);
          m.storeWord(0x40005, i, value);
          model[i] = value;
          expect(tagOf(m, 0x40005) !== old).toBe(changes);
        }
        expect(Array.from({ length: 512 }, (_, i) => m.loadWord(0x40005, i))).toEqual(model);
        // The same end by another way: one store a word, backwards.
        m.writeTag(0x40006, lo, 9);
        for (let i = 511; i >= 0; i--) m.storeWord(0x40006, i, model[i] as bigint);
        expect(tagOf(m, 0x40006)).toBe(tagOf(m, 0x40005));
        for (let i = 0; i < 512; i++) m.storeWord(0x40006, i, wordOfTag(before, i));
        expect(tagOf(m, 0x40006)).toBe(before);
      }),
      { numRuns: 25 },
    );
  });

  it('writes whole pages from words, the same as one by one into zeros', () => {
    const m = memory();
    const words = BigUint64Array.from({ length: 512 }, (_, i) => BigInt(i % 3));
    m.writeWords(0x40001, words);
    words.fill(7n);
    for (let i = 0; i < 512; i++) m.storeWord(0x40002, i, BigInt(i % 3));
    expect(tagOf(m, 0x40001)).toBe(tagOf(m, 0x40002));
    expect(m.loadWord(0x40001, 5)).toBe(2n);
    for (let i = 0; i < 512; i++) m.storeWord(0x40002, i, 0n);
    expect(tagOf(m, 0x40002)).toBe(0n);
  });

  it('drops words with a new tag, and copies and zeroes them with the page', () => {
    const m = memory();
    m.storeWord(0x40000, 3, 5n);
    m.copyFrame(0x40000, 0x40200);
    m.storeWord(0x40000, 3, 6n);
    expect(m.loadWord(0x40200, 3)).toBe(5n);
    m.writeTag(0x40000, 1, 0);
    expect(m.loadWord(0x40000, 3)).toBe(wordOfTag(1n, 3));
    m.copyFrame(0x40000, 0x40200);
    expect(m.loadWord(0x40200, 3)).toBe(wordOfTag(1n, 3));
    m.storeWord(0x40200, 1, 1n);
    m.zeroFrame(0x40200);
    expect([m.loadWord(0x40200, 1), m.tagLo(0x40200)]).toEqual([0n, 0]);
    m.storeWord(0x40201, 1, 1n);
    m.writeTag(0x40400, 1, 1);
    m.zeroFolio(0x40200, 9);
    expect([m.loadWord(0x40201, 1), m.tagLo(0x40201), m.tagLo(0x40400)]).toEqual([0n, 0, 1]);
  });
});
