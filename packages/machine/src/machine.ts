import { hex, parseDurationNs, parseSize } from '@faultline/address';
import { HostMemory } from '@faultline/host-mm';
import { IopfQueue, type TakeAwayOutcome } from '@faultline/iommufd-core';
import {
  Agent,
  assert,
  Cost,
  type EventSink,
  NULL_SINK,
  RandomStream,
  type Task,
  type TaskRun,
  VirtualTime,
} from '@faultline/sim';
import { GuestLayout } from '@faultline/vm-guest';
import { TableMemory } from '@faultline/vtd-pagetable';
import { RemappingUnit, VtdDriver } from '@faultline/vtd-remapping';
import { HostCrash, UnsplitUnmapLog } from './host-crash.ts';
import { InvariantLedger } from './invariants.ts';
import type { Scenario } from './scenario.ts';
import type { StatsDocument } from './stats.ts';
import { type BootSnapshot, buildStats, snapshotAfterBoot } from './stats-builder.ts';
import { REFERENCE_PROFILE } from './timing-profile.ts';
import { VirtualMachine } from './virtual-machine.ts';

/** Options of a {@link Machine}. */
export interface MachineOptions {
  /** Any integer; the same seed gives the same bytes. */
  readonly seed: number;
  /** Receives the events of the run. */
  readonly sink?: EventSink;
}

/** How far a run is. */
export interface MachineProgress {
  readonly virtualTimeNs: number;
  readonly endNs: number;
  readonly dmaPages: number;
  readonly swapOut: number;
  readonly phase: 'booting' | 'running' | 'over';
}

/** Host frames begin at 1 GiB; below lie page-table pages and the unit's queues, from 16 MiB. */
const FIRST_HOST_PFN = 0x4_0000;
const TABLE_BASE_PFN = 0x1000;
/** The smallest page request queue: PQS = 0. */
const LEAST_PAGE_REQUEST_ENTRIES = 128;
const TABLE_PAGES = FIRST_HOST_PFN - TABLE_BASE_PFN;
/** Frame numbers and swap slots are below 2^31. */
const MOST_BYTES = 4n << 40n;
/** With less, no page may be left beside the guest's own tables. */
const LEAST_VM_BYTES = 64n << 10n;

/**
 * A host with a VM, built from a scenario: data in, data out. Run it in slices, so that a caller can show progress or stop.
 *
 * @example
 * ```ts
 * const machine = new Machine(scenarioSchema.parse({ vm: { memory: '2G' } }), { seed: 1 })
 * machine.boot()
 * machine.runUntil(Number.POSITIVE_INFINITY)
 * console.log(machine.finish().verdict)
 * ```
 */
export class Machine {
  readonly scenario: Scenario;
  readonly seed: number;
  readonly #sink: EventSink;
  readonly #time: VirtualTime;
  readonly #host: HostMemory;
  readonly #tables: TableMemory;
  readonly #unit: RemappingUnit;
  readonly #driver: VtdDriver;
  readonly #ledger: InvariantLedger;
  readonly #iopf: IopfQueue;
  readonly #vm: VirtualMachine;
  readonly #unsplit = new UnsplitUnmapLog();
  readonly #tablesAtStart: number;
  #boot: BootSnapshot | null = null;
  #bootTask: TaskRun<void> | null = null;
  #endNs = 0;
  #reclaimed = 0;
  #stopping = false;
  #over = false;
  #crash: { error: HostCrash; atNs: number } | null = null;

  /** @throws RangeError for a scenario that cannot be built, naming the field */
  constructor(scenario: Scenario, options: MachineOptions) {
    checkScenario(scenario);
    this.scenario = scenario;
    this.seed = options.seed;
    this.#sink = options.sink ?? NULL_SINK;
    this.#time = new VirtualTime(REFERENCE_PROFILE);
    this.#ledger = new InvariantLedger(() => this.#time.nowNs);
    this.#host = new HostMemory({
      frames: Number(parseSize(scenario.host.memory) / 4096n),
      firstPfn: FIRST_HOST_PFN,
      swapSlots: Number(parseSize(scenario.host.swap) / 4096n),
      random: new RandomStream(options.seed, 'reclaim'),
      splitNotify: scenario.host.splitNotify,
    });
    this.#tables = new TableMemory({ basePfn: TABLE_BASE_PFN, pages: TABLE_PAGES });
    const { iotlb: geometry, pageRequestEntries } = scenario.iommu;
    const iotlb = geometry ? { geometry } : {};
    // PQS counts pages of 128 requests; less is a limit of the model, for tests of overflow.
    this.#unit = new RemappingUnit({ memory: this.#tables, iotlb, pageRequestLimit: pageRequestEntries });
    const queueEntries = Math.max(LEAST_PAGE_REQUEST_ENTRIES, pageRequestEntries);
    this.#driver = new VtdDriver({ unit: this.#unit, pageRequestEntries: queueEntries });
    this.#tablesAtStart = this.#tables.used;
    this.#vm = new VirtualMachine({
      scenario,
      seed: options.seed,
      host: this.#host,
      driver: this.#driver,
      time: this.#time,
      ledger: this.#ledger,
      sink: this.#sink,
      stopped: () => this.#stopped(),
      remainingNs: () => this.#remainingNs(),
      onTakenAway: (page, _pages, outcome) => this.#takenAway(page, outcome),
    });
    this.#iopf = this.#buildFaultPath();
    this.#startDaemons();
  }

  /** How far the run is. */
  get progress(): MachineProgress {
    return {
      virtualTimeNs: this.#time.nowNs,
      endNs: this.#endNs,
      dmaPages: this.#vm.devices.reduce((sum, device) => sum + device.endpoint.counters.completed, 0),
      swapOut: this.#host.counters.swapOut,
      phase: this.#boot === null ? 'booting' : this.#over ? 'over' : 'running',
    };
  }

  /** Boots host and VM up to the point where workloads and reclaim start; {@link runUntil} does it too, in slices. */
  boot(): void {
    this.#bootUntil(Number.POSITIVE_INFINITY);
  }

  /**
   * Boots, then runs, up to a point in virtual time.
   * @returns true when the run is over: the duration has passed, or the host is dead
   */
  runUntil(virtualNs: number): boolean {
    if (!this.#bootUntil(virtualNs)) return false;
    if (this.#over) return true;
    try {
      // Workloads end at the duration; what they have begun is brought to its end.
      this.#over = this.#time.run(virtualNs);
    } catch (error) {
      this.#noteEnd(error);
    }
    return this.#over;
  }

  #bootUntil(virtualNs: number): boolean {
    if (this.#boot !== null) return true;
    const agent = new Agent('boot');
    this.#bootTask ??= this.#time.spawn(agent, this.#vm.boot(agent));
    this.#time.run(virtualNs);
    if (!this.#bootTask.done) return false;
    this.#boot = snapshotAfterBoot(this.#vm, this.#time.nowNs);
    this.#endNs = this.#time.nowNs + parseDurationNs(this.scenario.duration);
    this.#vm.start();
    this.#startReclaim();
    this.#startEvents();
    return true;
  }

  /** Brings the run to its end, takes everything apart and says what happened. Call it once. */
  finish(options: { readonly interrupted?: boolean } = {}): StatsDocument {
    const booted = this.#boot !== null;
    const interrupted = (options.interrupted ?? false) && !this.#over;
    this.#stopping = true;
    if (booted) this.runUntil(Number.POSITIVE_INFINITY);
    const stats = buildStats({
      scenario: this.scenario,
      seed: this.seed,
      boot: this.#boot ?? snapshotAfterBoot(this.#vm, this.#time.nowNs),
      nowNs: this.#time.nowNs,
      interrupted,
      vm: this.#vm,
      host: this.#host,
      unit: this.#unit,
      tables: this.#tables,
      iopf: this.#iopf,
    });
    if (booted && this.#crash === null) this.#teardown();
    stats.invariants = this.#ledger.summary();
    if (this.#crash) {
      const { error, atNs } = this.#crash;
      stats.verdict = 'host-crashed';
      stats.crash = {
        reason: error.message,
        faultReason: null,
        iova: hex(BigInt(error.page) * 4096n),
        atNs,
        ...this.#unsplit.account((pfn) => this.#ownerOf(pfn)),
      };
    } else if (this.#ledger.violated) stats.verdict = 'invariant-violated';
    return stats;
  }

  /** Virtual time until workloads begin nothing more. */
  #remainingNs(): number {
    return Math.max(0, this.#endNs - this.#time.nowNs);
  }

  #stopped(): boolean {
    return this.#stopping || this.#time.nowNs >= this.#endNs;
  }

  #noteEnd(error: unknown): void {
    this.#over = true;
    if (error instanceof HostCrash) this.#crash = { error, atNs: this.#time.nowNs };
    else if (error instanceof Error && error.message.startsWith('deadlock'))
      this.#ledger.check('I13', false, () => error.message);
    else throw error;
  }

  #buildFaultPath(): IopfQueue {
    const { pageRequests } = this.#driver;
    assert(pageRequests !== null, 'a unit in scalable mode has page requests');
    return new IopfQueue({
      source: pageRequests,
      hwptOf: (sourceId) =>
        this.#vm.devices.some((device) => device.endpoint.sourceId === sourceId)
          ? (this.#vm.ioas.hwpt ?? undefined)
          : undefined,
    });
  }

  #startDaemons(): void {
    const daemon = { daemon: true };
    const hardware = new Agent('invalidation queue');
    this.#time.spawn(hardware, this.#unit.run(hardware), daemon);
    const interrupt = new Agent('page request interrupt');
    this.#time.spawn(interrupt, this.#iopf.interruptThread(interrupt), daemon);
    for (let i = 0; i < this.scenario.iommu.faultWorkers; i++) {
      const worker = new Agent(`iopf worker ${i}`);
      this.#time.spawn(worker, this.#iopf.worker(worker), daemon);
    }
  }

  #startReclaim(): void {
    const { reclaim } = this.scenario;
    if (!reclaim) return;
    for (let i = 0; i < reclaim.reclaimers; i++) {
      const agent = new Agent(`reclaim ${i}`);
      this.#time.spawn(agent, this.#reclaim(agent, reclaim));
    }
  }

  *#reclaim(agent: Agent, settings: NonNullable<Scenario['reclaim']>): Task<void> {
    const intervalNs = parseDurationNs(settings.interval);
    while (!this.#stopped() && this.#reclaimed < settings.pages) {
      yield agent.spends('reclaim interval', Cost.nanosecond, Math.min(intervalNs, this.#remainingNs()));
      const startNs = this.#time.nowNs;
      // Asked for is counted as taken, so that several reclaimers together take no more than they should.
      const asked = Math.min(settings.batch, settings.pages - this.#reclaimed);
      if (this.#stopped() || asked <= 0) continue;
      this.#reclaimed += asked;
      const pages = yield* this.#host.reclaim(agent, asked);
      this.#reclaimed -= asked - pages;
      if (this.#sink.enabled)
        this.#sink.record({
          atNs: startNs,
          durationNs: this.#time.nowNs - startNs,
          track: agent.name,
          name: 'reclaim',
          args: { pages },
        });
    }
  }

  #startEvents(): void {
    for (const [index, event] of this.scenario.events.entries()) {
      const agent = new Agent(`host event ${index}`);
      this.#time.spawn(agent, this.#hostEvent(agent, event));
    }
  }

  *#hostEvent(agent: Agent, event: Scenario['events'][number]): Task<void> {
    yield agent.spends('until the event', Cost.nanosecond, parseDurationNs(event.at));
    if (this.#stopping) return;
    const page = Number(parseSize(event.gpa) / 4096n);
    const pages = Number(parseSize(event.length) / 4096n);
    yield* this.#vm.discard(agent, page, pages);
  }

  #takenAway(page: number, outcome: TakeAwayOutcome): void {
    if (outcome.unsplit === null) return;
    const [first] = outcome.unsplit.mistaken;
    this.#ledger.check(
      'I3',
      first === undefined,
      () =>
        `the unmap of iova ${hex(BigInt(page) * 4096n)} took frame ${hex(first?.pfn ?? 0)}, guest memory, for a table`,
    );
    const reason = this.#unsplit.add(outcome.unsplit, (pfn) => this.#tables.isAllocated(pfn));
    if (reason !== null) throw new HostCrash(page, reason);
  }

  #ownerOf(pfn: number): string {
    if (this.#tables.contains(pfn)) return this.#tables.isAllocated(pfn) ? 'an I/O page table' : 'the table region';
    const page = this.#vm.guestPageOfFrame(pfn);
    if (page >= 0) return `${this.#vm.name}, guest page ${hex(BigInt(page) * 4096n)}`;
    return this.#host.memory.contains(pfn) ? 'the host’s free memory' : 'nobody: no memory there';
  }

  /** Last checks (I2, I9, I12) and the end of everything. */
  #teardown(): void {
    const ledger = this.#ledger;
    const check = (id: 'I9' | 'I12' | 'I13', holds: boolean, what: string) => ledger.check(id, holds, () => what);
    this.#vm.checker.checkAllContents();
    for (const { endpoint } of this.#vm.devices) {
      const { responses, pageRequests, unexpectedResponses } = endpoint.counters;
      const answers = responses.success + responses.invalid + responses.failure;
      check('I9', unexpectedResponses === 0, `${endpoint.name}: ${unexpectedResponses} answers to no group`);
      check('I9', answers === pageRequests, `${endpoint.name}: ${pageRequests} groups, ${answers} answers`);
      check('I13', !endpoint.dead, `${endpoint.name}: dead after a fault on a path that cannot fault`);
    }
    check('I9', this.#iopf.outstanding === 0, `${this.#iopf.outstanding} page groups without an answer`);
    const agent = new Agent('teardown');
    this.#time.spawn(agent, this.#vm.teardown(agent));
    try {
      this.#time.run();
    } catch (error) {
      this.#noteEnd(error);
    }
    check('I12', this.#unit.inFlight.count === 0, `${this.#unit.inFlight.count} DMAs in flight`);
    check('I12', this.#vm.mm.pinnedBytes === 0, `${this.#vm.mm.pinnedBytes} bytes pinned`);
    const frames = this.#host.allocator.allocatedFrames;
    check('I12', frames === 0, `${frames} frames not freed`);
    // The context table of bus 0 stays with the unit once a device was attached.
    const contextTables = this.#vm.devices.length > 0 ? 1 : 0;
    const tables = this.#tables.used - this.#tablesAtStart - contextTables;
    check('I12', tables === 0, `${tables} table pages not freed`);
  }
}

/** What the schema cannot say, because it takes several fields. @throws RangeError naming the field */
function checkScenario(scenario: Scenario): void {
  const refuse = (field: string, what: string): never => {
    throw new RangeError(`${field}: ${what}`);
  };
  const vm = parseSize(scenario.vm.memory);
  const host = parseSize(scenario.host.memory);
  const granule = { '1G': 1n << 30n, '2M': 1n << 21n, '4K': 4096n }[scenario.vm.backing];
  if (parseDurationNs(scenario.duration) < 1) refuse('duration', `expected at least 1ns, got ${scenario.duration}`);
  if (host > MOST_BYTES) refuse('host.memory', `expected at most 4T, got ${scenario.host.memory}`);
  if (parseSize(scenario.host.swap) > MOST_BYTES) refuse('host.swap', `expected at most 4T, got ${scenario.host.swap}`);
  if (vm < LEAST_VM_BYTES) refuse('vm.memory', `expected at least 64K, got ${scenario.vm.memory}`);
  if (vm % granule !== 0n)
    refuse('vm.memory', `${scenario.vm.memory} is not a multiple of its backing, ${scenario.vm.backing}`);
  if (vm > host) refuse('vm.memory', `${scenario.vm.memory} is more than host.memory, ${scenario.host.memory}`);
  checkDevices(scenario, vm, refuse);
  const { iotlb, pageRequestEntries } = scenario.iommu;
  if (!isPowerOfTwo(pageRequestEntries))
    refuse('iommu.pageRequestEntries', `expected a power of two, got ${pageRequestEntries}`);
  for (const [page, { sets }] of Object.entries(iotlb ?? {}))
    if (!isPowerOfTwo(sets)) refuse(`iommu.iotlb.${page}.sets`, `expected a power of two, got ${sets}`);
  for (const [index, event] of scenario.events.entries()) {
    const aligned = parseSize(event.gpa) % 4096n === 0n && parseSize(event.length) % 4096n === 0n;
    if (!aligned || parseSize(event.length) === 0n)
      throw new RangeError(`events[${index}]: gpa and length must be multiples of 4K, length not zero`);
    if (parseDurationNs(event.at) > parseDurationNs(scenario.duration))
      throw new RangeError(`events[${index}].at: ${event.at} is after the end, duration ${scenario.duration}`);
    const layout = new GuestLayout(vm);
    const first = layout.backingOf(Number(parseSize(event.gpa) / 4096n));
    const last = layout.backingOf(Number((parseSize(event.gpa) + parseSize(event.length)) / 4096n) - 1);
    if (first < 0 || last < 0 || last - first !== Number(parseSize(event.length) / 4096n) - 1)
      throw new RangeError(`events[${index}]: gpa ${event.gpa} + ${event.length} is not within the guest's memory`);
  }
}

/** Requests and buffers are whole pages, and no request is longer than the memory that it goes over. */
function checkDevices(scenario: Scenario, vm: bigint, refuse: (field: string, what: string) => never): void {
  const { accelerator, disk } = scenario.vm.devices;
  const checkSizes = (device: string, key: string, request: string, memory: string): void => {
    for (const [name, text] of [
      ['request', request],
      [key, memory],
    ] as const)
      if (parseSize(text) === 0n || parseSize(text) % 4096n !== 0n)
        refuse(`vm.devices.${device}.${name}`, `expected a multiple of 4K above zero, got ${text}`);
    if (parseSize(request) > parseSize(memory) || parseSize(request) > vm)
      refuse(`vm.devices.${device}.request`, `${request} is more than ${key}, ${memory}, or than vm.memory`);
  };
  if (accelerator) checkSizes('accelerator', 'workingSet', accelerator.request, accelerator.workingSet);
  if (disk) checkSizes('disk', 'buffers', disk.request, disk.buffers);
}

const isPowerOfTwo = (value: number): boolean => value > 0 && Number.isInteger(Math.log2(value));
