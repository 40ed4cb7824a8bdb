/// <reference types="node" />
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type FtraceReplayResult, replayFtrace } from '../src/index.ts';

const hex = (pages: number): string => `0x${(pages * 4096).toString(16).padStart(16, '0')}`;
const prefix = '  nc-171  [000] ..s1.  10.529655: ';
const map = (page: number, pages: number, frame: number): string =>
  `${prefix}map: IOMMU: iova=${hex(page)} - ${hex(page + pages)} paddr=${hex(frame)} size=${pages * 4096}`;
const unmap = (page: number, pages: number, done = pages): string =>
  `${prefix}unmap: IOMMU: iova=${hex(page)} - ${hex(page + pages)} size=${pages * 4096} unmapped_size=${done * 4096}`;
const replay = (lines: readonly string[]): Promise<FtraceReplayResult> =>
  replayFtrace({ name: 'made-up.txt', chunks: [['# tracer: nop', ...lines].join('\n')] });

test('the excerpt of a recording', async () => {
  const chunks = [readFileSync(join(import.meta.dirname, 'vectors', 'strict61-head.ftrace.txt'))];
  const result = await replayFtrace({ name: 'excerpt', chunks });
  expect(result).toMatchObject({ maps: 272, unmaps: 14, matches: true, mappedPages: 258, unmapsPartlyKnown: 0 });
  expect(result.lines).toMatchObject({ lines: 300, comments: 12, unknown: 0 });
  expect(result.phases.map(({ mark }) => mark)).toEqual(['nic-up', 'ping']);
});

describe('replayFtrace', () => {
  test('the largest leaves that fit, and their tables', async () => {
    const result = await replay([map(0x40000, 0x40000, 0x80000), map(0x200, 512, 0x400), map(0, 3, 7)]);
    expect(result).toMatchObject({ leaves: { '4K': 3, '2M': 1, '1G': 1 }, matches: true, spaces: 1 });
    expect(result.mappedBytes).toBe((0x40000 + 512 + 3) * 4096);
    expect(result.mapSizes.map(({ bytes, count }) => [bytes / 4096, count])).toEqual([
      [3, 1],
      [512, 1],
      [0x40000, 1],
    ]);
  });

  test('two domains that map the same range are kept apart', async () => {
    const result = await replay([map(5, 2, 100), map(5, 1, 200), unmap(5, 1)]);
    expect(result).toMatchObject({ spaces: 2, matches: true, mappedPages: 2, unmapsAmbiguous: 1 });
  });

  test('a scatter list mapped in pieces and unmapped as one', async () => {
    const result = await replay([map(5, 1, 100), map(6, 2, 300), map(8, 1, 7), unmap(5, 4)]);
    expect(result).toMatchObject({ mappedPages: 0, unmapsPartlyKnown: 0, unmappedSizeDiffers: 0, matches: true });
    expect(result.unmapSizes).toEqual([{ bytes: 4 * 4096, count: 1 }]);
  });

  test('ranges mapped before the recording began', async () => {
    const result = await replay([map(5, 1, 100), unmap(20, 4), unmap(5, 2)]);
    expect(result).toMatchObject({ unmapsOfEarlierMappings: 1, unmapsPartlyKnown: 1, mappedPages: 0, matches: true });
  });

  test('lost events, faults and phases are reported', async () => {
    const result = await replay([
      'CPU:0 [LOST 12 EVENTS]',
      map(5, 1, 100),
      `${prefix}tracing_mark_write: phase two`,
      unmap(5, 1),
      `${prefix}io_page_fault: IOMMU:x y iova=0x00000000deadb000 flags=0x0001`,
    ]);
    expect(result).toMatchObject({ lost: { notes: 1, events: 12 }, ioPageFaults: 1 });
    expect(result.phases).toEqual([
      { mark: '', maps: 1, unmaps: 0 },
      { mark: 'phase two', maps: 0, unmaps: 1 },
    ]);
  });

  test('any mix of maps and unmaps: the tables hold what is left', async () => {
    const operation = fc.record({
      page: fc.nat(30),
      pages: fc.integer({ min: 1, max: 6 }),
      frame: fc.nat(1000),
      map: fc.boolean(),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(operation, { minLength: 1, maxLength: 40 }), async (operations) => {
        const holders = new Map<number, number>();
        for (const op of operations)
          for (let page = op.page; page < op.page + op.pages; page++) {
            const count = holders.get(page) ?? 0;
            holders.set(page, op.map ? count + 1 : Math.max(0, count - 1));
          }
        const result = await replay(
          operations.map((op) => (op.map ? map(op.page, op.pages, op.frame) : unmap(op.page, op.pages))),
        );
        expect(result.firstMismatches).toEqual([]);
        expect(result.mappedPages).toBe([...holders.values()].reduce((sum, count) => sum + count, 0));
        expect(result.mapsRefused).toBe(0);
      }),
    );
  });
});
