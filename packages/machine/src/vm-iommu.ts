import type { PageSize } from '@faultline/address';
import type { AddressSpace, HostMemory } from '@faultline/host-mm';
import { type HwptPaging, Ioas, type IopfQueue, type TakeAwayOutcome } from '@faultline/iommufd-core';
import type { Endpoint } from '@faultline/pci-device';
import { type Agent, assert, type EventSink, Mutex, type Task } from '@faultline/sim';
import type { GuestLayout } from '@faultline/vm-guest';
import { VtdDomain, type VtdDriver } from '@faultline/vtd-remapping';
import type { SimulatedDevice } from './device-set.ts';
import type { DirtyLog } from './dirty-log.ts';
import type { DmaChecker } from './dma-checker.ts';
import { HwptWatch } from './hwpt-watch.ts';
import type { InvariantLedger } from './invariants.ts';
import type { Scenario } from './scenario.ts';
import { strategyOf } from './strategy-choice.ts';

/** What a VM's side of the IOMMU is built from. */
export interface VmIommuOptions {
  readonly name: string;
  readonly scenario: Scenario;
  /** The VM's place among the scenario's VMs. */
  readonly index: number;
  readonly driver: VtdDriver;
  readonly host: HostMemory;
  readonly mm: AddressSpace;
  readonly layout: GuestLayout;
  readonly userPageOf: (page: number) => number;
  readonly checker: () => DmaChecker;
  readonly dirty: DirtyLog;
  readonly faultQueue: () => IopfQueue;
  readonly ledger: InvariantLedger;
  readonly now: () => number;
  readonly sink: EventSink;
  readonly onTakenAway: (page: number, pages: number, outcome: TakeAwayOutcome) => void;
}

/** A HWPT of the VM's IOAS, with its domain and who watches it. */
interface WatchedHwpt {
  readonly domain: VtdDomain;
  readonly watch: HwptWatch;
  readonly hwpt: HwptPaging;
}

/** Where a device is that iommufd has. */
interface Place {
  /** What it is attached to, is moving to, or is leaving; null if it was isolated between two HWPTs, and is on none. */
  readonly hwpt: WatchedHwpt | null;
  /** One that is moving is still to be taken off the HWPT that it comes from, by whoever moves it. */
  readonly state: 'attached' | 'moving' | 'leaving';
}

/** What a HWPT has done, and what its table looks like. */
export interface HwptFigures {
  readonly leaves: Record<PageSize, number>;
  readonly mappedPages: number;
  readonly tablePages: number;
  readonly tablePagesPeak: number;
  readonly reservePages: number;
  readonly splits: { '1G->2M': number; '2M->4K': number };
  readonly collapses: number;
  readonly wholeLeafFallbacks: number;
  readonly faults: { mapped: number; spurious: number; retried: number };
}

/** Domain ids of the VMs begin at 1; each replacement of a HWPT takes one that is so much higher. */
const IDS_BETWEEN_REPLACEMENTS = 256;

/** A VM's side of the IOMMU: its IOAS, the HWPT that its devices are attached to, and those that were replaced. */
export class VmIommu {
  readonly ioas: Ioas;
  readonly #options: VmIommuOptions;
  readonly #places = new Map<number, Place>();
  /** The newest last. Of the others those that a device is on, or was when the next took its place. */
  readonly #hwpts: WatchedHwpt[] = [];
  /** Figures of HWPTs that are gone. */
  readonly #retired: HwptFigures[] = [];
  readonly #replacing = new Mutex('HWPT replacement');
  #replacements = 0;
  #wasAttached = false;

  constructor(options: VmIommuOptions) {
    this.#options = options;
    this.ioas = new Ioas({ mm: options.mm, strategy: strategyOf(options.scenario) });
  }

  /** The newest HWPT. @throws Error before {@link map} */
  get #current(): WatchedHwpt {
    const current = this.#hwpts.at(-1);
    assert(current !== undefined, () => `${this.#options.name}: has no HWPT yet`);
    return current;
  }

  /** The HWPT that devices are attached to, once there is one. */
  get hwpt(): HwptPaging | null {
    return this.#hwpts.at(-1)?.hwpt ?? null;
  }

  /** Maps the guest's memory, and makes the first HWPT. */
  *map(agent: Agent, userBasePage: number): Task<void> {
    const { scenario, layout } = this.#options;
    for (const region of layout.regions)
      yield* this.ioas.map(agent, {
        iova: BigInt(region.page) * 4096n,
        userVa: BigInt(userBasePage + region.backingPage) * 4096n,
        length: BigInt(region.pages) * 4096n,
        writeable: true,
        unpinned: scenario.strategy !== 'pinned',
        ...(scenario.strategy === 'pinned' ? {} : { policy: scenario.iommu.faultPolicy }),
      });
    yield* this.#addHwpt(agent);
  }

  *#addHwpt(agent: Agent): Task<void> {
    const { name, scenario, index, driver, host, dirty, layout, mm } = this.#options;
    const { accessedDirty, reservePages } = scenario.iommu;
    const domain = new VtdDomain({
      driver,
      domainId: 1 + index + IDS_BETWEEN_REPLACEMENTS * this.#replacements,
      accessedDirty,
      reservePages,
      allocationMayFail: scenario.inject.tableAllocation > 0,
      physical: host.memory,
      onDirty: (ranges) => dirty.report(ranges),
      onFreeTables: (tables) => this.#checkFreedTables(tables),
    });
    const { userPageOf, checker, ledger, now, sink, onTakenAway } = this.#options;
    const watch = new HwptWatch({
      ...{ name, domain, mm, userPageOf, ledger, now, sink, onTakenAway },
      isInvalidating: (page, pages) => checker().isInvalidating(page, pages),
      checkAreas: () => checker().checkAreas(),
    });
    const absent = this.#replacements > 0 ? [...this.#absent()] : [];
    let hwpt: HwptPaging;
    try {
      hwpt = yield* this.ioas.addDomain(agent, domain, watch);
    } catch (error) {
      domain.destroy(); // what is to be pinned did not come together
      throw error;
    }
    watch.filled();
    this.#hwpts.push({ domain, watch, hwpt });
    // Where the CPU's second-stage table is the domain, the VMM fills it before it is used (KVM_PRE_FAULT_MEMORY).
    if (hwpt.sharesCpuTable) for (const region of layout.regions) yield* this.#preFault(agent, region);
    this.#markVacant(watch);
    // What is not there when a HWPT takes another's place, before it is filled or after, is not mapped, and that is nobody's doing.
    if (this.#replacements > 0) for (const page of [...absent, ...this.#absent()]) watch.neverMapped(page, 1);
    // At boot all that is there may be written to; later the host has write-protected some of it.
    if (this.#replacements > 0) for (const { page, pages } of layout.regions) watch.mappedReadOnly(page, pages);
  }

  *#preFault(agent: Agent, region: { readonly page: number; readonly pages: number }): Task<void> {
    const { domain, hwpt } = this.#current;
    const { mm, userPageOf } = this.#options;
    for (let page = region.page; page < region.page + region.pages; page++) {
      if (mm.lookup(userPageOf(page)) < 0) continue;
      if (domain.frameAt(page) < 0) yield* hwpt.cpuFault(agent, page, true);
      const leaf = domain.leafAt(page);
      if (leaf) page = leaf.page + 512 ** (leaf.level - 1) - 1;
    }
  }

  /** What a host that is short of memory has swapped out before it could be mapped is nobody's doing. */
  #markVacant(watch: HwptWatch): void {
    const { mm, layout, scenario } = this.#options;
    if (mm.swappedBytes > 0 || scenario.iommu.faultPolicy.prefault === 'none')
      for (const { page, pages } of layout.regions) watch.neverMapped(page, pages);
  }

  /** Guest pages that the host does not have (given up, or never used), or is about to take. */
  *#absent(): Generator<number> {
    const { mm, layout, userPageOf, checker } = this.#options;
    const run = { startPage: 0, pages: 0, pfn: -1 };
    for (const { page, pages } of layout.regions) {
      const [first, last] = [userPageOf(page), userPageOf(page + pages - 1)];
      for (let user = first; user <= last; user += Math.max(1, run.pages)) {
        mm.contiguousRun(user, user, last, run);
        if (run.pfn < 0) yield page + (user - first);
      }
      for (const taken of checker().invalidating(first, pages))
        for (let nth = 0; nth < taken.pages; nth++) yield page + (taken.page + nth - first);
    }
  }

  /** A fault of the guest's CPU where it walks the domain's table (`shared-ept`); else nothing. */
  *cpuFault(agent: Agent, page: number, write: boolean): Task<void> {
    const current = this.#hwpts.at(-1);
    if (current?.hwpt.sharesCpuTable && current.domain.frameAt(page) < 0)
      yield* current.hwpt.cpuFault(agent, page, write);
  }

  /** Lets a device in. @throws IommufdError if it may not be attached to this IOAS */
  *attach(agent: Agent, { endpoint, report }: SimulatedDevice): Task<void> {
    const { faultQueue, checker } = this.#options;
    const { sourceId } = endpoint;
    const queue = faultQueue();
    const onLie = (): void => {
      checker().lies++;
    };
    yield* this.ioas.attach(agent, report, { faults: { queue, sourceId }, onLie });
    if (endpoint.deviceTlb) {
      queue.addDevice(sourceId);
      queue.watch(sourceId, ({ page, write }) => this.ioas.devices.lieDetector(report.name).pageRequest(page, write));
    }
    this.#point(endpoint, this.#current);
  }

  #point(endpoint: Endpoint, to: WatchedHwpt): void {
    to.domain.attach(endpoint.sourceId, endpoint.deviceTlb ? endpoint : null);
    this.#places.set(endpoint.sourceId, { hwpt: to, state: 'attached' });
    this.#wasAttached = true;
  }

  /** A DMA was blocked and recorded; whether that contradicts the device's report is for iommufd to find out. */
  dmaBlocked(name: string, page: number, write: boolean): void {
    if (this.ioas.devices.names.includes(name))
      this.ioas.devices.lieDetector(name).dmaFault(page, write, this.ioas.areas.find(page) !== undefined);
  }

  /** Takes a device off its HWPT and the IOAS: its page groups are answered, its pins come back. */
  *detach(agent: Agent, { endpoint, report }: SimulatedDevice): Task<void> {
    const { sourceId } = endpoint;
    const place = this.#places.get(sourceId);
    if (!place || place.state === 'leaving') return;
    this.#places.set(sourceId, { hwpt: place.hwpt, state: 'leaving' }); // no faults any more, and its HWPT is not to go yet
    if (endpoint.deviceTlb) yield* this.#options.faultQueue().removeDevice(agent, sourceId);
    if (place.hwpt && place.state === 'attached') yield* place.hwpt.domain.detach(agent, sourceId);
    this.#places.delete(sourceId);
    yield* this.ioas.detach(agent, report.name);
  }

  /**
   * Moves devices to a new HWPT of the IOAS. The driver blocks a function in between, as Linux's does, so each is kept from beginning
   * DMA for that time (bus master enable); DMA that waits for a page is told INVALID, as the old HWPT's groups are. A HWPT that
   * nobody uses any more goes. An isolated device stays where it is, blocked. One replacement follows the other.
   */
  *replace(agent: Agent, devices: readonly SimulatedDevice[]): Task<void> {
    yield* this.#replacing.acquire(agent);
    try {
      yield* this.#replaceNow(agent, devices);
    } finally {
      this.#replacing.release(agent);
    }
  }

  *#replaceNow(agent: Agent, devices: readonly SimulatedDevice[]): Task<void> {
    const { driver } = this.#options;
    this.#replacements++;
    yield* this.#addHwpt(agent);
    const to = this.#current;
    for (const { endpoint } of devices) {
      const { sourceId } = endpoint;
      if (driver.isIsolated(sourceId)) continue;
      yield* endpoint.disableBusMaster(agent);
      const from = this.#hwptOf(sourceId);
      if (from && from !== to) {
        const place: Place = { hwpt: to, state: 'moving' };
        this.#places.set(sourceId, place);
        yield* this.#options.faultQueue().detach(agent, sourceId, from.hwpt);
        yield* from.domain.detach(agent, sourceId);
        // Unless it was pulled out meanwhile.
        if (this.#places.get(sourceId) === place) {
          if (driver.isIsolated(sourceId)) this.#places.set(sourceId, { hwpt: null, state: 'attached' });
          else this.#point(endpoint, to);
        }
      }
      endpoint.enableBusMaster();
    }
    yield* this.#retireUnused(agent);
  }

  *#retireUnused(agent: Agent): Task<void> {
    for (const old of this.#hwpts.slice(0, -1)) {
      if ([...this.#places.values()].some(({ hwpt }) => hwpt === old)) continue;
      this.#hwpts.splice(this.#hwpts.indexOf(old), 1);
      yield* this.#harvest(agent, old, false);
      yield* this.ioas.iopt.removeDomain(agent, old.hwpt);
      this.#retired.push({ ...figuresOf(old), tablePages: 0, reservePages: 0 });
      old.domain.destroy();
    }
  }

  /** The HWPT of a function that is attached, or on its way to it. */
  #hwptOf(sourceId: number): WatchedHwpt | undefined {
    const place = this.#places.get(sourceId);
    return place?.state === 'leaving' ? undefined : (place?.hwpt ?? undefined);
  }

  /** Whether a function is attached. */
  owns(sourceId: number): boolean {
    return this.#hwptOf(sourceId) !== undefined;
  }

  /** Whether a function ever was. */
  get wasAttached(): boolean {
    return this.#wasAttached;
  }

  /** The HWPT that handles faults of a function, if it is attached. */
  hwptOf(sourceId: number): HwptPaging | undefined {
    return this.#hwptOf(sourceId)?.hwpt;
  }

  /** The watch of the HWPT that a function is attached to or leaves; of the newest if there is none. */
  watchOf({ sourceId }: Endpoint): HwptWatch {
    return (this.#places.get(sourceId)?.hwpt ?? this.#current).watch;
  }

  /** The frame that a pin holds for a guest page, or -1. With everything pinned, what is mapped is what the pins hold. */
  pinnedFrame(page: number): number {
    const { scenario, userPageOf } = this.#options;
    return scenario.strategy === 'pinned'
      ? this.#current.domain.frameAt(page)
      : this.ioas.pinnedFrame(userPageOf(page));
  }

  /** What all HWPTs did, and what the tables of those that are there look like. */
  figures(): readonly HwptFigures[] {
    return [...this.#retired, ...this.#hwpts.map(figuresOf)];
  }

  /** Harvests the dirty bits of the whole guest. */
  *harvestDirty(agent: Agent, clear: boolean): Task<void> {
    for (const each of this.#hwpts) yield* this.#harvest(agent, each, clear);
  }

  *#harvest(agent: Agent, { domain }: WatchedHwpt, clear: boolean): Task<void> {
    if (!this.#options.scenario.iommu.accessedDirty) return;
    for (const { page, pages } of this.#options.layout.regions)
      this.#options.dirty.report(yield* domain.readAndClearDirty(agent, page, pages, clear));
  }

  /** Takes IOAS and domains apart; all devices are detached. */
  *destroy(agent: Agent): Task<void> {
    yield* this.ioas.destroy(agent);
    for (const { domain } of this.#hwpts) domain.destroy();
  }

  /** No cache may point to a table page that is about to be freed (I5). */
  #checkFreedTables(tables: readonly number[]): void {
    const { driver, ledger } = this.#options;
    const cached = new Set([...driver.unit.pagingCache.entries()].map((entry) => entry.tablePfn));
    for (const table of tables)
      ledger.check(
        'I5',
        !cached.has(table),
        () => `table page 0x${table.toString(16)} is freed while a cache points to it`,
      );
  }
}

function figuresOf({ domain: { table }, watch, hwpt }: WatchedHwpt): HwptFigures {
  return {
    leaves: { ...table.leafCounts },
    mappedPages: table.mappedPages,
    tablePages: table.tablePages,
    tablePagesPeak: Math.max(watch.tablePagesPeak, table.tablePages),
    reservePages: table.reserve.held,
    splits: { '1G->2M': table.splits[3] ?? 0, '2M->4K': table.splits[2] ?? 0 },
    collapses: hwpt.strategy?.counters.collapses ?? 0,
    wholeLeafFallbacks: watch.wholeLeafFallbacks,
    faults: { mapped: watch.faultsMapped, spurious: hwpt.spuriousFaults, retried: hwpt.faultRetries },
  };
}
