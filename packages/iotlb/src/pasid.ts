/** What stands for the PASID of a request without one. */
export const NO_PASID = -1;

/** What an invalidation says in place of a PASID to mean requests with any PASID and those without. */
export const ANY_PASID = -2;
/** The same for requests with any PASID, but not those without. */
export const EVERY_PASID = -3;

/** Rejects a number that no request can carry as its PASID. @throws RangeError */
export function checkPasid(pasid: number): void {
  if ((pasid & 0xfffff) !== pasid) throw new RangeError(`pasid: ${inHex(pasid)} is not an integer in 0..0xfffff`);
}

/** Rejects a number that is no bus, device and function. @throws RangeError */
export function checkSourceId(sourceId: number): void {
  if ((sourceId & 0xffff) !== sourceId)
    throw new RangeError(`sourceId: ${inHex(sourceId)} is not an integer in 0..0xffff`);
}

const inHex = (value: number): string =>
  Number.isInteger(value) && value >= 0 ? `0x${value.toString(16)}` : `${value}`;
