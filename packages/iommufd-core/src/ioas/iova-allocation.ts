import { hex } from '@faultline/address';
import { IommufdError } from '../errno.ts';
import type { IoPagetable } from './io-pagetable.ts';
import { greater, type IovaRange, LAST_IOVA, lesser, mergeRanges, type ReservedIovas } from './reserved-iovas.ts';

/** What an automatic IOVA must keep clear of, and to what. */
export interface IovaSpace {
  readonly areas: IoPagetable;
  readonly reserved: ReservedIovas;
  /** Empty: everything but the first and last page. */
  readonly allowed: readonly IovaRange[];
  readonly alignment: bigint;
}

const PAGE = 4096n;
/** HPAGE_SIZE: THP is built. */
const LARGEST_ALIGNMENT = 0x20_0000n;

/**
 * The lowest IOVA with room for a map, as Linux's iopt_alloc_iova: aligned to what the address allows, up to 2M, with the address's page
 * offset kept.
 * @param request.address user VA, or offset into the file
 * @throws IommufdError EOVERFLOW (half of all addresses or more), EINVAL (the address is less aligned than the IOAS asks), ENOSPC
 */
export function allocateIova(space: IovaSpace, request: { address: bigint; length: bigint }): bigint {
  const { address, length } = request;
  if (length >= LAST_IOVA / 2n)
    throw new IommufdError('EOVERFLOW', `length: ${hex(length)} is too long for an automatic IOVA`);
  const natural = roundUpToPower(length);
  const ofAddress = address === 0n ? natural : lesser(natural, address & -address);
  const alignment = lesser(ofAddress, LARGEST_ALIGNMENT);
  if (alignment < space.alignment)
    throw new IommufdError('EINVAL', `user_va: ${hex(address)} is not aligned to ${hex(space.alignment)}`);
  const wanted = { length, alignment, pageOffset: address & 0xfffn };
  const everything = { start: PAGE, last: LAST_IOVA - PAGE };
  const ranges = space.allowed.length === 0 ? [everything] : clip(mergeRanges(space.allowed), everything);
  for (const range of ranges) {
    const start = firstFit(range, wanted);
    if (start < 0n) continue;
    for (const hole of holesIn(space, { start, last: range.last })) {
      const found = firstFit(hole, wanted);
      if (found >= 0n) return found;
    }
  }
  throw new IommufdError('ENOSPC', `iova: no room for ${hex(length)} bytes`);
}

/** The first place in a range, or -1. As in Linux a place that starts at the last byte of the range does not count. */
function firstFit(
  range: IovaRange,
  { length, alignment, pageOffset }: { length: bigint; alignment: bigint; pageOffset: bigint },
): bigint {
  const roundedUp = range.start + alignment - 1n;
  if (roundedUp > LAST_IOVA) return -1n;
  const start = (roundedUp & -alignment) | pageOffset;
  return start >= range.last || range.last - start < length - 1n ? -1n : start;
}

/** The holes of reserved ranges and areas in a range, in order. */
function* holesIn({ areas, reserved }: IovaSpace, range: IovaRange): Generator<IovaRange> {
  const taken = reserved.merged().filter((each) => each.last >= range.start);
  let start = range.start;
  while (start <= range.last) {
    const area = areas.firstIn(start, range.last);
    const reservedRange = taken.find((each) => each.last >= start);
    const areaStart = area ? area.iova : LAST_IOVA + 1n;
    const reservedStart = reservedRange ? reservedRange.start : LAST_IOVA + 1n;
    const end = lesser(lesser(areaStart, reservedStart), range.last + 1n);
    if (end > start) yield { start, last: end - 1n };
    if (end > range.last) return;
    start = area && areaStart <= reservedStart ? area.last + 1n : (reservedRange?.last ?? LAST_IOVA) + 1n;
  }
}

const clip = (ranges: readonly IovaRange[], to: IovaRange): IovaRange[] =>
  ranges
    .map(({ start, last }) => ({ start: greater(start, to.start), last: lesser(last, to.last) }))
    .filter(({ start, last }) => start <= last);

const roundUpToPower = (value: bigint): bigint => (value <= 1n ? 1n : 1n << BigInt((value - 1n).toString(2).length));
