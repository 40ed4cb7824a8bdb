/// <reference types="node" />
import { readFileSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ERRNO, errnoName, IOCTL_TABLE, StructView, UAPI } from '../src/index.ts';

const vector = (name: string): string[] =>
  readFileSync(join(import.meta.dirname, 'vectors', name), 'utf8')
    .trimEnd()
    .split('\n');

/** `size=8: size@0/4 id@4/4` of a layout, as the vectors have it. */
const text = ({ size, fields }: (typeof UAPI)[keyof typeof UAPI]): string =>
  `size=${size}: ${Object.entries(fields)
    .map(([name, { offset, bytes }]) => `${name}@${offset}/${bytes}`)
    .join(' ')}`;

describe('layouts', () => {
  const compiled = new Map(vector('iommufd-structs.txt').map((line) => line.split(/ (.*)/s, 2) as [string, string]));
  const ours = Object.entries(UAPI);

  test.each(ours.filter(([name]) => name.startsWith('iommu')))('%s is as the compiler lays it out', (name, layout) => {
    expect(layout.name).toBe(name);
    expect(text(layout)).toBe(compiled.get(name));
  });

  test('every struct of the vector is there, but those of drivers that are not modelled', () => {
    const missing = [...compiled.keys()].filter((name) => !(name in UAPI));
    expect(missing.filter((name) => !/arm_smmuv3|amd|tegra/.test(name))).toEqual([]);
  });

  test('those of linux/vfio.h', () => {
    // By the header's declarations; the recordings have no call that uses them.
    expect(text(UAPI.vfio_iommu_type1_info)).toBe(
      'size=24: argsz@0/4 flags@4/4 iova_pgsizes@8/8 cap_offset@16/4 pad@20/4',
    );
    expect(text(UAPI.vfio_info_cap_header)).toBe('size=8: id@0/2 version@2/2 next@4/4');
    expect(text(UAPI.vfio_iommu_type1_dma_map)).toBe('size=32: argsz@0/4 flags@4/4 vaddr@8/8 iova@16/8 size@24/8');
    expect(text(UAPI.vfio_iommu_type1_dma_unmap)).toBe('size=24: argsz@0/4 flags@4/4 iova@8/8 size@16/8');
  });

  test('the table of ioctls: numbers, names, sizes and least sizes', () => {
    const table = IOCTL_TABLE.map(
      ({ nr, name, layout, minSize }) => `${nr.toString(16)} ${name} ${layout.size}/${minSize}`,
    );
    expect([...table, 'a0 TEST_CMD 72/68']).toEqual(vector('iommufd-ioctls.txt'));
  });

  test.each(ours)('%s: what is written to a field is read back, and changes no other', (_, layout) => {
    const names = Object.keys(layout.fields).filter((name) => (layout.fields as never)[name]);
    const places = layout.fields as Readonly<Record<string, { offset: number; bytes: number; signed: boolean }>>;
    fc.assert(
      fc.property(fc.constantFrom(...names), fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }), (name, value) => {
        const place = places[name];
        const isNumber = place !== undefined && [1, 2, 4, 8].includes(place.bytes);
        if (!isNumber) return;
        const view = new StructView(layout as never, new Uint8Array(layout.size).fill(0xa5)) as StructView<string>;
        const wanted = BigInt.asUintN(place.bytes * 8, value);
        view.set(name, place.bytes === 8 ? wanted : Number(wanted));
        const read = place.bytes === 8 ? view.bigint(name) : BigInt.asUintN(place.bytes * 8, BigInt(view.number(name)));
        expect(read).toBe(wanted);
        const [before, after] = [view.bytes.subarray(0, place.offset), view.bytes.subarray(place.offset + place.bytes)];
        expect([...before, ...after].every((byte) => byte === 0xa5)).toBe(true);
        // Little endian, byte by byte.
        const bytes = view.bytes.subarray(place.offset, place.offset + place.bytes);
        expect(bytes.reduceRight((sum, byte) => (sum << 8n) | BigInt(byte), 0n)).toBe(wanted);
      }),
      { numRuns: 40 },
    );
  });
});

describe('errno numbers', () => {
  test.runIf(process.platform === 'linux')('are those of the system that runs this', () => {
    const system = constants.errno as Readonly<Record<string, number>>;
    const shared = Object.entries(ERRNO).filter(([name]) => name in system);
    expect(shared.length).toBeGreaterThan(20);
    for (const [name, number] of shared) expect([name, number]).toEqual([name, system[name]]);
  });

  test('have names', () => {
    expect(errnoName(-22)).toBe('EINVAL');
    expect(errnoName(0)).toBeNull();
    expect(errnoName(-9999)).toBeNull();
  });
});
