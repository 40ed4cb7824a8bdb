import { type Agent, assert, Condition, Cost, Location, type Task } from '@faultline/sim';
import { IntervalNotifiers } from './interval-notifier.ts';

/** Why a range is invalidated, with the numbers of Linux's `enum mmu_notifier_event`. */
export const NotifierEvent = {
  UNMAP: 0,
  CLEAR: 1,
  PROTECTION_VMA: 2,
  PROTECTION_PAGE: 3,
  SOFT_DIRTY: 4,
  RELEASE: 5,
  MIGRATE: 6,
  EXCLUSIVE: 7,
} as const;
/** An event's number. */
export type NotifierEventNumber = (typeof NotifierEvent)[keyof typeof NotifierEvent];

/** What is being invalidated. The same object goes to start and to end. */
export interface NotifierRange {
  readonly startPage: number;
  readonly pages: number;
  readonly event: NotifierEventNumber;
  /** False: callbacks must not sleep; the agent's `maySleep` is false while they run. */
  readonly blockable: boolean;
}

/** Somebody who keeps translations of an address space elsewhere (KVM, iommufd). */
export interface MmuNotifier {
  /**
   * When it returns, nothing reaches the range's pages through those translations any more. It cannot fail, but of a range that is not
   * blockable it may answer false (EAGAIN): it would have to sleep. Whoever may do that has no `invalidateRangeEnd`.
   */
  invalidateRangeStart(agent: Agent, range: NotifierRange): Task<boolean> | Task<void>;
  /** New translations of the range may be made again. Part of the caller's step. */
  invalidateRangeEnd?(agent: Agent, range: NotifierRange): void;
  /** Clears the accessed bits of its translations of the pages, and flushes them. @returns whether one was set */
  clearFlushYoung?(agent: Agent, startPage: number, pages: number): Task<boolean>;
  /** The same without a flush, for the aging of generations. Part of the caller's step. */
  clearYoung?(agent: Agent, startPage: number, pages: number): boolean;
  /** Whether a translation of the page has its accessed bit set. Part of the caller's step. */
  testYoung?(agent: Agent, page: number): boolean;
  /**
   * The CPU flushes its TLB for the pages: whoever walks the CPU's own page table (SVA) flushes too. Called under the
   * page-table lock, so it cannot sleep. Part of the caller's step.
   */
  archInvalidateSecondaryTlbs?(agent: Agent, startPage: number, pages: number): void;
  /** The address space goes away: drop every translation. */
  release?(agent: Agent): Task<void>;
}

interface ActiveRange {
  readonly range: NotifierRange;
  readonly subscribers: readonly MmuNotifier[];
}

/**
 * The notifiers of one address space and the sequence by which a fault handler learns that what it looked up is stale:
 * KVM's `mmu_invalidate_seq` and `mmu_invalidate_in_progress`, kept by page range as interval notifiers do. The sequence
 * moves when a range ends.
 */
export class NotifierSubscriptions {
  readonly #name: string;
  /** Location of its steps within `Location.notifierSequence`. */
  readonly #location: number;
  readonly #counters: { notifierRanges: number };
  readonly #subscribers: MmuNotifier[] = [];
  readonly #active: ActiveRange[] = [];
  readonly #waits = new Set<Condition>();
  readonly #intervals: IntervalNotifiers;
  #sequence = 0;

  constructor(name: string, location: number, counters: { notifierRanges: number }) {
    this.#name = name;
    this.#location = location;
    this.#counters = counters;
    this.#intervals = new IntervalNotifiers(name, location);
  }

  /** Those who listen to a part of the address space. */
  get intervals(): IntervalNotifiers {
    return this.#intervals;
  }

  /** Ranges between start and end. */
  get inProgress(): number {
    return this.#active.length;
  }

  get sequence(): number {
    return this.#sequence;
  }

  /** Subscribes; ranges in progress are not told to it. @throws RangeError if it is subscribed already */
  register(notifier: MmuNotifier): void {
    if (this.#subscribers.includes(notifier))
      throw new RangeError(`notifier: is registered with ${this.#name} already`);
    this.#subscribers.push(notifier);
  }

  /** Unsubscribes; it still hears the end of ranges whose start it heard. @throws RangeError if it is not subscribed */
  unregister(notifier: MmuNotifier): void {
    const at = this.#subscribers.indexOf(notifier);
    if (at < 0) throw new RangeError(`notifier: is not registered with ${this.#name}`);
    this.#subscribers.splice(at, 1);
  }

  /** Tells every subscriber that the address space goes away, and unsubscribes it. */
  *release(agent: Agent): Task<void> {
    yield agent.writes('notifier: release', Location.notifierSequence, this.#location, Cost.notifierCall);
    yield* this.#intervals.release(agent);
    for (const subscriber of [...this.#subscribers]) {
      if (!this.#subscribers.includes(subscriber)) continue;
      if (subscriber.release) yield* subscriber.release(agent);
      const at = this.#subscribers.indexOf(subscriber);
      if (at >= 0) this.#subscribers.splice(at, 1);
    }
  }

  /**
   * Opens a range and calls every subscriber's start, interval notifiers first, then in the order of registration. All are called,
   * even when one refuses; but when an interval notifier does, the others hear nothing of the range, neither start nor end.
   * @returns false if one would have to sleep and must not: the range is not blockable. It must be ended all the same (Linux ends
   * it within the start that fails)
   */
  *start(agent: Agent, range: NotifierRange): Task<boolean> {
    yield agent.writes('notifier: range starts', Location.notifierSequence, this.#location, Cost.notifierCall);
    const subscribers: MmuNotifier[] = [];
    this.#active.push({ range, subscribers });
    this.#counters.notifierRanges++;
    this.#intervals.rangeStarts(range);
    const maySleep = agent.maySleep;
    if (!range.blockable) agent.maySleep = false;
    try {
      if (!(yield* this.#intervals.invalidate(agent, range))) return false;
      subscribers.push(...this.#subscribers);
      let done = true;
      for (const subscriber of [...subscribers])
        if ((yield* subscriber.invalidateRangeStart(agent, range)) === false) {
          assert(!range.blockable, `${this.#name}: a notifier refuses a range for which it may sleep`);
          // It could not tell whether it is to hear the end.
          assert(!subscriber.invalidateRangeEnd, `${this.#name}: a notifier that may refuse a range hears its end`);
          done = false;
        }
      return done;
    } finally {
      agent.maySleep = maySleep;
    }
  }

  /** Whether anybody has accessed bits of its own. */
  get hearsYoung(): boolean {
    return this.#subscribers.some((subscriber) => subscriber.clearFlushYoung !== undefined);
  }

  /** Clears the accessed bits of all subscribers for the pages. @returns whether one was set */
  *clearFlushYoung(agent: Agent, startPage: number, pages: number): Task<boolean> {
    let young = false;
    for (const subscriber of [...this.#subscribers])
      if (subscriber.clearFlushYoung && (yield* subscriber.clearFlushYoung(agent, startPage, pages))) young = true;
    return young;
  }

  /** The same without a flush. Part of the caller's step. */
  clearYoung(agent: Agent, startPage: number, pages: number): boolean {
    let young = false;
    for (const subscriber of this.#subscribers) if (subscriber.clearYoung?.(agent, startPage, pages)) young = true;
    return young;
  }

  /** Whether a subscriber has seen an access to the page. Part of the caller's step. */
  testYoung(agent: Agent, page: number): boolean {
    return this.#subscribers.some((subscriber) => subscriber.testYoung?.(agent, page) ?? false);
  }

  /** Tells those who walk the CPU's page table that its TLB is flushed. Part of the caller's step. */
  archInvalidateSecondaryTlbs(agent: Agent, startPage: number, pages: number): void {
    for (const subscriber of this.#subscribers) subscriber.archInvalidateSecondaryTlbs?.(agent, startPage, pages);
  }

  /** Calls end for those who heard the start, closes the range and moves the sequence, in one step. */
  *end(agent: Agent, range: NotifierRange): Task<void> {
    yield agent.writes('notifier: range ends', Location.notifierSequence, this.#location, Cost.free);
    const at = this.#active.findIndex((active) => active.range === range);
    assert(at >= 0, `${this.#name}: a notifier range ends that was not started`);
    for (const subscriber of this.#active[at]?.subscribers ?? []) subscriber.invalidateRangeEnd?.(agent, range);
    this.#intervals.rangeEnds();
    this.#sequence++;
    this.#active.splice(at, 1);
    for (const wait of this.#waits) wait.wake();
  }

  /** Waits while a range that overlaps the pages is in progress. @returns the sequence for {@link readRetry} */
  *readBegin(agent: Agent, page: number, pages: number): Task<number> {
    for (;;) {
      yield agent.reads('notifier: read begins', Location.notifierSequence, this.#location, Cost.free);
      if (!this.#overlaps(page, pages)) return this.#sequence;
      const wait = new Condition(`${this.#name} invalidation`, () => !this.#overlaps(page, pages));
      this.#waits.add(wait);
      try {
        const step = agent.waits('notifier: wait for the range to end', wait);
        step.kind = Location.notifierSequence;
        step.location = this.#location;
        yield step;
      } finally {
        this.#waits.delete(wait);
      }
    }
  }

  /** Whether what was looked up since `readBegin` gave `sequence` may be stale. Part of the caller's step. */
  readRetry(page: number, pages: number, sequence: number): boolean {
    return sequence !== this.#sequence || this.#overlaps(page, pages);
  }

  #overlaps(page: number, pages: number): boolean {
    for (const { range } of this.#active)
      if (page < range.startPage + range.pages && range.startPage < page + pages) return true;
    return false;
  }
}
