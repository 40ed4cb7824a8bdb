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

/** All pages of a 57-bit address space. */
const ALL_PAGES = 2 ** 45;

interface Subscription {
  readonly notifier: MmuIntervalNotifier;
  /** `interval_sub->invalidate_seq`. */
  sequence: number;
  /** Goes when the sequence becomes even. */
  removed: boolean;
}

/**
 * The interval notifiers of one address space and their sequence protocol. The sequence of the address space becomes odd when a range
 * starts that overlaps an interval, and even again when the last range in progress ends, of whatever pages; each interval remembers the one of
 * its last invalidation. A reader that saw the interval's sequence and finds it unchanged under its own lock has looked up nothing stale.
 */
export class IntervalNotifiers {
  readonly #location: number;
  readonly #subscriptions = new Map<MmuIntervalNotifier, Subscription>();
  readonly #name: string;
  readonly #waits = new Set<Condition>();
  #sequence = 2;
  /** Ranges in progress, whether they overlap an interval or not (`active_invalidate_ranges`). */
  #active = 0;

  constructor(name: string, location: number) {
    this.#name = name;
    this.#location = location;
  }

  /** `subscriptions->invalidate_seq`: odd while an invalidation that concerns an interval is in progress. */
  get sequence(): number {
    return this.#sequence;
  }

  /** Subscribes (mmu_interval_notifier_insert). @throws RangeError if it is subscribed already */
  insert(notifier: MmuIntervalNotifier): void {
    if (this.#subscriptions.has(notifier)) throw new RangeError('notifier: is inserted already');
    // As if invalidated just now: it was not told of ranges in progress, so that a first read waits for them to end.
    if (this.#active > 0) this.#sequence |= 1;
    const sequence = this.#active > 0 ? this.#sequence : this.#sequence - 1;
    this.#subscriptions.set(notifier, { notifier, sequence, removed: false });
  }

  /**
   * Unsubscribes, and waits for invalidations in progress to end (mmu_interval_notifier_remove); those may call it until then.
   * @throws RangeError if it is not subscribed
   */
  *remove(agent: Agent, notifier: MmuIntervalNotifier): Task<void> {
    const subscription = this.#subscriptions.get(notifier);
    if (!subscription || subscription.removed) throw new RangeError('notifier: is not inserted');
    yield agent.writes('interval: remove', Location.notifierSequence, this.#location, Cost.free);
    subscription.removed = true;
    const sequence = this.#sequence;
    if ((sequence & 1) === 1) yield* this.#waitPast(agent, sequence);
    else this.#dropRemoved();
  }

  /** Waits while the interval is being invalidated (mmu_interval_read_begin). @returns the sequence for {@link readRetry} */
  *readBegin(agent: Agent, notifier: MmuIntervalNotifier): Task<number> {
    yield agent.reads('interval: read begins', Location.notifierSequence, this.#location, Cost.free);
    const { sequence } = this.#of(notifier);
    if (sequence === this.#sequence) yield* this.#waitPast(agent, sequence);
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
    this.#active++;
    if (this.#overlapping(range).length > 0) this.#sequence |= 1;
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
  rangeEnds(): void {
    this.#active--;
    if (this.#active > 0 || (this.#sequence & 1) === 0) return;
    this.#sequence++;
    this.#dropRemoved();
    for (const wait of this.#waits) wait.wake();
  }

  /** The address space goes away: every interval is invalidated with RELEASE over all addresses. */
  *release(agent: Agent): Task<void> {
    const range: NotifierRange = { startPage: 0, pages: ALL_PAGES, event: NotifierEvent.RELEASE, blockable: true };
    this.rangeStarts(range);
    yield* this.invalidate(agent, range);
    yield agent.writes('interval: release ends', Location.notifierSequence, this.#location, Cost.free);
    this.rangeEnds();
  }

  #overlapping(range: NotifierRange): Subscription[] {
    return [...this.#subscriptions.values()].filter(
      ({ notifier }) =>
        notifier.startPage < range.startPage + range.pages && range.startPage < notifier.startPage + notifier.pages,
    );
  }

  #dropRemoved(): void {
    for (const { notifier, removed } of [...this.#subscriptions.values()])
      if (removed) this.#subscriptions.delete(notifier);
  }

  /** Waits until the sequence is another; not for invalidations that have begun since. */
  *#waitPast(agent: Agent, sequence: number): Task<void> {
    const past = new Condition(`${this.#name} interval invalidation`, () => this.#sequence !== sequence);
    this.#waits.add(past);
    try {
      const step = agent.waits('interval: wait for invalidations', past);
      step.kind = Location.notifierSequence;
      step.location = this.#location;
      yield step;
    } finally {
      this.#waits.delete(past);
    }
  }

  #of(notifier: MmuIntervalNotifier): Subscription {
    const subscription = this.#subscriptions.get(notifier);
    assert(subscription !== undefined, 'the interval notifier is not inserted');
    return subscription;
  }
}
