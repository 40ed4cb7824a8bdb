import { expect, test } from 'vitest';
import { walkAll } from '../src/page-table.ts';
import { mappedGib, mappedTable } from '../src/table-world.ts';
import { hotUnit, translateHits } from '../src/translation.ts';
import { GIB_PAGES, makeAddresses } from '../src/working-set.ts';
import { heapGrowthPerSlice, STATISTICS_BYTES } from './heap-growth.ts';

const WARM_UP_CALLS = 300_000;
/** A million calls. */
const SLICES = 100;

test('an allocation in each call is seen', () => {
  let kept: unknown;
  const growth = heapGrowthPerSlice((calls) => {
    for (let i = 0; i < calls; i++) kept = { i };
  }, SLICES);
  expect(kept).toEqual({ i: 9_999 });
  expect(growth).toBeGreaterThan(10 * STATISTICS_BYTES);
});

test.each([1, 2, 3] as const)('a million IOTLB hits at level %i allocate nothing', (level) => {
  const hot = hotUnit(level);
  translateHits(hot, WARM_UP_CALLS);
  const before = hot.unit.iotlb.counters.hits;
  expect(heapGrowthPerSlice((calls) => translateHits(hot, calls), SLICES)).toBeLessThan(STATISTICS_BYTES);
  expect(hot.unit.iotlb.counters.hits - before).toBe(1_000_000);
  expect(hot.unit.iotlb.counters.misses).toBe(0);
});

test.each([1, 2, 3] as const)('a million walks to a leaf at level %i allocate nothing', (level) => {
  const table = mappedTable(level);
  const addresses = makeAddresses(mappedGib(level) * GIB_PAGES);
  expect(walkAll(table, addresses, WARM_UP_CALLS)).not.toBe(0);
  expect(heapGrowthPerSlice((calls) => walkAll(table, addresses, calls), SLICES)).toBeLessThan(STATISTICS_BYTES);
});
