import { type Agent, assert, Condition, Cost, Location, type Task } from '@faultline/sim';
import { NotifierEvent, type NotifierRange } from './mmu-notifier.ts';

/** Somebody who keeps translations of a part of an address space (mmu_interval_notifier). */
export interface MmuIntervalNotifier {
  readonly startPage: number;
  readonly pages: number;
  /**
   * Takes the user's lock, calls `setSequence(sequence)`, tears down what lies in the range, and gives the lock back.
   * @returns false only for a range that is not blockable, if it would have to sleep
   */
  invalidate(agent: Agent, range: NotifierRange, sequence: number): Task<boolean>;
}

interface Subscription {
  readonly notifier: MmuIntervalNotifier;
  /** `interval_sub->invalidate_seq`. */
  sequence: number;
}

/**
 * The interval notifiers of one address space and their sequence protocol. The sequence of the address space is odd while a range
 * that overlaps an interval is being invalidated, and even when none is; each interval remembers the one of its last invalidation. A reader
 * that saw the interval's sequence and finds it unchanged under its own lock has looked up nothing stale.
 */
export class IntervalNotifiers {
  readonly #location: number;
  readonly #subscriptions = new Map<MmuIntervalNotifier, Subscription>();
  readonly #idle: Condition;
  #sequence = 2;
  /** Ranges in progress that overlap an interval. */
  #active = new Set<NotifierRange>();

  constructor(name: string, location: number) {
    this.#location = location;
    this.#idle = new Condition(`${name} interval invalidation`, () => (this.#sequence & 1) === 0);
  }

  /** `subscriptions->invalidate_seq`: odd while an invalidation that concerns an interval is in progress. */
  get sequence(): number {
    return this.#sequence;
  }

  /** Subscribes (mmu_interval_notifier_insert). @throws RangeError if it is subscribed already */
  insert(notifier: MmuIntervalNotifier): void {
    if (this.#subscriptions.has(notifier)) throw new RangeError('notifier: is inserted already');
    // As if invalidated just now: a first read waits for what is in progress.
    const sequence = (this.#sequence & 1) === 1 ? this.#sequence : this.#sequence - 1;
    this.#subscriptions.set(notifier, { notifier, sequence });
  }

  /** Unsubscribes, and waits for invalidations in progress to end (mmu_interval_notifier_remove). @throws RangeError if it is not subscribed */
  *remove(agent: Agent, notifier: MmuIntervalNotifier): Task<void> {
    if (!this.#subscriptions.delete(notifier)) throw new RangeError('notifier: is not inserted');
    yield* this.#waitIdle(agent);
  }

  /** Waits while the interval is being invalidated (mmu_interval_read_begin). @returns the sequence for {@link readRetry} */
  *readBegin(agent: Agent, notifier: MmuIntervalNotifier): Task<number> {
    yield agent.reads('interval: read begins', Location.notifierSequence, this.#location, Cost.free);
    const { sequence } = this.#of(notifier);
    if (sequence === this.#sequence) yield* this.#waitIdle(agent);
    return sequence;
  }

  /** Whether the interval has been invalidated since, under the user's lock (mmu_interval_read_retry). Part of the caller's step. */
  readRetry(notifier: MmuIntervalNotifier, sequence: number): boolean {
    return this.#of(notifier).sequence !== sequence;
  }

  /** In the invalidate callback, under the user's lock (mmu_interval_set_seq). Part of the caller's step. */
  setSequence(notifier: MmuIntervalNotifier, sequence: number): void {
    this.#of(notifier).sequence = sequence;
  }

  /** A range opens; part of the step that opens it. */
  rangeStarts(range: NotifierRange): void {
    if (this.#overlapping(range).length === 0) return;
    this.#active.add(range);
    this.#sequence |= 1;
  }

  /** Calls the intervals that the range concerns. @returns false if one would have to sleep and must not */
  *invalidate(agent: Agent, range: NotifierRange): Task<boolean> {
    for (const { notifier } of this.#overlapping(range)) {
      const done = yield* notifier.invalidate(agent, range, this.#sequence);
      assert(done || !range.blockable, 'an interval notifier refuses a range for which it may sleep');
      if (!done) return false;
    }
    return true;
  }

  /** A range closes; part of the step that closes it. The last one makes the sequence even again. */
  rangeEnds(range: NotifierRange): void {
    if (!this.#active.delete(range) || this.#active.size > 0) return;
    this.#sequence++;
    this.#idle.wake();
  }

  /** The address space goes away: every interval is invalidated with RELEASE. */
  *release(agent: Agent): Task<void> {
    for (const { notifier } of [...this.#subscriptions.values()]) {
      const { startPage, pages } = notifier;
      const range: NotifierRange = { startPage, pages, event: NotifierEvent.RELEASE, blockable: true };
      this.rangeStarts(range);
      yield* notifier.invalidate(agent, range, this.#sequence);
      this.rangeEnds(range);
    }
  }

  #overlapping(range: NotifierRange): Subscription[] {
    return [...this.#subscriptions.values()].filter(
      ({ notifier }) =>
        notifier.startPage < range.startPage + range.pages && range.startPage < notifier.startPage + notifier.pages,
    );
  }

  *#waitIdle(agent: Agent): Task<void> {
    while (!this.#idle.ready()) {
      const step = agent.waits('interval: wait for invalidations', this.#idle);
      step.kind = Location.notifierSequence;
      step.location = this.#location;
      yield step;
    }
  }

  #of(notifier: MmuIntervalNotifier): Subscription {
    const subscription = this.#subscriptions.get(notifier);
    assert(subscription !== undefined, 'the interval notifier is not inserted');
    return subscription;
  }
}
