import {
  Access,
  ANY_LOCATION,
  Condition,
  type Footprint,
  Location,
  stepsConflict,
  TaskRun,
  WouldSleepError,
} from '@faultline/sim';
import { type ScheduledStep, scheduledStep } from './schedule.ts';
import type { ExploredSystem, ExploredTask, Violation } from './system.ts';

/** What may happen next: a task's announced step, with the outcome if it has choices. */
export interface Transition {
  /** Index of its task. */
  readonly task: number;
  readonly chosen: number;
  readonly footprint: Footprint;
}

/** Whether the order of two transitions can matter. Those of one task never swap. */
export const dependent = (a: Transition, b: Transition): boolean =>
  a.task === b.task || stepsConflict(a.footprint, b.footprint);

/** Thrown by a system's own code where an invariant breaks inside a step. */
export class InvariantError extends Error {
  readonly invariant: string;

  constructor(invariant: string, message: string) {
    super(message);
    this.invariant = invariant;
  }
}

/**
 * One run of a system, a transition at a time. Transitions keep their meaning from one execution to the next: locks are numbered
 * from the start of the build.
 */
export class Execution {
  readonly system: ExploredSystem;
  readonly schedule: ScheduledStep[] = [];
  readonly #runs: readonly TaskRun[];
  readonly #firstLock: number;
  readonly #hasBegun: boolean[];
  #violation: Violation | null = null;

  constructor(build: () => ExploredSystem) {
    this.#firstLock = new Condition('start of the build', () => true).id;
    this.system = build();
    this.#runs = this.system.tasks.map(({ agent, task }) => new TaskRun(agent, task));
    this.#hasBegun = this.#runs.map(() => false);
    for (const run of this.#runs) this.#attempt(() => run.advance()); // to the first announced step: private work
  }

  /** What a step broke, or null. */
  get violation(): Violation | null {
    return this.#violation;
  }

  get tasks(): number {
    return this.#runs.length;
  }

  /** Names of the agents, by task. */
  get agents(): readonly string[] {
    return this.#runs.map((run) => run.agent.name);
  }

  /** Whether the task's announced step may happen now. */
  isEnabled(task: number): boolean {
    return (this.#runs[task]?.pending ?? null) !== null && (this.#runs[task]?.enabled ?? false);
  }

  /**
   * What may happen next. A step that touches nothing shared and has no choice goes first, alone: its order cannot matter.
   * Of interchangeable tasks only the first is there. Empty at the end.
   */
  enabled(): Transition[] {
    const transitions: Transition[] = [];
    for (const [task, run] of this.#runs.entries()) {
      const step = run.pending;
      if (step === null || !run.enabled || this.standIn(task) !== task) continue;
      const footprint = this.#footprintOf(step);
      if (step.access === Access.none && step.alsoAccess === Access.none && step.choices === 0)
        return [{ task, chosen: 0, footprint }];
      for (let chosen = 0; chosen < Math.max(1, step.choices); chosen++) transitions.push({ task, chosen, footprint });
    }
    return transitions;
  }

  /** The first of the tasks that are interchangeable with this one now; itself if there is no other. */
  standIn(task: number): number {
    const { alike } = this.system.tasks[task] as ExploredTask;
    if (alike === undefined || this.#hasBegun[task]) return task;
    return this.system.tasks.findIndex((other, index) => other.alike === alike && !this.#hasBegun[index]);
  }

  /** What waits for ever, once nothing is enabled: it might have gone on in another order. */
  blocked(): Transition[] {
    return [...this.#runs.entries()].flatMap(([task, { pending }]) =>
      pending === null || this.standIn(task) !== task
        ? []
        : [{ task, chosen: 0, footprint: this.#footprintOf(pending) }],
    );
  }

  /** Performs a transition, and checks the system after it. @returns what is broken, or null */
  perform(transition: Transition): Violation | null {
    const run = this.#runs[transition.task];
    const step = run?.pending;
    if (!run || !step) throw new Error('a scheduled task has no step');
    this.#hasBegun[transition.task] = true;
    step.chosen = transition.chosen;
    this.schedule.push(scheduledStep(run.agent.name, transition, step));
    this.#attempt(() => run.advance());
    this.#violation ??= this.#sleeper() ?? this.system.check();
    return this.#violation;
  }

  /** When nothing is enabled any more: a task that waits for ever, or what the system finds at its end. */
  end(): Violation | null {
    const stuck = this.#runs.find((run, index) => !run.done && this.system.tasks[index]?.daemon !== true);
    this.#violation ??= stuck
      ? {
          invariant: 'I13',
          message: `${stuck.agent.name} waits for ever for ${stuck.pending?.waitFor?.name ?? 'nothing'}`,
        }
      : this.system.checkEnd();
    return this.#violation;
  }

  /** Who waits where it may not sleep: what it waited for was there when it looked, and is not any more. */
  #sleeper(): Violation | null {
    for (const { agent, pending, enabled } of this.#runs)
      if (!agent.maySleep && !enabled && pending?.waitFor && !pending.spins)
        return { invariant: 'I8', message: agent.wouldSleep(pending.waitFor, pending.label).message };
    return null;
  }

  #attempt(action: () => void): void {
    try {
      action();
    } catch (error) {
      this.#violation ??= {
        invariant: invariantOf(error),
        message: error instanceof Error ? error.message : String(error),
      };
    }
  }

  #footprintOf({ access, kind, location, alsoAccess, alsoKind, alsoLocation }: Footprint): Footprint {
    const place = (of: Footprint['kind'], at: number) =>
      of === Location.lock && at !== ANY_LOCATION ? at - this.#firstLock : at;
    return {
      access,
      kind,
      location: place(kind, location),
      alsoAccess,
      alsoKind,
      alsoLocation: place(alsoKind, alsoLocation),
    };
  }
}

/** What an exception broke. Whoever sleeps where it must not breaks what a notifier promises (I8). */
function invariantOf(error: unknown): string {
  if (error instanceof InvariantError) return error.invariant;
  return error instanceof WouldSleepError ? 'I8' : 'assertion';
}
