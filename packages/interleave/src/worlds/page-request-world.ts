import { type FaultOutcomeCode, IopfQueue, type PageRequestSource } from '@faultline/iommufd-core';
import { Agent, assert, Cost, Location, type Task } from '@faultline/sim';
import { TableMemory } from '@faultline/vtd-pagetable';
import { type RegisterFile, RemappingUnit, VtdDomain, VtdDriver } from '@faultline/vtd-remapping';
import type { ExploredSystem, ExploredTask, Violation } from '../system.ts';
import type { FaultPath, FaultPathDefect } from './fault-path.ts';
import { PageRequester } from './page-requester.ts';

/** A page group that a device sends: one request a page, the last of them with LPIG. */
export interface SentGroup {
  /** PRGI. */
  readonly index: number;
  readonly pages: readonly number[];
}

/** Who sends which groups into how large a queue. */
export interface PageRequestTraffic {
  /**
   * By device, its streams. Streams of one device run beside each other; in each, a group is sent when the one before has been
   * answered and its pages are there.
   */
  readonly devices: readonly (readonly (readonly SentGroup[])[])[];
  /** Requests that the queue holds. */
  readonly room: number;
  /** Fault workers; default 1. */
  readonly workers?: 1 | 2;
}

/** How the driver's side may be made wrong, to see that the adversary notices. */
export interface PageRequestDefects {
  /** Another fault path in the place of the right one. */
  readonly faultPath?: FaultPathDefect;
  /** Something done to the unit's registers before anybody runs. */
  readonly prepare?: (registers: RegisterFile) => void;
}

/** How often a device asks for a page before it gives up. With a bound every execution ends. */
const TRIES = 3;
const INTERRUPT = new Agent('page request interrupt');
const QUEUE = new Agent('invalidation queue');

/**
 * Devices that ask for pages, the unit's page request queue, and the driver's thread, fault queue and workers that answer: the code of
 * `vtd-remapping` and `iommufd-core` as it runs in the simulation. Which pages are there is a set here, in the place of tables: they are
 * other protocols' matter.
 */
export class PageRequestWorld implements ExploredSystem {
  readonly tasks: ExploredTask[] = [];
  readonly #unit: RemappingUnit;
  readonly #iopf: IopfQueue;
  readonly #devices: readonly PageRequester[];
  readonly #present = new Set<number>();
  #violation: Violation | null = null;

  constructor({ devices, room, workers = 1 }: PageRequestTraffic, defects: PageRequestDefects = {}) {
    const memory = new TableMemory({ basePfn: 0x1000, pages: 32 });
    // One entry of the ring stays empty, so that full and empty differ.
    this.#unit = new RemappingUnit({ memory, pageRequestLimit: room + 1 });
    const driver = new VtdDriver({ unit: this.#unit, pageRequestEntries: 128 });
    const { pageRequests } = driver;
    assert(pageRequests !== null, 'a unit in scalable mode has page requests');
    defects.prepare?.(this.#unit.registers);
    const domain = new VtdDomain({ driver, domainId: 1 });
    this.#devices = devices.map((_, nth) => {
      const device = new PageRequester(`device ${nth + 1}`, (nth + 1) << 3, (message) => this.#fail('I9', message));
      domain.attach(device.sourceId, device);
      // The structures are cached: what is explored begins after them.
      this.#unit.dma({ sourceId: device.sourceId, iovaHi: 0, iovaLo: 0, access: 0 });
      return device;
    });
    const right: FaultPath = {
      source: pageRequests,
      hwpt: { handleFault: (agent, page) => this.#map(agent, page) },
    };
    const { source, hwpt } = defects.faultPath?.(right) ?? right;
    this.#iopf = new IopfQueue({ source: this.#noting(source), handlerOf: () => ({ kind: 'kernel', hwpt }) });
    for (const [nth, streams] of devices.entries())
      for (const [lane, groups] of streams.entries()) this.#addStream(nth, lane, groups);
    this.#addDaemon(INTERRUPT, (agent) => this.#iopf.interruptThread(agent));
    for (let nth = 1; nth <= workers; nth++)
      this.#addDaemon(new Agent(`worker ${nth}`), (agent) => this.#iopf.worker(agent), { alike: 'worker' });
    this.#addDaemon(QUEUE, (agent) => this.#unit.run(agent));
  }

  /** {@inheritDoc ExploredSystem.check} */
  check(): Violation | null {
    return this.#violation;
  }

  /** {@inheritDoc ExploredSystem.checkEnd} */
  checkEnd(): Violation | null {
    for (const { name, expecting } of this.#devices)
      for (const groupIndex of expecting)
        return { invariant: 'I9', message: `page group ${groupIndex} of ${name} has no answer` };
    const { status, head, tail } = this.#unit.pageRequestQueue;
    if (status !== 0 || head !== tail)
      return {
        invariant: 'I13',
        message: `nobody looks at the page request queue any more: PRS 0x${status.toString(16)}, head 0x${head.toString(16)}, tail 0x${tail.toString(16)}`,
      };
    if (this.#iopf.outstanding > 0)
      return { invariant: 'I12', message: `${this.#iopf.outstanding} page groups or requests are left` };
    return null;
  }

  /** Streams count as daemons: one that waits for ever is found by the answer that it lacks. */
  #addStream(nth: number, lane: number, groups: readonly SentGroup[]): void {
    const device = this.#devices[nth] as PageRequester;
    const agent = new Agent(lane === 0 ? device.name : `${device.name}, stream ${lane + 1}`);
    this.#addDaemon(agent, () => this.#stream(agent, device, groups));
  }

  #addDaemon(agent: Agent, task: (agent: Agent) => Task<void>, more: { readonly alike?: string } = {}): void {
    this.tasks.push({ agent, task: task(agent), daemon: true, ...more });
  }

  *#stream(agent: Agent, device: PageRequester, groups: readonly SentGroup[]): Task<void> {
    for (const { index, pages } of groups) {
      let missing = pages;
      for (let tries = 0; tries < TRIES && missing.length > 0; tries++) {
        yield* device.ask(agent, this.#unit, index, missing);
        const left: number[] = [];
        for (const page of missing) {
          yield agent.reads('translate again', Location.frame, page, Cost.free);
          if (!this.#present.has(page)) left.push(page);
        }
        this.#promised(device, index, missing, left);
        missing = left;
      }
    }
  }

  /** The last request of a group that software has answered was recorded, and so must be mapped; others may have been dropped before it. */
  #promised(device: PageRequester, index: number, asked: readonly number[], left: readonly number[]): void {
    const last = asked.at(-1);
    if (last !== undefined && device.bySoftware.delete(index) && left.includes(last))
      this.#fail('I13', `${device.name} was told that page 0x${last.toString(16)} is there, and it is not`);
  }

  *#map(agent: Agent, page: number): Task<FaultOutcomeCode> {
    yield agent.writes('map page', Location.frame, page, Cost.free);
    this.#present.add(page);
    return 0;
  }

  /** The source, noting which answers are software's. */
  #noting(source: PageRequestSource): PageRequestSource {
    const devices = this.#devices;
    return {
      take: (agent) => source.take(agent),
      clearOverflow: () => source.clearOverflow(),
      respond(agent, sourceId, ...answer): Task<void> {
        devices.find((device) => device.sourceId === sourceId)?.bySoftware.add(answer[0]);
        return source.respond(agent, sourceId, ...answer);
      },
    };
  }

  #fail(invariant: string, message: string): void {
    this.#violation ??= { invariant, message };
  }
}
