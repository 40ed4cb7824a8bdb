import type { PageSize } from '@faultline/address';

/** log2 of a folio's 4 KiB frames: 0 (4K), 9 (2M) or 18 (1G). */
export type FolioOrder = 0 | 9 | 18;

/** A CPU leaf size's order. */
export const ORDER_OF: Readonly<Record<PageSize, FolioOrder>> = { '4K': 0, '2M': 9, '1G': 18 };

/** Frames in a 2M folio, and 2M folios in a 1G folio. */
export const FANOUT = 512;
/** Frames in a 1G folio. */
export const FRAMES_PER_1G: number = FANOUT * FANOUT;

/** Number of 4 KiB frames in a folio. */
export const framesOf = (order: FolioOrder): number => 2 ** order;

/** The next smaller order; 4K has none and answers itself. */
export const smallerOrder = (order: FolioOrder): FolioOrder => (order === 18 ? 9 : 0);

/** The first page of the naturally aligned block of `frames` (a power of two) that holds `page`, up to 2^45. */
export const blockStart = (page: number, frames: number): number => Math.floor(page / frames) * frames;
