import { bit, field, flag, put } from './bit-field.ts';

/** A page request, as a device sends it and as the queue holds it (VT-d Rev 5.10, 7.4.1.1). */
export interface PageRequest {
  readonly sourceId: number;
  /** 4K page number of the address. */
  readonly page: number;
  readonly read: boolean;
  readonly write: boolean;
  /** LPIG: the last request of its group. With neither read nor write and a PASID: a stop marker. */
  readonly last: boolean;
  /** PRGI, 9 bits, chosen by the device. */
  readonly groupIndex: number;
  /** PASID, 20 bits; absent for a request without one. */
  readonly pasid?: number;
  /** PMR: by a request of supervisor privilege; default false. */
  readonly privileged?: boolean;
  /** EXR: execute access is asked for; default false. */
  readonly execute?: boolean;
}

/**
 * Quadwords 0 and 1 of a page request descriptor; 2 and 3 are zero.
 * @throws RangeError naming a field whose value does not fit
 */
export function encodePageRequest(request: PageRequest): readonly [bigint, bigint] {
  return [
    1n |
      bit(request.pasid !== undefined, 8) |
      put('sourceId', request.sourceId, 16, 16) |
      put('pasid', request.pasid ?? 0, 20, 32) |
      bit(request.execute, 52) |
      bit(request.privileged, 53),
    bit(request.read, 0) |
      bit(request.write, 1) |
      bit(request.last, 2) |
      put('groupIndex', request.groupIndex, 9, 3) |
      put('page', request.page, 52, 12),
  ];
}

/** Inverse of {@link encodePageRequest}; null if the descriptor type is not a page request. */
export function decodePageRequest(lo: bigint, hi: bigint): PageRequest | null {
  if ((lo & 0xffn) !== 1n) return null;
  return {
    sourceId: field(lo, 31, 16),
    page: Number(hi >> 12n),
    read: flag(hi, 0),
    write: flag(hi, 1),
    last: flag(hi, 2),
    groupIndex: field(hi, 11, 3),
    ...(flag(lo, 8) ? { pasid: field(lo, 51, 32) } : {}),
    ...(flag(lo, 53) ? { privileged: true } : {}),
    ...(flag(lo, 52) ? { execute: true } : {}),
  };
}

/** Whether a request is a stop marker: no more requests of its PASID follow. It has no answer (PCIe 10.4.1.2.1). */
export const isStopMarker = (request: PageRequest): boolean => request.last && !request.read && !request.write;
