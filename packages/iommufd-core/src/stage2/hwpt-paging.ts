import { type Agent, Mutex, type Task } from '@faultline/sim';
import type { HostAddressSpace, HostRange } from '../host-address-space.ts';
import type { Area, IoPagetable } from '../ioas/io-pagetable.ts';
import { PinnedRanges } from '../ioas/pinned-ranges.ts';
import type { IommuDomain } from '../iommu-domain.ts';
import { AreaMapper } from './area-mapper.ts';
import { FaultHandler, type FaultOutcomeCode } from './fault-handler.ts';
import type { HwptObserver } from './hwpt-seat.ts';
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

  /** @param options.strategy null: everything is pinned and the host's changes do not concern this hwpt */
  constructor(options: {
    readonly domain: IommuDomain;
    readonly areas: IoPagetable;
    readonly mm: HostAddressSpace;
    readonly strategy: Strategy | null;
    /** What is pinned for areas and devices; a notifier leaves it alone. */
    readonly pins?: PinnedRanges;
    readonly observer?: HwptObserver;
  }) {
    this.domain = options.domain;
    this.areas = options.areas;
    this.mm = options.mm;
    const { domain, areas, mm } = options;
    this.#strategy = options.strategy?.start({ domain, areas, mm, updateLock: this.#updateLock }) ?? null;
    this.#pins = options.pins ?? new PinnedRanges();
    this.#observer = options.observer ?? {};
    const { domain, areas, mm } = options;
    const seat = { domain, areas, mm, observer: this.#observer, updateLock: this.#updateLock };
    this.#faults = new FaultHandler({ ...seat, released: () => this.#released });
    this.#mapper = new AreaMapper({ ...seat, released: () => this.#released });
  }

  /** Faults that found the page mapped already: spurious, and answered all the same. */
  get spuriousFaults(): number {
    return this.#faults.spurious;
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

  /** The stage-2 fault handler for one page; see `FaultHandler`. */
  handleFault(agent: Agent, page: number, write: boolean): Task<FaultOutcomeCode> {
    return this.#faults.handle(agent, page, write);
  }
}
