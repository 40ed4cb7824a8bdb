import { parseDurationNs, parseSize } from '@faultline/address';
import { type AddressSpace, type HostMemory, type NotifierRange, VM_FAULT_ERROR } from '@faultline/host-mm';
import { Ioas, STRATEGIES, type TakeAwayOutcome } from '@faultline/iommufd-core';
import { Agent, type EventSink, LatencyHistogram, RandomStream, type Task, type VirtualTime } from '@faultline/sim';
import { bootGuest, cpuTouches, type GuestCpuPort, GuestLayout, GuestPageAllocator } from '@faultline/vm-guest';
import { VtdDomain, type VtdDriver } from '@faultline/vtd-remapping';
import { buildDevices, type SimulatedDevice } from './device-set.ts';
import { DmaChecker } from './dma-checker.ts';
import type { InvariantLedger } from './invariants.ts';
import { runProgram } from './process-program.ts';
import type { Scenario } from './scenario.ts';
import type { MarkStats } from './stats.ts';

/** What a VM runs in. */
export interface VirtualMachineOptions {
  readonly scenario: Scenario;
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

/** One VM: its memory on the host, its IOAS and domain, its devices and what they do. */
export class VirtualMachine {
  readonly name: string;
  readonly layout: GuestLayout;
  readonly mm: AddressSpace;
  readonly ioas: Ioas;
  readonly domain: VtdDomain;
  readonly checker: DmaChecker;
  readonly devices: readonly SimulatedDevice[];
  readonly loads = new Map<string, DeviceLoad>();
  /** Figures that its program has kept. */
  readonly marks: MarkStats[] = [];
  /** CPU accesses that the host could not serve for want of memory. */
  failedCpuAccesses = 0;
  /** All requests of all devices. */
  readonly latency = new LatencyHistogram();
  readonly #options: VirtualMachineOptions;
  readonly #allocator: GuestPageAllocator;
  readonly #cpu: GuestCpuPort;

  /** @throws RangeError if the guest has no room for its devices' buffers */
  constructor(options: VirtualMachineOptions) {
    const { scenario, host, driver, ledger, time } = options;
    const { unit } = driver;
    this.#options = options;
    this.name = scenario.vm.name;
    this.layout = new GuestLayout(parseSize(scenario.vm.memory));
    const { memoryMax } = scenario.vm;
    const limit = memoryMax === undefined ? {} : { max: Number(parseSize(memoryMax)) };
    const memcg = host.createMemoryCgroup({ name: this.name, ...limit });
    this.mm = host.createAddressSpace(`${this.name} vmm`, memcg);
    const strategy = scenario.strategy === 'pinned' ? null : STRATEGIES[scenario.strategy];
    this.domain = new VtdDomain({
      driver,
      domainId: 1,
      reservePages: scenario.iommu.reservePages,
      physical: host.memory,
      onFreeTables: (tables) => this.#checkFreedTables(tables),
    });
    this.checker = new DmaChecker({
      name: this.name,
      memory: host.memory,
      mm: this.mm,
      userPageOf: (page) => this.#userPageOf(page),
      vacantLevelOf: (page) => this.domain.vacantLevel(page),
      areasHash: () => this.ioas.areas.hash(),
      ledger,
      now: () => time.nowNs,
      sink: options.sink,
      claimsHitless: strategy?.claimsHitless ?? true,
      onTakenAway: options.onTakenAway,
    });
    // Before iommufd's own, so that the checker knows of a range for as long as iommufd may work on it.
    this.mm.registerNotifier(this.#rangeWatcher());
    this.ioas = new Ioas({ mm: this.mm, strategy });
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
      vm: scenario.vm,
      unit,
      target,
      layout,
      allocator: this.#allocator,
      reclaimedPage: (random) => this.checker.reclaimed.take((bound) => random.below(bound)),
    });
    for (const device of this.devices) this.loads.set(device.name, { requests: 0, latency: new LatencyHistogram() });
  }

  /** Maps and populates the memory, maps it for DMA, boots the guest, attaches the devices. */
  *boot(agent: Agent): Task<void> {
    const { scenario } = this.#options;
    this.mm.mmap({ startPage: USER_BASE_PAGE, pages: this.layout.pages, backing: scenario.vm.backing });
    const { program } = scenario.vm;
    if (!program) yield* this.mm.populate(agent, USER_BASE_PAGE, this.layout.pages);
    for (const region of this.layout.regions)
      yield* this.ioas.map(agent, {
        iova: BigInt(region.page) * 4096n,
        userVa: BigInt(USER_BASE_PAGE + region.backingPage) * 4096n,
        length: BigInt(region.pages) * 4096n,
        writeable: true,
        unpinned: scenario.strategy !== 'pinned',
      });
    yield* this.ioas.addDomain(agent, this.domain, this.checker);
    if (!program) yield* bootGuest(agent, this.layout, this.#cpu, this.#allocator);
    for (const device of this.devices) {
      yield* this.ioas.attach(agent, device.report);
      this.domain.attach(device.endpoint.sourceId, device.endpoint.deviceTlb ? device.endpoint : null);
    }
    // A host that is short of memory has swapped some out before it could be mapped.
    if (this.mm.swappedBytes > 0)
      for (const { page, pages } of this.layout.regions) this.checker.neverMapped(page, pages);
    this.checker.sealAreas();
  }

  /** The pages of its memory in the owner's address space. */
  get userPages(): { readonly first: number; readonly count: number } {
    return { first: USER_BASE_PAGE, count: this.layout.pages };
  }

  /** Starts every workload as a task of its own. */
  start(): void {
    if (this.#options.scenario.vm.program) this.#startProgram(this.#options.scenario.vm.program);
    else this.#startWorkloads();
  }

  /** A process instead of a guest. */
  #startProgram(program: NonNullable<Scenario['vm']['program']>): void {
    const { time, host, seed, stopped } = this.#options;
    const agent = new Agent(`${this.name} program`);
    const seat = {
      host,
      mm: this.mm,
      firstPage: USER_BASE_PAGE,
      pages: this.layout.pages,
      random: new RandomStream(seed, agent.name),
      now: () => time.nowNs,
      stopped,
      accessed: (userPage: number, write: boolean, lo: number, hi: number) =>
        this.checker.cpuAccessed(this.layout.pageAt(userPage - USER_BASE_PAGE), write, lo, hi),
      failed: () => this.failedCpuAccesses++,
    };
    time.spawn(agent, runProgram(agent, program, seat, this.marks));
  }

  #startWorkloads(): void {
    const { time, stopped, remainingNs, seed, scenario } = this.#options;
    const spawn = (name: string, device: string | null, workload: (context: WorkloadSeat) => Task<void>): void => {
      const agent = new Agent(`${this.name} ${name}`);
      const random = new RandomStream(seed, agent.name);
      time.spawn(
        agent,
        workload({
          agent,
          random,
          stopped,
          remainingNs,
          now: () => time.nowNs,
          finished: (startNs) => this.#requestEnded(device, startNs),
        }),
      );
    };
    for (const device of this.devices)
      for (const [index, workload] of device.workloads.entries())
        spawn(`${device.name} ${index}`, device.name, workload);
    const intervalNs = parseDurationNs(scenario.vm.cpuTouchInterval);
    const pickPage = (random: RandomStream): number => {
      if (random.chance(scenario.vm.cpuRefaults)) {
        const page = this.checker.reclaimed.take((bound) => random.below(bound));
        if (page >= 0) return page;
      }
      return this.#allocator.pickFree(random, 0, this.layout.pages);
    };
    spawn('cpu', null, (context) => cpuTouches(context, { cpu: this.#cpu, pickPage, intervalNs }));
  }

  /** Detaches devices and takes IOAS, domain and address space apart. */
  *teardown(agent: Agent): Task<void> {
    for (const { endpoint, report } of this.devices) {
      yield* this.domain.detach(agent, endpoint.sourceId);
      yield* this.ioas.detach(agent, report.name);
    }
    yield* this.ioas.destroy(agent);
    this.domain.destroy();
    yield* this.mm.exit(agent);
  }

  /** The guest gives up the content of a range, and the VMM returns it to the host. */
  *discard(agent: Agent, page: number, pages: number): Task<void> {
    this.checker.discardBegins(page, pages);
    yield* this.mm.madviseDontNeed(agent, this.#userPageOf(page), pages);
    this.checker.discardEnds(page, pages);
  }

  /** The guest page whose content is in a frame, or -1. Walks the VM's memory by contiguous runs; for reports. */
  guestPageOfFrame(frame: number): number {
    const run = { startPage: 0, pages: 0, pfn: -1 };
    for (const region of this.layout.regions) {
      const first = USER_BASE_PAGE + region.backingPage;
      const last = first + region.pages - 1;
      for (let page = first; page <= last; page += Math.max(1, run.pages)) {
        this.mm.contiguousRun(page, page, last, run);
        if (run.pfn >= 0 && frame >= run.pfn && frame < run.pfn + run.pages)
          return region.page + (page - first) + (frame - run.pfn);
      }
    }
    return -1;
  }

  #userPageOf(page: number): number {
    const index = this.layout.backingOf(page);
    return index < 0 ? -1 : USER_BASE_PAGE + index;
  }

  *#cpuAccess(agent: Agent, page: number, write: boolean, tagLo: number, tagHi: number): Task<void> {
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

  #rangeWatcher() {
    const { checker } = this;
    return {
      // biome-ignore lint/correctness/useYield: a notifier that has nothing to wait for
      *invalidateRangeStart(_agent: Agent, range: NotifierRange): Task<void> {
        checker.invalidationStarts(range);
      },
      invalidateRangeEnd(_agent: Agent, range: NotifierRange): void {
        checker.invalidationEnds(range);
      },
    };
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

type WorkloadSeat = Parameters<SimulatedDevice['workloads'][number]>[0];
