import { Cost, type CostProfile, type RandomStream, type Task, type TaskRun } from '@faultline/sim';

/** Runs a task alone and counts its steps. */
export function countSteps(task: Task<unknown>): number {
  for (let steps = 0; ; steps++) {
    const result = task.next();
    if (result.done) return steps;
    const waitFor = result.value.waitFor;
    if (waitFor && !waitFor.ready()) throw new Error(`waits for ${waitFor.name}`);
  }
}

/** A profile with durations that make tasks interleave: I/O long, the rest a few ns each. */
export function testProfile(ns: Partial<Record<keyof typeof Cost, number>> = {}): CostProfile {
  const names = Object.keys(Cost) as (keyof typeof Cost)[];
  const entries = names.map((name, index) => [
    name,
    { ns: ns[name] ?? (index === 0 ? 0 : 3 + (index % 5)), source: 'test' },
  ]);
  return Object.fromEntries(entries) as CostProfile;
}

/** Runs tasks in a random order of their steps: a step may happen whenever it is enabled. */
export function runShuffled(random: RandomStream, tasks: readonly TaskRun[]): void {
  const running = [...tasks];
  for (let steps = 0; running.length > 0; steps++) {
    if (steps > 1e6) throw new Error(`no end in sight: ${running.map((run) => run.pending?.label).join('; ')}`);
    const enabled = running.filter((run) => run.enabled);
    if (enabled.length === 0) {
      const list = running.map((run) => `${run.agent.name} waits for ${run.pending?.waitFor?.name}`);
      throw new Error(`deadlock: ${list.join('; ')}`);
    }
    const run = random.pick(enabled);
    run.advance();
    if (run.done) running.splice(running.indexOf(run), 1);
  }
}

/** Runs until the step with that label is announced, and not performed. */
export function runUntil<T>(run: TaskRun<T>, label: string): void {
  do {
    if (run.done) throw new Error(`ended before "${label}"`);
    run.advance();
  } while (run.pending?.label !== label);
}

/** Runs a task that waits for nobody to its end. */
export function finish<T>(run: TaskRun<T>): T | undefined {
  while (!run.done) {
    if (!run.enabled) throw new Error(`waits: ${run.pending?.label}`);
    run.advance();
  }
  return run.value;
}
