import { RandomStream } from '@faultline/sim';
import { Execution, type Transition } from './execution.ts';
import type { ExplorationResult } from './explorer.ts';
import type { Counterexample } from './schedule.ts';
import type { ExploredSystem } from './system.ts';

/** Options of {@link exploreAtRandom}. */
export interface RandomExplorationOptions {
  readonly seed: number;
  readonly executions: number;
  /**
   * Depth of the bugs looked for: with `d` an execution has `d - 1` points at which the task with the highest priority falls
   * below all others. Default 3.
   */
  readonly depth?: number;
  /** See `ExploreOptions.longestExecution`. Default 10,000 */
  readonly longestExecution?: number;
}

/**
 * Random schedules with priorities (PCT, Burckhardt et al., ASPLOS 2010): each task gets a random priority, the highest that can go
 * on always does, and at `depth - 1` random steps it is put below all others. A bug that needs `depth` ordering constraints among n
 * tasks and k steps is found by an execution with a probability of at least 1 / (n k^(depth-1)). A generator that yields every 256 executions.
 * @throws RangeError for a depth or a number of executions below 1, or for a task that never ends
 */
export function* exploreAtRandom(
  build: () => ExploredSystem,
  options: RandomExplorationOptions,
): Generator<{ executions: number; steps: number }, ExplorationResult> {
  const { seed, executions: wanted, depth = 3, longestExecution = 10_000 } = options;
  for (const [name, value] of [
    ['executions', wanted],
    ['depth', depth],
  ] as const)
    if (!Number.isInteger(value) || value < 1) throw new RangeError(`${name}: ${value} is not a whole number above 0`);
  const random = new RandomStream(seed, 'PCT');
  let steps = 0;
  let longest = 0;
  let violation: Counterexample | null = null;
  let executions = 0;
  while (executions < wanted && violation === null) {
    const execution = new Execution(build);
    // Before the first execution nobody knows how long one is.
    const priorities = new Priorities(execution.tasks, Math.max(longest, 16), depth, random);
    for (let at = 0; execution.violation === null; at++) {
      const transitions = execution.enabled();
      if (transitions.length === 0) break;
      execution.perform(priorities.pick(transitions, at));
      steps++;
      if (at >= longestExecution) throw new RangeError(`an execution exceeds ${longestExecution} steps`);
    }
    executions++;
    longest = Math.max(longest, execution.schedule.length);
    const failure = execution.violation ?? execution.end();
    if (failure) violation = { ...failure, schedule: execution.schedule };
    else if (executions % 256 === 0) yield { executions, steps };
  }
  return { executions, pruned: 0, steps, states: steps, longest, violation };
}

class Priorities {
  readonly #of: number[];
  readonly #changes: Set<number>;
  readonly #random: RandomStream;
  #lowest = 0;

  constructor(tasks: number, length: number, depth: number, random: RandomStream) {
    this.#random = random;
    const order = Array.from({ length: tasks }, (_, task) => task);
    for (let i = tasks - 1; i > 0; i--) {
      const j = random.below(i + 1);
      [order[i], order[j]] = [order[j] as number, order[i] as number];
    }
    this.#of = order.map((rank) => rank + 1);
    this.#changes = new Set(Array.from({ length: depth - 1 }, () => random.below(length)));
  }

  pick(transitions: readonly Transition[], at: number): Transition {
    const highest = (): number =>
      transitions.reduce(
        (best, { task }) => (this.#priority(task) > this.#priority(best) ? task : best),
        transitions[0]?.task ?? 0,
      );
    if (this.#changes.has(at)) this.#of[highest()] = --this.#lowest;
    const task = highest();
    return this.#random.pick(transitions.filter((transition) => transition.task === task));
  }

  #priority(task: number): number {
    return this.#of[task] as number;
  }
}

/**
 * How many orders there would be with nothing left out: Knuth's estimator (1975), the mean over random walks of the product of
 * the numbers of choices met. @returns its decimal logarithm, since the number itself may not fit
 */
export function estimateOrders(
  build: () => ExploredSystem,
  options: { readonly seed: number; readonly walks: number },
): number {
  const random = new RandomStream(options.seed, 'estimate');
  const logs: number[] = [];
  for (let walk = 0; walk < options.walks; walk++) {
    const execution = new Execution(build);
    let log = 0;
    for (let next = execution.enabled(); next.length > 0 && execution.violation === null; next = execution.enabled()) {
      log += Math.log10(next.length);
      execution.perform(random.pick(next));
    }
    logs.push(log);
  }
  const largest = Math.max(...logs);
  return largest + Math.log10(logs.reduce((sum, log) => sum + 10 ** (log - largest), 0) / logs.length);
}
