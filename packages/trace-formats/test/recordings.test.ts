/// <reference types="node" />
import { createReadStream, existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { expect, type TestContext, test } from 'vitest';
import { replayPair, type TraceSource } from '../src/index.ts';

/** The whole recordings are too large for the repository; they may lie in a directory beside the checkout. */
const DIRECTORY = resolve(import.meta.dirname, '../../../../shared/traces');

function recording(context: TestContext, name: string): TraceSource {
  const path = join(DIRECTORY, name);
  if (!existsSync(path)) context.skip(`not tested: the recording ../shared/traces/${name} is not there`);
  return { name, chunks: createReadStream(path) };
}

test('strict61, whole: QEMU log against the model, against ftrace, and QEMU 7.2 rebuilt look-up by look-up', async (context) => {
  const result = await replayPair(
    recording(context, 'strict61.qemu-vtd.log.gz'),
    recording(context, 'strict61.ftrace.txt.gz'),
  );
  expect(result).toMatchObject({ translations: 90_439, agree: 90_439, differ: 0 });
  expect(result.qemu).toMatchObject({ beforeRecording: 0, lines: { lines: 209_150, unknown: 0 } });
  expect(result.qemu.recorded).toMatchObject({ hits: 37_189, walks: 53_250, invalidations: { pages: 14_069 } });
  expect(Object.values(result.qemu.oddities)).toEqual([0, 0, 0, 0, 0, 0]);
  expect(result.qemu.iotlb.likeQemu72).toMatchObject({ hits: 37_189, sameAsRecorded: 90_439 });
  expect(result.qemu.iotlb.likeQemu10).toMatchObject({ hits: 37_772, hitWhereQemuWalked: 583, missedWhereQemuHit: 0 });
  expect(result.ftrace).toMatchObject({ maps: 19_851, unmaps: 13_788, matches: true, mappedPages: 353 });
  expect(result.ftrace).toMatchObject({ unmapsOfEarlierMappings: 0, unmappedSizeDiffers: 0, lost: { notes: 0 } });
  const { crossCheck } = result;
  expect(crossCheck).toMatchObject({ unmaps: 13_788, unmapsInvalidated: 13_788, unmapsAlignedUniquely: 13_788 });
  expect(crossCheck.anyOrder).toEqual({ agree: 68_625, other: 21_814, otherMappings: 41 });
  // Three of the 68,625 were made before the ftrace began, to a pair that it happens to map again later.
  expect(crossCheck).toMatchObject({ kind: 'ordered', agree: 68_622, differ: 0, earlier: { translations: 21_817 } });
});

test('lazy61, whole: deferred flushing, one reset of the full IOTLB', async (context) => {
  const result = await replayPair(
    recording(context, 'lazy61.qemu-vtd.log.gz'),
    recording(context, 'lazy61.ftrace.txt.gz'),
  );
  expect(result).toMatchObject({ translations: 89_315, agree: 89_315, differ: 0 });
  expect(result.qemu.recorded).toMatchObject({ hits: 35_709, walks: 53_606, iotlbResets: 1 });
  expect(result.qemu.iotlb.likeQemu72).toMatchObject({ hits: 35_709, sameAsRecorded: 89_315, resets: 1 });
  expect(result.ftrace).toMatchObject({ maps: 22_039, unmaps: 13_472, matches: true, mappedPages: 353 });
  expect(result.crossCheck).toMatchObject({ kind: 'unordered', agree: 67_381, wideInvalidations: 361 });
});
