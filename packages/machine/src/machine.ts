import { hex, parseDurationNs } from '@faultline/address';
import { type HostMemory, HostMemoryError } from '@faultline/host-mm';
import { IommufdError, IopfQueue, type TakeAwayOutcome } from '@faultline/iommufd-core';
import { Agent, assert, type EventSink, NULL_SINK, type Task, type TaskRun, VirtualTime } from '@faultline/sim';
import { TableMemory } from '@faultline/vtd-pagetable';
import { RemappingUnit, VtdDriver } from '@faultline/vtd-remapping';
import type { SimulatedDevice } from './device-set.ts';
import { buildHost, FIRST_HOST_PFN } from './host-builder.ts';
import { HostCrash, UnsplitUnmapLog } from './host-crash.ts';
import { HostEvents } from './host-events.ts';
import { HostPressure } from './host-pressure.ts';
import { InjectedFailures } from './injected-failures.ts';
import { InvariantLedger } from './invariants.ts';
import { type Scenario, vmsOf } from './scenario.ts';
import { checkScenario } from './scenario-check.ts';
import type { RefusalStats, StatsDocument } from './stats.ts';
import { buildStats } from './stats-builder.ts';
import { TIMING_PROFILES } from './timing-profile.ts';
import { VirtualMachine } from './virtual-machine.ts';
import { type BootSnapshot, snapshotAfterBoot } from './vm-stats.ts';

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

/** Below the host's frames lie page-table pages and the unit's queues, from 16 MiB. */
const TABLE_BASE_PFN = 0x1000;
/** The smallest page request queue: PQS = 0. */
const LEAST_PAGE_REQUEST_ENTRIES = 128;
const TABLE_PAGES = FIRST_HOST_PFN - TABLE_BASE_PFN;

/**
 * A host with its VMs, built from a scenario: data in, data out. Run it in slices, so that a caller can show progress or stop.
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
  readonly #failures: InjectedFailures;
  readonly #iopf: IopfQueue;
  readonly #vms: readonly VirtualMachine[];
  readonly #pressure: HostPressure;
  readonly #events: HostEvents;
  readonly #unsplit = new UnsplitUnmapLog();
  readonly #tablesAtStart: number;
  /** How each VM was at the end of its boot. */
  #boot: readonly BootSnapshot[] | null = null;
  #refusal: RefusalStats | null = null;
  #bootTask: TaskRun<void> | null = null;
  #endNs = 0;
  #stopping = false;
  #over = false;
  #crash: { error: HostCrash; atNs: number } | null = null;

  /** @throws RangeError for a scenario that cannot be built, naming the field */
  constructor(scenario: Scenario, options: MachineOptions) {
    checkScenario(scenario);
    this.scenario = scenario;
    this.seed = options.seed;
    this.#sink = options.sink ?? NULL_SINK;
    this.#failures = new InjectedFailures(scenario.inject, options.seed);
    this.#time = new VirtualTime(TIMING_PROFILES[scenario.host.profile], this.#failures.ofTables);
    this.#ledger = new InvariantLedger(() => this.#time.nowNs);
    this.#host = buildHost(scenario, this.#failures.ofFrames);
    this.#tables = new TableMemory({ basePfn: TABLE_BASE_PFN, pages: TABLE_PAGES });
    const { iotlb: geometry, pageRequestEntries } = scenario.iommu;
    const iotlb = geometry ? { geometry } : {};
    // PQS counts pages of 128 requests; less is a limit of the model, for tests of overflow.
    this.#unit = new RemappingUnit({ memory: this.#tables, iotlb, pageRequestLimit: pageRequestEntries });
    const queueEntries = Math.max(LEAST_PAGE_REQUEST_ENTRIES, pageRequestEntries);
    this.#driver = new VtdDriver({ unit: this.#unit, pageRequestEntries: queueEntries });
    this.#tablesAtStart = this.#tables.used;
    const common = {
      scenario,
      seed: options.seed,
      host: this.#host,
      time: this.#time,
      sink: this.#sink,
      stopped: () => this.#stopped(),
      remainingNs: () => this.#remainingNs(),
    };
    this.#vms = vmsOf(scenario).map(
      (settings, index) =>
        new VirtualMachine({
          ...common,
          settings,
          index,
          driver: this.#driver,
          ledger: this.#ledger,
          unansweredBy: () => this.#failures.unansweredBy(),
          onTakenAway: (page, _pages, outcome) => this.#takenAway(page, outcome),
          faultQueue: () => this.#iopf,
        }),
    );
    this.#pressure = new HostPressure({ ...common, vms: this.#vms });
    this.#events = new HostEvents({ ...common, events: scenario.events, vms: this.#vms });
    this.#iopf = this.#buildFaultPath();
    this.#startDaemons();
  }

  /** How far the run is. */
  get progress(): MachineProgress {
    return {
      virtualTimeNs: this.#time.nowNs,
      endNs: this.#endNs,
      dmaPages: this.#devices().reduce((sum, device) => sum + device.endpoint.counters.completed, 0),
      swapOut: this.#host.counters.reclaimedPages,
      phase: this.#boot === null ? 'booting' : this.#over ? 'over' : 'running',
    };
  }

  #devices(): readonly SimulatedDevice[] {
    return this.#vms.flatMap((vm) => vm.devices);
  }

  /** Boots host and VMs up to the point where workloads and reclaim start; {@link runUntil} does it too, in slices. */
  boot(): void {
    this.#bootUntil(Number.POSITIVE_INFINITY);
  }

  /**
   * Boots, then runs, up to a point in virtual time.
   * @returns true when the run is over: the duration has passed, or the host is dead
   */
  runUntil(virtualNs: number): boolean {
    if (!this.#bootUntil(virtualNs) || this.#over) return this.#over;
    try {
      // Workloads end at the duration; what they have begun is brought to its end.
      this.#over = this.#time.run(virtualNs);
    } catch (error) {
      this.#noteEnd(error);
    }
    return this.#over;
  }

  #bootUntil(virtualNs: number): boolean {
    if (this.#boot !== null || this.#over) return this.#boot !== null;
    const agent = new Agent('boot');
    this.#bootTask ??= this.#time.spawn(agent, this.#bootAll(agent));
    try {
      this.#time.run(virtualNs);
    } catch (error) {
      // The boot of a second VM may take memory away from the first.
      this.#noteEnd(error);
    }
    if (!this.#bootTask.done || this.#over) return false;
    this.#boot = this.#vms.map((vm) => snapshotAfterBoot(vm, this.#time.nowNs));
    this.#endNs = this.#time.nowNs + parseDurationNs(this.scenario.duration);
    if (this.#refusal !== null) {
      this.#over = true;
      return true;
    }
    this.#failures.start(this.#host);
    for (const vm of this.#vms) vm.start();
    this.#pressure.start();
    this.#events.start();
    return true;
  }

  /** One VM after the other; a device that iommufd does not let in ends it, and so does memory that the host does not have. */
  *#bootAll(agent: Agent): Task<void> {
    for (const vm of this.#vms) {
      try {
        yield* vm.boot(agent);
        this.#refusal = yield* this.#attachDevices(agent, vm);
      } catch (error) {
        if (!(error instanceof HostMemoryError) || error.code !== 'ENOMEM') throw error;
        this.#refusal = { vm: vm.name, device: null, code: error.code, reason: error.message };
      }
      if (this.#refusal !== null) return;
    }
  }

  *#attachDevices(agent: Agent, vm: VirtualMachine): Task<RefusalStats | null> {
    for (const device of vm.devices)
      try {
        yield* vm.iommu.attach(agent, device);
      } catch (error) {
        if (!(error instanceof IommufdError)) throw error;
        return { vm: vm.name, device: device.name, code: error.code, reason: error.message };
      }
    vm.booted();
    return null;
  }

  /** Brings the run to its end, takes everything apart and says what happened. Call it once. */
  finish(options: { readonly interrupted?: boolean } = {}): StatsDocument {
    const booted = this.#boot !== null;
    const interrupted = (options.interrupted ?? false) && !this.#over;
    this.#stopping = true;
    if (booted) this.runUntil(Number.POSITIVE_INFINITY);
    this.#failures.stop();
    const nowNs = this.#time.nowNs; // rates are of the run, not of the harvest after it
    if (booted && this.#crash === null && this.#refusal === null) this.#harvestDirty();
    const stats = buildStats({
      scenario: this.scenario,
      seed: this.seed,
      boot: this.#boot ?? this.#vms.map((vm) => snapshotAfterBoot(vm, nowNs)),
      nowNs,
      interrupted,
      vms: this.#vms,
      events: this.#events.stats,
      refusal: this.#refusal,
      injected: this.#failures.counts,
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
    else if (this.#refusal) stats.verdict = 'refused';
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
      handlerOf: (sourceId) => {
        const hwpt = this.#vms.find(({ iommu }) => iommu.owns(sourceId))?.iommu.hwptOf(sourceId);
        return hwpt ? { kind: 'kernel', hwpt } : null;
      },
    });
  }

  #startDaemons(): void {
    this.#pressure.startDaemons();
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
    for (const vm of this.#vms) {
      const page = vm.guestPageOfFrame(pfn);
      if (page >= 0) return `${vm.name}, guest page ${hex(BigInt(page) * 4096n)}`;
    }
    return this.#host.memory.contains(pfn) ? 'the host’s free memory' : 'nobody: no memory there';
  }

  /** Every page that DMA wrote is reported dirty, now or before (I6). */
  #harvestDirty(): void {
    const agent = new Agent('dirty harvest');
    for (const vm of this.#vms) this.#time.spawn(agent, vm.iommu.harvestDirty(agent, false));
    this.#runLast();
    for (const vm of this.#vms) vm.checkDirty();
  }

  #runLast(): void {
    try {
      this.#time.run();
    } catch (error) {
      this.#noteEnd(error);
    }
  }

  /** Last checks (I2, I9, I12) and the end of everything. */
  #teardown(): void {
    const check = (id: 'I9' | 'I12' | 'I13', holds: boolean, what: string) => this.#ledger.check(id, holds, () => what);
    for (const vm of this.#vms) vm.checker.checkAllContents();
    for (const { endpoint } of this.#devices()) {
      const { responses, pageRequests, unexpectedResponses, abandonedGroups } = endpoint.counters;
      const answers = responses.success + responses.invalid + responses.failure + abandonedGroups;
      check('I9', unexpectedResponses === 0, `${endpoint.name}: ${unexpectedResponses} answers to no group`);
      check('I9', answers === pageRequests, `${endpoint.name}: ${pageRequests} groups, ${answers} answers`);
    }
    for (const vm of this.#vms) vm.checkProgress();
    check('I9', this.#iopf.outstanding === 0, `${this.#iopf.outstanding} page groups without an answer`);
    for (const vm of this.#vms) {
      const agent = new Agent(`${vm.name} teardown`);
      this.#time.spawn(agent, vm.teardown(agent));
    }
    this.#runLast();
    check('I12', this.#unit.inFlight.count === 0, `${this.#unit.inFlight.count} DMAs in flight`);
    for (const { mm } of this.#vms) check('I12', mm.pinnedBytes === 0, `${mm.name}: ${mm.pinnedBytes} bytes pinned`);
    for (const size of ['2M', '1G'] as const) this.#host.setHugePages(size, 0);
    const broken = this.#vms.reduce((sum, vm) => sum + vm.brokenFrames.size, 0);
    const frames = this.#host.allocator.allocatedFrames - broken;
    check('I12', frames === 0, `${frames} frames not freed`);
    // The context table of a bus stays with the unit once a device was attached.
    const contextTables = this.#vms.filter(({ iommu }) => iommu.wasAttached).length;
    const tables = this.#tables.used - this.#tablesAtStart - contextTables;
    check('I12', tables === 0, `${tables} table pages not freed`);
  }
}
