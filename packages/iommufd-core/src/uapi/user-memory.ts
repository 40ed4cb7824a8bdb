import { hex } from '@faultline/address';
import { IommufdError } from '../errno.ts';

/** Memory of the calling process, by address, as copy_from_user and copy_to_user see it. */
export interface UserMemory {
  /** Fills `into` from an address on. @returns false if a byte cannot be read: EFAULT */
  read(address: bigint, into: Uint8Array): boolean;
  /** Writes as far as it can. @returns false if a byte could not be written: EFAULT */
  write(address: bigint, from: Uint8Array): boolean;
}

const PAGE = 4096;
const PAGE_SHIFT = 12n;
const END = 1n << 64n;

/** Pages of memory at chosen addresses; everywhere else is a fault. */
export class UserPages implements UserMemory {
  readonly #pages = new Map<bigint, { readonly bytes: Uint8Array; readonly writeable: boolean }>();

  /** Maps zeroed pages over `bytes` bytes from an address on, in place of what was there. */
  map(address: bigint, bytes: number, writeable = true): void {
    for (let page = address >> PAGE_SHIFT; page << PAGE_SHIFT < address + BigInt(bytes); page++)
      this.#pages.set(page, { bytes: new Uint8Array(PAGE), writeable });
  }

  /** {@inheritDoc UserMemory.read} */
  read(address: bigint, into: Uint8Array): boolean {
    return this.#each(address, into.length, false, (page, at, done, count) => {
      into.set(page.subarray(at, at + count), done);
    });
  }

  /** {@inheritDoc UserMemory.write} */
  write(address: bigint, from: Uint8Array): boolean {
    return this.#each(address, from.length, true, (page, at, done, count) => {
      page.set(from.subarray(done, done + count), at);
    });
  }

  #each(
    address: bigint,
    bytes: number,
    write: boolean,
    visit: (page: Uint8Array, at: number, done: number, count: number) => void,
  ): boolean {
    for (let done = 0; done < bytes; ) {
      const place = address + BigInt(done);
      const page = place < END ? this.#pages.get(place >> PAGE_SHIFT) : undefined;
      if (page === undefined || (write && !page.writeable)) return false;
      const at = Number(place & 0xfffn);
      const count = Math.min(PAGE - at, bytes - done);
      visit(page.bytes, at, done, count);
      done += count;
    }
    return true;
  }
}

/** copy_from_user. @throws IommufdError EFAULT */
export function copyFromUser(memory: UserMemory, address: bigint, bytes: number): Uint8Array {
  const into = new Uint8Array(bytes);
  if (!memory.read(address, into)) throw badAddress(address, bytes);
  return into;
}

/** copy_to_user. @throws IommufdError EFAULT */
export function copyToUser(memory: UserMemory, address: bigint, from: Uint8Array): void {
  if (!memory.write(address, from)) throw badAddress(address, from.length);
}

const badAddress = (address: bigint, bytes: number): IommufdError =>
  new IommufdError('EFAULT', `user memory at ${hex(address)}: ${hex(bytes)} bytes are not all there`);
