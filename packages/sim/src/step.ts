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
  /** The translation caches of one unit or device: {@link translationCacheLocation}. */
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
  /** The context cache and PASID cache of one unit. */
  contextCache: 11,
  /** A folio's lock, flags and reference counts: its first frame's number. */
  folio: 12,
} as const;
/** A kind of shared state. */
export type LocationKind = (typeof Location)[keyof typeof Location];

/** What a step touches of the translation caches of a unit. Each is looked up and filled on its own; an invalidation concerns both. */
export const CachePart = { iotlb: 1, pagingStructures: 2, all: 3 } as const;

/** The location number of translation caches: of a unit, by its id, or of a device, of which there is only {@link CachePart.all}. */
export const translationCacheLocation = (id: number, part: (typeof CachePart)[keyof typeof CachePart]): number =>
  id * 4 + part;

/** As a location number: every location of its kind, as freeing a whole table page touches all its entries. */
export const ANY_LOCATION = -1;

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
  /** A second thing that the same action touches, such as the cache that a walk fills with the entry it reads. */
  alsoAccess: AccessMode = Access.none;
  alsoKind: LocationKind = Location.nothing;
  alsoLocation = 0;
  /** Not null: the task goes on only once this is ready. */
  waitFor: Waitable | null = null;
  /** The wait is a busy one, as for a raw spinlock or a status word: allowed where nobody may sleep. */
  spins = false;
  /** Greater than zero: the scheduler picks 0 .. choices-1 into `chosen` before it resumes. */
  choices = 0;
  /** The scheduler's pick; 0 is the ordinary outcome. */
  chosen = 0;
}

/** Whether the order of the two steps can matter: they touch one location, and one of them writes it. */
export function stepsConflict(a: Footprint, b: Footprint): boolean {
  return (
    touchesConflict(a.kind, a.location, a.access, b) ||
    (a.alsoAccess !== Access.none && touchesConflict(a.alsoKind, a.alsoLocation, a.alsoAccess, b))
  );
}

/** What of a step decides conflicts. */
export type Footprint = Pick<Step, 'access' | 'kind' | 'location' | 'alsoAccess' | 'alsoKind' | 'alsoLocation'>;

function touchesConflict(kind: LocationKind, location: number, access: AccessMode, b: Footprint): boolean {
  return (
    conflict(kind, location, access, b.kind, b.location, b.access) ||
    conflict(kind, location, access, b.alsoKind, b.alsoLocation, b.alsoAccess)
  );
}

function overlap(kind: LocationKind, a: number, b: number): boolean {
  if (a === b || a === ANY_LOCATION || b === ANY_LOCATION) return true;
  return kind === Location.translationCache && a >> 2 === b >> 2 && (a & b & CachePart.all) !== 0;
}

function conflict(
  kindA: LocationKind,
  locationA: number,
  accessA: AccessMode,
  kindB: LocationKind,
  locationB: number,
  accessB: AccessMode,
): boolean {
  return (
    kindA === kindB &&
    overlap(kindA, locationA, locationB) &&
    accessA !== Access.none &&
    accessB !== Access.none &&
    (accessA === Access.write || accessB === Access.write)
  );
}
