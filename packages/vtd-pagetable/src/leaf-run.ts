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
  const bytes = LEAF_BYTES[level as 1 | 2 | 3];
  let at = half;
  let low = lo;
  for (let left = count, high = hi; left > 0; high++) {
    // Up to the next 4 GiB the high half stays the same.
    const same = Math.min(left, Math.ceil((0x1_0000_0000 - (low >>> 0)) / bytes));
    for (const end = at + 2 * same; at < end; at += 2) {
      halves[at] = low;
      halves[at + 1] = high;
      low = (low + bytes) | 0;
    }
    left -= same;
  }
}

/** Whether a present entry, by its low half, maps memory; the same rule as for a whole entry. */
export const isLeafLo = (lo: number, level: number): boolean => level === 1 || (level <= 3 && (lo & 0x80) !== 0);

/** First 4K page of the entry at `level` that a page lies in. */
export const pageBase = (page: number, level: number): number => {
  const size = levelFrames(level);
  return Math.floor(page / size) * size;
};
