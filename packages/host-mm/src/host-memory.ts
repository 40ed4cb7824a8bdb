import type { Agent, Task } from '@faultline/sim';
import { compact } from './action/compact.ts';
import { ksmMerge } from './action/ksm.ts';
import { type MemoryFailureOutcome, memoryFailure } from './action/memory-failure.ts';
import { type MigrateOutcome, migratePage } from './action/migrate.ts';
import { Memfd } from './action/mmap.ts';
import { checkInteger, checkPageRange } from './argument.ts';
import { auditHost } from './audit.ts';
import type { FaultInjection } from './fault-injection.ts';
import { PMD_ORDER, PUD_ORDER } from './folio/folio-order.ts';
import { FrameAllocator } from './frame/frame-allocator.ts';
import { FrameSpan } from './frame/frame-span.ts';
import { HugePagePool } from './frame/huge-page-pool.ts';
import { PhysicalMemory } from './frame/physical-memory.ts';
import { NO_WATERMARKS, type Watermarks, Zone } from './frame/zone.ts';
import { HostCounters } from './host-counters.ts';
import { HostState, type SplitNotify } from './host-state.ts';
import { AddressSpace } from './mm/address-space.ts';
import { MmState } from './mm/mm-state.ts';
import { ClassicLru } from './reclaim/classic-lru.ts';
import { MemoryCgroup, type MemoryCgroupOptions } from './reclaim/memory-cgroup.ts';
import { MultiGenLru } from './reclaim/multi-gen-lru.ts';
import { kswapd, reclaimProactively, setMemoryMax } from './reclaim/try-to-free.ts';
import { SwapArea, type SwapAreaOptions } from './swap/swap-area.ts';
import { SwapIo } from './swap/swap-io.ts';
import { SwapSpace } from './swap/swap-space.ts';
import type { ZswapOptions } from './swap/zswap.ts';

const DEFAULT_FIRST_PFN = 0x40000;
/**
 * The GiB below 4 GiB, where a PC has MMIO and the interrupt address range FEEx_xxxxh, to which no IOMMU translates (VT-d Rev 5.10,
 * 3.15).
 */
const MMIO_HOLE = { firstPfn: 0xc_0000, frames: 0x4_0000 } as const;

/** A swap area of a host: {@link SwapAreaOptions}, where zram takes its frames from the host. */
export interface HostSwapArea {
  readonly name?: string;
  /** 4 KiB slots. */
  readonly slots: number;
  /** Higher is used first; the default is -1. */
  readonly priority?: number;
  /** Whether slot 0 holds a header, as mkswap makes it. */
  readonly header?: boolean;
  /** A disk whose queue has that depth (`queueDepth`, 1 if left out), or compressed memory of the host. */
  readonly kind?: 'disk' | 'zram';
  readonly queueDepth?: number;
}

/** What a {@link HostMemory} has. */
export interface HostMemoryOptions {
  /** Memory in 4 KiB frames. */
  readonly frames: number;
  /** The first frame's number; 0x40000 (1 GiB) if left out. A multiple of 2^18 wastes no 1G folio. From 3 to 4 GiB there are no frames. */
  readonly firstPfn?: number;
  /** A single disk of so many 4 KiB slots; 0 for none. */
  readonly swapSlots?: number;
  /** Swap areas, instead of `swapSlots`. */
  readonly swap?: readonly HostSwapArea[];
  /** Compresses pages in memory before they go to a swap area: largest share of memory, in percent (20 if left out), and accept threshold (90). */
  readonly zswap?: Pick<ZswapOptions, 'maxPoolPercent' | 'acceptThresholdPercent'>;
  /**
   * `clear`: splitting a large leaf or folio fires CLEAR over all of it, as Linux 7.3 does in `__split_huge_pmd` and
   * `__split_huge_pud`. `none`: a hypothetical host that tells nobody, since no data moves. `clear` if left out.
   */
  readonly splitNotify?: SplitNotify;
  /** How reclaim tells cold from warm; `classic` if left out. */
  readonly lru?: 'classic' | 'mglru';
  /** Free frames at which reclaim begins; none if left out: only when nothing is free. See `linuxWatermarks`. */
  readonly watermarks?: Watermarks;
  /** Whether 2M folios go to swap whole (CONFIG_THP_SWAP); true if left out. */
  readonly thpSwap?: boolean;
  /** log2 of the pages read ahead at a swap-in (`vm.page-cluster`), 0 to 5; 3 if left out, as in Linux. */
  readonly pageCluster?: number;
  /** Allocations that fail on purpose. */
  readonly injection?: FaultInjection;
}

/**
 * The memory of one host: frames with content, folios, LRU, swap, cgroups, huge page pools.
 *
 * ```ts
 * const host = new HostMemory({ frames: 1 << 18, swapSlots: 1024 });
 * const vmm = host.createAddressSpace('vmm');
 * vmm.mmap({ startPage: 0x40000, pages: 1 << 17, backing: 'thp-2M' });
 * runToEnd(vmm.populate(new Agent('boot'), 0x40000, 1 << 17));
 * ```
 */
export class HostMemory {
  readonly #state: HostState;

  /** @throws RangeError naming the option that is not a whole number in its range */
  constructor(options: HostMemoryOptions) {
    const { frames, firstPfn = DEFAULT_FIRST_PFN, pageCluster = 3 } = options;
    checkInteger('pageCluster', pageCluster, 0, 5);
    const allocator = new FrameAllocator({ firstPfn, frames, hole: MMIO_HOLE });
    const memory = new PhysicalMemory({ firstPfn, frames, hole: MMIO_HOLE });
    const source = {
      take: () => {
        const pfn = allocator.allocate(0);
        if (pfn >= 0) this.#state.compressedFrames++;
        return pfn;
      },
      give: (pfn: number) => {
        this.#state.compressedFrames--;
        this.#state.freeFrames(pfn, 0);
      },
    };
    const swap = new SwapSpace();
    for (const [i, area] of swapAreas(options).entries()) swap.swapon(new SwapArea(areaOptions(area, i, source)));
    const zswap = options.zswap ? { zswap: { ...options.zswap, frames: source, totalFrames: frames } } : {};
    const swapIo = new SwapIo({ space: swap, memory, ...zswap });
    const { lru = 'classic' } = options;
    this.#state = new HostState({
      allocator,
      span: new FrameSpan({ firstPfn, frames, hole: MMIO_HOLE }),
      memory,
      zone: new Zone(options.watermarks ?? NO_WATERMARKS),
      hugePages: new HugePagePool(allocator),
      swap,
      swapIo,
      counters: new HostCounters(swapIo.counters),
      splitNotify: options.splitNotify ?? 'clear',
      thpSwap: options.thpSwap ?? true,
      pageCluster,
      injection: options.injection ?? {},
      lru: (host) => (lru === 'classic' ? new ClassicLru(host) : new MultiGenLru(host)),
    });
  }

  /** What the actions of the host work on. @internal */
  get state(): HostState {
    return this.#state;
  }

  get allocator(): FrameAllocator {
    return this.#state.allocator;
  }

  get memory(): PhysicalMemory {
    return this.#state.memory;
  }

  /** The swap areas, their slots and references. */
  get swap(): SwapSpace {
    return this.#state.swap;
  }

  /** Swap I/O: its daemons, what is in flight, zswap. */
  get swapIo(): SwapIo {
    return this.#state.swapIo;
  }

  /** What has happened so far; live. */
  get counters(): Readonly<HostCounters> {
    return this.#state.counters;
  }

  /** The counters of /proc/vmstat that the host keeps, under their names; a copy. */
  vmstat(): Record<string, number> {
    const { swap, ...own } = this.counters;
    const entries = [...Object.entries(own), ...Object.entries(swap)];
    return Object.fromEntries(
      entries.filter(([name, value]) => name === name.toLowerCase() && typeof value === 'number'),
    ) as Record<string, number>;
  }

  /** Bytes of free frames. */
  get freeBytes(): number {
    return this.allocator.freeFrames * 4096;
  }

  /** A new, empty address space. @param name for messages @param memcg whom its memory is charged to; the root if left out */
  createAddressSpace(name: string, memcg: MemoryCgroup = this.#state.rootMemcg): AddressSpace {
    const { spaces, counters } = this.#state;
    const mm = new MmState({ id: spaces.length, name, memcg, counters });
    spaces.push(mm);
    return new AddressSpace(this.#state, mm);
  }

  /** A new memory cgroup. @throws RangeError unless its limit is a number of bytes */
  createMemoryCgroup(options: MemoryCgroupOptions): MemoryCgroup {
    const { memcgs } = this.#state;
    const memcg = new MemoryCgroup(memcgs.length, options);
    memcgs.push(memcg);
    return memcg;
  }

  /** Changes a cgroup's `memory.max` and reclaims what is above it. @returns whether usage is within the limit then */
  setMemoryMax(agent: Agent, memcg: MemoryCgroup, bytes: number): Task<boolean> {
    return setMemoryMax(this.#state, agent, memcg, bytes);
  }

  /** A new memfd of so many pages, all zeros. */
  createMemfd(name: string, pages: number): Memfd {
    checkInteger('pages', pages, 1, 2 ** 45);
    return new Memfd(this.#state, this.#state.newFile(name, pages));
  }

  /** Sets the size of a huge page pool (`nr_hugepages`), as far as frames are free. @returns its size then */
  setHugePages(size: '2M' | '1G', pages: number): number {
    checkInteger('pages', pages, 0, 2 ** 31);
    return this.#state.hugePages.resize(size === '1G' ? PUD_ORDER : PMD_ORDER, pages);
  }

  /**
   * Proactive reclaim (`memory.reclaim`): as many runs as it takes to free at least so many pages, until 16 have freed nothing.
   * @param memcg from whom; everybody if left out @param signalled whether a signal waits for the caller: it begins no further run (EINTR)
   * @returns pages freed @throws RangeError if `pages` is not a whole number
   */
  reclaim(
    agent: Agent,
    pages: number,
    memcg: MemoryCgroup | null = null,
    signalled: () => boolean = () => false,
  ): Task<number> {
    checkInteger('pages', pages, 0, 2 ** 31);
    return reclaimProactively(this.#state, agent, { pages, target: memcg, signalled });
  }

  /**
   * KSM makes two private anonymous pages of equal content one, write-protected for both. Fires CLEAR over 4K where it write-protects a page, and
   * again where it replaces the second one; a large folio is split first.
   * @returns whether they are one now; not if one is missing, pinned or otherwise in use, if they differ, or if a fork shares them already
   */
  ksmMerge(
    agent: Agent,
    first: { readonly mm: AddressSpace; readonly page: number },
    second: { readonly mm: AddressSpace; readonly page: number },
  ): Task<boolean> {
    checkPageRange({ startPage: first.page, pages: 1 });
    checkPageRange({ startPage: second.page, pages: 1 });
    const one = { mm: first.mm.state, page: first.page };
    return ksmMerge(this.#state, agent, one, { mm: second.mm.state, page: second.page });
  }

  /** KSM pages that are mapped, and mappings saved by them (`pages_shared` and `pages_sharing` of /sys/kernel/mm/ksm). O(KSM pages). */
  get ksm(): { readonly pagesShared: number; readonly pagesSharing: number } {
    const places = [...this.#state.ksm.values()].map((each) => each.length).filter((count) => count > 0);
    return { pagesShared: places.length, pagesSharing: places.reduce((sum, count) => sum + count - 1, 0) };
  }

  /** Moves the folio that has a frame to other frames; see {@link MigrateOutcome}. Fires CLEAR over its extent in each mapping. */
  migratePage(agent: Agent, pfn: number): Task<MigrateOutcome> {
    return migratePage(this.#state, agent, pfn);
  }

  /**
   * Compaction: moves 4K folios from low to high frames until a block of that order is free. Fires CLEAR over each page that moves.
   * @param order 1 to 9; 2M if left out @returns whether there is such a block @throws RangeError for another order
   */
  compact(agent: Agent, order: number = PMD_ORDER): Task<boolean> {
    return compact(this.#state, agent, order);
  }

  /** A frame is broken: takes it out of use; see {@link MemoryFailureOutcome}. @throws RangeError if there is no such frame */
  memoryFailure(agent: Agent, pfn: number): Task<MemoryFailureOutcome> {
    return memoryFailure(this.#state, agent, pfn);
  }

  /** The reclaim thread (kswapd), a daemon: keeps free frames between the watermarks. */
  kswapd(agent: Agent): Task<void> {
    return kswapd(this.#state, agent);
  }

  /** What is inconsistent, in words; empty if all is well. Call while no task is under way. Costs O(folios). */
  audit(): string[] {
    return auditHost(this.#state);
  }
}

const swapAreas = ({ swap, swapSlots = 0 }: HostMemoryOptions): readonly HostSwapArea[] => {
  checkInteger('swapSlots', swapSlots, 0, 2 ** 30 - 1024);
  return swap ?? (swapSlots > 0 ? [{ slots: swapSlots }] : []);
};

function areaOptions(
  area: HostSwapArea,
  index: number,
  frames: { take(): number; give(pfn: number): void },
): SwapAreaOptions {
  const { slots, priority, header, kind = 'disk', queueDepth = 1 } = area;
  return {
    name: area.name ?? `${kind}${index}`,
    slots,
    ...(priority === undefined ? {} : { priority }),
    ...(header === undefined ? {} : { header }),
    model: kind === 'zram' ? { kind, frames } : { kind: 'block', queueDepth },
  };
}
