import { levelFrames, type TableLevel } from './entry.ts';

/** First-stage paging entries, VT-d Rev 5.10 section 9.7: those of the processor's 64-bit paging. */

/** Bit 0: present. */
export const FS_PRESENT = 1n << 0n;
/** Bit 1, R/W: writes are allowed. */
export const FS_WRITE = 1n << 1n;
/** Bit 2, U/S: requests of user privilege are allowed; all requests without PASID are such, unless RID_PRIV is set. */
export const FS_USER = 1n << 2n;
/** Bit 5: accessed. */
export const FS_ACCESSED = 1n << 5n;
/** Bit 6 of a leaf: dirty. */
export const FS_DIRTY = 1n << 6n;
/** Bit 7 of a PDE or PDPE: it is a 2M or 1G leaf. */
export const FS_PAGE_SIZE = 1n << 7n;

const ADDRESS = 0x000f_ffff_ffff_f000n;
/** PAT is bit 7 of a PTE, where PS would be, and bit 12 of a larger leaf. */
const PTE_PAT = 1n << 7n;
const LARGE_PAT = 1n << 12n;

/** Whether a present entry of a table at this level maps memory. */
export const isFirstStageLeaf = (entry: bigint, level: number): boolean =>
  level === 1 || (level <= 3 && (entry & FS_PAGE_SIZE) !== 0n);

/** The frame of a leaf's first page, or of the table that an entry leads to. */
export const firstStageFrame = (entry: bigint, level: number): number =>
  Number((entry & ADDRESS & (level > 1 && isFirstStageLeaf(entry, level) ? ~LARGE_PAT : ~0n)) >> 12n);

/**
 * Bits 11:0 of an entry that leads to a table, as Linux's pfn_to_dma_pte() writes them for a first stage: P, R/W, U/S, and A, which
 * hardware cannot set where it does not snoop.
 */
export const FS_TABLE = FS_PRESENT | FS_WRITE | FS_USER | FS_ACCESSED;

/** An entry that leads to a table. */
export const encodeFirstStageTable = (tablePfn: number, bits = FS_TABLE): bigint => (BigInt(tablePfn) << 12n) | bits;

/** A leaf of the bits given, as Linux's __domain_mapping() adds U/S and A, and D if it may be written. */
export function encodeFirstStageLeaf(level: TableLevel, frame: number, write: boolean, attributes = 0n): bigint {
  const rights = FS_PRESENT | FS_USER | FS_ACCESSED | (write ? FS_WRITE | FS_DIRTY : 0n);
  return (BigInt(frame) << 12n) | rights | (level > 1 ? FS_PAGE_SIZE : 0n) | attributes;
}

/** The nth part of a large leaf, one level lower: the same rights and attributes; PAT goes where it is at that level. */
export function partOfFirstStageLeaf(leaf: bigint, level: 2 | 3, nth: number): bigint {
  const frame = firstStageFrame(leaf, level) + nth * levelFrames(level - 1);
  const rest = leaf & ~(ADDRESS | FS_PAGE_SIZE);
  const pat = (leaf & LARGE_PAT) === 0n ? 0n : level === 2 ? PTE_PAT : LARGE_PAT;
  return (BigInt(frame) << 12n) | rest | pat | (level === 3 ? FS_PAGE_SIZE : 0n);
}
