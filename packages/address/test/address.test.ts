import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  alignDown,
  alignUp,
  formatBytes,
  formatDurationNs,
  formatRange,
  formatSize,
  gpa,
  hex,
  hpa,
  hpaOf,
  hva,
  iova,
  isAligned,
  parseDurationNs,
  parseSize,
  pfn,
  pfnOf,
  rangeContains,
  rangeEnd,
  rangesOverlap,
} from '../src/index.ts';

describe('branded addresses', () => {
  it('keep their value and refuse what does not fit', () => {
    expect([iova(1n), gpa(2n), hva(3n)]).toEqual([1n, 2n, 3n]);
    expect(() => iova(-1n)).toThrow('iova: -0x1 is outside');
    expect(() => hpa(1n << 52n)).toThrow('hpa: 0x10000000000000 is outside 0x0..0xfffffffffffff');
    expect(() => gpa(4096 as unknown as bigint)).toThrow('expected a bigint, got number');
    expect(() => pfn(1.5)).toThrow('pfn: 1.5');
  });
  it('frame number and address are inverse', () => {
    fc.assert(fc.property(fc.integer({ min: 0, max: 2 ** 40 - 1 }), (n) => pfnOf(hpaOf(pfn(n))) === n));
  });
  it('prints as the kernel does', () => {
    expect(hex(0xfee00000n)).toBe('0xfee00000');
    expect(formatRange({ start: 0x1000n, length: 0x1000n })).toBe('[0x1000-0x1fff]');
  });
});

describe('sizes', () => {
  it.each([
    ['4K', 4096n],
    ['2M', 1n << 21n],
    ['1G', 1n << 30n],
    ['3T', 3n << 40n],
    ['512B', 512n],
    ['0x1000', 4096n],
  ])('%s', (text, bytes) => expect(parseSize(text)).toBe(bytes));
  it.each(['4096', '', '1.5G', '4k', 'K', '-1K', '4KB', '0x', '1 G'])(
    'refuses %j and says what was expected',
    (text) => {
      expect(() => parseSize(text)).toThrow(`size: "${text}" is not a size; expected`);
    },
  );
  it('format and parse are inverse', () => {
    fc.assert(fc.property(fc.bigInt({ min: 0n, max: 1n << 60n }), (n) => parseSize(formatSize(n)) === n));
    expect(formatSize(1n << 30n)).toBe('1G');
    expect(formatBytes(17_000_000_000)).toBe('15.8 GiB');
  });
});

describe('durations', () => {
  it.each([
    ['10us', 10_000],
    ['1.5ms', 1_500_000],
    ['2s', 2_000_000_000],
    ['7ns', 7],
  ])('%s', (text, ns) => expect(parseDurationNs(text)).toBe(ns));
  it.each(['10', '1m', 'us', '-1us', '1e3us'])('refuses %j', (text) =>
    expect(() => parseDurationNs(text)).toThrow('duration:'),
  );
  it('prints three digits', () => {
    expect([850, 10_512, 1_200_000, 3e9].map(formatDurationNs)).toEqual(['850 ns', '10.5 us', '1.2 ms', '3 s']);
  });
});

describe('ranges', () => {
  const a = { start: 0x1000n, length: 0x2000n };
  it('overlap is symmetric and needs a shared byte', () => {
    expect(rangesOverlap(a, { start: 0x3000n, length: 1n })).toBe(false);
    expect(rangesOverlap(a, { start: 0x2fffn, length: 1n })).toBe(true);
    expect(rangeEnd(a)).toBe(0x3000n);
    expect(rangeContains(a, { start: 0x1000n, length: 0x2000n })).toBe(true);
    expect(rangeContains(a, { start: 0xfffn, length: 0x2n })).toBe(false);
  });
  it('alignment rounds to the nearest multiple below and above', () => {
    fc.assert(
      fc.property(fc.bigInt({ min: 0n, max: 1n << 50n }), fc.integer({ min: 0, max: 30 }), (value, shift) => {
        const unit = 1n << BigInt(shift);
        const down = alignDown(value, unit);
        const up = alignUp(value, unit);
        expect(isAligned(down, unit) && isAligned(up, unit)).toBe(true);
        expect(down <= value && value < down + unit && up >= value && up < value + unit).toBe(true);
      }),
    );
  });
});
