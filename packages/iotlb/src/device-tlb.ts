import type { IotlbCounters } from './counters.ts';
import { Iotlb } from './iotlb.ts';
import type { IotlbOptions } from './iotlb-options.ts';
import { ANY_PASID, EVERY_PASID, NO_PASID } from './pasid.ts';
import type { IotlbEntry, LeafLevel } from './translation-entries.ts';

/** Options of a {@link DeviceTlb}: those of an {@link Iotlb} that mean something for it. */
export type DeviceTlbOptions = Pick<
  IotlbOptions,
  'geometry' | 'partialInvalidation' | 'fracture' | 'finestInvalidation' | 'mayLoseEntries'
>;

/** Completions and invalidations carry addresses from bit 12 on; the bits below are flags. */
const PAGE_SHIFT = 12;
/** One function's cache: what an {@link Iotlb} needs as source-id and domain-id is the same for all its entries. */
const OWN = 0;

/**
 * log2 of the bytes that an address field with S set stands for: its lowest zero bit from bit 12 on says the size, so
 * that 0 at bit 12 is 8K and 20:12 = 0_1111_1111 is 2M (PCI Express ATS; VT-d Rev 5.10, 4.1.2 and 6.5.2.5).
 * @param size the S bit; false: 4K @returns 12..64; 64 is everything
 */
export function sizedAddressShift(addressHi: number, addressLo: number, size: boolean): number {
  if (!size) return PAGE_SHIFT;
  const zerosLo = ~addressLo & (-1 << PAGE_SHIFT);
  if (zerosLo !== 0) return lowestBit(zerosLo) + 1;
  return addressHi === -1 ? 64 : 32 + lowestBit(~addressHi) + 1;
}

const lowestBit = (bits: number): number => 31 - Math.clz32(bits & -bits);

/**
 * The device TLB of one function (ATS): filled by translation completions, looked up by address and PASID, and emptied
 * only by invalidation requests, which know nothing of domains (VT-d Rev 5.10, 4.1 and 6.5.2.5-6.5.2.6).
 *
 * Completions of a remapping unit have G clear (4.2.3), so no entry is common to PASIDs. Addresses are two signed 32-bit
 * halves. `lookup`, `pfnAt` and `rightsAt` allocate nothing.
 */
export class DeviceTlb {
  readonly #entries: Iotlb;

  /** @throws RangeError for what {@link Iotlb} refuses */
  constructor(options: DeviceTlbOptions = {}) {
    this.#entries = new Iotlb(options);
  }

  /** Live counts. */
  get counters(): IotlbCounters {
    return this.#entries.counters;
  }

  /** Entries held now. */
  get size(): number {
    return this.#entries.size;
  }

  /** The slot that answers a request, or -1. Counts, and is a use for the replacement. @param pasid NO_PASID: without one */
  lookup(iovaHi: number, iovaLo: number, pasid: number = NO_PASID): number {
    return this.#entries.lookup(OWN, iovaHi, iovaLo, pasid);
  }

  /** Like {@link lookup}, with no effect. */
  peek(iovaHi: number, iovaLo: number, pasid: number = NO_PASID): number {
    return this.#entries.peek(OWN, iovaHi, iovaLo, pasid);
  }

  /**
   * Caches what a translation completion says of one address. A range of another size than 4K, 2M and 1G is cached as the
   * largest of these inside it. A completion without R and W is not cached: software need not invalidate when it makes
   * such a page present.
   * @param addressHi upper half of the completion's translated address
   * @param addressLo lower half; with S the bits below the range's size encode it, and bits 11:0 are not looked at
   * @param size the completion's S bit @param rights its R (bit 0) and W (bit 1)
   * @param pasid of the translation request; NO_PASID for one without
   * @returns the slot, or -1 if it is not cached @throws RangeError for a PASID above 20 bits
   */
  fill(
    iovaHi: number,
    iovaLo: number,
    addressHi: number,
    addressLo: number,
    size: boolean,
    rights: number,
    pasid: number = NO_PASID,
  ): number {
    if ((rights & 3) === 0) return -1;
    const shift = sizedAddressShift(addressHi, addressLo, size);
    const level: LeafLevel = shift >= 30 ? 3 : shift >= 21 ? 2 : 1;
    // The bits under the size are the input's; what the entry's own page covers is masked off again when it is read.
    const belowLo = shift >= 32 ? -1 : (1 << shift) - 1;
    const belowHi = shift >= 64 ? -1 : shift > 32 ? (1 << (shift - 32)) - 1 : 0;
    const frameLo = (addressLo & ~belowLo) | (iovaLo & belowLo & (-1 << PAGE_SHIFT));
    const frameHi = (addressHi & ~belowHi) | (iovaHi & belowHi);
    return this.#entries.fill(OWN, OWN, iovaHi, iovaLo, level, frameLo, frameHi, rights & 3, pasid);
  }

  /** The 4K frame that the entry gives for an address inside its page. */
  pfnAt(slot: number, iovaHi: number, iovaLo: number): number {
    return this.#entries.pfnAt(slot, iovaHi, iovaLo);
  }

  /** Bit 0 read, bit 1 write. */
  rightsAt(slot: number): number {
    return this.#entries.rightsAt(slot);
  }

  /** Size of the entry: 1 = 4K, 2 = 2M, 3 = 1G. */
  levelAt(slot: number): LeafLevel {
    return this.#entries.levelAt(slot);
  }

  /**
   * An invalidation request as it arrives: drops the entries of requests without PASID, or of those with the given one,
   * in the range that the address field and S name. With `globalInvalidate`, which only a request with PASID can carry,
   * those of every PASID (4.1.4); entries without PASID are then left, as they are not PASIDs'.
   * @returns entries dropped
   */
  invalidate(
    addressHi: number,
    addressLo: number,
    size: boolean,
    pasid: number = NO_PASID,
    globalInvalidate = false,
  ): number {
    const addressMask = Math.min(sizedAddressShift(addressHi, addressLo, size), 64) - PAGE_SHIFT;
    const which = globalInvalidate ? EVERY_PASID : pasid;
    return this.#entries.invalidateSourcePages(OWN, addressHi, addressLo, addressMask, which);
  }

  /** The function was reset, or ATS disabled: everything goes. @returns entries dropped */
  clear(): number {
    return this.#entries.invalidateSource(OWN, ANY_PASID);
  }

  /** The entry of an occupied slot goes with no invalidation, as a device may let it. */
  lose(slot: number): void {
    this.#entries.lose(slot);
  }

  /** All entries, smallest pages first. `sourceId`, `did` and `kind` mean nothing here. For reports. */
  entries(): IterableIterator<IotlbEntry> {
    return this.#entries.entries();
  }
}
