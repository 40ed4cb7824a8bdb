import { type Agent, type Footprint, stepsConflict, type Task, TaskRun } from '@faultline/sim';

/** One task under exploration. */
export interface ExploredTask {
  readonly agent: Agent;
  readonly task: Task<unknown>;
  /** A worker that waits for ever when there is nothing to do, such as the invalidation queue's hardware. */
  readonly daemon?: boolean;
}

/** A broken invariant. */
export interface Violation {
  /** `I1` .. `I13`. */
  readonly invariant: string;
  readonly message: string;
}

/** A small world that is built anew for every execution. Building must be deterministic. */
export interface ExploredSystem {
  readonly tasks: readonly ExploredTask[];
  /** After every step: what is broken, or null. Looks only at what the steps' footprints name. */
  check(): Violation | null;
  /** After the last step. */
  checkEnd(): Violation | null;
}

/** One step of a schedule. */
export interface ScheduledStep {
  readonly agent: string;
  /** The step's label. */
  readonly step: string;
  /** The location touched, and the choice taken, in words. */
  readonly what: string;
}

/** What an exploration found. */
export interface ExplorationResult {
  /** Executions that ran to their end, or to the violation. */
  readonly executions: number;
  /** Executions given up because every continuation was equivalent to one already explored. */
  readonly pruned: number;
  /** Steps over all executions. */
  readonly steps: number;
  /** Steps of the longest execution. */
  readonly longest: number;
  readonly violation: (Violation & { readonly schedule: readonly ScheduledStep[] }) | null;
}

/** Limits and reductions of {@link explore}. */
export interface ExploreOptions {
  /** Leave out orders that differ only in steps that do not conflict (sleep sets). Default true; false for comparison. */
  readonly sleepSets?: boolean;
  /** @throws RangeError in {@link explore} when an execution gets longer than this: a task that never ends. Default 10,000 */
  readonly longestExecution?: number;
}

/** A transition: a task's announced step, with the outcome if it has choices. */
interface Transition {
  readonly task: number;
  readonly chosen: number;
  readonly footprint: Footprint;
}

/** One branching point of the depth-first search. */
interface Branch {
  readonly transitions: readonly Transition[];
  index: number;
  /** Transitions whose subtree needs no exploration from here: an equivalent order was explored elsewhere. */
  readonly sleep: Transition[];
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
  const search = new Search(build, options.sleepSets ?? true, options.longestExecution ?? 10_000);
  do {
    search.execute();
    if (search.violation === null && search.executions % 256 === 255)
      yield { executions: search.executions, steps: search.steps };
  } while (search.violation === null && search.backtrack());
  const { executions, pruned, steps, longest, violation } = search;
  return { executions, pruned, steps, longest, violation };
}

class Search {
  executions = 0;
  pruned = 0;
  steps = 0;
  longest = 0;
  violation: ExplorationResult['violation'] = null;
  readonly #build: () => ExploredSystem;
  readonly #sleepSets: boolean;
  readonly #limit: number;
  readonly #path: Branch[] = [];

  constructor(build: () => ExploredSystem, sleepSets: boolean, limit: number) {
    this.#build = build;
    this.#sleepSets = sleepSets;
    this.#limit = limit;
  }

  /** Runs one execution along the path, extending it to the end. */
  execute(): void {
    const system = this.#build();
    const runs = system.tasks.map(({ agent, task }) => new TaskRun(agent, task));
    const schedule: ScheduledStep[] = [];
    for (const run of runs) run.advance(); // to the first announced step: private work
    let depth = 0;
    let sleep: Transition[] = [];
    for (;;) {
      const transitions = enabledTransitions(runs);
      if (transitions.length === 0) break;
      const branch = this.#path[depth] ?? this.#extend(transitions, sleep);
      if (branch === null) {
        this.pruned++;
        return;
      }
      const transition = branch.transitions[branch.index] as Transition;
      sleep = branch.sleep.filter((other) => other.task !== transition.task && independent(other, transition));
      depth++;
      const failure = this.#step(system, runs, transition, schedule);
      if (failure) {
        this.#ended(schedule, failure);
        return;
      }
      if (schedule.length > this.#limit) throw new RangeError(`an execution exceeds ${this.#limit} steps`);
    }
    this.#ended(schedule, stuckTask(system, runs) ?? system.checkEnd());
  }

  #ended(schedule: readonly ScheduledStep[], failure: Violation | null): void {
    this.executions++;
    this.longest = Math.max(this.longest, schedule.length);
    if (failure) this.violation = { ...failure, schedule };
  }

  /** Moves the path to the next unexplored branch. @returns false when there is none */
  backtrack(): boolean {
    for (let branch = this.#path.at(-1); branch; branch = this.#path.at(-1)) {
      const done = branch.transitions[branch.index] as Transition;
      if (this.#sleepSets) branch.sleep.push(done);
      do branch.index++;
      while (
        branch.index < branch.transitions.length &&
        asleep(branch, branch.transitions[branch.index] as Transition)
      );
      if (branch.index < branch.transitions.length) return true;
      this.#path.pop();
    }
    return false;
  }

  #extend(transitions: readonly Transition[], sleep: Transition[]): Branch | null {
    const branch: Branch = { transitions, index: 0, sleep };
    while (branch.index < transitions.length && asleep(branch, transitions[branch.index] as Transition)) branch.index++;
    if (branch.index === transitions.length) return null;
    this.#path.push(branch);
    return branch;
  }

  #step(
    system: ExploredSystem,
    runs: readonly TaskRun[],
    transition: Transition,
    schedule: ScheduledStep[],
  ): Violation | null {
    const run = runs[transition.task] as TaskRun;
    const step = run.pending;
    if (step === null) throw new Error('a scheduled task has no step');
    step.chosen = transition.chosen;
    schedule.push({ agent: run.agent.name, step: step.label, what: describe(transition) });
    this.steps++;
    try {
      run.advance();
    } catch (error) {
      return { invariant: invariantOf(error), message: error instanceof Error ? error.message : String(error) };
    }
    return system.check();
  }
}

/** Errors thrown through a task: an {@link InvariantError} names its invariant, anything else is a broken assertion. */
const invariantOf = (error: unknown): string => (error instanceof InvariantError ? error.invariant : 'assertion');

/** Thrown by a system's own code where an invariant breaks inside a step. */
export class InvariantError extends Error {
  readonly invariant: string;

  constructor(invariant: string, message: string) {
    super(message);
    this.invariant = invariant;
  }
}

/** What may happen next. A step that touches nothing shared and has no choice goes first, alone: its order cannot matter. */
function enabledTransitions(runs: readonly TaskRun[]): Transition[] {
  const transitions: Transition[] = [];
  for (const [task, run] of runs.entries()) {
    const step = run.pending;
    if (step === null || !run.enabled) continue;
    const { access, kind, location, alsoAccess, alsoKind, alsoLocation } = step;
    const footprint = { access, kind, location, alsoAccess, alsoKind, alsoLocation };
    if (access === 0 && alsoAccess === 0 && step.choices === 0) return [{ task, chosen: 0, footprint }];
    for (let chosen = 0; chosen < Math.max(1, step.choices); chosen++) transitions.push({ task, chosen, footprint });
  }
  return transitions;
}

const independent = (a: Transition, b: Transition): boolean =>
  a.task !== b.task && !stepsConflict(a.footprint, b.footprint);

const asleep = (branch: Branch, transition: Transition): boolean =>
  branch.sleep.some((other) => other.task === transition.task && other.chosen === transition.chosen);

function stuckTask(system: ExploredSystem, runs: readonly TaskRun[]): Violation | null {
  const stuck = runs.find((run, index) => !run.done && system.tasks[index]?.daemon !== true);
  return stuck
    ? {
        invariant: 'I13',
        message: `${stuck.agent.name} waits for ever for ${stuck.pending?.waitFor?.name ?? 'nothing'}`,
      }
    : null;
}

const KIND_NAMES = [
  '',
  'entry',
  'translation cache',
  'invalidation queue',
  'page request queue',
  'frame',
  'lock',
  'CPU page-table entry',
  'notifier sequence',
  'allocator',
  'device',
  'context cache',
  'folio',
] as const;

function describe({ footprint, chosen }: Transition): string {
  const kind = KIND_NAMES[footprint.kind] ?? '';
  // An entry's location is its physical address divided by 8.
  const where =
    footprint.kind === 1
      ? `0x${(footprint.location * 8).toString(16)}`
      : footprint.kind === 5 || footprint.kind === 12
        ? `0x${footprint.location.toString(16)}`
        : '';
  const choice = chosen === 0 ? '' : ' (fails)';
  return `${kind} ${where}`.trim() + choice;
}
