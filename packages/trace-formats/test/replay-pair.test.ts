/// <reference types="node" />
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { type PairReplayResult, replayPair } from '../src/index.ts';

const vector = (name: string): Uint8Array => readFileSync(join(import.meta.dirname, 'vectors', name));
const address = (page: number): string => `0x${(page * 4096).toString(16).padStart(16, '0')}`;
const map = (page: number, frame: number): string =>
  ` a-1 [000] ..... 1.0: map: IOMMU: iova=${address(page)} - ${address(page + 1)} paddr=${address(frame)} size=4096`;
const unmap = (page: number): string =>
  ` a-1 [000] ..... 1.0: unmap: IOMMU: iova=${address(page)} - ${address(page + 1)} size=4096 unmapped_size=4096`;
const dma = (page: number, frame: number, device = 1): string[] => [
  `vtd_iotlb_page_update IOTLB page update sid 0x${(device * 8).toString(16)} iova ${address(page)} slpte ${address(frame).slice(0, -1)}3 domain 0x${device}`,
  `vtd_dmar_translate dev 00:0${device}.00 iova ${address(page)} -> gpa ${address(frame)} mask 0xfff`,
];
const invalidate = (page: number, did = 1): string =>
  `vtd_inv_desc_iotlb_pages iotlb invalidate domain 0x${did} addr ${address(page)} mask 0x0`;
const replay = (qemu: readonly string[], ftrace: readonly string[]): Promise<PairReplayResult> =>
  replayPair(
    { name: 'q', chunks: [qemu.join('\n')] },
    { name: 'f', chunks: [['# tracer: nop', ...ftrace].join('\n')] },
  );

test('the excerpts of one run', async () => {
  const result = await replayPair(
    { name: 'qemu', chunks: [vector('strict61-head.qemu-vtd.log')] },
    { name: 'ftrace', chunks: [vector('strict61-head.ftrace.txt')] },
  );
  expect(result).toMatchObject({ differ: 0, agree: result.translations });
  const { crossCheck } = result;
  expect(crossCheck).toMatchObject({ kind: 'ordered', differ: 0, unmaps: 14, unmapsInvalidated: 14 });
  expect(crossCheck.unmapsAlignedUniquely).toBeGreaterThan(0);
  expect(crossCheck.agree).toBeGreaterThan(0);
  expect(crossCheck.agree + crossCheck.earlier.translations).toBe(result.translations);
});

describe('the cross check', () => {
  test('a DMA goes to the mapping that is live', async () => {
    const { crossCheck } = await replay(
      [...dma(5, 50), invalidate(5), ...dma(5, 60), invalidate(5), ...dma(9, 90)],
      [map(5, 50), unmap(5), map(5, 60), unmap(5), map(9, 90)],
    );
    expect(crossCheck).toMatchObject({ kind: 'ordered', agree: 3, differ: 0, unmapsInvalidated: 2 });
  });

  test('a DMA after the invalidation to what was unmapped contradicts', async () => {
    const { crossCheck } = await replay(
      [...dma(5, 50), invalidate(5), ...dma(5, 50), invalidate(7)],
      [map(5, 50), unmap(5), map(7, 70), unmap(7)],
    );
    expect(crossCheck).toMatchObject({ agree: 1, differ: 1, anyOrder: { agree: 2 } });
    expect(crossCheck.firstDiffering[0]).toMatchObject({ file: 'q', line: 5 });
  });

  test('the same IOVA in two domains', async () => {
    const { crossCheck } = await replay(
      [...dma(5, 50, 1), ...dma(5, 60, 2), invalidate(5, 2), ...dma(5, 50, 1), ...dma(5, 60, 2), invalidate(9)],
      [map(5, 50), map(5, 60), unmap(5), map(9, 90), unmap(9)],
    );
    expect(crossCheck).toMatchObject({ agree: 3, differ: 1 });
  });

  test('pages mapped before the ftrace began are counted apart', async () => {
    const { crossCheck } = await replay(
      [...dma(100, 7), ...dma(100, 7), ...dma(5, 50), invalidate(5)],
      [map(5, 50), unmap(5)],
    );
    expect(crossCheck).toMatchObject({ agree: 1, differ: 0, earlier: { translations: 2, mappings: 1, pages: 1 } });
  });

  test('an unmap that is never invalidated makes the order unknown', async () => {
    const { crossCheck } = await replay([...dma(5, 50)], [map(5, 50), unmap(5)]);
    expect(crossCheck).toMatchObject({ kind: 'unordered', agree: 1, unmaps: 1, unmapsInvalidated: 0 });
  });
});
