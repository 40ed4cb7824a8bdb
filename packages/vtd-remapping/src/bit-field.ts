import { hex } from '@faultline/address';

/** Rejects a number that does not fit a field of so many bits. @throws RangeError naming the field */
export function checkWidth(name: string, value: number, width: number): void {
  const most = 2 ** width - 1;
  if (!Number.isInteger(value) || value < 0 || value > most)
    throw new RangeError(
      `${name}: ${Number.isInteger(value) ? hex(value) : value} is not an integer in 0x0..${hex(most)}`,
    );
}

/** A field of a quadword, in its place. A value that does not fit would change the field above it. @throws RangeError naming the field */
export function put(name: string, value: number, width: number, low: number): bigint {
  checkWidth(name, value, width);
  return BigInt(value) << BigInt(low);
}

/** A flag, in its place. */
export const bit = (value: boolean | undefined, position: number): bigint => (value ? 1n << BigInt(position) : 0n);

/** A field of a quadword, from bit `high` down to bit `low`. */
export const field = (quadword: bigint, high: number, low: number): number =>
  Number((quadword >> BigInt(low)) & ((1n << BigInt(high - low + 1)) - 1n));

/** A flag of a quadword. */
export const flag = (quadword: bigint, position: number): boolean => ((quadword >> BigInt(position)) & 1n) === 1n;
