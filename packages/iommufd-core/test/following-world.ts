import { type AddressSpace, HostMemory, type HostMemoryOptions, type Memfd } from '@faultline/host-mm';
import { Endpoint } from '@faultline/pci-device';
import { Agent, type RandomStream, runToEnd, type Task, TaskRun } from '@faultline/sim';
import { isWalkError, TableMemory } from '@faultline/vtd-pagetable';
import { RemappingUnit, VtdDomain, VtdDriver } from '@faultline/vtd-remapping';
import fc from 'fast-check';
import { Ioas, IopfQueue, type Strategy } from '../src/index.ts';

/** What the host, the CPU and a device do. Pages are IOVA pages of {@link AREAS}. */
export type Op =
  | { kind: 'dmaWrite' | 'dmaRead' | 'cpuWrite' | 'cpuRead' | 'pageOut' | 'migrate' | 'numa'; page: number }
  | { kind: 'dontNeed' | 'free'; page: number; pages: number }
  | { kind: 'protect'; page: number; pages: number; to: 'none' | 'read' | 'write' }
  | { kind: 'ksm'; page: number; other: number }
  | { kind: 'fork' | 'childWrite' | 'childExit' | 'collapse' | 'khugepaged' | 'softDirty' | 'compact' | 'reclaim' }
  | { kind: 'punch' | 'failure' | 'reap' | 'munmap' | 'exit' | 'pass' | 'young' };

const USER = 0x40000;
const SOURCE_ID = 1 << 3;
const FIRST_PFN = 0x40000;

/** Two 2M blocks, some small pages, a memfd, and the first block again, read-only, at another IOVA. */
const AREAS = [
  { page: 0, pages: 1024, user: USER, writeable: true },
  { page: 1024, pages: 16, user: USER + 1024, writeable: true },
  { page: 2048, pages: 16, user: USER + 2048, writeable: true },
  { page: 4096, pages: 512, user: USER, writeable: false },
] as const;

/** A few pages of each kind, so that everybody meets on them. */
const PAGES = [3, 4, 511, 512, 700, 1023, 1024, 1030, 2048, 2050, 4099] as const;
const page = fc.constantFrom(...PAGES);
const pages = fc.constantFrom(1, 2, 5, 300, 512);
const kinds = <K extends Op['kind']>(...all: K[]) => fc.constantFrom(...all);

/** Frequent and harmless ones more often than those that end things. */
export const ops: fc.Arbitrary<Op> = fc.oneof(
  { weight: 12, arbitrary: fc.record({ kind: kinds('dmaWrite', 'dmaWrite', 'dmaRead', 'cpuWrite', 'cpuRead'), page }) },
  { weight: 6, arbitrary: fc.record({ kind: kinds('pageOut', 'migrate', 'numa'), page }) },
  { weight: 2, arbitrary: fc.record({ kind: kinds('dontNeed', 'free'), page, pages }) },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: kinds('protect'),
      page,
      pages,
      to: fc.constantFrom('none', 'read', 'write', 'write'),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: kinds('ksm'), page, other: page }) },
  { weight: 3, arbitrary: fc.record({ kind: kinds('fork', 'childWrite', 'childExit', 'softDirty', 'softDirty') }) },
  { weight: 4, arbitrary: fc.record({ kind: kinds('collapse', 'khugepaged', 'compact', 'reclaim', 'pass', 'young') }) },
  { weight: 1, arbitrary: fc.record({ kind: kinds('punch', 'failure', 'reap', 'munmap') }) },
) as fc.Arbitrary<Op>;

/** The real host, unit, device and fault path around one hwpt, all as tasks whose steps are shuffled. */
export class FollowingWorld {
  readonly host: HostMemory;
  readonly mm: AddressSpace;
  readonly tables: TableMemory;
  readonly domain: VtdDomain;
  readonly ioas: Ioas;
  readonly endpoint: Endpoint;
  /** What was seen to be wrong. */
  readonly wrong: string[] = [];
  readonly seen = {
    completed: 0,
    writeTaken: 0,
    taken: 0,
    fellBack: 0,
    eagain: 0,
    young: 0,
    merged: 0,
    migrated: 0,
    huge: 0,
  };
  readonly #memfd: Memfd;
  readonly #unit: RemappingUnit;
  readonly #unitPages: number;
  readonly #random: RandomStream;
  readonly #daemons: TaskRun[];
  readonly #hash: string;
  #child: AddressSpace | null = null;
  #gone = false;
  #tag = 0;

  constructor(options: {
    strategy: Strategy;
    random: RandomStream;
    accessedDirty: boolean;
    host?: Partial<HostMemoryOptions>;
  }) {
    const { strategy, accessedDirty } = options;
    this.#random = options.random;
    this.host = new HostMemory({
      frames: 1700,
      firstPfn: FIRST_PFN,
      swapSlots: 512,
      splitNotify: 'none',
      pageCluster: 0,
      ...options.host,
    });
    this.mm = this.host.createAddressSpace('vmm');
    this.mm.mmap({ startPage: USER, pages: 1024, backing: 'thp-2M' });
    this.mm.mmap({ startPage: USER + 1024, pages: 16, backing: '4K' });
    this.#memfd = this.host.createMemfd('guest', 16);
    this.mm.mmap({ startPage: USER + 2048, pages: 16, backing: '4K', file: { memfd: this.#memfd, offset: 0 } });
    this.tables = new TableMemory({ pages: 128 });
    this.#unit = new RemappingUnit({ memory: this.tables });
    const driver = new VtdDriver({ unit: this.#unit, pageRequestEntries: 128 });
    this.#unitPages = this.tables.used;
    this.domain = new VtdDomain({ driver, domainId: 1, physical: this.host.memory, accessedDirty });
    this.ioas = new Ioas({ mm: this.mm, strategy });
    this.#daemons = [this.#daemon('hardware', (agent) => this.#unit.run(agent))];
    const { pageRequests } = driver;
    if (pageRequests === null) throw new Error('no page requests');
    const iopf = new IopfQueue({
      source: pageRequests,
      handlerOf: () => this.ioas.hwpt && { kind: 'kernel', hwpt: this.ioas.hwpt },
    });
    this.#daemons.push(this.#daemon('interrupt', (agent) => iopf.interruptThread(agent)));
    for (const name of ['worker 1', 'worker 2']) this.#daemons.push(this.#daemon(name, (agent) => iopf.worker(agent)));
    this.run([(agent) => this.#setUp(agent)]);
    this.endpoint = this.#device();
    this.#hash = this.ioas.areas.hash();
  }

  /** Runs tasks with the daemons in a random order of their steps. */
  run(tasks: readonly ((agent: Agent) => Task<unknown>)[]): void {
    const running = tasks.map((task, nth) => {
      const agent = new Agent(`task ${nth}`);
      return new TaskRun(agent, task(agent));
    });
    for (let steps = 0; running.some((run) => !run.done); steps++) {
      if (steps > 4e5) throw new Error(`no end in sight: ${running.map((run) => run.pending?.label).join('; ')}`);
      const enabled = [...running, ...this.#daemons].filter((run) => run.enabled);
      if (enabled.length === 0)
        throw new Error(
          `deadlock: ${running.map((run) => `${run.agent.name}: ${run.pending?.waitFor?.name}`).join('; ')}`,
        );
      this.#random.pick(enabled).advance();
    }
  }

  *do(agent: Agent, op: Op): Task<void> {
    if (this.#gone) return;
    switch (op.kind) {
      case 'dmaWrite':
      case 'dmaRead':
        yield* this.#dma(agent, op.page, op.kind === 'dmaWrite');
        return;
      case 'cpuWrite':
      case 'cpuRead':
        yield* this.#cpu(agent, this.mm, op.page, op.kind === 'cpuWrite');
        return;
      case 'protect':
        yield* this.#protect(agent, op);
        return;
      case 'ksm':
        yield* this.#merge(agent, op.page, op.other);
        return;
      case 'dontNeed':
      case 'free':
        yield* this.#advise(agent, op);
        return;
      case 'pageOut':
      case 'migrate':
      case 'numa':
        yield* this.#move(agent, op.kind, op.page);
        return;
      default:
        yield* this.#whole(agent, op.kind);
    }
  }

  /** Everything that must hold while nothing is under way. */
  check(): string[] {
    const found = [...this.wrong, ...this.host.audit()];
    if (this.ioas.areas.hash() !== this.#hash) found.push('I7: the io_pagetable has changed');
    for (const leaf of this.domain.table.allLeaves())
      for (let nth = 0; nth < 512 ** (leaf.level - 1); nth++)
        this.#checkPage(leaf.page + nth, leaf.frame + nth, leaf.rights, found);
    if (this.#unit.inFlight.count !== 0) found.push('I12: a DMA is in flight');
    // The unit's, context table, PASID directory and table of the device, the tables in use, the reserve: nothing else.
    const expected = this.#unitPages + 3 + this.domain.table.tablePages + this.domain.table.reserve.held;
    if (this.tables.used !== expected)
      found.push(`I12: ${this.tables.used} table pages in use, ${expected} accounted for`);
    const { responses, pageRequests } = this.endpoint.counters;
    const answers = responses.success + responses.invalid + responses.failure;
    if (answers !== pageRequests) found.push(`I9: ${pageRequests} page requests, ${answers} answers`);
    return found;
  }

  /** Takes everything apart. @returns what is left over */
  tearDown(): string[] {
    this.run([
      function* (this: FollowingWorld, agent: Agent) {
        yield* this.domain.detach(agent, SOURCE_ID);
        yield* this.ioas.destroy(agent);
        if (this.#child) yield* this.#child.exit(agent);
        if (!this.#gone) yield* this.mm.exit(agent);
      }.bind(this),
    ]);
    this.domain.destroy();
    const found = this.host.audit();
    if (this.mm.residentBytes > 0 || this.mm.pinnedBytes > 0) found.push('I12: memory or pins are left');
    return found;
  }

  #checkPage(at: number, frame: number, rights: number, found: string[]): void {
    const area = this.ioas.areas.find(at);
    const user = area ? area.userPage + (at - area.page) : -1;
    if (user < 0 || this.mm.lookup(user) !== frame)
      found.push(`I1: page ${at} maps frame 0x${frame.toString(16)}, which is not its own`);
    else if (!this.mm.isReadable(user)) found.push(`page ${at} may be read by devices and not by its owner`);
    else if ((rights & 2) !== 0 && !this.mm.isWriteable(user))
      found.push(`page ${at} may be written by devices and not by its owner`);
  }

  *#setUp(agent: Agent): Task<void> {
    yield* this.mm.populate(agent, USER, 1024);
    for (const { page: first, pages: count, user, writeable } of AREAS)
      yield* this.ioas.map(agent, {
        iova: BigInt(first) * 4096n,
        userVa: BigInt(user) * 4096n,
        length: BigInt(count) * 4096n,
        writeable,
        unpinned: true,
      });
    yield* this.ioas.addDomain(agent, this.domain, {
      takenAway: (first, count, { fellBack }) => this.#taken(first, count, fellBack),
      writeTaken: (first, count) => this.#writeTaken(first, count),
    });
  }

  #taken(first: number, count: number, fellBack: boolean): void {
    this.seen.taken++;
    if (fellBack) this.seen.fellBack++;
    for (const at of PAGES)
      if (at >= first && at < first + count && this.domain.frameAt(at) >= 0)
        this.wrong.push(`I8: page ${at} is still mapped`);
  }

  #writeTaken(first: number, count: number): void {
    this.seen.writeTaken++;
    for (const at of PAGES)
      if (at >= first && at < first + count && ((this.domain.leafAt(at)?.rights ?? 0) & 2) !== 0)
        this.wrong.push(`I8: page ${at} can still be written`);
  }

  #device(): Endpoint {
    const stall = { whenMissing: 'stall' } as const;
    const drop = { whenMissing: 'drop' } as const;
    const small = { '4K': { sets: 1, ways: 4 }, '2M': { sets: 1, ways: 2 }, '1G': { sets: 1, ways: 2 } } as const;
    const endpoint = new Endpoint({
      name: 'device',
      sourceId: SOURCE_ID,
      unit: this.#unit,
      target: {
        access: (_endpoint, at, frame, write) => this.#accessed(at, frame, write),
        missing: (_endpoint, _agent, _path, at, reason) => {
          if (isWalkError(reason)) this.wrong.push(`I3: the walk of page ${at} met an error`);
        },
        answered: () => undefined,
      },
      faults: { descriptor: drop, read: stall, write: stall, completion: drop, msi: drop },
      deviceTlb: small,
    });
    this.domain.attach(SOURCE_ID, endpoint);
    return endpoint;
  }

  /** I1 and the host's rights, at the moment at which a DMA reaches memory. */
  #accessed(at: number, frame: number, write: boolean): void {
    this.seen.completed++;
    this.#checkPage(at, frame, write ? 3 : 1, this.wrong);
    if (write) this.host.memory.writeTag(frame, ++this.#tag, 0);
  }

  #daemon(name: string, task: (agent: Agent) => Task<unknown>): TaskRun {
    const agent = new Agent(name);
    return new TaskRun(agent, task(agent));
  }

  #user(at: number): number {
    const area = this.ioas.areas.find(at);
    return area ? area.userPage + (at - area.page) : USER;
  }

  *#dma(agent: Agent, at: number, write: boolean): Task<void> {
    const isReadOnly = at >= 4096;
    yield* this.endpoint.dmaPage(agent, write && !isReadOnly ? 'write' : 'read', at, write && !isReadOnly, 1, 1);
  }

  *#cpu(agent: Agent, mm: AddressSpace, at: number, write: boolean): Task<void> {
    yield* mm.cpuAccess(agent, this.#user(at), { write, tagLo: ++this.#tag, tagHi: 0 });
  }

  *#advise(agent: Agent, op: { kind: 'dontNeed' | 'free'; page: number; pages: number }): Task<void> {
    const user = this.#user(op.page);
    const end = op.page < 1024 || op.page >= 4096 ? USER + 1024 : user + 1;
    const count = Math.min(op.pages, end - user);
    if (op.kind === 'free' && user >= USER + 2048) return; // EINVAL for shared memory
    yield* this.mm.madvise(agent, user, count, op.kind === 'free' ? 'FREE' : 'DONTNEED');
  }

  *#protect(agent: Agent, op: { page: number; pages: number; to: 'none' | 'read' | 'write' }): Task<void> {
    const user = this.#user(op.page);
    const count = op.page < 1024 || op.page >= 4096 ? Math.min(op.pages, USER + 1024 - user) : 1;
    yield* this.#unlessEnomem(
      this.mm.mprotect(agent, user, count, { readable: op.to !== 'none', writeable: op.to === 'write' }),
    );
  }

  *#merge(agent: Agent, one: number, other: number): Task<void> {
    const [a, b] = [this.#user(one), this.#user(other)];
    if (a === b) return;
    for (const user of [a, b]) yield* this.mm.cpuAccess(agent, user, { write: true, tagLo: 7, tagHi: 7 });
    if (yield* this.host.ksmMerge(agent, { mm: this.mm, page: a }, { mm: this.mm, page: b })) this.seen.merged++;
  }

  *#move(agent: Agent, kind: 'pageOut' | 'migrate' | 'numa', at: number): Task<void> {
    const user = this.#user(at);
    if (kind === 'pageOut') yield* this.mm.pageOut(agent, user);
    else if (kind === 'numa') yield* this.#unlessEnomem(this.mm.changeProtNuma(agent, user, 1));
    else {
      const pfn = this.mm.lookup(user);
      if (pfn >= 0 && (yield* this.host.migratePage(agent, pfn)) === 'moved') this.seen.migrated++;
    }
  }

  *#whole(agent: Agent, kind: Op['kind']): Task<void> {
    const { host, mm } = this;
    if (kind === 'fork') {
      if (this.#child === null) this.#child = (yield* this.#unlessEnomem(mm.fork(agent, 'child'))) ?? null;
    } else if (kind === 'childWrite') {
      if (this.#child) yield* this.#cpu(agent, this.#child, this.#random.pick(PAGES), true);
    } else if (kind === 'childExit') {
      const child = this.#child;
      this.#child = null;
      if (child) yield* child.exit(agent);
    } else if (kind === 'collapse') {
      if ((yield* mm.collapse(agent, USER)) === 'collapsed') this.seen.huge++;
    } else if (kind === 'khugepaged') this.seen.huge += yield* mm.khugepaged(agent);
    else if (kind === 'softDirty') yield* mm.clearSoftDirty(agent);
    else if (kind === 'compact') yield* host.compact(agent);
    else if (kind === 'reclaim') yield* host.reclaim(agent, 4);
    else if (kind === 'punch') yield* this.#memfd.punchHole(agent, this.#random.below(8), 3);
    else if (kind === 'failure') yield* host.memoryFailure(agent, FIRST_PFN + this.#random.below(1200));
    else if (kind === 'reap') {
      if (!(yield* mm.oomReap(agent))) this.seen.eagain++;
    } else if (kind === 'munmap') yield* this.#unlessEnomem(mm.munmap(agent, USER + 1024, 16));
    else if (kind === 'pass') yield* this.ioas.hwpt?.strategy?.backgroundPass?.(agent) ?? [];
    else if (kind === 'young') {
      if (yield* this.ioas.clearFlushYoung(agent, this.#user(this.#random.pick(PAGES)), 1)) this.seen.young++;
    } else if (kind === 'exit') {
      this.#gone = true;
      yield* mm.exit(agent);
    }
  }

  /** What a program may run into: a hole, or memory that is short. */
  *#unlessEnomem<T>(task: Task<T>): Task<T | undefined> {
    try {
      return yield* task;
    } catch (error) {
      if ((error as { code?: unknown }).code !== 'ENOMEM') throw error;
      return undefined;
    }
  }
}

/** Set-up and checks that need no scheduler. */
export const atOnce = runToEnd;
