import { dependent, Execution, type Transition } from './execution.ts';
import { type Event, HappensBefore } from './happens-before.ts';
import type { Counterexample } from './schedule.ts';
import type { ExploredSystem, Violation } from './system.ts';

/** What an exploration found. */
export interface ExplorationResult {
  /** Executions that ran to their end, or to the violation. */
  readonly executions: number;
  /** Executions given up because every continuation was equivalent to one already explored. */
  readonly pruned: number;
  /** Steps over all executions, those that only lead back to a branching point included. */
  readonly steps: number;
  /** States visited: nodes of the tree of schedules. */
  readonly states: number;
  /** Steps of the longest execution. */
  readonly longest: number;
  readonly violation: Counterexample | null;
}

/** Limits and reductions of {@link explore}. */
export interface ExploreOptions {
  /**
   * Which orders are left out as equivalent to others: none; by sleep sets; or by dynamic partial-order reduction with source sets
   * (Abdulla et al., POPL 2014) and sleep sets, the default.
   */
  readonly reduction?: 'none' | 'sleep-sets' | 'dpor';
  /**
   * At most so many preemptions in an execution: switches away from a task that could have gone on (Musuvathi and Qadeer, PLDI
   * 2007). No bound if left out; with one, nothing else is left out.
   */
  readonly preemptions?: number;
  /** @throws RangeError in {@link explore} when an execution gets longer than this: a task that never ends. Default 10,000 */
  readonly longestExecution?: number;
}

/** One branching point of the depth-first search, and the event taken there. */
interface Branch {
  readonly transitions: readonly Transition[];
  /** For each task the one that is tried in its place: itself, or the first of those that are interchangeable with it here. */
  readonly standIns: readonly number[];
  /** Tasks to be tried here. */
  readonly backtrack: Set<number>;
  index: number;
  /** Transitions whose subtree needs no exploration from here: an equivalent order was explored elsewhere. */
  readonly sleep: Transition[];
  event: Event | null;
}

/**
 * Runs the tasks in every order, up to equivalence, by re-execution: the system is built anew and led along a path of
 * choices, depth first. Steps that touch nothing shared run on without a choice. A generator, so that a caller can show progress
 * or stop; it yields every 256 executions.
 */
export function* explore(
  build: () => ExploredSystem,
  options: ExploreOptions = {},
): Generator<{ executions: number; steps: number }, ExplorationResult> {
  const search = new Search(build, options);
  do {
    search.execute();
    if (search.violation === null && (search.executions + search.pruned) % 256 === 255)
      yield { executions: search.executions, steps: search.steps };
  } while (search.violation === null && search.backtrack());
  const { executions, pruned, steps, states, longest, violation } = search;
  return { executions, pruned, steps, states, longest, violation };
}

class Search {
  executions = 0;
  pruned = 0;
  steps = 0;
  states = 0;
  longest = 0;
  violation: Counterexample | null = null;
  readonly #build: () => ExploredSystem;
  readonly #reduction: 'none' | 'sleep-sets' | 'dpor';
  readonly #preemptions: number;
  readonly #limit: number;
  readonly #path: Branch[] = [];

  constructor(build: () => ExploredSystem, options: ExploreOptions) {
    this.#build = build;
    this.#preemptions = options.preemptions ?? Number.POSITIVE_INFINITY;
    this.#reduction = options.preemptions === undefined ? (options.reduction ?? 'dpor') : 'none';
    this.#limit = options.longestExecution ?? 10_000;
  }

  /** Runs one execution along the path, extending it to the end. */
  execute(): void {
    const execution = new Execution(this.#build);
    const order = this.#reduction === 'dpor' ? new HappensBefore(execution.tasks) : null;
    const budget = new PreemptionBudget(this.#preemptions);
    let sleep: readonly Transition[] = [];
    for (let depth = 0; execution.violation === null; depth++) {
      const transitions = budget.allowed(execution.enabled());
      if (transitions.length === 0) break;
      const branch = this.#path[depth] ?? this.#extend(execution, transitions, sleep);
      if (branch === null) {
        this.pruned++;
        return;
      }
      const transition = branch.transitions[branch.index] as Transition;
      sleep = branch.sleep.filter((other) => !dependent(other, transition));
      budget.take(transition, execution);
      if (order) this.#noteEvent(order, branch, transition, execution);
      this.steps++;
      execution.perform(transition);
      if (execution.schedule.length > this.#limit) throw new RangeError(`an execution exceeds ${this.#limit} steps`);
    }
    if (order) for (const transition of execution.blocked()) this.#noteRaces(order, transition);
    this.#ended(execution, execution.violation ?? execution.end());
  }

  /** Moves the path to the next unexplored branch. @returns false when there is none */
  backtrack(): boolean {
    for (let branch = this.#path.at(-1); branch; branch = this.#path.at(-1)) {
      const { transitions, backtrack, sleep } = branch;
      const done = transitions[branch.index] as Transition;
      if (this.#reduction === 'none') branch.index++;
      else {
        sleep.push(done);
        branch.index = transitions.findIndex((other) => backtrack.has(other.task) && !asleep(sleep, other));
      }
      if (branch.index >= 0 && branch.index < transitions.length) {
        branch.event = null;
        return true;
      }
      this.#path.pop();
    }
    return false;
  }

  #ended(execution: Execution, failure: Violation | null): void {
    this.executions++;
    this.longest = Math.max(this.longest, execution.schedule.length);
    if (failure) this.violation = { ...failure, schedule: execution.schedule };
  }

  #extend(execution: Execution, transitions: readonly Transition[], sleep: readonly Transition[]): Branch | null {
    const index = transitions.findIndex((transition) => !asleep(sleep, transition));
    if (index < 0) return null;
    const first = (transitions[index] as Transition).task;
    const backtrack = new Set(this.#reduction === 'dpor' ? [first] : transitions.map(({ task }) => task));
    const standIns = execution.system.tasks.map((_, task) => execution.standIn(task));
    const branch = { transitions, standIns, backtrack, index, sleep: [...sleep], event: null };
    this.#path.push(branch);
    this.states++;
    return branch;
  }

  /** Adds the transition to the happens-before relation; where it races, the other order is to be tried too. */
  #noteEvent(order: HappensBefore, branch: Branch, transition: Transition, execution: Execution): void {
    order.observe((task) => execution.isEnabled(task));
    branch.event ??= this.#noteRaces(order, transition);
    order.add(branch.event);
  }

  #noteRaces(order: HappensBefore, transition: Transition): Event {
    const { event, races } = order.next(transition);
    for (const index of races) {
      const { transitions, standIns, backtrack } = this.#path[index] as Branch;
      const initials = order.initials(index, event).map((task) => standIns[task] as number);
      if (initials.some((task) => backtrack.has(task))) continue;
      const enabled = initials.find((task) => transitions.some((other) => other.task === task));
      if (enabled !== undefined) backtrack.add(enabled);
      else for (const { task } of transitions) backtrack.add(task);
    }
    return event;
  }
}

const asleep = (sleep: readonly Transition[], transition: Transition): boolean =>
  sleep.some((other) => other.task === transition.task && other.chosen === transition.chosen);

/** Counts preemptions, and leaves out transitions that would need one too many. */
class PreemptionBudget {
  #left: number;
  #last = -1;

  constructor(bound: number) {
    this.#left = bound;
  }

  allowed(transitions: readonly Transition[]): readonly Transition[] {
    if (this.#left > 0) return transitions;
    const same = transitions.filter(({ task }) => task === this.#last);
    return same.length > 0 ? same : transitions;
  }

  take({ task }: Transition, execution: Execution): void {
    if (this.#last >= 0 && task !== this.#last && execution.isEnabled(this.#last)) this.#left--;
    this.#last = task;
  }
}
