import { levelFrames, type TableLevel } from './entry.ts';

/** Size of a leaf at each level in the low half of an address: 4 KiB, 2 MiB, 1 GiB. */
const LEAF_BYTES = [0, 0x1000, 0x20_0000, 0x4000_0000] as const;

/** Low half of the first frame's address. */
export const frameLo = (frame: number): number => (frame << 12) | 0;

/** High half of the frame's address, bits 51:32. */
export const frameHi = (frame: number): number => Math.floor(frame / 0x10_0000);

/**
 * Writes `count` leaves of one level from entry half `half` on, with frames going up from the one in `lo` and `hi`. Two
 * plain 32-bit stores an entry: only for tables that nobody else can reach yet.
 */
export function fillLeaves(
  halves: Int32Array,
  half: number,
  count: number,
  level: TableLevel,
  lo: number,
  hi: number,
): void {
  const bytes = LEAF_BYTES[level as 1 | 2 | 3] | 0;
  let at = half | 0;
  let low = lo | 0;
  let high = hi | 0;
  for (let left = count | 0; left > 0; high = (high + 1) | 0) {
    // Up to the next 4 GiB the high half stays the same.
    const same = Math.min(left, Math.ceil((0x1_0000_0000 - (low >>> 0)) / bytes)) | 0;
    const end = (at + 2 * same) | 0;
    // Two at a time, the last half first: one check of the array's bounds does for all four stores.
    for (const pairs = (end - 2) | 0; at < pairs; at = (at + 4) | 0) {
      halves[at + 3] = high;
      halves[at + 2] = (low + bytes) | 0;
      halves[at + 1] = high;
      halves[at] = low;
      low = (low + 2 * bytes) | 0;
    }
    for (; at < end; at = (at + 2) | 0) {
      halves[at + 1] = high;
      halves[at] = low;
      low = (low + bytes) | 0;
    }
    left = (left - same) | 0;
  }
}

/** Whether a present entry, by its low half, maps memory; the same rule as for a whole entry. */
export const isLeafLo = (lo: number, level: number): boolean => level === 1 || (level <= 3 && (lo & 0x80) !== 0);

/** First 4K page of the entry at `level` that a page lies in. */
export const pageBase = (page: number, level: number): number => {
  const size = levelFrames(level);
  return Math.floor(page / size) * size;
};
