/** Rejects what is none of the values that an argument may have. @throws RangeError naming the argument */
export function checkOneOf<T>(name: string, value: T, allowed: readonly T[]): void {
  if (!allowed.includes(value)) throw new RangeError(`${name}: ${value} is not one of ${allowed.join(', ')}`);
}

/** Rejects a number that is no bus, device and function. @throws RangeError */
export const checkSourceId = (sourceId: number): void => checkBits('sourceId', sourceId, 0xffff);

/** Rejects a number that no request can carry as its PASID. @throws RangeError */
export const checkPasid = (pasid: number): void => checkBits('pasid', pasid, 0xfffff);

/** Rejects a number that is no domain-id. @throws RangeError */
export const checkDomainId = (domainId: number): void => checkBits('domainId', domainId, 0xffff);

/** Rejects rights that are not made of bit 0, read, and bit 1, write. @throws RangeError */
export const checkRights = (rights: number): void => checkBits('rights', rights, 3);

/** Rejects an address mask that no descriptor can carry: AM is a 6-bit field. @throws RangeError */
export function checkAddressMask(addressMask: number): void {
  if (!Number.isInteger(addressMask) || addressMask < 0 || addressMask > 63)
    throw new RangeError(`addressMask: ${addressMask} is not an integer in 0..63`);
}

/** @param most all ones in binary, below 2^31 */
function checkBits(name: string, value: number, most: number): void {
  if ((value & most) === value) return;
  throw new RangeError(`${name}: ${inHex(value)} is not an integer in 0..${most < 10 ? most : inHex(most)}`);
}

const inHex = (value: number): string =>
  Number.isInteger(value) && value >= 0 ? `0x${value.toString(16)}` : `${value}`;
