import { levelFrames, type TableLevel } from './entry.ts';
import type { TableMemory } from './table-memory.ts';

/** Size of a leaf at each level in the low half of an address: 4 KiB, 2 MiB, 1 GiB. */
const LEAF_BYTES = [0, 0x1000, 0x20_0000, 0x4000_0000] as const;

/** Low half of the first frame's address. */
export const frameLo = (frame: number): number => (frame << 12) | 0;

/** High half of the frame's address, bits 51:32. */
export const frameHi = (frame: number): number => Math.floor(frame / 0x10_0000);

/** High half: bits that are the exponent if an entry is read as a double. All of them are above the address. */
const HI_EXPONENT = 0x7ff0_0000;

/**
 * Writes `count` leaves of one level from entry `index` of a table on, with frames going up from the one in `lo` and `hi`.
 * Plain stores: only for tables that nobody else can reach yet.
 *
 * An entry without bits 62:52 is, read as a double, subnormal: a multiple of 2^-1074, counted by its bits. Adding such doubles adds
 * the entries, exactly (IEEE 754), so that a leaf costs one addition and one 64-bit store, with a carry into the high half.
 */
export function fillLeaves(
  memory: TableMemory,
  pfn: number,
  index: number,
  count: number,
  level: TableLevel,
  lo: number,
  hi: number,
): void {
  const { cpuHalves, cpuDoubles } = memory;
  const bytes = LEAF_BYTES[level as 1 | 2 | 3] | 0;
  const first = ((pfn - memory.basePfn) << 9) | index;
  // Two leaves by halves; as doubles they are where to start, and the distance.
  const subnormal = (hi & HI_EXPONENT) === 0;
  fillHalves(cpuHalves, first << 1, subnormal ? Math.min(count, 2) : count, bytes, lo, hi);
  if (!subnormal || count <= 2) return;
  let leaf = cpuDoubles[first] as number;
  const one = (cpuDoubles[first + 1] as number) - leaf;
  const two = one + one;
  const three = two + one;
  const four = two + two;
  const eight = four + four;
  const end = (first + count) | 0;
  let at = first;
  // Eight at a time, the last one first: one check of the array's bounds does for all of them.
  for (const last = (end - 7) | 0; at < last; at = (at + 8) | 0) {
    const fifth = leaf + four;
    cpuDoubles[at + 7] = fifth + three;
    cpuDoubles[at + 6] = fifth + two;
    cpuDoubles[at + 5] = fifth + one;
    cpuDoubles[at + 4] = fifth;
    cpuDoubles[at + 3] = leaf + three;
    cpuDoubles[at + 2] = leaf + two;
    cpuDoubles[at + 1] = leaf + one;
    cpuDoubles[at] = leaf;
    leaf += eight;
  }
  for (; at < end; at = (at + 1) | 0) {
    cpuDoubles[at] = leaf;
    leaf += one;
  }
}

/** The same by halves, whatever their bits. */
function fillHalves(halves: Int32Array, half: number, count: number, bytes: number, lo: number, hi: number): void {
  let low = lo | 0;
  let high = hi | 0;
  const end = (half + 2 * count) | 0;
  for (let at = half | 0; at < end; at = (at + 2) | 0) {
    halves[at + 1] = high;
    halves[at] = low;
    low = (low + bytes) | 0;
    if (low >>> 0 < bytes) high = (high + 1) | 0;
  }
}

/** Whether a present entry, by its low half, maps memory; the same rule as for a whole entry. */
export const isLeafLo = (lo: number, level: number): boolean => level === 1 || (level <= 3 && (lo & 0x80) !== 0);

/** First 4K page of the entry at `level` that a page lies in. */
export const pageBase = (page: number, level: number): number => {
  const size = levelFrames(level);
  return Math.floor(page / size) * size;
};
