import { HostMemory, type HostMemoryOptions } from '@faultline/host-mm';
import { Agent, Cost, type CostProfile, type Task, type TaskRun, VirtualTime } from '@faultline/sim';
import { TableMemory } from '@faultline/vtd-pagetable';
import { RemappingUnit, VtdDomain, type VtdDomainOptions, VtdDriver } from '@faultline/vtd-remapping';
import { type HwptObserver, type HwptPaging, Ioas, STRATEGIES, type Strategy } from '../src/index.ts';

/** 10 ns for whatever costs something, so that tasks interleave. */
const PROFILE = Object.fromEntries(
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
    this.unit = new RemappingUnit({ memory: this.tables });
    const driver = new VtdDriver({ unit: this.unit, pageRequestEntries: 128 });
    this.domain = new VtdDomain({ driver, domainId: 1, physical: this.host.memory, ...options.domain });
    const hardware = new Agent('hardware');
    this.time.spawn(hardware, this.unit.run(hardware), { daemon: true });
    if (options.populate ?? true) this.run((agent) => this.mm.populate(agent, USER, pages));
    this.ioas = new Ioas({ mm: this.mm, strategy });
  }

  /** Maps `pages` of the memory at IOVA page `page`. */
  mapTask(
    agent: Agent,
    page: number,
    pages: number,
    flags: { unpinned?: boolean; writeable?: boolean; user?: number } = {},
  ) {
    return this.ioas.map(agent, {
      iova: BigInt(page) * 4096n,
      userVa: BigInt(flags.user ?? USER + page) * 4096n,
      length: BigInt(pages) * 4096n,
      writeable: flags.writeable ?? true,
      unpinned: flags.unpinned ?? true,
    });
  }

  map(page: number, pages: number, flags: { unpinned?: boolean; writeable?: boolean; user?: number } = {}) {
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
