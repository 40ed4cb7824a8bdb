import { explore } from './explorer.ts';
import { replayLoosely } from './replay.ts';
import type { Counterexample, ScheduledStep } from './schedule.ts';
import type { ExploredSystem } from './system.ts';

/** Limits of {@link shrink}. */
export interface ShrinkOptions {
  /** Executions spent at most; the shortest schedule found until then is returned. Default 20,000 */
  readonly executions?: number;
}

/** Switches from one task to another. */
export const contextSwitches = (schedule: readonly ScheduledStep[]): number =>
  schedule.reduce((sum, { task }, at) => sum + (at > 0 && schedule[at - 1]?.task !== task ? 1 : 0), 0);

/**
 * Makes a counterexample as short as it gets: fewest steps, then fewest switches between tasks, with the same invariant broken.
 * Starts from the counterexample itself and from what executions with 0, 1 and 2 preemptions find, and leaves out steps and joins
 * blocks of a task until neither makes it shorter: no single step, no run of steps, and no switch can go.
 */
export function shrink(
  build: () => ExploredSystem,
  found: Counterexample,
  options: ShrinkOptions = {},
): Counterexample {
  const budget = { left: options.executions ?? 20_000 };
  let best = reduce(build, found, budget);
  for (let preemptions = 0; preemptions <= 2 && budget.left > 0; preemptions++) {
    const other = firstWithPreemptions(build, preemptions, found.invariant, budget);
    if (!other) continue;
    const reduced = reduce(build, other, budget);
    if (isShorter(reduced, best)) best = reduced;
  }
  return best;
}

interface Budget {
  left: number;
}

const isShorter = (a: Counterexample, b: Counterexample): boolean =>
  a.schedule.length < b.schedule.length ||
  (a.schedule.length === b.schedule.length && contextSwitches(a.schedule) < contextSwitches(b.schedule));

/** The first violation of the invariant with so few preemptions, within a tenth of the budget. */
function firstWithPreemptions(
  build: () => ExploredSystem,
  preemptions: number,
  invariant: string,
  budget: Budget,
): Counterexample | null {
  const most = Math.ceil(budget.left / 10);
  const search = explore(build, { preemptions });
  for (let next = search.next(); ; next = search.next()) {
    if (next.done) {
      budget.left -= next.value.executions;
      return next.value.violation?.invariant === invariant ? next.value.violation : null;
    }
    if (next.value.executions < most) continue;
    budget.left -= next.value.executions;
    return null;
  }
}

function reduce(build: () => ExploredSystem, found: Counterexample, budget: Budget): Counterexample {
  let best = found;
  const attempt = (schedule: readonly ScheduledStep[]): boolean => {
    if (budget.left <= 0) return false;
    budget.left--;
    const { violation } = replayLoosely(build, schedule, best.schedule.length + 1);
    if (violation?.invariant !== found.invariant || !isShorter(violation, best)) return false;
    best = violation;
    return true;
  };
  while (leaveOut(() => best.schedule, attempt) || joinBlocks(() => best.schedule, attempt));
  return best;
}

/** Leaves runs of steps out, long runs first. @returns whether that made it shorter */
function leaveOut(schedule: () => readonly ScheduledStep[], attempt: (s: ScheduledStep[]) => boolean): boolean {
  let shorter = false;
  for (let size = schedule().length >> 1; size >= 1; size >>= 1)
    for (let at = 0; at + size <= schedule().length; )
      if (attempt([...schedule().slice(0, at), ...schedule().slice(at + size)])) shorter = true;
      else at += size;
  return shorter;
}

/** Moves a block of one task's steps to that task's block before it or after it. @returns whether that left fewer switches */
function joinBlocks(schedule: () => readonly ScheduledStep[], attempt: (s: ScheduledStep[]) => boolean): boolean {
  for (const [at, { task, start, end }] of blocksOf(schedule()).entries()) {
    const blocks = blocksOf(schedule());
    const before = blocks.slice(0, at).findLast((block) => block.task === task);
    const after = blocks.slice(at + 1).find((block) => block.task === task);
    const all = schedule();
    const block = all.slice(start, end);
    if (before && attempt([...all.slice(0, before.end), ...block, ...all.slice(before.end, start), ...all.slice(end)]))
      return true;
    if (after && attempt([...all.slice(0, start), ...all.slice(end, after.start), ...block, ...all.slice(after.start)]))
      return true;
  }
  return false;
}

function blocksOf(schedule: readonly ScheduledStep[]): { task: number; start: number; end: number }[] {
  const blocks: { task: number; start: number; end: number }[] = [];
  for (const [at, { task }] of schedule.entries()) {
    const last = blocks.at(-1);
    if (last?.task === task) last.end = at + 1;
    else blocks.push({ task, start: at, end: at + 1 });
  }
  return blocks;
}
