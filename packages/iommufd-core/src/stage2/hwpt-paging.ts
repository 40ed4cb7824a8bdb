import { type Agent, assert, Condition, Mutex, type Task } from '@faultline/sim';
import type { HostAddressSpace, HostRange } from '../host-address-space.ts';
import type { Area } from '../ioas/area.ts';
import type { IoPagetable } from '../ioas/io-pagetable.ts';
import { PinnedRanges } from '../ioas/pinned-ranges.ts';
import type { IommuDomain } from '../iommu-domain.ts';
import { AreaMapper } from './area-mapper.ts';
import { FaultHandler, type FaultOutcomeCode } from './fault-handler.ts';
import { HostFollower } from './host-follower.ts';
import type { HwptObserver, HwptSeat } from './hwpt-seat.ts';
import { dropStale, mapPins } from './pinned-pages.ts';
import type { Strategy, StrategyState } from './strategy.ts';
import { flushAll } from './take-away.ts';

/**
 * A paging HWPT: an IOAS's areas in one IOMMU domain, kept in step with the host. Two things change the domain, the fault
 * handler and the notifier, and both hold the update lock until their invalidations are complete. Without that a second
 * notifier could flush 4K of a leaf that the first has just cut, and return while the cached 1G translation still lives.
 */
export class HwptPaging {
  readonly domain: IommuDomain;
  readonly areas: IoPagetable;
  readonly mm: HostAddressSpace;
  /** What the strategy keeps for this hwpt; null if everything is pinned. */
  readonly strategy: StrategyState | null;
  /** The CPU's second-stage table is this domain's (`shared-ept`). */
  readonly sharesCpuTable: boolean;
  readonly #updateLock: Mutex;
  readonly #following: HostFollower;
  /** The address space has gone, or the domain is about to: nothing is mapped any more. */
  #released = false;
  /** The domain has gone. */
  #gone = false;
  /** Harvests of accessed bits under way: they take no lock. */
  #harvests = 0;
  readonly #noHarvest = new Condition('hwpt: no harvest under way', () => this.#harvests === 0);
  readonly #seat: HwptSeat;
  readonly #faults: FaultHandler;
  readonly #mapper: AreaMapper;

  /** @param options.strategy null: everything is pinned and the host's changes do not concern this hwpt */
  constructor(options: {
    readonly domain: IommuDomain;
    readonly areas: IoPagetable;
    readonly mm: HostAddressSpace;
    readonly strategy: Strategy | null;
    /** What is pinned for devices; a notifier leaves it alone. */
    readonly pins?: PinnedRanges;
    /** False: no leaf is larger than 4K (IOMMU_OPTION_HUGE_PAGES 0). Default true. */
    readonly largePages?: () => boolean;
    readonly observer?: HwptObserver;
  }) {
    const { domain, areas, mm, strategy, pins = new PinnedRanges(), observer = {} } = options;
    this.domain = domain;
    this.areas = areas;
    this.mm = mm;
    this.sharesCpuTable = strategy?.sharesCpuTable ?? false;
    const updateLock = new Mutex('hwpt update lock');
    const largePages = options.largePages ?? (() => true);
    const released = (): boolean => this.#released;
    this.strategy = strategy?.start({ domain, areas, mm, updateLock, largePages, released }) ?? null;
    this.#updateLock = updateLock;
    this.#seat = {
      domain,
      areas,
      mm,
      pins,
      observer,
      updateLock,
      strategy: this.strategy,
      largePages,
      released,
      gone: () => this.#gone,
      lostPins: 0,
    };
    this.#faults = new FaultHandler(this.#seat);
    this.#mapper = new AreaMapper(this.#seat);
    this.#following = new HostFollower(this.#seat);
  }

  /** Faults that found the page mapped already: spurious, and answered all the same. */
  get spuriousFaults(): number {
    return this.#faults.spurious;
  }

  /** Faults that gave a leaf the right to write back, or a page the frame of its pin. */
  get upgradedFaults(): number {
    return this.#faults.upgrades;
  }

  /** Pages that fault-around has mapped. */
  get mappedAround(): number {
    return this.#faults.mappedAround;
  }

  /** Times that what devices have pinned could not be mapped again, beside a leaf that was taken whole or a pin that went: no table page was left. */
  get lostPins(): number {
    return this.#seat.lostPins;
  }

  /** Times that a fault started over because the host changed under it. */
  get faultRetries(): number {
    return this.#faults.retries;
  }

  /** Maps an area as its policy and its pin say; see `AreaMapper`. @returns 4K pages mapped */
  *mapResident(agent: Agent, area: Area): Task<number> {
    if (!this.sharesCpuTable || !area.unpinned) return yield* this.#mapper.map(agent, area);
    // A shared table is not iommufd's to fill: the faults of CPU and devices do that, but for what devices have pinned.
    yield* this.mapPins(agent, area.userPage, area.pages);
    return 0;
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
    yield* flushAll(agent, this.domain, gather);
    this.strategy?.unmapped?.(page, pages);
  }

  /** The address space, or the domain, goes away: what is not pinned leaves the domain, and faults are invalid from here on. */
  *release(agent: Agent): Task<void> {
    yield* this.#updateLock.acquire(agent);
    try {
      if (this.#gone) return;
      this.#released = true;
      for (const area of this.areas.areas()) if (area.unpinned) yield* this.#unmapWhole(agent, area);
    } finally {
      this.#updateLock.release(agent);
    }
  }

  /**
   * The domain goes away: `empty` takes all areas out of it. No fault maps anything from the start on; the notifier works until it is empty, and when
   * this returns nobody looks at the domain any more, whoever had begun to.
   */
  *retire(agent: Agent, empty: () => Task<void>): Task<void> {
    yield* this.#updateLock.acquire(agent);
    this.#released = true;
    this.#updateLock.release(agent);
    yield* empty();
    yield* this.#updateLock.acquire(agent);
    this.#gone = true;
    this.#updateLock.release(agent);
    while (!this.#noHarvest.ready()) yield agent.waits('wait for harvests', this.#noHarvest);
  }

  /** The notifier's start; see `HostFollower`. Cannot fail (I8). @returns false (EAGAIN) if it would have to sleep and must not */
  invalidateRangeStart(agent: Agent, range: HostRange): Task<boolean> {
    return this.#following.invalidate(agent, range);
  }

  /** Harvests the accessed bits of the memory, with a flush. @returns whether a device has used it */
  *clearFlushYoung(agent: Agent, userPage: number, pages: number): Task<boolean> {
    this.#harvests++;
    try {
      return yield* this.#following.clearFlushYoung(agent, userPage, pages);
    } finally {
      this.#harvests--;
      this.#noHarvest.wake();
    }
  }

  /** Looks at the accessed bits of the memory, and clears them if asked to, with no flush. Part of the caller's step. */
  youngNow(userPage: number, pages: number, clear: boolean): boolean {
    return this.#following.youngNow(userPage, pages, clear);
  }

  /** Has the domain map what devices have pinned of the owner's memory, also where it maps something else. */
  mapPins(agent: Agent, userPage: number, pages: number): Task<void> {
    return mapPins(agent, this.#seat, userPage, pages);
  }

  /** Before a pin is given back that counts no more: what only it has kept leaves the domain. */
  dropStale(agent: Agent, userPage: number, pages: number): Task<void> {
    return dropStale(agent, this.#seat, userPage, pages);
  }

  /** The stage-2 fault handler for one page; see `FaultHandler`. */
  handleFault(agent: Agent, page: number, write: boolean): Task<FaultOutcomeCode> {
    return this.#faults.handle(agent, page, write);
  }

  /**
   * A second-stage fault of the CPU, which walks this table (`shared-ept`): the same handler fills it, at a guest-physical page.
   * @throws Error if the strategy has a table of its own for devices
   */
  cpuFault(agent: Agent, page: number, write: boolean): Task<FaultOutcomeCode> {
    assert(this.sharesCpuTable, 'cpuFault: the CPU has a second-stage table of its own, which is not in this model');
    return this.#faults.handle(agent, page, write);
  }
}
