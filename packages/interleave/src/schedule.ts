import { Access, ANY_LOCATION, Location, type LocationKind, type Step } from '@faultline/sim';
import type { Transition } from './execution.ts';
import type { Violation } from './system.ts';

/** One step of a schedule: who did what, on which entry, cache or frame. */
export interface ScheduledStep {
  /** Index of the task: with `chosen`, what a replay needs. */
  readonly task: number;
  /** The outcome taken of a step that has several; 0 is the ordinary one. */
  readonly chosen: number;
  readonly agent: string;
  /** The step's label. */
  readonly step: string;
  readonly access: 'none' | 'read' | 'write';
  /** Kind of the location touched, such as `entry`; empty if nothing shared is. */
  readonly kind: string;
  /** Physical address of an entry, number of a frame, or another number within its kind; null for all of its kind. */
  readonly location: number | null;
  /** The location touched, and the choice taken, in words. */
  readonly what: string;
}

/** A violation and the schedule that leads to it. */
export interface Counterexample extends Violation {
  readonly schedule: readonly ScheduledStep[];
}

const ACCESS_NAMES = ['none', 'read', 'write'] as const;

const KIND_NAMES: Readonly<Record<LocationKind, string>> = {
  [Location.nothing]: '',
  [Location.entry]: 'entry',
  [Location.translationCache]: 'translation cache',
  [Location.invalidationQueue]: 'invalidation queue',
  [Location.pageRequestQueue]: 'page request queue',
  [Location.frame]: 'frame',
  [Location.lock]: 'lock',
  [Location.cpuEntry]: 'CPU page-table entry',
  [Location.notifierSequence]: 'notifier sequence',
  [Location.allocator]: 'allocator',
  [Location.device]: 'device',
  [Location.contextCache]: 'context cache',
  [Location.folio]: 'folio',
};

/** An entry's location is its physical address divided by 8; that of translation caches is the unit's id and what of them. */
const shown = (kind: LocationKind, location: number): number =>
  kind === Location.entry ? location * 8 : kind === Location.translationCache ? location >> 2 : location;

/** The record of a transition that is about to happen. */
export function scheduledStep(agent: string, { task, chosen, footprint }: Transition, step: Step): ScheduledStep {
  const { kind, access } = footprint;
  const raw = footprint.location;
  const location = raw === ANY_LOCATION ? null : shown(kind, raw);
  const named = kind === Location.entry || kind === Location.frame || kind === Location.folio;
  const where = named && location !== null ? `0x${location.toString(16)}` : '';
  const outcome = chosen === 0 ? '' : ' (fails)';
  return {
    task,
    chosen,
    agent,
    step: step.label,
    access: ACCESS_NAMES[access],
    kind: KIND_NAMES[kind],
    location: access === Access.none ? null : location,
    what: (step.waitFor?.name ?? `${KIND_NAMES[kind]} ${where}`.trim()) + outcome,
  };
}
