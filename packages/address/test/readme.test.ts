import { expect, it } from 'vitest';
import { formatRange, hpa, iova, PAGE_SIZE_BYTES, parseSize, pfnOf, rangeContains } from '../src/index.ts';

it('the example of the README holds', () => {
  const area = { start: iova(0x4000_0000n), length: parseSize('1G') };
  const page = { start: iova(0x4012_3000n), length: PAGE_SIZE_BYTES['4K'] };
  expect(formatRange(area)).toBe('[0x40000000-0x7fffffff]');
  expect(rangeContains(area, page)).toBe(true);
  expect(pfnOf(hpa(0x2_4012_3000n))).toBe(2359587);
  // @ts-expect-error an Iova is no Hpa
  expect(pfnOf(page.start)).toBe(0x40123);
});
