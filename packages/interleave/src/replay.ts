import { Execution } from './execution.ts';
import type { Counterexample, ScheduledStep } from './schedule.ts';
import type { ExploredSystem } from './system.ts';

/** What is needed of a step to take it again. */
export type Choice = Pick<ScheduledStep, 'task' | 'chosen'>;

/** What became of a replay. */
export interface ReplayResult {
  /** Steps taken. */
  readonly schedule: readonly ScheduledStep[];
  /** What broke, with the schedule that led there; null if nothing did. */
  readonly violation: Counterexample | null;
}

/**
 * Takes exactly the steps of a schedule, then, if nothing broke and nothing is enabled any more, checks the end.
 * @throws RangeError naming the first step that cannot be taken
 */
export function replaySchedule(build: () => ExploredSystem, schedule: readonly Choice[]): ReplayResult {
  const execution = new Execution(build);
  for (const [at, choice] of schedule.entries()) {
    if (execution.violation) break;
    const transition = execution.enabled().find(({ task, chosen }) => task === choice.task && chosen === choice.chosen);
    if (!transition) {
      const name = execution.agents[choice.task] ?? `task ${choice.task}`;
      throw new RangeError(`schedule[${at}]: ${name} cannot go on with outcome ${choice.chosen} here`);
    }
    execution.perform(transition);
  }
  return outcomeOf(execution);
}

function outcomeOf(execution: Execution): ReplayResult {
  const failure = execution.violation ?? (execution.enabled().length === 0 ? execution.end() : null);
  const { schedule } = execution;
  return { schedule, violation: failure ? { ...failure, schedule } : null };
}

/** Takes those steps of a schedule that can be taken, leaving out the others, and runs on in task order to the end. */
export function replayLoosely(build: () => ExploredSystem, schedule: readonly Choice[], longest: number): ReplayResult {
  const execution = new Execution(build);
  for (const choice of schedule) {
    // Steps that touch nothing are in nobody's way, and in no schedule that was shortened.
    for (let next = execution.enabled(); isLocal(next) && next[0] && !execution.violation; next = execution.enabled())
      execution.perform(next[0]);
    if (execution.violation) break;
    const transition = execution.enabled().find(({ task, chosen }) => task === choice.task && chosen === choice.chosen);
    if (transition) execution.perform(transition);
  }
  for (
    let next = execution.enabled();
    next[0] && !execution.violation && execution.schedule.length < longest;
    next = execution.enabled()
  )
    execution.perform(next[0]);
  return outcomeOf(execution);
}

const isLocal = (transitions: readonly { footprint: { access: number; alsoAccess: number } }[]): boolean =>
  transitions.length === 1 && transitions[0]?.footprint.access === 0 && transitions[0].footprint.alsoAccess === 0;
