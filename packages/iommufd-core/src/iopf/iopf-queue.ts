import { hex } from '@faultline/address';
import { type Agent, ANY_LOCATION, Condition, Cost, Location, type Task } from '@faultline/sim';
import { IommufdError } from '../errno.ts';
import { FaultOutcome, type FaultOutcomeCode } from '../stage2/fault-handler.ts';
import { type FaultingHwpt, type IoPageRequest, type IopfHandler, PageGroup } from './page-group.ts';

/** What the fault handler asks of the IOMMU driver: requests in, responses out. */
export interface PageRequestSource {
  /** Waits for requests and takes all that are there. */
  take(agent: Agent): Task<{ readonly requests: readonly IoPageRequest[]; readonly overflowed: boolean }>;
  /** Clears the overflow; false if requests came in between. */
  clearOverflow(): boolean;
  /** Sends one page group response. */
  respond(agent: Agent, sourceId: number, groupIndex: number, outcome: FaultOutcomeCode, pasid?: number): Task<void>;
  /** Has the driver call `finish` when it drains a function, before the function is out of reach of answers. */
  onDrain?(finish: (agent: Agent, sourceId: number) => Task<void>): void;
}

/** Options of an {@link IopfQueue}. */
export interface IopfQueueOptions {
  readonly source: PageRequestSource;
  /** Who handles the groups of a requester that is attached; asked when a group is whole. None: answered INVALID. */
  readonly handlerOf: (sourceId: number, pasid: number | undefined) => IopfHandler | null | undefined;
  /** Whether memory for a request of a partial list, or for a group, can be had; default always. */
  readonly mayAllocate?: () => boolean;
}

/**
 * Turns page requests into groups, as Linux's iopf code does: requests without LAST wait in a partial list per requester, LAST
 * completes the group with those of the same index, whatever their PASIDs. Groups for the kernel are handled by {@link worker} tasks, one group
 * at a time each, so that the work of one turn is bounded by a group; those for user space go to its FAULT object. Every group has exactly
 * one answer (I9), whoever is first: the handler, or the detach or removal of the device.
 */
export class IopfQueue {
  readonly #source: PageRequestSource;
  readonly #handlerOf: IopfQueueOptions['handlerOf'];
  readonly #mayAllocate: () => boolean;
  readonly #partial = new Map<number, IoPageRequest[]>();
  /** Groups for workers, with who handles them. */
  readonly #queued: { readonly group: PageGroup; readonly hwpt: FaultingHwpt }[] = [];
  /** Groups whose answer has not been sent, or that a worker is at. */
  readonly #open = new Set<PageGroup>();
  readonly #added = new Set<number>();
  readonly #removed = new Set<number>();
  readonly #watchers = new Map<number, (request: IoPageRequest) => void>();
  readonly #work = new Condition('iopf queue: groups', () => this.#queued.length > 0);
  /** Those who wait for groups to be over. */
  readonly #waits = new Set<Condition>();
  /** The interrupt thread is at what it has taken. */
  #isReceiving = false;
  readonly #answers = [0, 0, 0];
  #discardedPartial = 0;
  #refusedPartial = 0;

  constructor(options: IopfQueueOptions) {
    this.#source = options.source;
    this.#handlerOf = options.handlerOf;
    this.#mayAllocate = options.mayAllocate ?? (() => true);
    this.#source.onDrain?.((agent, sourceId) => this.detach(agent, sourceId));
  }

  /** Groups that got their answer. */
  get answered(): number {
    return this.answers.success + this.answers.invalid + this.answers.failure;
  }

  /** Answers by their code. */
  get answers(): { readonly success: number; readonly invalid: number; readonly failure: number } {
    const [success = 0, invalid = 0, failure = 0] = this.#answers;
    return { success, invalid, failure };
  }

  /** Groups without an answer, and requests in partial lists. */
  get outstanding(): number {
    let partial = 0;
    for (const list of this.#partial.values()) partial += list.length;
    return this.#open.size + partial;
  }

  /** Requests thrown away from partial lists because the queue overflowed. */
  get discardedPartial(): number {
    return this.#discardedPartial;
  }

  /** Requests without LAST that there was no memory for. Their group is answered without them. */
  get refusedPartial(): number {
    return this.#refusedPartial;
  }

  /**
   * iopf_queue_add_device. A requester that was never added or removed is served as long as it has a handler; one that was
   * removed only after it is added again. @throws IommufdError EBUSY if it is added
   */
  addDevice(sourceId: number): void {
    if (this.#added.has(sourceId)) throw new IommufdError('EBUSY', `device ${hex(sourceId)} has been added already`);
    this.#added.add(sourceId);
    this.#removed.delete(sourceId);
  }

  /**
   * iopf_queue_remove_device: its partial list is freed, its groups are answered INVALID, and when this returns nobody maps for it any
   * more. What it sends afterwards is answered INVALID.
   */
  *removeDevice(agent: Agent, sourceId: number): Task<void> {
    this.#added.delete(sourceId);
    this.#removed.add(sourceId);
    this.#partial.delete(sourceId);
    this.#watchers.delete(sourceId);
    yield* this.detach(agent, sourceId);
  }

  /**
   * The end of an attachment, or its replacement by another: all groups of the device that have no answer, in whatever stage, are answered
   * INVALID. When this returns, no worker is at one of them. Whoever calls it has changed what `handlerOf` says.
   * @param handledBy only those of this hwpt or FAULT object
   */
  *detach(agent: Agent, sourceId: number, handledBy?: object): Task<void> {
    yield* this.#waitUntil(agent, 'page requests taken', () => !this.#isReceiving);
    yield agent.writes('look for page groups', Location.lock, this.#work.id, Cost.free);
    const groups = [...this.#open].filter(
      (group) => group.sourceId === sourceId && (handledBy === undefined || group.handledBy === handledBy),
    );
    for (const group of groups) yield* this.#answer(agent, group, FaultOutcome.invalid);
    yield* this.#waitUntil(agent, 'page groups of a device', () => groups.every((group) => !this.#open.has(group)));
  }

  /** Waits for the groups of a device that workers have or will have (iopf_queue_flush_dev). Those at user space are not waited for. */
  *flush(agent: Agent, sourceId: number): Task<void> {
    const groups = [...this.#open].filter((group) => group.sourceId === sourceId);
    const isAtWork = (group: PageGroup) => group.inWork || this.#queued.some((queued) => queued.group === group);
    yield* this.#waitUntil(agent, 'iopf workers', () => !groups.some(isAtWork));
  }

  /** Shows each request of a device to somebody before it is handled, until the device is removed. */
  watch(sourceId: number, watcher: (request: IoPageRequest) => void): void {
    this.#watchers.set(sourceId, watcher);
  }

  /** The page request interrupt thread; runs for ever. */
  *interruptThread(agent: Agent): Task<void> {
    for (;;) {
      const { requests, overflowed } = yield* this.#source.take(agent);
      this.#isReceiving = true;
      for (const request of requests) yield* this.#receive(agent, request);
      if (overflowed) {
        yield agent.writes('clear PRO', Location.pageRequestQueue, ANY_LOCATION, Cost.free);
        if (this.#source.clearOverflow()) this.#discardPartial();
      }
      this.#isReceiving = false;
      this.#wakeWaits();
    }
  }

  /**
   * iopf_queue_discard_partial: their LAST may have been among the lost. As in Linux only once the queue is empty: what has come in since is
   * taken first, and the overflow is seen again then.
   */
  #discardPartial(): void {
    for (const list of this.#partial.values()) this.#discardedPartial += list.length;
    this.#partial.clear();
  }

  /** A fault worker; runs for ever. Start as many as groups may be handled at once. */
  *worker(agent: Agent): Task<void> {
    for (;;) {
      yield agent.waits('iopf work', this.#work);
      const next = this.#queued.shift();
      if (!next) continue; // another worker was faster
      const { group, hwpt } = next;
      if (group.isAnswered) continue; // the device was detached
      group.inWork = true;
      yield agent.spends('handle page group', Cost.faultHandler);
      const outcome = yield* this.#handle(agent, group, hwpt);
      group.inWork = false;
      yield* this.#answer(agent, group, outcome);
    }
  }

  /** Stops at the first request that fails, and when the group has its answer from elsewhere. */
  *#handle(agent: Agent, group: PageGroup, hwpt: FaultingHwpt): Task<FaultOutcomeCode> {
    for (const request of group.requests) {
      if (group.isAnswered) return FaultOutcome.invalid;
      const outcome = yield* hwpt.handleFault(agent, request.page, request.write);
      if (outcome !== FaultOutcome.success) return outcome;
    }
    return FaultOutcome.success;
  }

  *#receive(agent: Agent, request: IoPageRequest): Task<void> {
    const { sourceId, pasid } = request;
    const isRemoved = this.#removed.has(sourceId);
    this.#watchers.get(sourceId)?.(request);
    if (!request.last) {
      if (!isRemoved) this.#addPartial(request);
      return;
    }
    const group = new PageGroup(this.#takePartial(request), request);
    this.#open.add(group);
    const handler = isRemoved ? null : this.#handlerOf(sourceId, pasid);
    if (handler) group.handledBy = handler.kind === 'kernel' ? handler.hwpt : handler.fault;
    if (!handler) yield* this.#answer(agent, group, FaultOutcome.invalid);
    else if (!this.#mayAllocate()) yield* this.#answer(agent, group, FaultOutcome.failure);
    else if (handler.kind === 'kernel') {
      yield agent.writes('queue page group', Location.lock, this.#work.id, Cost.free);
      this.#queued.push({ group, hwpt: handler.hwpt });
      this.#work.wake();
    } else {
      const queue = this;
      handler.fault.report(
        group.delivered(handler, function* (agentOfUser, code) {
          yield* queue.#answer(agentOfUser, group, code === 0 ? FaultOutcome.success : FaultOutcome.invalid);
        }),
      );
    }
  }

  #addPartial(request: IoPageRequest): void {
    if (!this.#mayAllocate()) {
      this.#refusedPartial++;
      return;
    }
    const list = this.#partial.get(request.sourceId) ?? [];
    list.push(request);
    this.#partial.set(request.sourceId, list);
  }

  /** The requests of the partial list that belong to a last one. */
  #takePartial({ sourceId, groupIndex }: IoPageRequest): IoPageRequest[] {
    const list = this.#partial.get(sourceId) ?? [];
    const rest = list.filter((other) => other.groupIndex !== groupIndex);
    if (rest.length > 0) this.#partial.set(sourceId, rest);
    else this.#partial.delete(sourceId);
    return list.filter((other) => other.groupIndex === groupIndex);
  }

  /** Sends the one answer, unless somebody else has sent it or is about to. */
  *#answer(agent: Agent, group: PageGroup, outcome: FaultOutcomeCode): Task<void> {
    yield agent.writes('claim page group', Location.lock, this.#work.id, Cost.free);
    if (!group.isAnswered) {
      group.isAnswered = true;
      const { sourceId, groupIndex, pasid } = group;
      yield* this.#source.respond(agent, sourceId, groupIndex, outcome, pasid);
      this.#answers[outcome] = (this.#answers[outcome] as number) + 1;
      group.isSent = true;
    }
    if (!group.isSent || group.inWork) return;
    this.#open.delete(group);
    this.#wakeWaits();
  }

  *#waitUntil(agent: Agent, label: string, isDone: () => boolean): Task<void> {
    if (isDone()) return;
    const wait = new Condition(`iopf queue: ${label}`, isDone);
    this.#waits.add(wait);
    try {
      while (!isDone()) yield agent.waits(label, wait);
    } finally {
      this.#waits.delete(wait);
    }
  }

  #wakeWaits(): void {
    for (const wait of this.#waits) if (wait.ready()) wait.wake();
  }
}
