/** log2 of a folio's 4 KiB frames, 0 (4K) to 18 (1G). Leaves of the CPU page table have 0, 9 or 18. */
export type FolioOrder = number;

/** Order of a 2M folio or leaf: a PMD. */
export const PMD_ORDER = 9;
/** Order of a 1G folio or leaf: a PUD. */
export const PUD_ORDER = 18;
/** Frames in a 2M folio, and 2M folios in a 1G folio. */
export const FANOUT = 512;
/** Frames in a 1G folio. */
export const FRAMES_PER_1G: number = FANOUT * FANOUT;

/** Number of 4 KiB frames in a folio. */
export const framesOf = (order: FolioOrder): number => 1 << order;

/** The next smaller leaf order; 4K has none and answers itself. */
export const smallerLeaf = (order: FolioOrder): FolioOrder => (order === PUD_ORDER ? PMD_ORDER : 0);

/** The first page of the naturally aligned block of `frames` (a power of two) that holds `page`, up to 2^45. */
export const blockStart = (page: number, frames: number): number => Math.floor(page / frames) * frames;
