import { type Agent, Cost, Location, type Task } from '@faultline/sim';
import type { TableMemory } from '@faultline/vtd-pagetable';
import { type Descriptor, ResponseCode, WHOLE_ADDRESS_SPACE } from './descriptor.ts';
import { decodePageRequest, isStopMarker, type PageRequest } from './page-request.ts';
import { type PageRequestQueue, PageRequestStatus } from './page-request-queue.ts';
import type { QueuedInvalidation } from './queued-invalidation.ts';
import { Register } from './register-offset.ts';
import type { RegisterFile } from './registers.ts';

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

/**
 * The driver's side of page requests: takes them from the unit's queue and answers through its invalidation queue. Linux
 * writes its generic FAILURE (2) into the descriptor as it is, a reserved code; this sends Response Failure (0xf).
 */
export class PageRequestPort {
  readonly #options: PageRequestPortOptions;
  readonly #ringPfn: number;
  readonly #entries: number;

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
   * Waits for the interrupt and takes head .. tail as read once, PPR cleared first (as Linux's prq_event_thread). If `overflowed`,
   * partial groups must be thrown away before {@link clearOverflow}. Stop markers are taken and not given on.
   */
  *take(agent: Agent): Task<{ readonly requests: readonly PageRequest[]; readonly overflowed: boolean }> {
    const { queue, registers, location } = this.#options;
    while (!queue.pending.ready()) yield agent.waits('page request interrupt', queue.pending);
    yield agent.writes('read page requests', Location.pageRequestQueue, location, Cost.entryRead);
    registers.write32(Register.PRS, PageRequestStatus.pending);
    const requests: PageRequest[] = [];
    const tail = this.#index(Register.PQT);
    let head = this.#index(Register.PQH);
    while (head !== tail) {
      const request = this.#read(head);
      if (request !== null && !isStopMarker(request)) requests.push(request);
      head = (head + 1) % this.#entries;
    }
    registers.write64(Register.PQH, BigInt(tail * 32));
    return { requests, overflowed: (registers.read32(Register.PRS) & PageRequestStatus.overflow) !== 0 };
  }

  /** Clears PRS.PRO; legal only with an empty queue, on a fresh read. @returns false if requests came in between */
  clearOverflow(): boolean {
    const { registers } = this.#options;
    if (this.#index(Register.PQH) !== this.#index(Register.PQT)) return false;
    registers.write32(Register.PRS, PageRequestStatus.overflow);
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
   * Brings the page requests of a function that are under way into the queue (7.7, 7.10): a device-TLB invalidation pushes
   * them ahead of its completion, and a wait with PD is ordered behind them; once more if PRO shows that some were lost.
   * The caller then handles what is queued. @returns whether the queue overflowed, so that requests may have been dropped
   */
  *drain(agent: Agent, sourceId: number): Task<boolean> {
    const { invalidations, registers } = this.#options;
    const push: Descriptor = { type: 'deviceTlb', sourceId, ...WHOLE_ADDRESS_SPACE };
    yield* invalidations.submit(agent, [push], { drainPageRequests: true });
    const overflowed = (registers.read32(Register.PRS) & PageRequestStatus.overflow) !== 0;
    return overflowed;
  }

  /** Whether the queue holds requests of a function that nobody has taken yet. */
  holds(sourceId: number): boolean {
    const tail = this.#index(Register.PQT);
    for (let head = this.#index(Register.PQH); head !== tail; head = (head + 1) % this.#entries)
      if (this.#read(head)?.sourceId === sourceId) return true;
    return false;
  }

  #index(register: number): number {
    return Number(this.#options.registers.read64(register)) / 32;
  }

  #read(index: number): PageRequest | null {
    const { memory } = this.#options;
    const pfn = this.#ringPfn + Math.floor(index / 128);
    const word = (index % 128) * 4;
    return decodePageRequest(memory.load(pfn, word), memory.load(pfn, word + 1));
  }
}
