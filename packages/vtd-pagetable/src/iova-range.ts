import { hex } from '@faultline/address';
import { PageTableError } from './page-table-error.ts';
import type { TableState } from './table-state.ts';

/** A range of 4K pages. */
export interface PageRange {
  readonly page: number;
  readonly pages: number;
}

const ADDRESS_LIMIT = 1n << 64n;

/**
 * A range of IOVAs in bytes as 4K pages, checked in the order of Linux 7.3. The second stage does not sign-extend: an
 * address above the input width is out of range, whatever its upper bits are.
 * @param iova 64-bit byte address
 * @param length bytes
 * @throws PageTableError EINVAL (no 64-bit address, nothing to do), EOVERFLOW (beyond 64 bits), ERANGE (above the input width),
 *   ENXIO (no whole pages), naming the argument and its value in hex
 */
export function iovaRange(table: TableState, iova: bigint, length: bigint): PageRange {
  checkAddress('iova', iova);
  checkLength('iova', iova, length);
  checkAligned({ iova, length });
  const width = 12 + 9 * table.levels;
  if (iova + length > 1n << BigInt(width))
    throw new PageTableError('ERANGE', `iova: ${hex(iova)} + ${hex(length)} is beyond the ${width}-bit input range`);
  return { page: Number(iova >> 12n), pages: Number(length >> 12n) };
}

/** The frame that a range of host memory starts at. @throws PageTableError EINVAL, ERANGE (above the host address width), ENXIO */
export function hostFrame(table: TableState, paddr: bigint, length: bigint): number {
  checkAddress('paddr', paddr);
  const width = table.capabilities.hostAddressWidth;
  if (paddr + length > 1n << BigInt(width))
    throw new PageTableError(
      'ERANGE',
      `paddr: ${hex(paddr)} + ${hex(length)} is beyond the ${width}-bit host address width`,
    );
  checkAligned({ paddr });
  return Number(paddr >> 12n);
}

/** @throws PageTableError EINVAL if it is no 64-bit address, TypeError if it is no bigint */
export function checkAddress(name: string, address: bigint): void {
  checkBigint(name, address);
  if (address < 0n || address >= ADDRESS_LIMIT)
    throw new PageTableError('EINVAL', `${name}: ${hex(address)} is not a 64-bit address`);
}

/** @throws TypeError naming the argument if it is of another type: mixed with a bigint it would be an error that names none */
export function checkBigint(name: string, value: unknown): asserts value is bigint {
  if (typeof value !== 'bigint')
    throw new TypeError(`${name}: ${String(value)} (${typeof value}) is not a bigint, such as 0x1000n`);
}

function checkLength(name: string, address: bigint, length: bigint): void {
  checkBigint('length', length);
  if (length <= 0n) throw new PageTableError('EINVAL', `length: ${hex(length)} is not a positive number of bytes`);
  if (address + length > ADDRESS_LIMIT)
    throw new PageTableError('EOVERFLOW', `${name}: ${hex(address)} + length ${hex(length)} is beyond 64 bits`);
}

function checkAligned(values: Readonly<Record<string, bigint>>): void {
  for (const [name, value] of Object.entries(values))
    if ((value & 0xfffn) !== 0n)
      throw new PageTableError('ENXIO', `${name}: ${hex(value)} is not a multiple of the page size 0x1000`);
}
