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
  type InvalidationExecutor,
  type IotlbDescriptor,
  type MessageOutcome,
  RemappingUnit,
  type RemappingUnitOptions,
  type TranslationCompletion,
  VtdDomain,
  type VtdDomainOptions,
  VtdDriver,
  type VtdDriverOptions,
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
  readonly driver: VtdDriver;
  /** Descriptors other than waits, in the order of execution. */
  readonly executed: Descriptor[] = [];

  constructor(options: Partial<RemappingUnitOptions> = {}, driver: Partial<VtdDriverOptions> = {}) {
    this.memory = options.memory ?? new TableMemory({ pages: 192 });
    this.unit = new RemappingUnit({ memory: this.memory, iotlb: SMALL_IOTLB, ...options });
    this.driver = new VtdDriver({ unit: this.unit, ...driver });
    const hardware = new Agent('hardware');
    const { unit, executed } = this;
    const recording: InvalidationExecutor = {
      *execute(agent: Agent, descriptor: Descriptor): Task<void> {
        executed.push(descriptor);
        yield* unit.execute(agent, descriptor);
      },
      *sendMessage(agent: Agent, descriptor: Descriptor): Task<MessageOutcome> {
        executed.push(descriptor);
        return yield* unit.sendMessage(agent, descriptor);
      },
      drain: (agent: Agent) => unit.drain(agent),
      drainPageRequests: (agent: Agent) => unit.drainPageRequests(agent),
      descriptorRules: (wide: boolean) => unit.descriptorRules(wide),
    };
    this.time.spawn(hardware, unit.invalidationQueue.run(hardware, recording), { daemon: true });
  }

  domain(options: Partial<VtdDomainOptions> = {}): VtdDomain {
    return new VtdDomain({ driver: this.driver, domainId: 1, ...options });
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
    this.run((agent) => this.driver.invalidations.submit(agent, descriptors));
  }

  /** The whole way of one untranslated request, with nobody in between. @returns a frame, or minus a fault reason */
  dma(sourceId: number, page: number, write = false): number {
    return this.unit.dma(requestFor(sourceId, page, write));
  }

  /** An ATS translation request. */
  ats(sourceId: number, page: number, write = false): TranslationCompletion {
    const { iovaHi, iovaLo } = requestFor(sourceId, page, write);
    return runToEnd(this.unit.translationRequest(walker, { sourceId, iovaHi, iovaLo, noWrite: !write }));
  }
}

const walker = new Agent('walker');

/** The request that a page stands for. */
export const requestFor = (sourceId: number, page: number, write: boolean) => ({
  sourceId,
  iovaHi: Math.floor(page / 2 ** 20),
  iovaLo: (page << 12) | 0,
  access: write ? 1 : 0,
});

/** An endpoint that remembers what reaches it. */
export class RecordingEndpoint implements AtsEndpoint {
  readonly invalidations: { page: number; sizeLog2: number }[] = [];
  readonly responses: { groupIndex: number; responseCode: number }[] = [];
  /** How invalidations complete. */
  outcome: MessageOutcome = 'completed';
  /** Called when an invalidation arrives. */
  onInvalidate: () => void = () => undefined;

  *invalidateDeviceTlb(agent: Agent, page: number, sizeLog2: number): Task<MessageOutcome> {
    yield agent.spends('invalidate', Cost.deviceTlbInvalidate);
    this.onInvalidate();
    this.invalidations.push({ page, sizeLog2 });
    return this.outcome;
  }

  pageGroupResponse(groupIndex: number, responseCode: number): void {
    this.responses.push({ groupIndex, responseCode });
  }
}

export const iotlbDescriptor = (
  granularity: 1 | 2 | 3,
  options: { domainId?: number; page?: number; addressMask?: number; leafOnly?: boolean } = {},
): IotlbDescriptor => ({
  type: 'iotlb',
  granularity,
  domainId: options.domainId ?? 1,
  page: options.page ?? 0,
  addressMask: options.addressMask ?? 0,
  leafOnly: options.leafOnly ?? false,
  drainReads: true,
  drainWrites: true,
});
