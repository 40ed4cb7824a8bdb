/// <reference types="node" />
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { type QemuReplayOptions, type QemuReplayResult, replayQemuLog } from '../src/index.ts';

const START = ['vtd_dmar_enable enable 1'];
const CONTEXT = 'vtd_iotlb_cc_update IOTLB context update bus 0x0 devfn 0x8 high 0x302 low 0x227c001 gen 0 -> gen 1';
const update = (iova: string, slpte: string): string =>
  `vtd_iotlb_page_update IOTLB page update sid 0x8 iova ${iova} slpte ${slpte} domain 0x3`;
const hit = (iova: string, slpte: string): string =>
  `vtd_iotlb_page_hit IOTLB page hit sid 0x8 iova ${iova} slpte ${slpte} domain 0x3`;
const translate = (iova: string, gpa: string, mask = '0xfff'): string =>
  `vtd_dmar_translate dev 00:01.00 iova ${iova} -> gpa ${gpa} mask ${mask}`;
const pages = (iova: string, am: string): string =>
  `vtd_inv_desc_iotlb_pages iotlb invalidate domain 0x3 addr ${iova} mask ${am}`;

const replay = (lines: readonly string[], options: QemuReplayOptions = {}): Promise<QemuReplayResult> =>
  replayQemuLog({ name: 'made-up.log', chunks: [`${lines.join('\n')}\n`] }, options);

describe('the excerpt of a recording', () => {
  const chunks = [readFileSync(join(import.meta.dirname, 'vectors', 'strict61-head.qemu-vtd.log'))];

  test('every translation agrees, every line is accounted for', async () => {
    const result = await replayQemuLog({ name: 'excerpt', chunks });
    const { lines } = result;
    expect(result).toMatchObject({ differ: 0, beforeRecording: 0, firstDiffering: [] });
    expect(result.translations).toBe(result.agree);
    expect(result.translations).toBe(result.recorded.hits + result.recorded.walks);
    expect(Object.values(result.oddities).every((count) => count === 0)).toBe(true);
    expect(lines).toMatchObject({ lines: 655, unknown: 0 });
    expect(lines.parsed + lines.irrelevant + lines.comments).toBe(655);
    expect(result.iotlb.likeQemu72).toMatchObject({
      hits: result.recorded.hits,
      sameAsRecorded: result.translations,
      hitWhereQemuWalked: 0,
      missedWhereQemuHit: 0,
    });
  });

  test.each(['4K', '1 entry'])('also through another geometry: %s', async (name) => {
    const ways = name === '4K' ? 1024 : 1;
    const one = { sets: 1, ways };
    const result = await replayQemuLog(
      { name: 'excerpt', chunks },
      { iotlb: { geometry: { '4K': one, '2M': one, '1G': one } } },
    );
    expect(result).toMatchObject({ differ: 0, agree: result.translations });
    if (ways === 1) expect(result.iotlb.chosen.missedWhereQemuHit).toBeGreaterThan(0);
  });
});

describe('the check can fail', () => {
  test('an answer that is not what the recorded leaf says', async () => {
    const result = await replay([...START, CONTEXT, update('0x5000', '0x9003'), translate('0x5000', '0xa000')]);
    expect(result).toMatchObject({ translations: 1, agree: 0, differ: 1 });
    expect(result.firstDiffering[0]).toMatchObject({
      file: 'made-up.log',
      line: 4,
      recorded: 'page 0xa000 mask 0xfff leaf 0x9003',
    });
    expect(result.firstDiffering[0]?.model).toContain('page 0x9000 level 1');
  });

  test('another page size', async () => {
    const result = await replay([...START, update('0x200000', '0x9003'), translate('0x200000', '0x9000', '0x1fffff')]);
    expect(result.differ).toBe(1);
  });

  test('a hit on what an invalidation should have dropped: the model has no such page', async () => {
    for (const invalidation of [
      pages('0x5000', '0x0'),
      pages('0x4000', '0x2'),
      'vtd_inv_desc_iotlb_domain iotlb invalidate whole domain 0x3',
      'vtd_inv_desc_iotlb_global iotlb invalidate global',
      'vtd_dmar_enable enable 1',
    ]) {
      const head = [...START, CONTEXT, update('0x5000', '0x9003'), translate('0x5000', '0x9000')];
      const result = await replay([...head, invalidation, hit('0x5010', '0x9003'), translate('0x5000', '0x9000')]);
      expect(result, invalidation).toMatchObject({ translations: 2, agree: 1, differ: 1, beforeRecording: 0 });
      expect(result.firstDiffering[0]?.model).toContain('fault');
      expect(result.iotlb.likeQemu72.missedWhereQemuHit).toBe(1);
    }
  });

  test('an invalidation of something else drops nothing', async () => {
    for (const invalidation of [
      pages('0x6000', '0x0'),
      pages('0x8000', '0x3'),
      'vtd_inv_desc_iotlb_domain iotlb invalidate whole domain 0x4',
    ]) {
      const head = [...START, CONTEXT, update('0x5000', '0x9003'), translate('0x5000', '0x9000')];
      const result = await replay([...head, invalidation, hit('0x5010', '0x9003'), translate('0x5000', '0x9000')]);
      expect(result, invalidation).toMatchObject({ agree: 2, differ: 0 });
      expect(result.model.iotlb.hits).toBe(1);
    }
  });

  test('memory that changes without an invalidation does not change what is cached', async () => {
    const lines = [...START, CONTEXT, update('0x5000', '0x9003'), translate('0x5000', '0x9000')];
    const result = await replay([...lines, update('0x5000', '0xb003'), translate('0x5000', '0xb000')]);
    expect(result.oddities.leafChangedWithoutInvalidation).toBe(1);
    expect(result).toMatchObject({ agree: 1, differ: 1 });
    expect(result.firstDiffering[0]?.model).toContain('page 0x9000');
  });

  test('with the invalidation it is right', async () => {
    const lines = [
      ...START,
      CONTEXT,
      update('0x5000', '0x9003'),
      translate('0x5000', '0x9000'),
      pages('0x5000', '0x0'),
    ];
    const result = await replay([...lines, update('0x5000', '0xb001'), translate('0x5000', '0xb000')]);
    expect(result).toMatchObject({ agree: 2, differ: 0 });
    expect(result.oddities.leafChangedWithoutInvalidation).toBe(0);
  });

  test('only the first differing ones are kept', async () => {
    const lines = Array.from({ length: 30 }, () => [update('0x5000', '0x9003'), translate('0x5000', '0xa000')]).flat();
    const result = await replay([...START, ...lines], { keepDiffering: 3 });
    expect(result.differ).toBe(30);
    expect(result.firstDiffering.map(({ line }) => line)).toEqual([3, 5, 7]);
  });
});

describe('large pages', () => {
  const lines = [
    ...START,
    CONTEXT,
    update('0x40212345', '0x80000083'),
    translate('0x40200000', '0x80000000', '0x1fffff'),
    hit('0x40300000', '0x80000083'),
    translate('0x40200000', '0x80000000', '0x1fffff'),
  ];

  test('2M: the size comes from the answer, and is counted', async () => {
    const result = await replay(lines);
    expect(result).toMatchObject({ agree: 2, differ: 0 });
    expect(result.oddities.sizeFromAnswer).toBe(2);
    expect(result.model.iotlb).toMatchObject({ hits2M: 1 });
  });

  test('invalidating a part of it drops it, as QEMU does', async () => {
    const later = [hit('0x40300000', '0x80000083'), translate('0x40200000', '0x80000000', '0x1fffff')];
    expect(await replay([...lines, pages('0x40212000', '0x0'), ...later])).toMatchObject({ agree: 2, differ: 1 });
  });

  test('a 4K page takes the place of the 2M page after its invalidation, and back', async () => {
    const result = await replay([
      ...lines,
      pages('0x40200000', '0x9'),
      update('0x40212345', '0x77003'),
      translate('0x40212000', '0x77000'),
      pages('0x40200000', '0x9'),
      update('0x40212345', '0xa0000083'),
      translate('0x40200000', '0xa0000000', '0x1fffff'),
    ]);
    expect(result).toMatchObject({ agree: 4, differ: 0 });
    expect(result.oddities.leafChangedWithoutInvalidation).toBe(0);
  });

  test('without the invalidation the table is rebuilt and the change is counted', async () => {
    const result = await replay([...lines, update('0x40212345', '0x77003'), translate('0x40212000', '0x77000')]);
    expect(result.oddities.leafChangedWithoutInvalidation).toBe(1);
  });
});

describe('a log that begins in the middle', () => {
  test('hits on older entries cannot be checked and are counted apart', async () => {
    const result = await replay([hit('0x5010', '0x9003'), translate('0x5000', '0x9000')]);
    expect(result).toMatchObject({ translations: 1, agree: 0, differ: 0, beforeRecording: 1 });
  });

  test('but not once the page was invalidated, or walked', async () => {
    const again = [hit('0x5010', '0x9003'), translate('0x5000', '0x9000')];
    expect(await replay([pages('0x4000', '0x2'), ...again])).toMatchObject({ differ: 1, beforeRecording: 0 });
    const walked = [update('0x5000', '0x9003'), translate('0x5000', '0x9000'), pages('0x5000', '0x0'), ...again];
    expect(await replay(walked)).toMatchObject({ agree: 1, differ: 1 });
  });
});

test('answers without look-up, look-ups without answer, write-only leaves, faults and PASID invalidations', async () => {
  const result = await replay([
    ...START,
    CONTEXT,
    update('0x5000', '0x9002'),
    translate('0x5000', '0x9000'),
    update('0x6000', '0xa003'),
    update('0x7000', '0xb003'),
    translate('0x7000', '0xb000'),
    translate('0x7000', '0xb000'),
    update('0x8000', '0xc003'),
    'vtd_dmar_fault sid 0x8 fault 6 addr 0xd000 write 0',
    'vtd_inv_desc_iotlb_pasid iotlb invalidate domain 0x1 pasid 0x5',
  ]);
  expect(result).toMatchObject({ translations: 3, agree: 3, recorded: { faults: 1, invalidations: { pasid: 1 } } });
  expect(result.oddities).toMatchObject({ lookupsWithoutTranslation: 2, translationsWithoutLookup: 1 });
});

test('a device that moves to another domain is followed, and counted', async () => {
  const other = update('0x5000', '0xe003').replace('domain 0x3', 'domain 0x7');
  const lines = [...START, CONTEXT, update('0x5000', '0x9003'), translate('0x5000', '0x9000')];
  const result = await replay([
    ...lines,
    'vtd_inv_desc_iotlb_domain iotlb invalidate whole domain 0x3',
    other,
    translate('0x5000', '0xe000'),
  ]);
  expect(result).toMatchObject({ agree: 2, differ: 0, oddities: { otherDomain: 1 } });
});

test('an ftrace is refused with what was found', async () => {
  await expect(replay(['# tracer: nop'])).rejects.toMatchObject({
    code: 'UNKNOWN_FORMAT',
    message: expect.stringContaining('found ftrace'),
  });
});
