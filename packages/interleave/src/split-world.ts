import { type AddressSpace, HostMemory } from '@faultline/host-mm';
import { DEFAULT_FAULT_POLICY, Ioas, IopfQueue } from '@faultline/iommufd-core';
import { type DmaPath, Endpoint } from '@faultline/pci-device';
import { Agent, ANY_LOCATION, assert, Cost, Location, runToEnd, type Task } from '@faultline/sim';
import {
  type DirtyRange,
  entryFrame,
  faultReasonText,
  isLeaf,
  isWalkError,
  type PhysicalWords,
  SS_DIRTY,
  TableMemory,
} from '@faultline/vtd-pagetable';
import { RemappingUnit, ResponseCode, VtdDomain, VtdDriver } from '@faultline/vtd-remapping';
import { cacheLosses } from './cache-loss.ts';
import type { SplitConfiguration } from './split-configuration.ts';
import type { SplitProtocol, SplitVariant } from './split-protocol.ts';
import type { ExploredSystem, ExploredTask, Violation } from './system.ts';
import { PageRequester } from './worlds/page-requester.ts';
import { SMALL_CACHE, SMALL_STRUCTURE_CACHE } from './worlds/small-caches.ts';

const USER_PAGE = 0x40000;
const VICTIM = 0x123;
const SOURCE_ID = 1 << 3;
const SECOND_ID = 2 << 3;
const TABLE_BASE_PFN = 0x1000;
const FIRST_HOST_PFN = 0x40000;
/** Free frames beside those of the leaf, so that a fault need not reclaim. */
const SPARE_FRAMES = 512;

/**
 * A host, a domain with one large leaf, a device that writes one page, and the host that swaps one page out: the code of
 * `host-mm`, `iommufd-core`, `vtd-remapping`, `vtd-pagetable`, `iotlb` and `pci-device` as it runs in the simulation, with the
 * invalidation queue's hardware as a task of its own.
 */
export class SplitWorld implements ExploredSystem {
  readonly tasks: readonly ExploredTask[];
  readonly #configuration: SplitConfiguration;
  readonly #host: HostMemory;
  readonly #mm: AddressSpace;
  readonly #tables: TableMemory;
  readonly #unit: RemappingUnit;
  readonly #driver: VtdDriver;
  /** Pages of the root table and the queues. */
  readonly #unitPages: number;
  readonly #domain: VtdDomain;
  readonly #endpoint: Endpoint;
  readonly #second: PageRequester | null;
  readonly #ioas: Ioas;
  readonly #areasHash: string;
  readonly #protocol: SplitProtocol;
  readonly #variant: SplitVariant;
  /** Reported as written, by the operations that change a leaf. */
  readonly #dirty: DirtyRange[] = [];
  #violation: Violation | null = null;
  #written = false;

  constructor(configuration: SplitConfiguration, protocol: SplitProtocol) {
    this.#configuration = configuration;
    this.#protocol = protocol;
    this.#variant = protocol.variant ?? {};
    const { reservePages } = this.#variant;
    const { coherent, accessedDirty } = configuration;
    const pages = configuration.leaf === '1G' ? 262144 : 512;
    const setup = new Agent('set-up');
    this.#host = new HostMemory({
      frames: pages + SPARE_FRAMES,
      firstPfn: FIRST_HOST_PFN,
      swapSlots: 4,
      splitNotify: 'none',
      pageCluster: 0,
    });
    this.#mm = this.#host.createAddressSpace('mm');
    this.#mm.mmap({ startPage: USER_PAGE, pages, backing: configuration.leaf === '1G' ? 'pud-thp' : 'thp-2M' });
    runToEnd(this.#mm.populate(setup, USER_PAGE, pages));
    this.#tables = new TableMemory({ basePfn: TABLE_BASE_PFN, pages: 32, coherent });
    this.#unit = new RemappingUnit({
      memory: this.#tables,
      iotlb: { geometry: SMALL_CACHE },
      pagingCache: SMALL_STRUCTURE_CACHE,
      pageRequestLimit: 4,
      // A unit that does not snoop sets no A and D.
      ...(coherent ? {} : { capabilities: { coherent: false, pageWalkCoherent: false, accessedDirty: false } }),
    });
    this.#driver = new VtdDriver({ unit: this.#unit, pageRequestEntries: 128 });
    this.#unitPages = this.#tables.used;
    this.#domain = new VtdDomain({
      driver: this.#driver,
      domainId: 1,
      physical: this.#guestMemory(),
      allocationMayFail: configuration.allocationMayFail,
      accessedDirty,
      ...(reservePages === undefined ? {} : { reservePages }),
      onFreeTables: (tables) => this.#tablesFreed(tables),
      onDirty: (ranges) => this.#dirty.push(...ranges),
    });
    const mm = this.#variant.noSequenceCheck ? overriding(this.#mm, { notifierReadRetry: () => false }) : this.#mm;
    this.#ioas = new Ioas({ mm, strategy: protocol.strategy });
    runToEnd(this.#setUp(setup, pages));
    this.#areasHash = this.#ioas.areas.hash();
    this.#endpoint = this.#connectDevice();
    this.#second = this.#variant.secondDevice ? this.#connectRequester() : null;
    if (!this.#variant.startsEmpty) this.#warmUp(setup);
    this.tasks = [
      ...this.#dmaTasks(),
      ...(this.#second ? [{ agent: SECOND, task: this.#askAhead(SECOND, this.#second) }] : []),
      ...(configuration.losesEntries ? cacheLosses(this.#unit, this.#endpoint) : []),
      { agent: HOST, task: this.#takeAway(HOST) },
      { agent: QUEUE, task: this.#unit.run(QUEUE), daemon: true },
      ...(configuration.device === 'ATS and PRI' ? this.#faultPath() : []),
      ...this.#byStrategy(),
    ];
  }

  /** {@inheritDoc ExploredSystem.check} */
  check(): Violation | null {
    return this.#violation;
  }

  /** {@inheritDoc ExploredSystem.checkEnd} */
  checkEnd(): Violation | null {
    const { table } = this.#domain;
    if (this.#ioas.areas.hash() !== this.#areasHash)
      return { invariant: 'I7', message: 'the io_pagetable has changed' };
    const frame = this.#domain.frameAt(VICTIM);
    if (frame >= 0 && frame !== this.#mm.lookup(USER_PAGE + VICTIM))
      return {
        invariant: 'I8',
        message: `at the end the page maps frame 0x${frame.toString(16)}, which is not its own`,
      };
    const { responses, pageRequests, unexpectedResponses } = this.#endpoint.counters;
    if (responses.success + responses.invalid + responses.failure !== pageRequests || this.#second?.expecting.size)
      return { invariant: 'I9', message: 'a page group has no answer' };
    if (unexpectedResponses > 0) return { invariant: 'I9', message: 'a page group was answered twice' };
    const content = this.#mm.cpuRead(USER_PAGE + this.#targetPage);
    const { discardedPages, reaped } = this.#variant;
    const mayBeLost = this.#isTaken(this.#targetPage) && (discardedPages !== undefined || reaped);
    if (this.#written && content.tagLo !== 1 && !mayBeLost)
      return { invariant: 'I2', message: 'what the device wrote is lost' };
    if (this.#written && this.#configuration.accessedDirty && !mayBeLost && !this.#isReportedDirty(this.#targetPage))
      return { invariant: 'I6', message: `page 0x${this.#targetPage.toString(16)} was written, and nobody reports it` };
    if (this.#unit.inFlight.count !== 0) return { invariant: 'I12', message: 'a DMA is still in flight' };
    // The unit's, context table, PASID directory and table of the device, the tables in use, the reserve: nothing else.
    const expected = this.#unitPages + (this.#second ? 5 : 3) + table.tablePages + table.reserve.held;
    if (this.#tables.used !== expected)
      return { invariant: 'I12', message: `${this.#tables.used} table pages in use, ${expected} accounted for` };
    return null;
  }

  #warmUp(agent: Agent): void {
    const { cached } = this.#configuration;
    if (cached === 'nothing') return;
    runToEnd(this.#dma(agent));
    if (cached === 'leaf') return;
    this.#unit.iotlb.invalidateGlobal();
    this.#endpoint.deviceTlb?.clear();
  }

  /** D in the table now, or in what was changed before. */
  #isReportedDirty(page: number): boolean {
    const leaf = this.#domain.leafAt(page);
    if (leaf && (leaf.entry & SS_DIRTY) !== 0n) return true;
    return this.#dirty.some((range) => page >= range.page && page < range.page + range.pages);
  }

  #takeAway(agent: Agent): Task<unknown> {
    const { discardedPages } = this.#variant;
    if (this.#variant.hostRests) return nothing();
    if (this.#variant.reaped) return this.#mm.oomReap(agent);
    if (discardedPages === undefined) return this.#mm.pageOut(agent, USER_PAGE + VICTIM);
    return this.#mm.madviseDontNeed(agent, USER_PAGE + VICTIM, discardedPages);
  }

  /** What a strategy does of its own beside the notifier: a collapse in the background, CPU faults on a shared table. */
  #byStrategy(): ExploredTask[] {
    const { hwpt } = this.#ioas;
    if (hwpt?.strategy?.backgroundPass) return [{ agent: COLLAPSER, task: hwpt.strategy.backgroundPass(COLLAPSER) }];
    return hwpt?.sharesCpuTable ? [{ agent: CPU, task: hwpt.cpuFault(CPU, VICTIM, true) }] : [];
  }

  *#setUp(agent: Agent, pages: number): Task<void> {
    yield* this.#ioas.map(agent, {
      iova: 0n,
      userVa: BigInt(USER_PAGE) * 4096n,
      length: BigInt(pages) * 4096n,
      writeable: true,
      unpinned: true,
      policy: { ...DEFAULT_FAULT_POLICY, prefault: this.#variant.startsEmpty ? 'none' : 'resident' },
    });
    yield* this.#ioas.addDomain(agent, this.#domain, {
      takenAway: (page, count) => this.#taken(page, count),
      mapping: (page, count) => this.#mapping(page, count),
    });
    // A table that is shared with the CPU is empty until the CPU uses it.
    if (this.#ioas.hwpt?.sharesCpuTable) yield* this.#ioas.hwpt.cpuFault(agent, 0, true);
    this.#setAttributes();
    // A guest that keeps its own page directory at the start of its memory: data that looks like page-table entries.
    if (this.#protocol.guestWords)
      this.#host.memory.writeWords(
        FIRST_HOST_PFN,
        new BigUint64Array(512).fill((BigInt(FIRST_HOST_PFN + 1) << 12n) | 0x63n),
      );
  }

  #connectDevice(): Endpoint {
    const { device } = this.#configuration;
    const path = { whenMissing: device === 'ATS and PRI' ? 'stall' : 'drop' } as const;
    const endpoint = new Endpoint({
      name: 'device',
      sourceId: SOURCE_ID,
      unit: this.#unit,
      target: {
        access: (_endpoint, page, frame) => this.#accessed(page, frame),
        missing: (_endpoint, _agent, dmaPath, page, reason) => this.#missing(dmaPath, page, reason),
        answered: (_endpoint, _agent, page, code) => this.#answered(page, code),
      },
      faults: { descriptor: DROP, read: path, write: path, completion: DROP, msi: DROP },
      ...(device === 'no ATS' ? {} : { deviceTlb: SMALL_CACHE }),
    });
    this.#domain.attach(SOURCE_ID, device === 'no ATS' ? null : endpoint);
    return endpoint;
  }

  #connectRequester(): PageRequester {
    const requester = new PageRequester('second device', SECOND_ID, (message) => this.#fail('I9', message));
    this.#domain.attach(SECOND_ID, requester);
    return requester;
  }

  get #targetPage(): number {
    return this.#configuration.target === 'victim' ? VICTIM : VICTIM + 1;
  }

  /**
   * Two DMAs, at once or one after the other, of which the second finds what the first has cached. Where nothing is mapped one is long
   * enough: it faults, and tries again.
   */
  #dmaTasks(): ExploredTask[] {
    const one = (agent: Agent): ExploredTask => ({ agent, task: this.#dma(agent), alike: 'DMA' });
    if (this.#configuration.walkers === 2) return [one(DEVICE), one(ALSO)];
    return [this.#variant.startsEmpty ? one(DEVICE) : { agent: DEVICE, task: this.#twoDmas(DEVICE) }];
  }

  *#twoDmas(agent: Agent): Task<void> {
    yield* this.#dma(agent);
    yield* this.#dma(agent);
  }

  #dma(agent: Agent): Task<unknown> {
    return this.#endpoint.dmaPage(agent, 'write', this.#targetPage, true, 1, 1);
  }

  /** Another device asks for the same page before it uses it. Its look whether the page is there is a step, as a walk would be. */
  *#askAhead(agent: Agent, device: PageRequester): Task<void> {
    const code = yield* device.ask(agent, this.#unit, 0, [this.#targetPage]);
    yield agent.reads('look at the tables', Location.entry, ANY_LOCATION, Cost.walkRead);
    this.#answered(this.#targetPage, code);
  }

  /** Page requests to the stage-2 fault handler, as two daemons. */
  #faultPath(): ExploredTask[] {
    const { pageRequests } = this.#driver;
    assert(pageRequests !== null, 'a unit in scalable mode has page requests');
    const { hwpt } = this.#ioas;
    assert(hwpt !== null, 'the domain has a hwpt');
    const path = this.#variant.faultPath?.({ source: pageRequests, hwpt }) ?? { source: pageRequests, hwpt };
    const iopf = new IopfQueue({ source: path.source, handlerOf: () => ({ kind: 'kernel', hwpt: path.hwpt }) });
    return [
      { agent: INTERRUPT, task: iopf.interruptThread(INTERRUPT), daemon: true },
      ...[WORKER, ...(this.#second ? [WORKER_2] : [])].map((agent) => ({
        agent,
        task: iopf.worker(agent),
        daemon: true,
        alike: 'iopf worker',
      })),
    ];
  }

  /**
   * The check belongs to the frame's step: swap-out reads the frame after its CPU entry is gone, so an access in between is
   * explored in either order with that read.
   */
  #accessed(page: number, frame: number): void {
    if (this.#mm.lookup(USER_PAGE + page) !== frame)
      this.#fail(
        'I1',
        `the device reached frame 0x${frame.toString(16)} through page 0x${page.toString(16)}, which is no longer there`,
      );
    this.#host.memory.writeTag(frame, 1, 1);
    this.#written = true;
  }

  #missing(path: DmaPath, page: number, reason: number): void {
    if (isWalkError(reason)) this.#fail('I3', `the walk of page 0x${page.toString(16)}: ${faultReasonText(reason)}`);
    if (this.#protocol.hitless && !this.#isTaken(page) && !this.#variant.startsEmpty)
      this.#fail(
        'I4',
        `${path} DMA to page 0x${page.toString(16)}, which nobody took away: ${faultReasonText(reason)}`,
      );
  }

  /** Who is told that a page is there finds it, unless the host has taken it again. */
  #answered(page: number, code: number): void {
    if (this.#variant.hostRests && code === ResponseCode.success && this.#domain.frameAt(page) < 0)
      this.#fail('I13', `page 0x${page.toString(16)} is answered, and not mapped`);
  }

  /** Memory that is no page table, for an unmap that does not know the difference: the first word it reads is the error. */
  #guestMemory(): PhysicalWords {
    const { memory } = this.#host;
    return {
      contains: (pfn) => memory.contains(pfn),
      loadWord: (pfn, index) => {
        const word = memory.loadWord(pfn, index);
        const text = `word ${index} of frame 0x${pfn.toString(16)} (0x${word.toString(16)}), which is guest memory,`;
        this.#fail('I3', `the unmap took a leaf for a table: it read ${text} as an entry`);
        return word;
      },
      storeWord: (pfn, index, value) => memory.storeWord(pfn, index, value),
    };
  }

  #isTaken(page: number): boolean {
    const { discardedPages = 1, reaped = false } = this.#variant;
    return reaped || (page >= VICTIM && page < VICTIM + discardedPages);
  }

  #taken(first: number, pages: number): void {
    for (let page = first; page < first + pages; page++)
      if (this.#domain.frameAt(page) >= 0)
        this.#fail('I8', `page 0x${page.toString(16)} is still mapped after the notifier`);
    this.#checkAttributes();
  }

  /** A fault maps what is not mapped yet: the same page faulted twice at once is mapped once. */
  #mapping(first: number, pages: number): void {
    for (const page of [VICTIM, VICTIM + 1])
      if (page >= first && page < first + pages && this.#domain.frameAt(page) >= 0)
        this.#fail('I10', `page 0x${page.toString(16)} is mapped again, though it is mapped`);
  }

  /** Writes the attributes into the large leaf, before anybody uses it. */
  #setAttributes(): void {
    const { attributes } = this.#variant;
    const { table } = this.#domain;
    if (attributes === undefined) return;
    let pfn = table.rootPfn;
    for (let level = table.levels as number; level > 1; level--) {
      const entry = this.#tables.load(pfn, 0);
      if (isLeaf(entry, level)) this.#tables.store(pfn, 0, entry | attributes);
      pfn = entryFrame(entry);
      if (isLeaf(entry, level)) return;
    }
  }

  /** Innocents are translated as before, attributes included (I4). */
  #checkAttributes(): void {
    const { attributes } = this.#variant;
    const leaf = this.#domain.leafAt(VICTIM - 1);
    if (attributes === undefined || leaf === null || (leaf.entry & attributes) === attributes) return;
    const lost = attributes & ~leaf.entry;
    this.#fail('I4', `page 0x${(VICTIM - 1).toString(16)} has lost the attributes 0x${lost.toString(16)} of its leaf`);
  }

  #tablesFreed(tables: readonly number[]): void {
    for (const entry of this.#unit.pagingCache.entries())
      if (tables.includes(entry.tablePfn))
        this.#fail('I5', `table page 0x${entry.tablePfn.toString(16)} is freed while a cache points to it`);
  }

  #fail(invariant: string, message: string): void {
    this.#violation ??= { invariant, message };
  }
}

function* nothing(): Task<void> {}

/** An object as it is, but for some of its methods. */
const overriding = <T extends object>(target: T, overrides: Partial<T>): T =>
  new Proxy(target, {
    get(of, name) {
      const value: unknown = Reflect.get(name in overrides ? overrides : of, name);
      return typeof value === 'function' ? value.bind(of) : value;
    },
  });

const DROP = { whenMissing: 'drop' } as const;
const DEVICE = new Agent('device');
const ALSO = new Agent('device, second DMA');
const HOST = new Agent('host');
const COLLAPSER = new Agent('collapser');
const CPU = new Agent('guest CPU');
const QUEUE = new Agent('invalidation queue');
const INTERRUPT = new Agent('page request interrupt');
const WORKER = new Agent('iopf worker');
const WORKER_2 = new Agent('second iopf worker');
const SECOND = new Agent('second device');
