import { type Agent, Mutex, type Task } from '@faultline/sim';
import type { ContiguousRun, HostAddressSpace, HostRange } from '../host-address-space.ts';
import type { Area } from '../ioas/area.ts';
import type { AreaSlice, IoPagetable } from '../ioas/io-pagetable.ts';
import { PinnedRanges } from '../ioas/pinned-ranges.ts';
import type { IommuDomain } from '../iommu-domain.ts';
import { AreaMapper } from './area-mapper.ts';
import { FaultHandler, type FaultOutcomeCode } from './fault-handler.ts';
import type { HwptObserver, HwptSeat } from './hwpt-seat.ts';
import { vacantUntil } from './leaf-change.ts';
import type { Strategy, StrategyState } from './strategy.ts';

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
  readonly #observer: HwptObserver;
  readonly #updateLock = new Mutex('hwpt update lock');
  /** The address space has gone: nothing is mapped any more. */
  #released = false;
  readonly #faults: FaultHandler;
  readonly #mapper: AreaMapper;
  /** Times that what devices have pinned could not be mapped again beside a leaf that was taken whole: there was no table page. */
  lostPins = 0;

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
    this.#observer = options.observer ?? {};
    const { domain, areas, mm } = options;
    const seat: HwptSeat = {
      domain,
      areas,
      mm,
      pins: this.#pins,
      observer: this.#observer,
      updateLock: this.#updateLock,
      largePages: options.largePages ?? (() => true),
      released: () => this.#released,
    };
    this.#faults = new FaultHandler(seat);
    this.#mapper = new AreaMapper(seat);
  }

  /** Faults that found the page mapped already: spurious, and answered all the same. */
  get spuriousFaults(): number {
    return this.#faults.spurious;
  }

  /** Faults that made a leaf writeable, or replaced its frame. */
  get upgradedFaults(): number {
    return this.#faults.upgrades;
  }

  /** Pages that fault-around has mapped. */
  get mappedAround(): number {
    return this.#faults.mappedAround;
  }

  /** Times that a fault started over because the host changed under it. */
  get faultRetries(): number {
    return this.#faults.retries;
  }

  /** Maps an area as its policy and its pin say; see `AreaMapper`. @returns 4K pages mapped */
  mapResident(agent: Agent, area: Area): Task<number> {
    return this.#mapper.map(agent, area);
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
      yield* this.#restorePins(agent, userPage, userPages);
    }
  }

  /** A strategy that takes whole leaves takes what devices have pinned beside the range, too: that comes back at once. */
  *#restorePins(agent: Agent, userPage: number, pages: number): Task<void> {
    const first = Math.floor(userPage / LARGEST_LEAF) * LARGEST_LEAF;
    const end = Math.ceil((userPage + pages) / LARGEST_LEAF) * LARGEST_LEAF;
    try {
      // One leaf more at both sides: IOVAs and the owner's addresses need not be aligned alike.
      yield* this.#mapper.mapPinsLocked(agent, Math.max(0, first - LARGEST_LEAF), end - first + 2 * LARGEST_LEAF);
    } catch (error) {
      if ((error as { code?: unknown }).code !== 'ENOMEM') throw error;
      this.lostPins++; // the notifier cannot fail (I8); a path that can fault brings the page back
    }
  }

  /** Has the domain map what devices have pinned of the owner's memory, also if something else is mapped there. */
  mapPins(agent: Agent, userPage: number, pages: number): Task<void> {
    return this.#mapper.mapPins(agent, userPage, pages);
  }

  /**
   * Before a pin that is counted no more is given back: what the host has given up or protected in the meantime (MADV_DONTNEED of pinned
   * memory) leaves the domain, since only the pin kept its frames. What another pin holds is mapped to that one's frames.
   */
  *dropStale(agent: Agent, userPage: number, pages: number): Task<void> {
    yield* this.#updateLock.acquire(agent);
    try {
      for (const part of this.#pins.outside(userPage, pages))
        for (const slice of this.areas.slicesOfMemory(part.userPage, part.pages))
          yield* this.#dropStaleSlice(agent, slice);
      yield* this.#mapper.mapPinsLocked(agent, userPage, pages);
    } finally {
      this.#updateLock.release(agent);
    }
  }

  *#dropStaleSlice(agent: Agent, { area, page: first, pages }: AreaSlice): Task<void> {
    const toUser = area.userPage - area.page;
    const run: ContiguousRun = { startPage: 0, pages: 0, pfn: -1 };
    const end = first + pages;
    for (let page = first; page < end; ) {
      const leaf = this.domain.leafAt(page);
      if (leaf === null) {
        page = vacantUntil(this.domain, page, end);
        continue;
      }
      const userPage = page + toUser;
      this.mm.contiguousRun(userPage, userPage, end - 1 + toUser, run, (leaf.rights & 2) !== 0);
      if (run.pfn >= 0 && run.pfn === leaf.frame + (page - leaf.page)) {
        page = Math.min(leaf.page + leaf.pages, page + run.pages);
        continue;
      }
      yield* this.#takeMemoryAway(agent, userPage, 1);
      page++;
    }
  }

  /** The stage-2 fault handler for one page; see `FaultHandler`. */
  handleFault(agent: Agent, page: number, write: boolean): Task<FaultOutcomeCode> {
    return this.#faults.handle(agent, page, write);
  }
}

/** 1G, in pages. */
const LARGEST_LEAF = 512 ** 2;
