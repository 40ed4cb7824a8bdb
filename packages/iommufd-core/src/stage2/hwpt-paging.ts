import { type Agent, Cost, Location, Mutex, type Task } from '@faultline/sim';
import {
  type ContiguousRun,
  type HostAddressSpace,
  type HostRange,
  VM_FAULT_ERROR,
  VM_FAULT_OOM,
} from '../host-address-space.ts';
import type { Area } from '../ioas/area.ts';
import type { IoPagetable } from '../ioas/io-pagetable.ts';
import { PinnedRanges } from '../ioas/pinned-ranges.ts';
import type { IommuDomain } from '../iommu-domain.ts';
import type { Strategy, StrategyState, TakeAwayOutcome } from './strategy.ts';

/** Where a hwpt reports what it does, for checks and timelines. All optional. */
export interface HwptObserver {
  /** The notifier begins to take a range of IOVA pages away. */
  takingAway?(page: number, pages: number): void;
  /** The notifier has taken a range of IOVA pages away: from here on no DMA may reach it (I1). */
  takenAway?(page: number, pages: number, outcome: TakeAwayOutcome): void;
  /** A fault was resolved by mapping; called before the domain is changed (I10). */
  mapping?(page: number, pages: number, frame: number): void;
  /** The map that {@link mapping} announced is done. */
  mapped?(page: number, pages: number): void;
}

/** How a fault on one page ended. */
export const FaultOutcome = { success: 0, invalid: 1, failure: 2 } as const;
/** 0 success, 1 invalid (outside areas, against rights), 2 failure (no memory). */
export type FaultOutcomeCode = (typeof FaultOutcome)[keyof typeof FaultOutcome];

/**
 * Times that one page's fault is tried, each retry because the host changed in between, before it is answered success without a
 * map: the device asks again, so the work of one group stays bounded and nothing is lost.
 */
const MAX_FAULT_ATTEMPTS = 100;

/**
 * A paging HWPT: an IOAS's areas in one IOMMU domain, kept in step with the host. Two things change the domain, the fault
 * handler and the notifier, and both hold the update lock until their invalidations are complete. Without that a second
 * notifier could flush 4K of a leaf that the first has just cut, and return while the cached 1G translation still lives.
 */
export class HwptPaging {
  readonly domain: IommuDomain;
  readonly areas: IoPagetable;
  readonly mm: HostAddressSpace;
  readonly #strategy: StrategyState | null;
  readonly #pins: PinnedRanges;
  readonly #largePages: () => boolean;
  readonly #observer: HwptObserver;
  readonly #updateLock = new Mutex('hwpt update lock');
  /** The address space has gone: nothing is mapped any more. */
  #released = false;
  /** Faults that found the page mapped already: spurious, and answered all the same. */
  spuriousFaults = 0;
  /** Times that a fault started over because the host changed under it. */
  faultRetries = 0;

  /** @param options.strategy null: everything is pinned and the host's changes do not concern this hwpt */
  constructor(options: {
    readonly domain: IommuDomain;
    readonly areas: IoPagetable;
    readonly mm: HostAddressSpace;
    readonly strategy: Strategy | null;
    /** What is pinned for devices; a notifier leaves it alone. */
    readonly pins?: PinnedRanges;
    /** False: a pinned area is mapped 4K by 4K (IOMMU_OPTION_HUGE_PAGES 0). Default true. */
    readonly largePages?: () => boolean;
    readonly observer?: HwptObserver;
  }) {
    this.domain = options.domain;
    this.areas = options.areas;
    this.mm = options.mm;
    this.#strategy = options.strategy?.start({ domain: options.domain }) ?? null;
    this.#pins = options.pins ?? new PinnedRanges();
    this.#largePages = options.largePages ?? (() => true);
    this.#observer = options.observer ?? {};
  }

  /**
   * Maps an area: a pinned one onto the frames that its pin holds, an unpinned one as far as its memory is resident, with the largest
   * leaves that fit, run by run, each under the notifier's sequence check. @returns 4K pages mapped
   */
  *mapResident(agent: Agent, area: Area): Task<number> {
    if (!area.unpinned) return yield* this.#mapPinned(agent, area);
    const run: ContiguousRun = { startPage: 0, pages: 0, pfn: -1 };
    const end = area.userPage + area.pages;
    let mapped = 0;
    for (let page = area.userPage; page < end; ) {
      const sequence = yield* this.mm.notifierReadBegin(agent, page, end - page);
      yield* this.#updateLock.acquire(agent);
      try {
        if (this.#released) return mapped;
        const { writeable } = area;
        for (this.mm.contiguousRun(page, page, end - 1, run, writeable); run.pfn < 0 && ++page < end; )
          this.mm.contiguousRun(page, page, end - 1, run, writeable);
        if (page === end || (yield* this.#changed(agent, page, run.pages, sequence))) continue;
        yield* this.#mapRun(agent, area, run);
        mapped += run.pages;
        page += run.pages;
      } finally {
        this.#updateLock.release(agent);
      }
    }
    return mapped;
  }

  *#mapPinned(agent: Agent, area: Area): Task<number> {
    yield* this.#updateLock.acquire(agent);
    try {
      const { wholeSpan: span, readable: read, writeable: write } = area;
      for (const run of area.memory.runs(span)) {
        const step = this.#largePages() ? run.pages : 1;
        for (let done = 0; done < run.pages; done += step) {
          const page = area.page + (run.index - span.first) + done;
          yield* this.domain.map(agent, { page, frame: run.pfn + done, pages: step, read, write });
        }
      }
      return area.pages;
    } finally {
      this.#updateLock.release(agent);
    }
  }

  #mapRun(agent: Agent, area: Area, run: ContiguousRun): Task<number> {
    // As KVM: what a device may write to has no valid copy in swap.
    if (area.writeable) this.mm.markDirty(run.startPage, run.pages);
    const page = area.page + (run.startPage - area.userPage);
    return this.domain.map(agent, { page, frame: run.pfn, pages: run.pages, write: area.writeable });
  }

  /** Unmaps an area whole and flushes. */
  unmapArea(agent: Agent, area: Area): Task<void> {
    return this.unmapAreas(agent, [area], () => undefined);
  }

  /**
   * Takes areas out of the io_pagetable with `remove`, which may add to `areas`, and out of the domain, under one hold of the
   * lock that faults and the notifier take: they see either both or neither. What `remove` throws goes through.
   */
  *unmapAreas(agent: Agent, areas: readonly Area[], remove: () => void): Task<void> {
    yield* this.#updateLock.acquire(agent);
    try {
      try {
        remove();
      } finally {
        for (const area of areas) yield* this.#unmapWhole(agent, area);
      }
    } finally {
      this.#updateLock.release(agent);
    }
  }

  *#unmapWhole(agent: Agent, { page, pages }: Area): Task<void> {
    const gather = this.domain.gather();
    yield* this.domain.unmap(agent, { page, pages, partialLeaf: 'linux-7.3', holes: 'skip' }, gather);
    if (!gather.empty) yield* this.domain.flush(agent, gather);
  }

  /** The address space goes away: what is not pinned leaves the domain, and faults are invalid from here on. */
  *release(agent: Agent): Task<void> {
    yield* this.#updateLock.acquire(agent);
    try {
      this.#released = true;
      for (const area of this.areas.areas()) if (area.unpinned) yield* this.#unmapWhole(agent, area);
    } finally {
      this.#updateLock.release(agent);
    }
  }

  /** The notifier's start: takes a range of the host's memory out of the domain. Cannot fail (I8). */
  *invalidateRangeStart(agent: Agent, range: HostRange): Task<void> {
    if (this.#strategy === null) return;
    yield* this.#updateLock.acquire(agent);
    try {
      // Only now: areas and pins change under this lock or before it.
      for (const { userPage, pages } of this.#pins.outside(range.startPage, range.pages))
        yield* this.#takeMemoryAway(agent, userPage, pages);
    } finally {
      this.#updateLock.release(agent);
    }
  }

  *#takeMemoryAway(agent: Agent, userPage: number, userPages: number): Task<void> {
    if (this.#strategy === null) return;
    for (const { page, pages } of this.areas.slicesOfMemory(userPage, userPages)) {
      this.#observer.takingAway?.(page, pages);
      const outcome = yield* this.#strategy.takeAway(agent, page, pages);
      this.#observer.takenAway?.(page, pages, outcome);
    }
  }

  /**
   * Before a pin is given back: what the host has given up in the meantime (MADV_DONTNEED of pinned memory) is mapped to frames
   * that only the pin keeps. They leave the domain first.
   */
  *dropStale(agent: Agent, userPage: number, pages: number): Task<void> {
    if (this.areas.slicesOfMemory(userPage, pages).length === 0) return;
    yield* this.#updateLock.acquire(agent);
    try {
      for (const part of this.#pins.outside(userPage, pages))
        for (let page = part.userPage; page < part.userPage + part.pages; page++)
          if (this.#mapsOther(page)) yield* this.#takeMemoryAway(agent, page, 1);
    } finally {
      this.#updateLock.release(agent);
    }
  }

  #mapsOther(userPage: number): boolean {
    const [slice] = this.areas.slicesOfMemory(userPage, 1);
    const frame = slice ? this.domain.frameAt(slice.page) : -1;
    return frame >= 0 && frame !== this.mm.lookup(userPage);
  }

  /**
   * The stage-2 fault handler for one page: handle_mm_fault as far as needed, then map what is there now, under the
   * notifier's sequence check, so that nothing is mapped that is being taken away (I10).
   */
  *handleFault(agent: Agent, page: number, write: boolean): Task<FaultOutcomeCode> {
    for (let attempt = 0; attempt < MAX_FAULT_ATTEMPTS; attempt++) {
      const area = this.areas.find(page);
      if (!area || this.#released || (write && !area.writeable)) return FaultOutcome.invalid;
      const userPage = area.userPage + (page - area.page);
      const sequence = yield* this.mm.notifierReadBegin(agent, userPage);
      yield agent.reads('look the page up', Location.cpuEntry, this.mm.entryLocation(userPage), Cost.entryRead);
      if (!this.#isUsable(area, userPage)) {
        // As FOLL_WRITE: what is going to be mapped writeable must be the owner's own page, whatever this access is.
        const bits = yield* this.#fixHost(agent, userPage, write || area.writeable);
        if ((bits & VM_FAULT_ERROR) !== 0)
          return (bits & VM_FAULT_OOM) !== 0 ? FaultOutcome.failure : FaultOutcome.invalid;
        continue; // look it up again: handle_mm_fault does not return the page
      }
      const outcome = yield* this.#mapUnderLock(agent, { area, page, userPage, sequence });
      if (outcome !== null) return outcome;
      this.faultRetries++;
    }
    return FaultOutcome.success;
  }

  /** @returns null if the host or the areas changed in between */
  *#mapUnderLock(
    agent: Agent,
    fault: { readonly area: Area; readonly page: number; readonly userPage: number; readonly sequence: number },
  ): Task<FaultOutcomeCode | null> {
    const { area, page, userPage, sequence } = fault;
    yield* this.#updateLock.acquire(agent);
    try {
      if (this.#released || this.areas.find(page) !== area) return null;
      const mapped = this.domain.frameAt(page);
      if (mapped >= 0 && !area.unpinned) return this.#spurious(); // to what its pin holds
      if (yield* this.#changed(agent, userPage, 1, sequence)) return null;
      const frame = this.mm.lookup(userPage);
      if (!this.#isUsable(area, userPage)) return null;
      if (mapped === frame) return this.#spurious();
      yield* this.#mapAround(agent, area, page, frame, sequence);
      return FaultOutcome.success;
    } catch (error) {
      if (isErrno(error, 'ENOMEM')) return FaultOutcome.failure;
      throw error;
    } finally {
      this.#updateLock.release(agent);
    }
  }

  /** Whether the host maps the page with the right that the area gives to devices. */
  #isUsable(area: Area, userPage: number): boolean {
    return area.writeable ? this.mm.isWriteable(userPage) : this.mm.lookup(userPage) >= 0;
  }

  #spurious(): FaultOutcomeCode {
    this.spuriousFaults++;
    return FaultOutcome.success;
  }

  *#fixHost(agent: Agent, userPage: number, write: boolean): Task<number> {
    yield* this.mm.mmapLock.acquireRead(agent);
    try {
      return yield* this.mm.handleMmFault(agent, userPage, { write });
    } finally {
      this.mm.mmapLock.releaseRead(agent);
    }
  }

  /** Whether what was looked up for the pages since `sequence` may be stale. Under the update lock, which the notifier takes. */
  *#changed(agent: Agent, userPage: number, pages: number, sequence: number): Task<boolean> {
    yield agent.reads('check notifier sequence', Location.notifierSequence, this.mm.notifierLocation, Cost.free);
    return this.mm.notifierReadRetry(userPage, sequence, pages);
  }

  /**
   * Maps the largest block around a page that is vacant here, contiguous on the host and free of invalidations in progress: a
   * notifier that has begun on any page of the block is waiting for the update lock, or is past its turn.
   */
  *#mapAround(agent: Agent, area: Area, page: number, frame: number, sequence: number): Task<void> {
    let block = this.#blockAround(area, page, frame);
    const userPage = area.userPage + (block.page - area.page);
    if (block.pages > 1 && (yield* this.#changed(agent, userPage, block.pages, sequence)))
      block = { page, pages: 1, frame };
    if (area.writeable) this.mm.markDirty(area.userPage + (block.page - area.page), block.pages);
    this.#observer.mapping?.(block.page, block.pages, block.frame);
    yield* this.domain.map(agent, { ...block, write: area.writeable });
    this.#observer.mapped?.(block.page, block.pages);
  }

  #blockAround(area: Area, page: number, frame: number): { page: number; pages: number; frame: number } {
    const single = { page, pages: 1, frame };
    const vacant = Math.min(3, this.domain.vacantLevel(page));
    if (vacant <= 1) return single;
    const userPage = area.userPage + (page - area.page);
    const span = 512 ** (vacant - 1);
    const blockStart = Math.max(area.page, Math.floor(page / span) * span);
    const blockEnd = Math.min(area.page + area.pages, blockStart + span);
    const run: ContiguousRun = { startPage: 0, pages: 0, pfn: -1 };
    const toUser = area.userPage - area.page;
    this.mm.contiguousRun(userPage, blockStart + toUser, blockEnd - 1 + toUser, run, area.writeable);
    for (let level = vacant; level > 1; level--) {
      const size = 512 ** (level - 1);
      const start = Math.floor(page / size) * size;
      const first = frame - (page - start);
      const inRun = start + toUser >= run.startPage && start + size + toUser <= run.startPage + run.pages;
      if (inRun && first % size === 0) return { page: start, pages: size, frame: first };
    }
    return single;
  }
}

const isErrno = (error: unknown, code: string): boolean =>
  error instanceof Error && (error as { code?: unknown }).code === code;
