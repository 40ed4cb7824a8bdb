/** log2 of the base page size. Every frame number in Faultline counts 4 KiB frames. */
export const PAGE_SHIFT = 12;
/** Base page size in bytes, as a bigint for address arithmetic at the API edge. */
export const PAGE_SIZE = 4096n;

/** The leaf sizes of an x86 page table, smallest first. */
export const PAGE_SIZES = ['4K', '2M', '1G'] as const;
/** A leaf size: `4K`, `2M` or `1G`. */
export type PageSize = (typeof PAGE_SIZES)[number];

/** log2 of the size in bytes. */
export const PAGE_SIZE_SHIFT: Readonly<Record<PageSize, number>> = { '4K': 12, '2M': 21, '1G': 30 };

/** Size in bytes. */
export const PAGE_SIZE_BYTES: Readonly<Record<PageSize, bigint>> = {
  '4K': 1n << 12n,
  '2M': 1n << 21n,
  '1G': 1n << 30n,
};

/** Number of 4 KiB frames in one page of each size: 1, 512 and 262,144. */
export const FRAMES_PER_PAGE: Readonly<Record<PageSize, number>> = {
  '4K': 1,
  '2M': 512,
  '1G': 512 * 512,
};
