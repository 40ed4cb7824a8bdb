/** log2 of the bytes that an address mask covers, at most 64 (everything). */
export const rangeShiftOf = (addressMask: number): number => Math.min(64, addressMask + 12);

/** Joins two 32-bit halves. */
export const addressOf = (hi: number, lo: number): bigint => (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0);
