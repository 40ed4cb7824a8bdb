import { hex } from '@faultline/address';

/** Pages of a 57-bit address space (5-level paging); the largest page number is one less. */
const PAGE_LIMIT = 2 ** 45;

/** A whole number of something. @throws RangeError naming the argument unless it is an integer in `least`..`most` */
export function checkInteger(name: string, value: number, least: number, most: number): void {
  if (!Number.isInteger(value) || value < least || value > most)
    throw new RangeError(
      `${name}: ${Number.isInteger(value) ? hex(value) : value} is not an integer in ${hex(least)}..${hex(most)}`,
    );
}

/** A run of pages. @throws RangeError naming the argument if it is empty or leaves the 57-bit address space */
export function checkPageRange(range: { startPage: number; pages: number }): void {
  checkInteger('startPage', range.startPage, 0, PAGE_LIMIT - 1);
  checkInteger('pages', range.pages, 1, PAGE_LIMIT - range.startPage);
}
