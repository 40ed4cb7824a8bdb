import {
  Agent,
  Cost,
  type CostProfile,
  runToEnd,
  type SpawnOptions,
  type Task,
  type TaskRun,
  VirtualTime,
} from '@faultline/sim';
import { TableMemory } from '@faultline/vtd-pagetable';
import {
  type AtsEndpoint,
  type Descriptor,
  RemappingUnit,
  type RemappingUnitOptions,
  VtdDomain,
  type VtdDomainOptions,
} from '../src/index.ts';

/** 10 ns for whatever costs something, so that tasks interleave. */
export const PROFILE = Object.fromEntries(
  Object.keys(Cost).map((name) => [name, { ns: name === 'free' ? 0 : name === 'nanosecond' ? 1 : 10, source: 'test' }]),
) as unknown as CostProfile;

/** Two IOTLB ways of each size, so that large and small entries meet. */
export const SMALL_IOTLB = {
  geometry: { '4K': { sets: 1, ways: 8 }, '2M': { sets: 1, ways: 4 }, '1G': { sets: 1, ways: 4 } },
} as const;

/** A unit whose invalidation queue runs in virtual time. */
export class UnitSetup {
  readonly time = new VirtualTime(PROFILE);
  readonly memory: TableMemory;
  readonly unit: RemappingUnit;
  /** Descriptors other than waits, in the order of execution. */
  readonly executed: Descriptor[] = [];

  constructor(options: Partial<RemappingUnitOptions> = {}, pages = 128) {
    this.memory = new TableMemory({ pages });
    this.unit = new RemappingUnit({ memory: this.memory, iotlb: SMALL_IOTLB, ...options });
    const hardware = new Agent('hardware');
    const { unit, executed } = this;
    const recording = {
      *execute(agent: Agent, descriptor: Descriptor): Task<void> {
        executed.push(descriptor);
        yield* unit.execute(agent, descriptor);
      },
      drain: (agent: Agent) => unit.drain(agent),
    };
    const queue = unit.invalidationQueue.run(hardware, recording, () => unit.faults.queueError());
    this.time.spawn(hardware, queue, { daemon: true });
  }

  domain(options: Partial<VtdDomainOptions> = {}): VtdDomain {
    return new VtdDomain({ unit: this.unit, domainId: 1, ...options });
  }

  /** Runs a task, and the queue beside it, to its end. */
  run<T>(task: (agent: Agent) => Task<T>): T {
    const run = this.spawn('driver', task);
    this.time.run();
    return run.value as T;
  }

  spawn<T>(name: string, task: (agent: Agent) => Task<T>, options: SpawnOptions = {}): TaskRun<T> {
    const agent = new Agent(name);
    return this.time.spawn(agent, task(agent), options);
  }

  submit(...descriptors: Descriptor[]): void {
    this.run((agent) => this.unit.invalidationQueue.submit(agent, descriptors));
  }

  /** The whole way of one untranslated request, with nobody in between. @returns a frame, or minus a fault reason */
  dma(sourceId: number, page: number, write = false): number {
    return translate(this.unit, sourceId, page, write, false);
  }

  /** An ATS translation request. */
  ats(sourceId: number, page: number, write = false): number {
    return translate(this.unit, sourceId, page, write, true);
  }
}

const walker = new Agent('walker');

/** The request that a page stands for. */
export const requestFor = (sourceId: number, page: number, write: boolean, translationRequest = false) => ({
  sourceId,
  iovaHi: Math.floor(page / 2 ** 20),
  iovaLo: (page << 12) | 0,
  access: write ? 1 : 0,
  translationRequest,
});

function translate(unit: RemappingUnit, sourceId: number, page: number, write: boolean, ats: boolean): number {
  const request = requestFor(sourceId, page, write, ats);
  const hit = unit.translate(sourceId, request.iovaHi, request.iovaLo, request.access);
  return hit >= 0 ? hit : runToEnd(unit.translateMiss(walker, request));
}

/** An endpoint that remembers what reaches it. */
export class RecordingEndpoint implements AtsEndpoint {
  readonly invalidations: { page: number; sizeLog2: number }[] = [];
  readonly responses: { groupIndex: number; responseCode: number }[] = [];
  /** Called when an invalidation arrives. */
  onInvalidate: () => void = () => undefined;

  *invalidateDeviceTlb(agent: Agent, page: number, sizeLog2: number): Task<void> {
    yield agent.spends('invalidate', Cost.deviceTlbInvalidate);
    this.onInvalidate();
    this.invalidations.push({ page, sizeLog2 });
  }

  pageGroupResponse(groupIndex: number, responseCode: number): void {
    this.responses.push({ groupIndex, responseCode });
  }
}

export const iotlbDescriptor = (
  granularity: 1 | 2 | 3,
  options: { domainId?: number; page?: number; addressMask?: number; leafOnly?: boolean } = {},
): Descriptor => ({
  type: 'iotlb',
  granularity,
  domainId: options.domainId ?? 1,
  page: options.page ?? 0,
  addressMask: options.addressMask ?? 0,
  leafOnly: options.leafOnly ?? false,
  drainReads: true,
  drainWrites: true,
});
