import { Cost, type CostProfile, type Task } from '@faultline/sim';

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
