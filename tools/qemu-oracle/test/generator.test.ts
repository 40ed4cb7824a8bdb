import { expect, test } from 'vitest';
import { randomProgram } from '../src/generator.ts';
import type { Operation } from '../src/program.ts';
import { SOURCE_IDS } from '../src/qemu-subject.ts';

const program = (index: number, levels: 3 | 4 = 4, seed = 3) =>
  randomProgram({ seed, index, levels, operations: 2000 });
const many = (): Operation[] =>
  ([3, 4] as const).flatMap((levels) => [0, 1, 2, 7].flatMap((at) => program(at, levels)));

test('same options, same program; another seed, index or depth, another program', () => {
  expect(program(0)).toEqual(program(0));
  for (const other of [program(1), program(0, 3), program(0, 4, 4)]) expect(other).not.toEqual(program(0));
});

test('has the length asked for, and something of everything', () => {
  expect(program(0)).toHaveLength(2000);
  const operations = many();
  const lows = operations.flatMap((operation) => (operation.kind === 'invalidate' ? [operation.lo & 0x3fn] : []));
  for (const granularity of [0x11n, 0x21n, 0x31n, 0x12n, 0x22n, 0x32n]) expect(lows).toContain(granularity);
  const dmas = operations.filter((operation) => operation.kind === 'dma');
  expect(new Set(dmas.map(({ sourceId }) => sourceId))).toEqual(new Set(SOURCE_IDS));
  expect(new Set(dmas.map(({ access }) => access)).size).toBe(2);
  expect(operations.some(({ kind }) => kind === 'root')).toBe(true);
});

test('leaves out what the rules say', () => {
  for (const operation of many()) {
    if (operation.kind === 'dma') {
      expect(operation.iova >> 20n).not.toBe(0xfeen);
      expect(operation.iova % 4n).toBe(0n);
    }
    if (operation.kind !== 'write') continue;
    expect(operation.value).not.toBe(0xffff_ffff_ffff_ffffn);
    expect(operation.pa % 8n).toBe(0n);
    expect(operation.pa).toBeGreaterThanOrEqual(0x10_0000n);
    // No entry leads to the hole below 4 GiB where devices are.
    const address = operation.value & 0xf_ffff_ffff_f000n;
    expect(address >= 0xc000_0000n && address < 0x1_0000_0000n).toBe(false);
  }
});
