import { type Agent, RandomStream, type Task } from '@faultline/sim';
import { checkInteger } from './argument.ts';
import { auditHost } from './audit.ts';
import { FrameAllocator } from './frame/frame-allocator.ts';
import { PhysicalMemory } from './frame/physical-memory.ts';
import { type HostCounters, HostState, type SplitNotify } from './host-state.ts';
import { AddressSpace } from './mm/address-space.ts';
import { MmState } from './mm/mm-state.ts';
import { reclaimPages } from './reclaim/reclaim.ts';
import { SwapDevice } from './swap/swap-device.ts';

const DEFAULT_FIRST_PFN = 0x40000;
/**
 * The GiB below 4 GiB, where a PC has MMIO and the interrupt address range FEEx_xxxxh, to which no IOMMU translates (VT-d Rev 5.10,
 * 3.15).
 */
const MMIO_HOLE = { firstPfn: 0xc_0000, frames: 0x4_0000 } as const;

/** What a {@link HostMemory} has. */
export interface HostMemoryOptions {
  /** Memory in 4 KiB frames. */
  readonly frames: number;
  /** The first frame's number; 0x40000 (1 GiB) if left out. A multiple of 2^18 wastes no 1G folio. From 3 to 4 GiB there are no frames. */
  readonly firstPfn?: number;
  /** Size of the swap device in 4 KiB slots; 0 for none. */
  readonly swapSlots: number;
  /** Picks the piece of a large folio that reclaim takes; a stream of seed 0 if left out. */
  readonly random?: RandomStream;
  /**
   * `none`: splitting a leaf moves no data and tells nobody. `clear`: it fires CLEAR over the whole leaf, as Linux
   * 7.3 does in `__split_huge_pmd` and `__split_huge_pud`. `none` if left out.
   */
  readonly splitNotify?: SplitNotify;
}

/**
 * The memory of one host: frames with content, an LRU over the folios of all address spaces, a swap device.
 *
 * ```ts
 * const host = new HostMemory({ frames: 1 << 18, swapSlots: 1024 });
 * const vmm = host.createAddressSpace('vmm');
 * vmm.mmap({ startPage: 0x40000, pages: 1 << 18, backing: '1G' });
 * runToEnd(vmm.populate(new Agent('boot'), 0x40000, 1 << 18));
 * ```
 */
export class HostMemory {
  readonly #state: HostState;

  /** @throws RangeError naming the option that is not a whole number in its range */
  constructor(options: HostMemoryOptions) {
    const { frames, swapSlots, splitNotify = 'none', firstPfn = DEFAULT_FIRST_PFN } = options;
    this.#state = new HostState({
      allocator: new FrameAllocator({ firstPfn, frames, hole: MMIO_HOLE }),
      memory: new PhysicalMemory({ firstPfn, frames, hole: MMIO_HOLE }),
      swap: new SwapDevice({ slots: swapSlots }),
      random: options.random ?? new RandomStream(0, 'host-mm reclaim'),
      splitNotify,
    });
  }

  get allocator(): FrameAllocator {
    return this.#state.allocator;
  }

  get memory(): PhysicalMemory {
    return this.#state.memory;
  }

  get swap(): SwapDevice {
    return this.#state.swap;
  }

  /** What has happened so far; live. */
  get counters(): Readonly<HostCounters> {
    return this.#state.counters;
  }

  /** Bytes of free frames. */
  get freeBytes(): number {
    return this.allocator.freeFrames * 4096;
  }

  /** A new, empty address space. @param name for messages */
  createAddressSpace(name: string): AddressSpace {
    const { spaces, counters } = this.#state;
    const mm = new MmState(spaces.length, name, counters);
    spaces.push(mm);
    return new AddressSpace(this.#state, mm);
  }

  /**
   * Swaps pages out from the LRU's tail until `pages` frames are free, all else is young or pinned twice over, or swap is
   * full. @returns the number of frames freed @throws RangeError if `pages` is not a whole number
   */
  reclaim(agent: Agent, pages: number): Task<number> {
    checkInteger('pages', pages, 0, 2 ** 31);
    return reclaimPages(this.#state, agent, pages);
  }

  /** What is inconsistent, in words; empty if all is well. Call while no task is under way. Costs O(folios). */
  audit(): string[] {
    return auditHost(this.#state);
  }
}
