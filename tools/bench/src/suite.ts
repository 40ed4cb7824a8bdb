import type { Benchmark } from './benchmark.ts';
import { hostDrop, hostFault, hostNotifier, hostPageOut } from './host-memory.ts';
import { cutPage, mapGibAs, unmapGibOf, walkTo } from './page-table.ts';
import { iotlbHit, iotlbInvalidation, iotlbMiss, translationMiss } from './translation.ts';

/** Limits on the ratio to C: look-ups and walks, and changes of the table. */
const LOOKUP = 2;
const CHANGE = 2.5;

/**
 * All benchmarks, in the order of the table. A round takes C from 0.1 to 3 ms: on a busy machine, the best of many short rounds is
 * one that nobody interrupted.
 */
export const BENCHMARKS: readonly Benchmark[] = [
  { name: 'iotlb hit 4K', operations: 100_000, target: LOOKUP, run: (n) => iotlbHit(1, n) },
  { name: 'iotlb hit 2M', operations: 100_000, target: LOOKUP, run: (n) => iotlbHit(2, n) },
  { name: 'iotlb hit 1G', operations: 100_000, target: LOOKUP, run: (n) => iotlbHit(3, n) },
  { name: 'walk to 4K', operations: 400_000, target: LOOKUP, run: (n) => walkTo(1, n) },
  { name: 'walk to 2M', operations: 400_000, target: LOOKUP, run: (n) => walkTo(2, n) },
  { name: 'walk to 1G', operations: 400_000, target: LOOKUP, run: (n) => walkTo(3, n) },
  { name: 'map 1 GiB as 4K', operations: 2, target: CHANGE, run: (n) => mapGibAs(1, n) },
  { name: 'map 1 GiB as 2M', operations: 256, target: CHANGE, run: (n) => mapGibAs(2, n) },
  { name: 'unmap 1 GiB of 4K', operations: 2, target: CHANGE, run: (n) => unmapGibOf(1, n) },
  { name: 'unmap 1 GiB of 2M', operations: 256, target: CHANGE, run: (n) => unmapGibOf(2, n) },
  { name: 'cut 4K out of 1G', operations: 256, target: CHANGE, run: cutPage },
  { name: 'iotlb miss and fill', operations: 50_000, target: null, run: iotlbMiss },
  { name: 'iotlb page invalidation and fill', operations: 50_000, target: null, run: iotlbInvalidation },
  { name: 'translation miss', operations: 5_000, target: null, run: translationMiss },
  { name: 'host fault 4K', operations: 2_000, target: null, run: hostFault },
  { name: 'host MADV_DONTNEED 4K', operations: 2_000, target: null, run: hostDrop },
  { name: 'host MADV_PAGEOUT 4K', operations: 2_000, target: null, run: hostPageOut },
  { name: 'host notifier call', operations: 10_000, target: null, run: hostNotifier },
];
