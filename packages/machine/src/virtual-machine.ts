import { hex, parseSize } from '@faultline/address';
import {
  type AddressSpace,
  type HostMemory,
  NotifierEvent,
  type NotifierRange,
  VM_FAULT_ERROR,
} from '@faultline/host-mm';
import type { IopfQueue, TakeAwayOutcome } from '@faultline/iommufd-core';
import {
  type Agent,
  type EventSink,
  LatencyHistogram,
  type RandomStream,
  type Task,
  type VirtualTime,
} from '@faultline/sim';
import { bootGuest, type GuestCpuPort, GuestLayout, GuestPageAllocator } from '@faultline/vm-guest';
import type { VtdDriver } from '@faultline/vtd-remapping';
import { buildDevices, type SimulatedDevice } from './device-set.ts';
import { DirtyLog } from './dirty-log.ts';
import { DmaChecker, type PinnedFrames } from './dma-checker.ts';
import { startGuest } from './guest-activity.ts';
import type { InvariantLedger } from './invariants.ts';
import type { Scenario, VmSettings } from './scenario.ts';
import type { MarkStats } from './stats.ts';
import { strategyOf } from './strategy-choice.ts';
import { VmIommu } from './vm-iommu.ts';

/** What a VM runs in. */
export interface VirtualMachineOptions {
  readonly scenario: Scenario;
  readonly settings: VmSettings;
  /** Its place among the scenario's VMs: domain id less one, and the bus of its devices. */
  readonly index: number;
  readonly seed: number;
  readonly host: HostMemory;
  readonly driver: VtdDriver;
  readonly time: VirtualTime;
  readonly ledger: InvariantLedger;
  readonly sink: EventSink;
  /** Whether workloads begin no further request. */
  readonly stopped: () => boolean;
  /** Virtual time until then, in ns. */
  readonly remainingNs: () => number;
  readonly onTakenAway: (page: number, pages: number, outcome: TakeAwayOutcome) => void;
  /** {@inheritDoc DeviceSetOptions.unansweredBy} */
  readonly unansweredBy: () => () => number;
  /** The host's queue of I/O page faults. */
  readonly faultQueue: () => IopfQueue;
}

/** Requests and their latency, for one device. */
export interface DeviceLoad {
  requests: number;
  readonly latency: LatencyHistogram;
}

/** First host-virtual page of a VM's memory: 1G-aligned, as a VMM asks for with huge pages. */
const USER_BASE_PAGE = 0x7_f000_0000;
/** Guest pages below this one are the kernel's: 16 MiB. */
const FIRST_FREE_INDEX = 4096;

/** One VM: its memory on the host, its side of the IOMMU, its devices and what they do. */
export class VirtualMachine {
  readonly name: string;
  readonly layout: GuestLayout;
  readonly mm: AddressSpace;
  readonly iommu: VmIommu;
  readonly checker: DmaChecker;
  readonly devices: readonly SimulatedDevice[];
  readonly loads = new Map<string, DeviceLoad>();
  /** Figures that its program has kept. */
  readonly marks: MarkStats[] = [];
  /** CPU accesses that the host could not serve for want of memory. */
  failedCpuAccesses = 0;
  /** Pages that its balloon has given to the host, over the whole run. */
  balloonedPages = 0;
  /** Pages whose content is lost, by frame: memory failures. */
  readonly brokenFrames = new Set<number>();
  /** Notifier ranges by event, in Linux's numbering. */
  readonly notifierEvents: number[] = Object.keys(NotifierEvent).map(() => 0);
  /** What was reported dirty. */
  readonly dirty = new DirtyLog();
  /** All requests of all devices. */
  readonly latency = new LatencyHistogram();
  readonly #options: VirtualMachineOptions;
  readonly #allocator: GuestPageAllocator;
  readonly #cpu: GuestCpuPort;
  readonly #removed = new Set<string>();
  #exited = false;
  #survivors: readonly PinnedFrames[] = [];

  /** @throws RangeError if the guest has no room for its devices' buffers */
  constructor(options: VirtualMachineOptions) {
    const { scenario, settings, index, host, driver, ledger, time } = options;
    const { unit } = driver;
    this.#options = options;
    this.name = settings.name;
    this.layout = new GuestLayout(parseSize(settings.memory));
    const { memoryMax } = settings;
    const limit = memoryMax === undefined ? {} : { max: Number(parseSize(memoryMax)) };
    const memcg = host.createMemoryCgroup({ name: this.name, ...limit });
    this.mm = host.createAddressSpace(`${this.name} vmm`, memcg);
    const strategy = strategyOf(scenario);
    const common = { name: this.name, mm: this.mm, ledger, sink: options.sink, now: () => time.nowNs };
    const userPageOf = (page: number): number => this.userPageOf(page);
    this.checker = new DmaChecker({
      ...common,
      memory: host.memory,
      userPageOf,
      watchOf: (endpoint) => this.iommu.watchOf(endpoint),
      pinnedFrameOf: (page) => this.iommu.pinnedFrame(page),
      areasHash: () => this.iommu.ioas.areas.hash(),
      claimsHitless: strategy?.claimsHitless ?? true,
      isIsolated: ({ sourceId }) => driver.isIsolated(sourceId),
      onBlocked: (endpoint, page, write) => this.iommu.dmaBlocked(endpoint.name, page, write),
    });
    // Before iommufd's own, so that the checker knows of a range for as long as iommufd may work on it.
    this.mm.registerNotifier(this.#rangeWatcher());
    this.iommu = new VmIommu({
      ...common,
      scenario,
      index,
      driver,
      host,
      layout: this.layout,
      userPageOf,
      checker: () => this.checker,
      dirty: this.dirty,
      faultQueue: options.faultQueue,
      onTakenAway: (page, pages, outcome) => {
        if (pages === 1) this.checker.reclaimed.add(page);
        options.onTakenAway(page, pages, outcome);
      },
    });
    // After iommufd's own: when it is called, iommufd has let go.
    this.mm.registerNotifier(this.#exitWatcher());
    this.#allocator = new GuestPageAllocator(this.layout, Math.min(FIRST_FREE_INDEX, this.layout.pages >> 1));
    this.#cpu = {
      access: (agent, page, write, lo, hi) => this.#cpuAccess(agent, page, write, lo, hi),
      writeWords: (page, words) => {
        const frame = this.mm.lookup(this.#userPageOf(page));
        host.memory.writeWords(frame, words);
        this.checker.contents.set(page, host.memory.tagLo(frame), host.memory.tagHi(frame));
      },
    };
    for (const region of this.layout.regions)
      for (let page = region.page; page < region.page + region.pages; page += 262144) this.#allocator.reserve(page);
    const { checker: target, layout } = this;
    this.devices = buildDevices({
      vm: settings,
      unfaultable: scenario.iommu.onUnfaultable,
      bus: index,
      unit,
      target,
      layout,
      allocator: this.#allocator,
      reclaimedPage: (random) => this.reclaimedPage(random),
      unansweredBy: options.unansweredBy,
    });
    for (const device of this.devices) this.loads.set(device.name, { requests: 0, latency: new LatencyHistogram() });
  }

  /** Maps and populates the memory, maps it for DMA, boots the guest. */
  *boot(agent: Agent): Task<void> {
    const { settings } = this.#options;
    this.mm.mmap({ startPage: USER_BASE_PAGE, pages: this.layout.pages, backing: settings.backing });
    const { program } = settings;
    if (!program) yield* this.mm.populate(agent, USER_BASE_PAGE, this.layout.pages);
    yield* this.iommu.map(agent, USER_BASE_PAGE);
    if (!program) yield* bootGuest(agent, this.layout, this.#cpu, this.#allocator);
    yield* this.#fillEqualPages(agent);
  }

  /** All devices are attached: from here on the io_pagetable stays as it is. */
  booted(): void {
    this.checker.sealAreas();
  }

  /** The pages of its memory in the owner's address space. */
  get userPages(): { readonly first: number; readonly count: number } {
    return { first: USER_BASE_PAGE, count: this.layout.pages };
  }

  /** A page that the host took away and that the guest has not given it, for workloads that come back to one; or -1. */
  reclaimedPage(random: RandomStream): number {
    const page = this.checker.reclaimed.take((bound) => random.below(bound));
    return page >= 0 && !this.#allocator.inBalloon(page) ? page : -1;
  }

  /** Starts every workload as a task of its own. */
  start(): void {
    startGuest({
      vm: this,
      options: this.#options,
      allocator: this.#allocator,
      cpu: this.#cpu,
      stopped: () => this.#exited || this.#options.stopped(),
      requestEnded: (device, startNs) => this.#requestEnded(device, startNs),
    });
  }

  /** Detaches devices and takes IOAS, domain and address space apart. */
  *teardown(agent: Agent): Task<void> {
    for (const device of this.devices) yield* this.iommu.detach(agent, device);
    yield* this.iommu.destroy(agent);
    if (!this.#exited) yield* this.mm.exit(agent);
  }

  /** Whether its process was killed. */
  get exited(): boolean {
    return this.#exited;
  }

  /** SIGKILL of the VMM: the CPUs stop, the memory goes, and devices reach only what their pins keep, until they are detached. */
  *kill(agent: Agent): Task<void> {
    if (this.#exited) return;
    this.#exited = true;
    this.checker.processDies();
    this.#survivors = this.#pinnedFrames();
    yield* this.mm.exit(agent);
  }

  /** I6: every page that DMA wrote was reported dirty, by a harvest or when its leaf went. */
  checkDirty(): void {
    const { ledger, scenario } = this.#options;
    if (!scenario.iommu.accessedDirty) return;
    for (const page of this.checker.writtenByDma.pages())
      ledger.check(
        'I6',
        this.dirty.has(page),
        () => `${this.name}: iova ${hex(BigInt(page) * 4096n)} was written by DMA and not reported dirty`,
      );
  }

  /** Its devices that did not answer invalidations, so that they reach nothing any more. */
  get isolated(): readonly SimulatedDevice[] {
    return this.devices.filter(({ endpoint }) => this.#options.driver.isIsolated(endpoint.sourceId));
  }

  /**
   * I13: no device has died of a missing page, unless it was pulled out, it was isolated, its memory broke or its process was killed.
   */
  checkProgress(): void {
    const excused = this.#exited || this.brokenFrames.size > 0;
    const { isolated } = this;
    for (const device of this.devices) {
      const { name, endpoint } = device;
      this.#options.ledger.check(
        'I13',
        !endpoint.dead || excused || this.#removed.has(name) || isolated.includes(device),
        () => `${endpoint.name}: dead after a fault on a path that cannot fault`,
      );
    }
  }

  /** Surprise removal of a device, and what the kernel does when it learns of it: it answers and detaches. */
  *unplug(agent: Agent, device: SimulatedDevice): Task<void> {
    device.endpoint.unplug();
    this.#removed.add(device.name);
    yield* this.iommu.detach(agent, device);
  }

  /** The guest gives up the content of a range, and the VMM returns it to the host. */
  *discard(agent: Agent, page: number, pages: number): Task<void> {
    if (this.#exited) return;
    this.checker.discardBegins(page, pages);
    yield* this.mm.madviseDontNeed(agent, this.#userPageOf(page), pages);
    this.checker.discardEnds(page, pages);
  }

  /** The guest page whose content is in a frame, or -1; for reports. */
  guestPageOfFrame(frame: number): number {
    for (const page of this.guestPagesOfFrame(frame)) return page;
    return -1;
  }

  /** The guest pages whose content is in a frame: several if KSM has merged them. Walks the VM's memory by contiguous runs. */
  *guestPagesOfFrame(frame: number): Generator<number> {
    const run = { startPage: 0, pages: 0, pfn: -1 };
    for (const region of this.layout.regions) {
      const first = USER_BASE_PAGE + region.backingPage;
      const last = first + region.pages - 1;
      for (let page = first; page <= last; page += Math.max(1, run.pages)) {
        this.mm.contiguousRun(page, page, last, run);
        if (run.pfn >= 0 && frame >= run.pfn && frame < run.pfn + run.pages)
          yield region.page + (page - first) + (frame - run.pfn);
      }
    }
  }

  /** Host-virtual page of a guest page, or -1 outside RAM. */
  userPageOf(page: number): number {
    return this.#userPageOf(page);
  }

  /** The guest fills pages with content that others have too. */
  *#fillEqualPages(agent: Agent): Task<void> {
    const { equalPages } = this.#options.settings;
    if (!equalPages) return;
    const first = Number(parseSize(equalPages.gpa) / 4096n);
    const pages = Number(parseSize(equalPages.length) / 4096n);
    for (let i = 0; i < pages; i++)
      yield* this.#cpuAccess(agent, first + i, true, i % equalPages.distinct, EQUAL_CONTENT_TAG);
  }

  /** What stays when the process goes: frames of pinned areas and of what devices have pinned. */
  #pinnedFrames(): PinnedFrames[] {
    const pinned = this.#options.scenario.strategy === 'pinned';
    const ranges = pinned
      ? this.layout.regions
      : this.devices.flatMap(({ report }) =>
          report.paths.flatMap((path) => (path.canFault ? [] : (path.ranges ?? []))),
        );
    const found: PinnedFrames[] = [];
    const run = { startPage: 0, pages: 0, pfn: -1 };
    for (const { page, pages } of ranges)
      for (let at = page; at < page + pages; at += Math.max(1, run.pages)) {
        const userPage = this.#userPageOf(at);
        this.mm.contiguousRun(userPage, userPage, userPage + (page + pages - at) - 1, run);
        if (run.pfn >= 0) found.push({ page: at, pages: run.pages, frame: run.pfn });
      }
    return found;
  }

  #userPageOf(page: number): number {
    const index = this.layout.backingOf(page);
    return index < 0 ? -1 : USER_BASE_PAGE + index;
  }

  *#cpuAccess(agent: Agent, page: number, write: boolean, tagLo: number, tagHi: number): Task<void> {
    yield* this.iommu.cpuFault(agent, page, write);
    const bits = yield* this.mm.cpuAccess(agent, this.#userPageOf(page), { write, tagLo, tagHi });
    // Out of memory: nothing was read or written, and a real host would kill somebody.
    if ((bits & VM_FAULT_ERROR) === 0) this.checker.cpuAccessed(page, write, tagLo, tagHi);
    else this.failedCpuAccesses++;
  }

  #requestEnded(device: string | null, startNs: number): void {
    const load = device === null ? undefined : this.loads.get(device);
    if (!load) return;
    const ns = this.#options.time.nowNs - startNs;
    load.requests++;
    load.latency.record(ns);
    this.latency.record(ns);
  }

  #exitWatcher() {
    const gone = (): void => this.checker.processGone(this.#survivors);
    return {
      *invalidateRangeStart(): Task<void> {},
      // biome-ignore lint/correctness/useYield: a notifier that has nothing to wait for
      *release(): Task<void> {
        gone();
      },
    };
  }

  #rangeWatcher() {
    const { checker, notifierEvents } = this;
    return {
      // biome-ignore lint/correctness/useYield: a notifier that has nothing to wait for
      *invalidateRangeStart(_agent: Agent, range: NotifierRange): Task<void> {
        checker.invalidationStarts(range);
        notifierEvents[range.event] = (notifierEvents[range.event] ?? 0) + 1;
      },
      invalidateRangeEnd(_agent: Agent, range: NotifierRange): void {
        checker.invalidationEnds(range);
      },
    };
  }
}

/** High half of content that other guests have, too. */
const EQUAL_CONTENT_TAG = 0x0e9a1;
