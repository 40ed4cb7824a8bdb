import FlatQueue from 'flatqueue';
import type { Agent } from './agent.ts';
import { type CostProfile, costTableNs } from './cost.ts';
import { type Task, TaskRun } from './task.ts';
import type { Parked } from './wait.ts';

/** Options for {@link VirtualTime.spawn}. */
export interface SpawnOptions {
  /** A daemon (a queue's worker, kswapd) may still be waiting when the run ends; anybody else waiting then is stuck. */
  readonly daemon?: boolean;
}

/** Picks the outcome of a step with choices: 0 .. choices-1. */
export type ChoicePolicy = (agent: Agent, label: string, choices: number) => number;

class Scheduled<T = unknown> extends TaskRun<T> implements Parked {
  readonly daemon: boolean;
  readonly #time: VirtualTime;
  /** When, and in which order among equals, it runs next. */
  sequence = 0;

  constructor(time: VirtualTime, agent: Agent, task: Task<T>, daemon: boolean) {
    super(agent, task);
    this.#time = time;
    this.daemon = daemon;
  }

  unpark(): void {
    this.#time.schedule(this);
  }
}

/**
 * Runs tasks in virtual time: a step costs nanoseconds from a profile, the earliest task goes next, ties go to who was
 * scheduled first. One seed, one order, one result.
 */
export class VirtualTime {
  #nowNs = 0;
  #sequence = 0;
  readonly #costNs: Float64Array;
  readonly #queue = new FlatQueue<Scheduled>();
  /** Tasks due at one instant, in sequence order, taken out of the queue together. */
  #due: Scheduled[] = [];
  #dueIndex = 0;
  readonly #tasks = new Set<Scheduled>();
  readonly #choose: ChoicePolicy;
  #stopped = false;

  /** @param profile nanoseconds per cost class @param choose outcome of choices; the default is always 0 */
  constructor(profile: CostProfile, choose: ChoicePolicy = () => 0) {
    this.#costNs = costTableNs(profile);
    this.#choose = choose;
  }

  /** The virtual clock, in integer nanoseconds since the start of the run. */
  get nowNs(): number {
    return this.#nowNs;
  }

  /** Nanoseconds that `units` of a cost class take in this profile. */
  costNs(cost: number, units = 1): number {
    return Math.round((this.#costNs[cost] as number) * units);
  }

  /** Starts a task at the present time, after those already due. */
  spawn<T>(agent: Agent, task: Task<T>, options: SpawnOptions = {}): TaskRun<T> {
    const run = new Scheduled(this, agent, task, options.daemon ?? false);
    this.#tasks.add(run);
    this.schedule(run);
    return run;
  }

  /** Queues a task at the present time. Called by waitables through the task; users call {@link spawn}. */
  schedule(run: TaskRun): void {
    this.#push(run as Scheduled, this.#nowNs);
  }

  /** Makes {@link run} return after the step in progress. Tasks stay where they are. */
  stop(): void {
    this.#stopped = true;
  }

  /** Tasks that are neither done nor daemons. */
  unfinished(): TaskRun[] {
    return [...this.#tasks].filter((task) => !task.done && !task.daemon);
  }

  /**
   * Runs until nothing is runnable, the time limit, or {@link stop}.
   * @returns true if it ended because nothing was runnable
   * @throws Error naming the tasks if some that are no daemons wait for ever; what a task throws goes through
   */
  run(untilNs = Number.POSITIVE_INFINITY): boolean {
    this.#stopped = false;
    while (!this.#stopped) {
      const next = this.#takeNext(untilNs);
      if (next === null) break;
      this.#runTask(next, untilNs);
    }
    if (this.#stopped || this.#queue.length > 0 || this.#dueIndex < this.#due.length) return false;
    const stuck = this.unfinished();
    if (stuck.length > 0) {
      const list = stuck.map((task) => `${task.agent.name} waits for ${task.pending?.waitFor?.name ?? '?'}`);
      throw new Error(`deadlock at ${this.#nowNs} ns: ${list.join('; ')}`);
    }
    return true;
  }

  #push(run: Scheduled, atNs: number): void {
    run.sequence = ++this.#sequence;
    this.#queue.push(run, atNs);
  }

  #takeNext(untilNs: number): Scheduled | null {
    if (this.#dueIndex >= this.#due.length) {
      this.#due.length = 0;
      this.#dueIndex = 0;
      // A cancelled task stays queued; it must not move the clock to its time.
      while (this.#queue.peek()?.done) this.#tasks.delete(this.#queue.pop() as Scheduled);
      const at = this.#queue.peekValue();
      if (at === undefined || at > untilNs) return null;
      this.#nowNs = at;
      while (this.#queue.peekValue() === at) this.#due.push(this.#queue.pop() as Scheduled);
      if (this.#due.length > 1) this.#due.sort((a, b) => a.sequence - b.sequence);
    }
    // Stopped amid an instant that the new limit excludes.
    if (this.#nowNs > untilNs) return null;
    return this.#due[this.#dueIndex++] as Scheduled;
  }

  /** Runs one task for as long as nobody else could act in between. */
  #runTask(run: Scheduled, untilNs: number): void {
    for (;;) {
      const waitFor = run.pending?.waitFor;
      if (waitFor && !waitFor.ready()) {
        // Free when announced, taken by somebody else since.
        if (!run.agent.maySleep && !run.pending?.spins) throw run.agent.wouldSleep(waitFor, run.pending?.label ?? '');
        waitFor.park(run);
        return;
      }
      if (run.pending && run.pending.choices > 0)
        run.pending.chosen = this.#choose(run.agent, run.pending.label, run.pending.choices);
      run.advance();
      const step = run.pending;
      if (step === null) {
        this.#tasks.delete(run);
        return;
      }
      const atNs = this.#nowNs + Math.round((this.#costNs[step.cost] as number) * step.units);
      const nextNs = this.#dueIndex < this.#due.length ? this.#nowNs : this.#queue.peekValue();
      if (this.#stopped || atNs > untilNs || (nextNs !== undefined && nextNs <= atNs)) {
        this.#push(run, atNs);
        return;
      }
      this.#nowNs = atNs;
    }
  }
}
