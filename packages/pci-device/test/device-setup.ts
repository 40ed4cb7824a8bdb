import { Agent, Cost, type CostProfile, type Task, type TaskRun, VirtualTime } from '@faultline/sim';
import { TableMemory } from '@faultline/vtd-pagetable';
import { RemappingUnit, type RemappingUnitOptions, VtdDomain, VtdDriver } from '@faultline/vtd-remapping';
import {
  ACCELERATOR_FAULTS,
  DEFAULT_DEVICE_TLB,
  type DmaTarget,
  Endpoint,
  type EndpointOptions,
} from '../src/index.ts';

/** 10 ns for whatever costs something, so that tasks interleave. */
export const PROFILE = Object.fromEntries(
  Object.keys(Cost).map((name) => [name, { ns: name === 'free' ? 0 : name === 'nanosecond' ? 1 : 10, source: 'test' }]),
) as unknown as CostProfile;

export const SOURCE = 0x18;

/** A unit with a domain, whose queue runs in virtual time, and a target that remembers what reached it. */
export class DeviceSetup implements DmaTarget {
  readonly time = new VirtualTime(PROFILE);
  readonly unit: RemappingUnit;
  readonly driver: VtdDriver;
  readonly domain: VtdDomain;
  readonly accesses: { page: number; frame: number; write: boolean; tagLo: number; tagHi: number }[] = [];
  readonly missed: { path: string; page: number; reason: number }[] = [];
  readonly answers: number[] = [];

  constructor(unit: Partial<RemappingUnitOptions> = {}) {
    this.unit = new RemappingUnit({ memory: new TableMemory({ pages: 128 }), ...unit });
    this.driver = new VtdDriver({ unit: this.unit });
    this.domain = new VtdDomain({ driver: this.driver, domainId: 1 });
    const hardware = new Agent('hardware');
    this.time.spawn(hardware, this.unit.run(hardware), { daemon: true });
  }

  access(_endpoint: Endpoint, page: number, frame: number, write: boolean, tagLo: number, tagHi: number): void {
    this.accesses.push({ page, frame, write, tagLo, tagHi });
  }

  missing(_endpoint: Endpoint, _agent: Agent, path: string, page: number, reason: number): void {
    this.missed.push({ path, page, reason });
  }

  answered(_endpoint: Endpoint, _agent: Agent, _page: number, responseCode: number): void {
    this.answers.push(responseCode);
  }

  /** An endpoint of the domain, by default one with ATS whose every path stalls. */
  endpoint(options: Partial<EndpointOptions> = {}, ats = true): Endpoint {
    const defaults = { name: 'device', sourceId: SOURCE, unit: this.unit, target: this, faults: ACCELERATOR_FAULTS };
    const endpoint = new Endpoint({ ...defaults, ...(ats ? { deviceTlb: DEFAULT_DEVICE_TLB } : {}), ...options });
    this.domain.attach(endpoint.sourceId, ats ? endpoint : null);
    return endpoint;
  }

  map(page: number, frame: number, pages: number, write = true): void {
    this.run((agent) => this.domain.map(agent, { page, frame, pages, write }));
  }

  /** Unmaps by a driver beside the device, and returns once the flush is over. */
  *unmap(agent: Agent, page: number, pages: number): Task<void> {
    const gather = this.domain.gather();
    yield* this.domain.unmap(agent, { page, pages, partialLeaf: 'whole-leaf', holes: 'skip' }, gather);
    yield* this.domain.flush(agent, gather);
  }

  /** Answers every page request with what `answer` gives; it may map the page first. */
  handlePageRequests(answer: (page: number, write: boolean) => number): void {
    this.spawn(
      'handler',
      function* (this: DeviceSetup, agent: Agent): Task<void> {
        const { pageRequests, invalidations } = this.driver;
        if (pageRequests === null) throw new Error('the unit has no page requests');
        for (;;) {
          const { requests } = yield* pageRequests.take(agent);
          for (const { sourceId, groupIndex, page, write } of requests)
            yield* invalidations.submit(agent, [
              { type: 'pageGroupResponse', sourceId, groupIndex, responseCode: answer(page, write) },
            ]);
          pageRequests.clearOverflow();
        }
      }.bind(this),
      true,
    );
  }

  run<T>(task: (agent: Agent) => Task<T>): T {
    const run = this.spawn('driver', task);
    this.time.run();
    return run.value as T;
  }

  spawn<T>(name: string, task: (agent: Agent) => Task<T>, daemon = false): TaskRun<T> {
    const agent = new Agent(name);
    return this.time.spawn(agent, task(agent), { daemon });
  }
}
