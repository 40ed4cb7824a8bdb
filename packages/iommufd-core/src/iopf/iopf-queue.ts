import { type Agent, Condition, Cost, type Task } from '@faultline/sim';
import { FaultOutcome, type FaultOutcomeCode } from '../stage2/fault-handler.ts';
import type { HwptPaging } from '../stage2/hwpt-paging.ts';

/** One page request as the driver reads it. */
export interface IoPageRequest {
  readonly sourceId: number;
  readonly page: number;
  readonly write: boolean;
  /** Last of its group: the one that is answered. */
  readonly last: boolean;
  readonly groupIndex: number;
}

/** What the fault handler asks of the IOMMU driver: requests in, responses out. */
export interface PageRequestSource {
  /** Waits for requests and takes all that are there. */
  take(agent: Agent): Task<{ readonly requests: readonly IoPageRequest[]; readonly overflowed: boolean }>;
  /** Clears the overflow; false if requests came in between. */
  clearOverflow(): boolean;
  /** Sends one page group response. */
  respond(agent: Agent, sourceId: number, groupIndex: number, outcome: FaultOutcomeCode): Task<void>;
}

/** A group of page requests that gets one answer. */
interface PageGroup {
  readonly sourceId: number;
  readonly groupIndex: number;
  readonly requests: readonly IoPageRequest[];
}

/** Options of an {@link IopfQueue}. */
export interface IopfQueueOptions {
  readonly source: PageRequestSource;
  /** The hwpt that a requester is attached to; undefined answers INVALID. */
  readonly hwptOf: (sourceId: number) => HwptPaging | undefined;
}

/**
 * Turns page requests into groups, as Linux's iopf code does: requests without LAST wait in a partial list per requester, LAST
 * completes the group with those of the same index. Groups are handled by {@link worker} tasks, one group at a time each, so
 * the work of one turn is bounded by a group.
 */
export class IopfQueue {
  readonly #source: PageRequestSource;
  readonly #hwptOf: IopfQueueOptions['hwptOf'];
  readonly #partial = new Map<number, IoPageRequest[]>();
  readonly #groups: PageGroup[] = [];
  readonly #work = new Condition('iopf queue: groups', () => this.#groups.length > 0);
  #answered = 0;
  #inWork = 0;
  #discardedPartial = 0;

  constructor(options: IopfQueueOptions) {
    this.#source = options.source;
    this.#hwptOf = options.hwptOf;
  }

  /** Groups that got their answer. */
  get answered(): number {
    return this.#answered;
  }

  /** Groups queued or in work, and requests in partial lists. */
  get outstanding(): number {
    let partial = 0;
    for (const list of this.#partial.values()) partial += list.length;
    return this.#groups.length + this.#inWork + partial;
  }

  /** Requests thrown away from partial lists because the queue overflowed. */
  get discardedPartial(): number {
    return this.#discardedPartial;
  }

  /** The page request interrupt thread; runs for ever. */
  *interruptThread(agent: Agent): Task<void> {
    for (;;) {
      const { requests, overflowed } = yield* this.#source.take(agent);
      for (const request of requests) this.#add(request);
      if (!overflowed) continue;
      // iopf_queue_discard_partial: their LAST may have been among the lost.
      for (const list of this.#partial.values()) this.#discardedPartial += list.length;
      this.#partial.clear();
      this.#source.clearOverflow();
    }
  }

  /** A fault worker; runs for ever. Start as many as groups may be handled at once. */
  *worker(agent: Agent): Task<void> {
    for (;;) {
      while (!this.#work.ready()) yield agent.waits('iopf work', this.#work);
      const group = this.#groups.shift();
      if (!group) continue;
      this.#inWork++;
      yield agent.spends('handle page group', Cost.faultHandler);
      const outcome = yield* this.#handle(agent, group);
      yield* this.#source.respond(agent, group.sourceId, group.groupIndex, outcome);
      this.#inWork--;
      this.#answered++;
    }
  }

  *#handle(agent: Agent, group: PageGroup): Task<FaultOutcomeCode> {
    const hwpt = this.#hwptOf(group.sourceId);
    if (!hwpt) return FaultOutcome.invalid;
    for (const request of group.requests) {
      const outcome = yield* hwpt.handleFault(agent, request.page, request.write);
      if (outcome !== FaultOutcome.success) return outcome; // stops at the first failure
    }
    return FaultOutcome.success;
  }

  #add(request: IoPageRequest): void {
    const list = this.#partial.get(request.sourceId) ?? [];
    if (!request.last) {
      list.push(request);
      this.#partial.set(request.sourceId, list);
      return;
    }
    const { sourceId, groupIndex } = request;
    const members = list.filter((other) => other.groupIndex === groupIndex);
    const rest = list.filter((other) => other.groupIndex !== groupIndex);
    if (rest.length > 0) this.#partial.set(sourceId, rest);
    else this.#partial.delete(sourceId);
    this.#groups.push({ sourceId, groupIndex, requests: [...members, request] });
    this.#work.wake();
  }
}
