import { getHeapStatistics } from 'node:v8';
import { median } from '../src/measurement.ts';

/** Calls in one slice: a few bytes each make more than what reading the statistics costs, and less than a young generation. */
const SLICE = 10_000;

/**
 * Median growth of the heap, in bytes, over slices of 10,000 calls: `body(calls)` makes that many. A collection in some slice
 * makes that one negative, and something that happens once, such as a compilation, makes one larger; the median sees neither.
 */
export function heapGrowthPerSlice(body: (calls: number) => void, slices: number): number {
  const growth: number[] = [];
  for (let slice = 0; slice < slices; slice++) {
    const before = getHeapStatistics().used_heap_size;
    body(SLICE);
    growth.push(getHeapStatistics().used_heap_size - before);
  }
  return median(growth);
}

/** What a slice may grow by: reading the statistics allocates about 1 KB, one 16-byte object a call would be 160 KB. */
export const STATISTICS_BYTES = 4096;
