import { hex, PAGE_SIZE } from '@faultline/address';

const GIB = 1n << 30n;
/** QEMU's q35: with 2.75 GiB or more, 2 GiB lie below 4 GiB and the rest above, so that both start 1G-aligned. */
const LOW_SPLIT_FROM = 0xb000_0000n;
const LOW_MEMORY = 2n * GIB;
const HIGH_START = 4n * GIB;

/** A run of guest RAM. */
export interface GuestRegion {
  /** First guest page (GPA >> 12). */
  readonly page: number;
  readonly pages: number;
  /** Its place in the memory that backs the guest, in pages. */
  readonly backingPage: number;
}

/** Where a guest's RAM lies in its physical address space: with the hole below 4 GiB for devices. */
export class GuestLayout {
  readonly regions: readonly GuestRegion[];
  /** All RAM, in 4K pages. */
  readonly pages: number;

  /** @param memory bytes of RAM, a multiple of 4 KiB @throws RangeError naming the value */
  constructor(memory: bigint) {
    if (memory <= 0n || memory % PAGE_SIZE !== 0n)
      throw new RangeError(`memory: ${hex(memory)} is not a multiple of 4 KiB`);
    const low = memory >= LOW_SPLIT_FROM ? LOW_MEMORY : memory;
    const toPages = (bytes: bigint) => Number(bytes / PAGE_SIZE);
    const regions: GuestRegion[] = [{ page: 0, pages: toPages(low), backingPage: 0 }];
    if (memory > low)
      regions.push({ page: toPages(HIGH_START), pages: toPages(memory - low), backingPage: toPages(low) });
    this.regions = regions;
    this.pages = toPages(memory);
  }

  /** The n-th page of RAM as a guest page number. @throws RangeError outside RAM */
  pageAt(index: number): number {
    for (const region of this.regions)
      if (index >= region.backingPage && index < region.backingPage + region.pages)
        return region.page + (index - region.backingPage);
    throw new RangeError(`page ${index} is beyond the guest's ${this.pages} pages`);
  }

  /** Place of a guest page in the backing memory, or -1 in a hole. */
  backingOf(page: number): number {
    for (const region of this.regions)
      if (page >= region.page && page < region.page + region.pages) return region.backingPage + (page - region.page);
    return -1;
  }
}
