import { HostMemory, type HostMemoryOptions } from '@faultline/host-mm';
import { Agent, Cost, type CostProfile, type Task, TaskRun, VirtualTime } from '@faultline/sim';
import { TableMemory } from '@faultline/vtd-pagetable';
import { RemappingUnit, VtdDomain, type VtdDomainOptions, VtdDriver } from '@faultline/vtd-remapping';
import {
  DEFAULT_FAULT_POLICY,
  type FaultPolicy,
  type HwptObserver,
  type HwptPaging,
  Ioas,
  STRATEGIES,
  type Strategy,
} from '../src/index.ts';

/** 10 ns for whatever costs something, so that tasks interleave. */
export const PROFILE = Object.fromEntries(
  Object.keys(Cost).map((name) => [name, { ns: name === 'free' ? 0 : name === 'nanosecond' ? 1 : 10, source: 'test' }]),
) as unknown as CostProfile;

/** First page of the memory in the owner's address space: 1G-aligned. */
export const USER = 0x40000;
const FIRST_PFN = 0x40000;

/** Options of a {@link HostSetup}. */
export interface HostSetupOptions {
  readonly pages?: number;
  readonly backing?: '4K' | 'thp-2M' | 'pud-thp';
  readonly strategy?: Strategy | null;
  readonly populate?: boolean;
  readonly frames?: number;
  readonly host?: Partial<HostMemoryOptions>;
  readonly tablePages?: number;
  readonly domain?: Partial<VtdDomainOptions>;
  /** Requests that the page request queue holds, for overflows. */
  readonly pageRequestLimit?: number;
}

/** How a map differs from the ordinary. */
export interface MapFlags {
  readonly unpinned?: boolean;
  readonly writeable?: boolean;
  readonly user?: number;
  readonly policy?: Partial<FaultPolicy>;
}

/** The real host mm, a real domain, and an IOAS between them, in virtual time. */
export class HostSetup {
  readonly time = new VirtualTime(PROFILE);
  readonly host: HostMemory;
  readonly mm;
  readonly tables: TableMemory;
  readonly unit: RemappingUnit;
  readonly domain: VtdDomain;
  readonly ioas: Ioas;
  readonly pages: number;

  constructor(options: HostSetupOptions = {}) {
    const { pages = 1024, backing = 'thp-2M', strategy = STRATEGIES.cut } = options;
    this.pages = pages;
    const frames = options.frames ?? pages + 64;
    this.host = new HostMemory({ frames, firstPfn: FIRST_PFN, swapSlots: 256, splitNotify: 'none', ...options.host });
    this.mm = this.host.createAddressSpace('vmm');
    this.mm.mmap({ startPage: USER, pages, backing });
    this.tables = new TableMemory({ pages: options.tablePages ?? 64 });
    const { pageRequestLimit } = options;
    this.unit = new RemappingUnit({ memory: this.tables, ...(pageRequestLimit ? { pageRequestLimit } : {}) });
    const driver = new VtdDriver({ unit: this.unit, pageRequestEntries: 128 });
    this.domain = new VtdDomain({ driver, domainId: 1, physical: this.host.memory, ...options.domain });
    const hardware = new Agent('hardware');
    this.time.spawn(hardware, this.unit.run(hardware), { daemon: true });
    if (options.populate ?? true) this.run((agent) => this.mm.populate(agent, USER, pages));
    this.ioas = new Ioas({ mm: this.mm, strategy });
  }

  /** Maps `pages` of the memory at IOVA page `page`. */
  mapTask(agent: Agent, page: number, pages: number, flags: MapFlags = {}) {
    return this.ioas.map(agent, {
      iova: BigInt(page) * 4096n,
      userVa: BigInt(flags.user ?? USER + page) * 4096n,
      length: BigInt(pages) * 4096n,
      writeable: flags.writeable ?? true,
      unpinned: flags.unpinned ?? true,
      ...(flags.policy ? { policy: { ...DEFAULT_FAULT_POLICY, ...flags.policy } } : {}),
    });
  }

  map(page: number, pages: number, flags: MapFlags = {}) {
    return this.run((agent) => this.mapTask(agent, page, pages, flags));
  }

  unmap(page: number, pages: number): bigint {
    return this.run((agent) => this.ioas.unmap(agent, BigInt(page) * 4096n, BigInt(pages) * 4096n));
  }

  addDomain(observer: HwptObserver = {}): HwptPaging {
    return this.run((agent) => this.ioas.addDomain(agent, this.domain, observer));
  }

  /** Another domain of the same unit. */
  secondDomain(): VtdDomain {
    return new VtdDomain({ driver: this.domain.driver, domainId: 2, physical: this.host.memory });
  }

  fault(page: number, write = true): number {
    const { hwpt } = this.ioas;
    if (hwpt === null) throw new Error('no domain');
    return this.run((agent) => hwpt.handleFault(agent, page, write));
  }

  pageOut(page: number): boolean {
    return this.run((agent) => this.mm.pageOut(agent, USER + page));
  }

  run<T>(task: (agent: Agent) => Task<T>): T {
    const run = this.spawn('task', task);
    this.time.run();
    return run.value as T;
  }

  spawn<T>(name: string, task: (agent: Agent) => Task<T>, daemon = false): TaskRun<T> {
    const agent = new Agent(name);
    return this.time.spawn(agent, task(agent), { daemon });
  }

  /**
   * Runs a task for some steps, then a second one beside it until both are over, with a check after each turn.
   * @returns null if the first was over before that
   */
  beside<T, U>(
    first: (agent: Agent) => Task<T>,
    steps: number,
    second: (agent: Agent) => Task<U>,
    check: () => void = () => undefined,
  ): { first: TaskRun<T>; second: TaskRun<U> } | null {
    const agent = new Agent('first');
    const run = new TaskRun(agent, first(agent));
    for (let n = 0; n < steps && !run.done; n++) {
      if (!run.enabled) this.time.run();
      run.advance();
    }
    if (run.done) return null;
    const other = this.spawn('second', second, true);
    for (let turns = 0; turns < 5000 && !(run.done && other.done); turns++) {
      this.time.run();
      check();
      if (run.enabled && !run.done) run.advance();
    }
    this.time.run();
    check();
    return { first: run, second: other };
  }

  /** Pages that the domain maps to a frame that is not the host's for them: what must never be (I1). */
  stale(): number[] {
    const found: number[] = [];
    for (const leaf of this.domain.table.allLeaves())
      for (let i = 0; i < 512 ** (leaf.level - 1); i++) {
        const area = this.ioas.areas.find(leaf.page + i);
        const user = area ? area.userPage + (leaf.page + i - area.page) : -1;
        if (user < 0 || this.mm.lookup(user) !== leaf.frame + i) found.push(leaf.page + i);
      }
    return found;
  }
}
