import { hex } from '@faultline/address';
import { IommufdError } from '../errno.ts';

/** First and last IOVA of a range. */
export interface IovaRange {
  readonly start: bigint;
  readonly last: bigint;
}

/** The last IOVA there is: ULONG_MAX. */
export const LAST_IOVA = (1n << 64n) - 1n;

/** IOVAs that nobody may map: what lies outside a domain's aperture, and reserved regions of devices. Ranges may overlap; each has an owner. */
export class ReservedIovas {
  #ranges: { readonly range: IovaRange; readonly owner: object }[] = [];

  /** Adds a range. */
  add(range: IovaRange, owner: object): void {
    this.#ranges.push({ range, owner });
  }

  /** Gives all ranges of an owner back. */
  release(owner: object): void {
    this.#ranges = this.#ranges.filter((each) => each.owner !== owner);
  }

  /** Whether any byte of a range is reserved. */
  intersects(range: IovaRange): boolean {
    return this.#ranges.some((each) => overlaps(each.range, range));
  }

  /** The ranges, sorted and merged. */
  merged(): IovaRange[] {
    return mergeRanges(this.#ranges.map((each) => each.range));
  }

  /** What may be mapped: the holes between the ranges, in order. */
  holes(): IovaRange[] {
    const holes: IovaRange[] = [];
    let start = 0n;
    for (const range of this.merged()) {
      if (range.start > start) holes.push({ start, last: range.start - 1n });
      start = range.last + 1n;
    }
    if (start <= LAST_IOVA) holes.push({ start, last: LAST_IOVA });
    return holes;
  }
}

/** The lesser of two addresses. */
export const lesser = (a: bigint, b: bigint): bigint => (a < b ? a : b);

/** The greater of two addresses. */
export const greater = (a: bigint, b: bigint): bigint => (a > b ? a : b);

/** Whether two ranges share a byte. */
export const overlaps = (a: IovaRange, b: IovaRange): boolean => a.start <= b.last && b.start <= a.last;

/** Sorted, with those that overlap or touch made one. */
export function mergeRanges(ranges: readonly IovaRange[]): IovaRange[] {
  const merged: IovaRange[] = [];
  for (const range of [...ranges].sort((a, b) => (a.start < b.start ? -1 : a.start > b.start ? 1 : 0))) {
    const before = merged.at(-1);
    if (before && range.start <= before.last + 1n)
      merged[merged.length - 1] = { start: before.start, last: greater(before.last, range.last) };
    else merged.push(range);
  }
  return merged;
}

/** For messages. */
export const formatRange = (range: IovaRange): string => `[${hex(range.start)}-${hex(range.last)}]`;

/**
 * The list of IOMMU_IOAS_ALLOW_IOVAS, checked. @throws IommufdError EINVAL for start >= last (so no range of one byte) and for ranges that
 * overlap; EADDRINUSE where one meets a reserved range
 */
export function checkAllowed(ranges: readonly IovaRange[], reserved: ReservedIovas): readonly IovaRange[] {
  ranges.forEach((range, index) => {
    if (range.start >= range.last)
      throw new IommufdError('EINVAL', `allowed_iovas: ${formatRange(range)} does not start below its last`);
    if (ranges.slice(0, index).some((other) => overlaps(other, range)))
      throw new IommufdError('EINVAL', `allowed_iovas: ${formatRange(range)} overlaps another`);
  });
  for (const range of ranges)
    if (reserved.intersects(range))
      throw new IommufdError('EADDRINUSE', `allowed_iovas: ${formatRange(range)} meets a reserved range`);
  return ranges;
}
