import { type Agent, Condition, Cost, Location, type Task } from '@faultline/sim';
import type { TableMemory } from '@faultline/vtd-pagetable';
import { type Descriptor, Granularity, ResponseCode, WHOLE_ADDRESS_SPACE } from './descriptor.ts';
import { decodePageRequest, isStopMarker, type PageRequest } from './page-request.ts';
import { type PageRequestQueue, PageRequestStatus } from './page-request-queue.ts';
import { InvalidationError, type QueuedInvalidation } from './queued-invalidation.ts';
import { Register } from './register-offset.ts';
import type { RegisterFile } from './registers.ts';
import { type DeviceSubmission, submitToDevices } from './submit-to-devices.ts';

/** Response codes by the fault handler's outcome: 0 success, 1 invalid, 2 failure, as Linux's generic code numbers them. */
const RESPONSE_CODES = [ResponseCode.success, ResponseCode.invalid, ResponseCode.failure] as const;

/** Options of a {@link PageRequestPort}. */
export interface PageRequestPortOptions {
  readonly memory: TableMemory;
  readonly registers: RegisterFile;
  /** The interrupt line of the unit's queue. */
  readonly queue: PageRequestQueue;
  readonly invalidations: QueuedInvalidation;
  /** The unit's number, for steps. */
  readonly location: number;
  /** Ring size, 2^(PQS+7); default 2048, as Linux sets it up. */
  readonly entries?: number;
}

/** Whose page requests are drained. */
export interface DrainTarget {
  readonly sourceId: number;
  /** Of the IOTLB invalidation that goes ahead of the function's. */
  readonly domainId: number;
  /** Whether the function has no translation any more: then nothing is asked of it. Default never. */
  readonly isGone?: NonNullable<DeviceSubmission['isGone']>;
  /** Isolates a function that does not answer. */
  readonly isolate?: NonNullable<DeviceSubmission['isolate']>;
}

/** Holds up what follows in the queue until all before it is done. */
const FENCE: Descriptor = {
  type: 'wait',
  statusAddress: 0n,
  statusData: 0,
  statusWrite: false,
  interrupt: false,
  fence: true,
  pageRequestDrain: false,
};
const WHOLE_DOMAIN = { page: 0, addressMask: 0, leafOnly: false, drainReads: true, drainWrites: true } as const;

/**
 * The driver's side of page requests: takes them from the unit's queue and answers through its invalidation queue. Linux
 * writes its generic FAILURE (2) into the descriptor as it is, a reserved code; this sends Response Failure (0xf).
 */
export class PageRequestPort {
  readonly #options: PageRequestPortOptions;
  readonly #ringPfn: number;
  readonly #entries: number;
  /** Drains that wait for the reader. */
  readonly #draining = new Set<Condition>();
  /** Requests have been taken that {@link take} has not given on yet. */
  #isTaking = false;
  /** Finishes what was taken of a function; see {@link onDrain}. */
  #finish: ((agent: Agent, sourceId: number) => Task<void>) | null = null;

  /** Allocates the ring and programs PQA, PQH and PQT. @throws RangeError for a size that PQS cannot say */
  constructor(options: PageRequestPortOptions) {
    const { memory, registers, entries = 2048 } = options;
    const queueSize = Math.log2(entries / 128);
    if (!Number.isInteger(queueSize) || queueSize < 0 || queueSize > 7)
      throw new RangeError(`entries: ${entries} is not a power of two in 128..16384`);
    this.#options = options;
    this.#entries = entries;
    this.#ringPfn = memory.allocateContiguous(2 ** queueSize);
    if (this.#ringPfn < 0) throw new RangeError('memory: no pages for the page request queue');
    registers.write64(Register.PQH, 0n);
    registers.write64(Register.PQT, 0n);
    registers.write64(Register.PQA, (BigInt(this.#ringPfn) << 12n) | BigInt(queueSize));
  }

  /**
   * Waits for the interrupt and takes head .. tail, in the order of Linux's prq_event_thread, in which others act between any two:
   * PPR is cleared first, so that what comes from then on interrupts again; tail and head are read once; head is moved. What becomes of an overflow
   * that comes later is {@link clearOverflow}'s to see. If `overflowed`, partial groups must be thrown away with it. Stop markers are
   * taken and not given on. What Linux refuses (an address that is not canonical, supervisor access, execute access) is answered Invalid
   * Request here.
   */
  *take(agent: Agent): Task<{ readonly requests: readonly PageRequest[]; readonly overflowed: boolean }> {
    const { queue, registers, location } = this.#options;
    while (!queue.interrupt.ready()) yield agent.waits('page request interrupt', queue.interrupt);
    yield agent.writes('clear PPR', Location.pageRequestQueue, location, Cost.entryRead);
    queue.acknowledge();
    registers.write32(Register.PRS, PageRequestStatus.pending);
    yield agent.reads('read PQT', Location.pageRequestQueue, location, Cost.free);
    const requests: PageRequest[] = [];
    const refused: PageRequest[] = [];
    const tail = this.#index(Register.PQT);
    // Hardware does not touch what is between head and tail.
    for (let head = this.#index(Register.PQH); head !== tail; head = (head + 1) % this.#entries) {
      const request = this.#read(head);
      if (request !== null && !isStopMarker(request)) (isRefused(request) ? refused : requests).push(request);
    }
    yield agent.writes('write PQH', Location.pageRequestQueue, location, Cost.free);
    registers.write64(Register.PQH, BigInt(tail * 32));
    const overflowed = this.#overflowed;
    this.#isTaking = refused.length > 0;
    this.#wakeDrains();
    for (const { last, sourceId, groupIndex, pasid } of refused)
      if (last) yield* this.respond(agent, sourceId, groupIndex, 1, pasid);
    this.#isTaking = false;
    this.#wakeDrains();
    return { requests, overflowed };
  }

  /** Clears PRS.PRO; legal only with an empty queue, on a fresh read. @returns false if requests came in between */
  clearOverflow(): boolean {
    const { registers } = this.#options;
    if (this.#index(Register.PQH) !== this.#index(Register.PQT)) return false;
    registers.write32(Register.PRS, PageRequestStatus.overflow);
    this.#wakeDrains();
    return true;
  }

  /** Answers one group. */
  *respond(agent: Agent, sourceId: number, groupIndex: number, outcome: 0 | 1 | 2, pasid?: number): Task<void> {
    const response: Descriptor = {
      type: 'pageGroupResponse',
      sourceId,
      groupIndex,
      responseCode: RESPONSE_CODES[outcome],
      ...(pasid === undefined ? {} : { pasid }),
    };
    yield* this.#options.invalidations.submit(agent, [response]);
  }

  /**
   * Drains the page requests of a function and the answers to it (7.10, and Linux's intel_iommu_drain_pasid_prq): a fence, then
   * an IOTLB and a device-TLB invalidation, whose completion pushes requests that are under way ahead of it (7.7), then a wait with
   * PD; the last two again while PRO shows that the unit itself may have answered. Before and after, whoever calls {@link take} has
   * to take what is queued, and to clear an overflow: this waits for it. What has been taken is finished by whoever registered with
   * {@link onDrain}, or else the caller's to answer. The function sends no new requests when this is called.
   * @throws InvalidationError EINVAL if the unit has no page request drain (ECAP.PDS), else as QueuedInvalidation.submit does
   */
  *drain(agent: Agent, { sourceId, domainId, ...devices }: DrainTarget): Task<void> {
    const { invalidations, registers, location } = this.#options;
    if (((registers.read64(Register.ECAP) >> 42n) & 1n) === 0n)
      throw new InvalidationError('EINVAL', 'the unit has no page request drain (ECAP.PDS)');
    yield* this.#waitUntil(agent, 'queued page requests', () => !this.holds(sourceId));
    const push: readonly Descriptor[] = [
      { type: 'iotlb', granularity: Granularity.domain, domainId, ...WHOLE_DOMAIN },
      { type: 'deviceTlb', sourceId, ...WHOLE_ADDRESS_SPACE },
    ];
    const submit = (descriptors: readonly Descriptor[]): Task<void> =>
      submitToDevices(agent, invalidations, { descriptors, ...devices, options: { drainPageRequests: true } });
    yield* submit([FENCE, ...push]);
    for (;;) {
      yield agent.reads('read PRS', Location.pageRequestQueue, location, Cost.entryRead);
      if (!this.#overflowed) break;
      yield* this.#waitUntil(agent, 'page request overflow', () => !this.#overflowed);
      yield* submit(push);
    }
    yield* this.#waitUntil(agent, 'drained page requests', () => !this.holds(sourceId) && !this.#isTaking);
    if (this.#finish) yield* this.#finish(agent, sourceId);
  }

  /** Has `finish` called at the end of each drain (as Linux calls iopf_queue_flush_dev): it answers all that was taken of the function. */
  onDrain(finish: (agent: Agent, sourceId: number) => Task<void>): void {
    this.#finish = finish;
  }

  *#waitUntil(agent: Agent, label: string, isDone: () => boolean): Task<void> {
    const condition = new Condition(label, isDone);
    this.#draining.add(condition);
    for (;;) {
      yield agent.reads('read page request queue', Location.pageRequestQueue, this.#options.location, Cost.entryRead);
      if (isDone()) break;
      yield agent.waits(label, condition);
    }
    this.#draining.delete(condition);
  }

  #wakeDrains(): void {
    for (const condition of this.#draining) if (condition.ready()) condition.wake();
  }

  /** Whether the queue holds requests of a function that nobody has taken yet. */
  holds(sourceId: number): boolean {
    const tail = this.#index(Register.PQT);
    for (let head = this.#index(Register.PQH); head !== tail; head = (head + 1) % this.#entries)
      if (this.#read(head)?.sourceId === sourceId) return true;
    return false;
  }

  get #overflowed(): boolean {
    return (this.#options.registers.read32(Register.PRS) & PageRequestStatus.overflow) !== 0;
  }

  #index(register: number): number {
    return (Number(this.#options.registers.read64(register)) / 32) % this.#entries;
  }

  #read(index: number): PageRequest | null {
    const { memory } = this.#options;
    const pfn = this.#ringPfn + Math.floor(index / 128);
    const word = (index % 128) * 4;
    return decodePageRequest(memory.load(pfn, word), memory.load(pfn, word + 1));
  }
}

/** What Linux's prq_event_thread takes for a bad request: bits 63:56 not all alike, or supervisor or execute access. */
const isRefused = ({ page, read, write, privileged = false, execute = false }: PageRequest): boolean =>
  (page >= 2 ** 44 && page < 2 ** 52 - 2 ** 44) || (privileged && (read || write)) || (execute && read);
