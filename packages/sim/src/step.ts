import { Cost, type CostClass } from './cost.ts';
import type { Waitable } from './wait.ts';

/** How a step touches its location. Two steps on one location conflict unless both only read. */
export const Access = { none: 0, read: 1, write: 2 } as const;
/** How a step touches its location. */
export type AccessMode = (typeof Access)[keyof typeof Access];

/** The kinds of shared state that a step can touch; the location number counts within its kind. */
export const Location = {
  nothing: 0,
  /** A page-table, context or root entry: its physical address divided by 8. */
  entry: 1,
  /** The translation caches of one unit or device: one location each. */
  translationCache: 2,
  /** An invalidation queue. */
  invalidationQueue: 3,
  /** A page request queue. */
  pageRequestQueue: 4,
  /** A 4 KiB frame of memory: its frame number. */
  frame: 5,
  /** A lock, by its id. */
  lock: 6,
  /** The CPU page table entry of one page of one address space. */
  cpuEntry: 7,
  /** The notifier sequence of one address space. */
  notifierSequence: 8,
  /** The page-table page allocator. */
  allocator: 9,
  /** A device's own state (outstanding requests, group answers). */
  device: 10,
} as const;
/** A kind of shared state. */
export type LocationKind = (typeof Location)[keyof typeof Location];

/**
 * What a task is about to do, yielded **before** it does it: when the task is resumed, the announced action
 * happens at once and nobody else acts until the next yield. An agent has a single step object that is
 * refilled, so yielding costs no garbage; whoever keeps a step beyond the resume must copy it.
 */
export class Step {
  /** What happens, in words, for counterexamples: `load SS-PDPTE`. A constant, never built at run time. */
  label = '';
  cost: CostClass = Cost.free;
  /** How many units of the cost class. */
  units = 0;
  access: AccessMode = Access.none;
  kind: LocationKind = Location.nothing;
  location = 0;
  /** Not null: the task goes on only once this is ready. */
  waitFor: Waitable | null = null;
  /** Greater than zero: the scheduler picks 0 .. choices-1 into `chosen` before it resumes. */
  choices = 0;
  /** The scheduler's pick; 0 is the ordinary outcome. */
  chosen = 0;
}

/** Whether the order of the two steps can matter: same location, and one of them writes. */
export function stepsConflict(
  a: Pick<Step, 'access' | 'kind' | 'location'>,
  b: Pick<Step, 'access' | 'kind' | 'location'>,
): boolean {
  return (
    a.kind === b.kind &&
    a.location === b.location &&
    a.access !== Access.none &&
    b.access !== Access.none &&
    (a.access === Access.write || b.access === Access.write)
  );
}
