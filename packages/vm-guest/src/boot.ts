import type { Agent, Task } from '@faultline/sim';
import type { GuestLayout } from './guest-layout.ts';
import type { GuestPageAllocator } from './page-allocator.ts';

/** What a guest's CPU asks of whoever gives it memory. Pages are guest-physical >> 12. */
export interface GuestCpuPort {
  /** One access by a virtual CPU: faults the page in if needed. For a write the halves are its new content tag. */
  access(agent: Agent, page: number, write: boolean, tagLo: number, tagHi: number): Task<void>;
  /** Writes a whole page by words; the page is present. */
  writeWords(page: number, words: BigUint64Array): void;
}

const GIB_PAGES = 262144;
const PRESENT_WRITE_ACCESSED_DIRTY = 0x63n;
const PAGE_SIZE_BIT = 0x80n;
/** Every so many 2M blocks the guest maps with a table of 4K pages, as kernels do for text, guard pages and permissions. */
const SMALL_MAPPING_STRIDE = 4;

/**
 * Boots the guest as far as a host can see it: the kernel builds its direct map, one page directory in the first page of each
 * GiB of RAM, with 2M leaves and now and then a table of 4K pages. These are the guest's data: bits that look like page-table
 * entries, holding guest-physical addresses. The addresses mean nothing to the host.
 */
export function* bootGuest(
  agent: Agent,
  layout: GuestLayout,
  cpu: GuestCpuPort,
  allocator: GuestPageAllocator,
): Task<void> {
  for (const region of layout.regions)
    for (let page = region.page; page < region.page + region.pages; page += GIB_PAGES) {
      allocator.reserve(page);
      yield* cpu.access(agent, page, true, page, 0x0b007);
      cpu.writeWords(page, directoryWords(page, Math.min(GIB_PAGES, region.page + region.pages - page)));
    }
}

/** 512 x86-64 PDEs of the direct map for the GiB at `page`. */
function directoryWords(page: number, pages: number): BigUint64Array {
  const words = new BigUint64Array(512);
  for (let index = 0; index < 512 && index * 512 < pages; index++) {
    const block = BigInt(page + index * 512) << 12n;
    const small = index % SMALL_MAPPING_STRIDE === 0;
    words[index] = block | PRESENT_WRITE_ACCESSED_DIRTY | (small ? 0n : PAGE_SIZE_BIT);
  }
  return words;
}
