/// <reference types="node" />
import { gzipSync } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import { detectFormat, lineBatches, openTrace, TraceFormatError, type TraceSource } from '../src/index.ts';

async function linesOf(source: TraceSource): Promise<string[]> {
  const lines: string[] = [];
  for await (const batch of lineBatches(source)) lines.push(...batch);
  return lines;
}
const pieces = (bytes: Uint8Array, size: number): Uint8Array[] =>
  Array.from({ length: Math.ceil(bytes.length / size) }, (_, index) =>
    bytes.subarray(index * size, (index + 1) * size),
  );
const codeOf = async (source: TraceSource): Promise<unknown> =>
  linesOf(source).then(
    () => 'no error',
    (error: unknown) => (error instanceof TraceFormatError ? [error.code, error.file] : error),
  );

const TEXT = 'one\r\ntwo\n\nvier \u00fc\nlast without end';
const LINES = ['one', 'two', '', 'vier \u00fc', 'last without end'];
let state = 1;
const noise = Uint8Array.from({ length: 50_000 }, () => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return state >>> 25;
});

describe('lines', () => {
  test.each([1, 2, 3, 7, 1000])('plain bytes and gzip in chunks of %i bytes', async (size) => {
    const bytes = new TextEncoder().encode(TEXT);
    expect(await linesOf({ name: 'a', chunks: pieces(bytes, size) })).toEqual(LINES);
    expect(await linesOf({ name: 'a.gz', chunks: pieces(gzipSync(bytes), size) })).toEqual(LINES);
  });

  test('text chunks, also empty ones and split inside a line end', async () => {
    expect(await linesOf({ name: 'a', chunks: ['', 'on', 'e\r', '\ntwo', '\n', ''] })).toEqual(['one', 'two']);
  });

  test('a final line end makes no line of its own', async () => {
    expect(await linesOf({ name: 'a', chunks: ['one\n'] })).toEqual(['one']);
  });
});

describe('input that cannot be read names its file and says why', () => {
  test('empty', async () => {
    expect(await codeOf({ name: 'x.log', chunks: [] })).toEqual(['EMPTY_INPUT', 'x.log']);
    expect(await codeOf({ name: 'x.log', chunks: [new Uint8Array(0)] })).toEqual(['EMPTY_INPUT', 'x.log']);
    expect(await codeOf({ name: 'x.gz', chunks: [gzipSync('')] })).toEqual(['EMPTY_INPUT', 'x.gz']);
  });

  test.each([2, 5, 12, 1000, 30_000])('gzip cut off after %i bytes', async (length) => {
    const whole = gzipSync(noise);
    expect(whole.length).toBeGreaterThan(length);
    expect(await codeOf({ name: 'x.gz', chunks: [whole.subarray(0, length)] })).toEqual(['GZIP_TRUNCATED', 'x.gz']);
  });

  test('gzip with a damaged byte', async () => {
    const damaged = Uint8Array.from(gzipSync(noise));
    damaged[damaged.length - 6] = (damaged[damaged.length - 6] ?? 0) ^ 0xff;
    expect(await codeOf({ name: 'x.gz', chunks: pieces(damaged, 100) })).toEqual(['GZIP_CORRUPT', 'x.gz']);
    expect(
      await codeOf({ name: 'x.gz', chunks: [Uint8Array.from([0x1f, 0x8b, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9])] }),
    ).toEqual(['GZIP_CORRUPT', 'x.gz']);
  });

  test('an error of the source itself goes through', async () => {
    async function* failing(): AsyncGenerator<Uint8Array> {
      yield gzipSync(noise).subarray(0, 100);
      throw new Error('disk on fire');
    }
    await expect(linesOf({ name: 'x.gz', chunks: failing() })).rejects.toThrow('disk on fire');
  });

  test('another format', async () => {
    await expect(openTrace({ name: 'notes.txt', chunks: ['hello\nworld\n'] })).rejects.toMatchObject({
      code: 'UNKNOWN_FORMAT',
      file: 'notes.txt',
      message: expect.stringContaining('hello'),
    });
  });
});

describe('detectFormat', () => {
  test('by the first line that is of one', () => {
    expect(detectFormat(['warning: something', '17.5:vtd_dmar_enable enable 1'])).toBe('qemu-vtd-log');
    expect(detectFormat(['vtd_context_cache_reset '])).toBe('qemu-vtd-log');
    expect(detectFormat(['# tracer: nop'])).toBe('ftrace');
    expect(detectFormat(['  <idle>-0  [000] d.h2.  16.447521: sched_switch: prev=x'])).toBe('ftrace');
    expect(detectFormat(['CPU:0 [LOST 12 EVENTS]'])).toBe('ftrace');
    expect(detectFormat(['', 'nothing'])).toBeNull();
  });

  test('opening reads no line twice and loses none', async () => {
    const open = await openTrace({ name: 'a', chunks: ['vtd_dmar_enable enable 1\nx\n', 'y\n'] });
    const lines: string[] = [];
    for await (const batch of open.batches) lines.push(...batch);
    expect(lines).toEqual(['vtd_dmar_enable enable 1', 'x', 'y']);
  });
});
