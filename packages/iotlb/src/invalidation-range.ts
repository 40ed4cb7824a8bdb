/** Rejects an address mask that no descriptor can carry: AM is a 6-bit field. @throws RangeError */
export function checkAddressMask(addressMask: number): void {
  if (!Number.isInteger(addressMask) || addressMask < 0 || addressMask > 63)
    throw new RangeError(`addressMask: ${addressMask} is not an integer in 0..63`);
}

/** log2 of the bytes that an address mask covers, at most 64 (everything). */
export const rangeShiftOf = (addressMask: number): number => Math.min(64, addressMask + 12);

/** Joins two 32-bit halves. */
export const addressOf = (hi: number, lo: number): bigint => (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0);
