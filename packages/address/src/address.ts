import { PAGE_SHIFT } from './page-size.ts';

declare const brand: unique symbol;
type Branded<Base, Name extends string> = Base & { readonly [brand]: Name };

/** An address as a device emits it, before translation. In bytes. */
export type Iova = Branded<bigint, 'Iova'>;
/** A guest-physical address, in bytes. A VM that sees its memory identity-mapped has Iova = Gpa. */
export type Gpa = Branded<bigint, 'Gpa'>;
/** An address in the host process (the VMM) that owns the guest's memory, in bytes. */
export type Hva = Branded<bigint, 'Hva'>;
/** A host-physical address, in bytes. */
export type Hpa = Branded<bigint, 'Hpa'>;
/** A host page frame number: host-physical address divided by 4096. */
export type Pfn = Branded<number, 'Pfn'>;

const MAX_ADDRESS = (1n << 64n) - 1n;
/** x86 physical addresses have at most 52 bits (VT-d Rev 5.10, 3.7), so frame numbers have at most 40. */
const MAX_PFN = 2 ** 40 - 1;

function checked(name: string, value: bigint, max: bigint): bigint {
  if (typeof value !== 'bigint') throw new TypeError(`${name}: expected a bigint, got ${typeof value}`);
  if (value < 0n || value > max) throw new RangeError(`${name}: ${hex(value)} is outside 0x0..${hex(max)}`);
  return value;
}

/** Brands a byte address as an IOVA. @throws RangeError outside 64 bits, TypeError if not a bigint. */
export const iova = (value: bigint): Iova => checked('iova', value, MAX_ADDRESS) as Iova;
/** Brands a byte address as guest-physical. @throws RangeError outside 64 bits, TypeError if not a bigint. */
export const gpa = (value: bigint): Gpa => checked('gpa', value, MAX_ADDRESS) as Gpa;
/** Brands a byte address as host-virtual. @throws RangeError outside 64 bits, TypeError if not a bigint. */
export const hva = (value: bigint): Hva => checked('hva', value, MAX_ADDRESS) as Hva;
/** Brands a byte address as host-physical. @throws RangeError above 52 bits, TypeError if not a bigint. */
export const hpa = (value: bigint): Hpa => checked('hpa', value, (1n << 52n) - 1n) as Hpa;

/** Brands a frame number. @throws RangeError if it is not an integer of at most 40 bits. */
export function pfn(value: number): Pfn {
  if (!Number.isInteger(value) || value < 0 || value > MAX_PFN)
    throw new RangeError(`pfn: ${value} is not an integer in 0..2^40-1`);
  return value as Pfn;
}

/** The frame that holds a host-physical address. */
export const pfnOf = (address: Hpa): Pfn => Number(address >> BigInt(PAGE_SHIFT)) as Pfn;
/** The first byte of a frame. */
export const hpaOf = (frame: Pfn): Hpa => (BigInt(frame) << BigInt(PAGE_SHIFT)) as Hpa;

/** Lower-case hexadecimal with `0x`, as the kernel prints addresses; negative values keep their sign. */
export function hex(value: bigint | number): string {
  return value < 0 ? `-0x${(-value).toString(16)}` : `0x${value.toString(16)}`;
}
