/// <reference types="node" />
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { detectFormat, LineAccount, readIofdLine } from '../src/index.ts';

const log = (version: string): string[] =>
  readFileSync(join(import.meta.dirname, 'vectors', `iofd-${version}.log`), 'utf8')
    .trimEnd()
    .split('\n');
const read = (line: string): unknown => readIofdLine(line, new LineAccount('x'));

describe('log of iommufd calls', () => {
  test.each([
    ['open iommu=3 vfio cdev=4 errno=0', { kind: 'open', iommuFd: 3, deviceFd: 4 }],
    ['## unmap all', { kind: 'section', text: 'unmap all' }],
    [
      'MAP THP 2M, iova +4K va%2M=0 len=200000 iova=40401000 fl=7             -> 0 iova_out=40401000',
      {
        kind: 'call',
        text: 'MAP THP 2M, iova +4K',
        arguments: { 'va%2M': 0n, len: 0x20_0000n, iova: 0x4040_1000n, fl: 7n },
        result: '0',
        out: { iova_out: '40401000' },
        ranges: [],
      },
    ],
    [
      'IOAS_ALLOC oversize, nonzero tail                                      -> E2BIG',
      { kind: 'call', text: 'IOAS_ALLOC oversize, nonzero tail', arguments: {}, result: 'E2BIG', out: {}, ranges: [] },
    ],
    [
      'IOVA_RANGES after attach      -> 0 num=2 align=1000 [0-fedfffff] [fef00000-ffffffffffff]',
      {
        kind: 'call',
        text: 'IOVA_RANGES after attach',
        arguments: {},
        result: '0',
        out: { num: '2', align: '1000' },
        ranges: [
          { start: 0n, last: 0xfedf_ffffn },
          { start: 0xfef0_0000n, last: 0xffff_ffff_ffffn },
        ],
      },
    ],
    [
      'MADV_DONTNEED first 4K of pinned -> 0, now reads 0 (device still sees the old page)',
      {
        kind: 'call',
        text: 'MADV_DONTNEED first 4K of pinned',
        arguments: {},
        result: '0',
        out: { reads: '0' },
        ranges: [],
      },
    ],
    ['edu copied: 1122334455667788', { kind: 'observation', text: 'edu copied', value: 0x1122_3344_5566_7788n }],
    [
      'after unmap, edu write landed: 0 (expect 0; a DMAR fault in dmesg)',
      { kind: 'observation', text: 'after unmap, edu write landed', value: 0n },
    ],
    [
      '      ftrace map: IOMMU: iova=0x0000fffffffff000 - 0x0001000000000000 paddr=0x0000000141600000 size=4096',
      { kind: 'map', iova: 0xffff_ffff_f000n, paddr: 0x1_4160_0000n, size: 4096n },
    ],
    ['      ftrace ... total map=2 unmap=12', { kind: 'eventTotals', maps: 2, unmaps: 12 }],
    ['      ftraceIOMMU: device=0000:00:05.0', { kind: 'attachEvent', device: '0000:00:05.0' }],
    [
      '      pt IOVA_PFN=0x10000 PML4E=141abd403 PDPE=141abe403 PDE=141ab8403 PTE=141600003',
      { kind: 'tableRow', page: 0x10000, entries: [0x1_41ab_d403n, 0x1_41ab_e403n, 0x1_41ab_8403n, 0x1_4160_0003n] },
    ],
    [
      '      pt leaves in [0,ffffffffffffffff]: 4K=1 2M=2 1G=3',
      { kind: 'leafCounts', start: 0n, last: 0xffff_ffff_ffff_ffffn, leaves: { '4K': 1, '2M': 2, '1G': 3 } },
    ],
    [
      '      pagemap after map: present=512 swapped=0 of 512',
      { kind: 'pagemap', text: 'after map', present: 512, swapped: 0, pages: 512 },
    ],
  ])('%s', (line, expected) => {
    expect(read(line)).toEqual(expected);
  });

  test.each([
    ['6.12.95', 322],
    ['7.3.4', 344],
  ])('every line of %s is understood', (version, lines) => {
    const account = new LineAccount('x');
    for (const line of log(version)) expect(readIofdLine(line, account)).not.toBeNull();
    expect(account.snapshot()).toMatchObject({ lines, parsed: lines, unknown: 0 });
    expect(detectFormat(log(version))).toBe('iofd');
    expect(detectFormat(log(version).slice(5))).toBe('iofd');
  });

  test('a damaged line is counted and named, whatever is in it', () => {
    const lines = log('7.3.4');
    fc.assert(
      fc.property(fc.nat(lines.length - 1), fc.nat(100), fc.string({ unit: 'binary' }), (at, cut, junk) => {
        const account = new LineAccount('x');
        const line = (lines[at] ?? '').slice(0, cut) + junk;
        const result = readIofdLine(line, account);
        const { parsed, comments, unknown, firstUnknown } = account.snapshot();
        expect(parsed + comments + unknown).toBe(1);
        expect(result !== null).toBe(parsed === 1);
        if (unknown === 1) expect(firstUnknown[0]).toMatchObject({ line: 1, text: line.slice(0, 200) });
      }),
    );
    for (const line of [
      '      ftrace map: IOMMU: iova=0x1000 - 0x3000 paddr=0x141600000 size=4096',
      '      ftrace unmap: IOMMU: iova=0x1000 - 0x2000 size=4096',
      '      pt leaves in [0,fff]: 4K=1 2M=0',
      'open iommu=-1 vfio cdev=-1 errno=2',
      'MAP x -> ',
      'MAP x va%2M=200000 len=1000 iova=1000 fl=7 -> 0 iova_out=1000',
      'MAP x va%2M=0 len=10000000000000000 iova=1000 fl=7 -> EOVERFLOW iova_out=1000',
    ])
      expect(read(line)).toBeNull();
  });
});
