import { Endpoint } from '@faultline/pci-device';
import { Agent, runToEnd, type Task } from '@faultline/sim';
import { faultReasonText, isWalkError, TableMemory } from '@faultline/vtd-pagetable';
import { type Descriptor, RemappingUnit, VtdDomain, VtdDriver } from '@faultline/vtd-remapping';
import type { ExploredSystem, ExploredTask, Violation } from '../system.ts';
import { SMALL_CACHE, SMALL_STRUCTURE_CACHE } from './small-caches.ts';

/** How a world may be made wrong, to see that the adversary notices. Nothing of it is set for a protocol as it should be. */
export interface DomainDefects {
  /** What is submitted to the invalidation queue instead, one submission after the other, each with its own wait. */
  readonly submit?: (descriptors: readonly Descriptor[]) => readonly (readonly Descriptor[])[];
  /** Unlinked table pages are freed before the flush. */
  readonly freesTablesEarly?: boolean;
  /** Another cut in the place of the domain's own. */
  readonly cut?: (world: DomainWorld, agent: Agent, page: number) => Task<void>;
  /** Another harvest in the place of the domain's own. What it reports it has `process` deal with, or returns. */
  readonly harvest?: (
    world: DomainWorld,
    agent: Agent,
    range: HarvestedRange,
    process: (ranges: readonly HarvestedRange[]) => Task<void>,
  ) => Task<readonly HarvestedRange[]>;
  /** Something else that is wrong with the world, from its start on. */
  readonly prepare?: (world: DomainWorld) => void;
}

/** A range that a harvest reports dirty. */
export interface HarvestedRange {
  readonly page: number;
  readonly pages: number;
}

/** Options of a {@link DomainWorld}. */
export interface DomainWorldOptions {
  /** Hardware sets A and D. */
  readonly accessedDirty?: boolean;
  /** Whether the walker snoops the CPU's caches; default true. */
  readonly coherent?: boolean;
  readonly allocationMayFail?: boolean;
  readonly defects?: DomainDefects;
}

/** What the devices of a world may do and meet at a page. */
export interface PageRule {
  /** The frame that a DMA to the page may reach now, or -1 if it must reach none. */
  readonly frame: number;
  /** Whether a fault is right. */
  readonly mayFault: boolean;
}

const TABLE_BASE_PFN = 0x1000;
/** First frame of the memory that is mapped: 1G-aligned, and no table. */
export const FRAME = 0x80000;
const DROP = { whenMissing: 'drop' } as const;
const QUEUE = new Agent('invalidation queue');

/**
 * A unit, a driver, a domain and devices that make DMA of single pages: the code of `vtd-remapping`, `vtd-pagetable`, `iotlb` and
 * `pci-device` as it runs in the simulation, with no host above. A protocol adds its tasks and says what is right.
 */
export class DomainWorld implements ExploredSystem {
  readonly tasks: ExploredTask[] = [];
  readonly tables: TableMemory;
  readonly unit: RemappingUnit;
  readonly driver: VtdDriver;
  readonly domain: VtdDomain;
  readonly defects: DomainDefects;
  /** What is right at a page now; the protocol sets it. */
  ruleOf: (page: number) => PageRule = (page) => ({ frame: FRAME + page, mayFault: false });
  /** Called for every write that reaches memory. */
  wrote: (page: number) => void = () => undefined;
  /** Called for what an operation reports as written when its caches are flushed. */
  reported: (ranges: readonly HarvestedRange[]) => void = () => undefined;
  /** What is wrong at the end; the protocol sets it. */
  atEnd: () => Violation | null = () => null;
  #violation: Violation | null = null;
  /** False while the world is set up, where a fault is no violation. */
  #exploring = true;

  constructor(options: DomainWorldOptions = {}) {
    const { accessedDirty = false, coherent = true, allocationMayFail = false, defects = {} } = options;
    this.defects = defects;
    this.tables = new TableMemory({ basePfn: TABLE_BASE_PFN, pages: 32, coherent });
    this.unit = new RemappingUnit({
      memory: this.tables,
      iotlb: { geometry: SMALL_CACHE },
      pagingCache: SMALL_STRUCTURE_CACHE,
      ...(coherent ? {} : { capabilities: { coherent: false, pageWalkCoherent: false, accessedDirty: false } }),
    });
    this.driver = new VtdDriver({ unit: this.unit, pageRequestEntries: 128 });
    this.domain = new VtdDomain({
      driver: this.driver,
      domainId: 1,
      accessedDirty,
      allocationMayFail,
      onFreeTables: (tables) => this.#tablesFreed(tables),
      onDirty: (ranges) => this.reported(ranges),
    });
    this.#applyDefects();
    defects.prepare?.(this);
    this.tasks.push({ agent: QUEUE, task: this.unit.run(QUEUE), daemon: true });
  }

  /** Attaches a device. */
  connect(name: string, sourceId: number, ats: boolean): Endpoint {
    const endpoint = new Endpoint({
      name,
      sourceId,
      unit: this.unit,
      target: {
        access: (_, page, frame, write) => this.#accessed(name, page, frame, write),
        missing: (_, _agent, _path, page, reason) => this.#missing(name, page, reason),
        answered: () => undefined,
      },
      faults: { descriptor: DROP, read: DROP, write: DROP, completion: DROP, msi: DROP },
      ...(ats ? { deviceTlb: SMALL_CACHE } : {}),
    });
    this.domain.attach(sourceId, ats ? endpoint : null);
    return endpoint;
  }

  /** Adds a task. */
  spawn(agent: Agent, task: Task<unknown>): void {
    this.tasks.push({ agent, task });
  }

  /** Before or after the exploration: runs a task with nobody in between. */
  now<T>(task: Task<T>): T {
    this.#exploring = false;
    try {
      return runToEnd(task, () => this.unit.processQueue());
    } finally {
      this.#exploring = true;
    }
  }

  /** Notes the first violation. */
  fail(invariant: string, message: string): void {
    if (this.#exploring) this.#violation ??= { invariant, message };
  }

  /** {@inheritDoc ExploredSystem.check} */
  check(): Violation | null {
    return this.#violation;
  }

  /** {@inheritDoc ExploredSystem.checkEnd} */
  checkEnd(): Violation | null {
    if (this.unit.inFlight.count !== 0) return { invariant: 'I12', message: 'a DMA is still in flight' };
    return this.atEnd() ?? this.#violation;
  }

  #accessed(name: string, page: number, frame: number, write: boolean): void {
    const rule = this.ruleOf(page);
    if (rule.frame !== frame)
      this.fail(
        'I1',
        `${name} reached frame 0x${frame.toString(16)} through page 0x${page.toString(16)}, ${wanted(rule)}`,
      );
    if (write) this.wrote(page);
  }

  #missing(name: string, page: number, reason: number): void {
    const where = `${name} at page 0x${page.toString(16)}: ${faultReasonText(reason)}`;
    if (isWalkError(reason)) this.fail('I3', where);
    if (!this.ruleOf(page).mayFault) this.fail('I4', `${where}, though it is mapped`);
  }

  #tablesFreed(tables: readonly number[]): void {
    for (const entry of this.unit.pagingCache.entries())
      if (tables.includes(entry.tablePfn))
        this.fail('I5', `table page 0x${entry.tablePfn.toString(16)} is freed while a cache points to it`);
  }

  #applyDefects(): void {
    const { submit, freesTablesEarly } = this.defects;
    if (submit) {
      const { invalidations } = this.driver;
      const plain = invalidations.submit.bind(invalidations);
      invalidations.submit = function* (agent, descriptors, options): Task<void> {
        for (const part of submit(descriptors)) yield* plain(agent, part, options);
      };
    }
    if (freesTablesEarly) {
      const { domain } = this;
      const flush = domain.flush.bind(domain);
      domain.flush = (agent, gather) => {
        domain.table.settle(gather);
        return flush(agent, gather);
      };
    }
  }
}

const wanted = ({ frame }: PageRule): string =>
  frame < 0 ? 'which maps nothing any more' : `which maps frame 0x${frame.toString(16)}`;
