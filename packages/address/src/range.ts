import { hex } from './address.ts';

/** A half-open run of bytes: `start` .. `start + length - 1`. */
export interface AddressRange<A extends bigint = bigint> {
  /** First byte. */
  readonly start: A;
  /** Length in bytes, greater than zero. */
  readonly length: bigint;
}

/** One past the last byte. */
export const rangeEnd = (range: AddressRange): bigint => range.start + range.length;

/** Whether the two ranges share a byte. */
export const rangesOverlap = (a: AddressRange, b: AddressRange): boolean =>
  a.start < rangeEnd(b) && b.start < rangeEnd(a);

/** Whether `inner` lies wholly within `outer`. */
export const rangeContains = (outer: AddressRange, inner: AddressRange): boolean =>
  inner.start >= outer.start && rangeEnd(inner) <= rangeEnd(outer);

/** Whether the value is a multiple of `alignment`, a power of two in bytes. */
export const isAligned = (value: bigint, alignment: bigint): boolean => (value & (alignment - 1n)) === 0n;

/** The greatest multiple of `alignment` (a power of two) that is not above the value. */
export const alignDown = (value: bigint, alignment: bigint): bigint => value & ~(alignment - 1n);

/** The least multiple of `alignment` (a power of two) that is not below the value. */
export const alignUp = (value: bigint, alignment: bigint): bigint => alignDown(value + alignment - 1n, alignment);

/** `[0x1000-0x1fff]`: first and last byte, as the kernel prints resources. */
export const formatRange = (range: AddressRange): string => `[${hex(range.start)}-${hex(rangeEnd(range) - 1n)}]`;
