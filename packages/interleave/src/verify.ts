import { type ExplorationResult, explore } from './explorer.ts';
import type { Protocol, ProtocolConfiguration } from './protocol.ts';
import { estimateOrders, exploreAtRandom } from './random-exploration.ts';
import type { Counterexample } from './schedule.ts';
import { type ShrinkOptions, shrink } from './shrink.ts';

/** Options of {@link verify}. */
export interface VerifyOptions {
  /** Executions with at most so many preemptions, and nothing left out of them; all orders if left out. */
  readonly preemptions?: number;
  /** Random schedules instead of all: so many in each configuration, with a seed. */
  readonly random?: { readonly executions: number; readonly seed: number };
  /** See `ExploreOptions.reduction`. */
  readonly reduction?: 'none' | 'sleep-sets' | 'dpor';
  /** Asked now and then; true ends the exploration with the verdict `interrupted`. */
  readonly shouldStop?: () => boolean;
  /** Stops, interrupted, after so many executions. */
  readonly maxExecutions?: number;
  /** False: the counterexample as it was met, not its shortest form; or what may be spent on that. Default true. */
  readonly shrink?: boolean | ShrinkOptions;
}

/** What became of one configuration. */
export interface ConfigurationResult {
  readonly name: string;
  /** Executions that ran to their end. */
  readonly executions: number;
  /** Executions given up as equivalent to others. */
  readonly pruned: number;
  /** States visited. */
  readonly states: number;
  /** Decimal logarithm of the estimated number of orders with nothing left out. */
  readonly ordersLog10: number;
  readonly verdict: 'holds' | 'violated';
}

/** The result of {@link verify}. */
export interface VerifyResult {
  readonly protocol: string;
  readonly title: string;
  readonly mode: 'exhaustive' | 'preemptions' | 'random';
  readonly verdict: 'holds' | 'violated' | 'interrupted';
  /** Sums over all configurations. */
  readonly executions: number;
  readonly pruned: number;
  readonly steps: number;
  readonly states: number;
  /** Decimal logarithm of the estimated number of orders of all configurations, with nothing left out. */
  readonly ordersLog10: number;
  /** Steps of the longest execution. */
  readonly longest: number;
  readonly configurations: readonly ConfigurationResult[];
  readonly counterexample:
    | null
    | (Counterexample & { readonly configuration: string; readonly stepsWhenFound: number });
}

/** Random walks of the estimate in each configuration. */
const WALKS = 20;

/** Explores a protocol in all its configurations, up to the first violation. A generator that yields now and then. */
export function* verify(
  { name, title, configurations }: Protocol,
  options: VerifyOptions = {},
): Generator<{ executions: number; steps: number }, VerifyResult> {
  const total = new Total();
  const mode = options.random ? 'random' : options.preemptions === undefined ? 'exhaustive' : 'preemptions';
  const most = options.maxExecutions ?? Number.POSITIVE_INFINITY;
  const result = (verdict: VerifyResult['verdict'], counterexample: VerifyResult['counterexample']): VerifyResult => ({
    protocol: name,
    title,
    mode,
    verdict,
    ...total.sums(),
    configurations: total.configurations,
    counterexample,
  });
  for (const configuration of configurations) {
    const search = searchOf(configuration, options);
    let next = search.next();
    for (; !next.done; next = search.next()) {
      const executions = total.executions + next.value.executions;
      if (options.shouldStop?.() || executions >= most) return result('interrupted', null);
      yield { executions, steps: total.steps + next.value.steps };
    }
    total.add(configuration, next.value);
    const { violation } = next.value;
    if (!violation) continue;
    const small = options.shrink === false ? violation : shrunk(configuration, violation, options.shrink);
    return result('violated', {
      configuration: configuration.name,
      stepsWhenFound: violation.schedule.length,
      ...small,
    });
  }
  return result('holds', null);
}

const shrunk = ({ build }: ProtocolConfiguration, found: Counterexample, options: true | ShrinkOptions = true) =>
  shrink(build, found, options === true ? {} : options);

const searchOf = (
  { build }: ProtocolConfiguration,
  { random, preemptions, reduction }: VerifyOptions,
): Generator<{ executions: number; steps: number }, ExplorationResult> =>
  random
    ? exploreAtRandom(build, random)
    : explore(build, { ...(preemptions === undefined ? {} : { preemptions }), ...(reduction ? { reduction } : {}) });

class Total {
  executions = 0;
  steps = 0;
  readonly configurations: ConfigurationResult[] = [];
  #longest = 0;

  add({ name, build }: ProtocolConfiguration, found: ExplorationResult): void {
    const { executions, pruned, states, steps, longest, violation } = found;
    this.executions += executions;
    this.steps += steps;
    this.#longest = Math.max(this.#longest, longest);
    const ordersLog10 = estimateOrders(build, { seed: 1, walks: WALKS });
    const verdict = violation ? 'violated' : 'holds';
    this.configurations.push({ name, executions, pruned, states, ordersLog10, verdict });
  }

  sums(): Pick<VerifyResult, 'executions' | 'pruned' | 'steps' | 'states' | 'ordersLog10' | 'longest'> {
    const { executions, steps, configurations } = this;
    const sum = (pick: (of: ConfigurationResult) => number) => configurations.reduce((all, of) => all + pick(of), 0);
    const largest = Math.max(0, ...configurations.map((of) => of.ordersLog10));
    return {
      executions,
      pruned: sum((of) => of.pruned),
      steps,
      states: sum((of) => of.states),
      ordersLog10:
        configurations.length === 0 ? 0 : largest + Math.log10(sum((of) => 10 ** (of.ordersLog10 - largest))),
      longest: this.#longest,
    };
  }
}
