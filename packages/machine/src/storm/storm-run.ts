import { Machine } from '../machine.ts';
import { type ScenarioInput, scenarioSchema } from '../scenario.ts';
import type { StatsDocument } from '../stats.ts';
import { claimsOf, type StrategyClaims } from '../strategy-choice.ts';
import { reachedFeatures, type StormFeatures } from './storm-features.ts';

/** What became of one machine of a storm. */
export interface StormOutcome {
  readonly seed: number;
  readonly scenario: ScenarioInput;
  /** What is wrong: an invariant with where it broke first, or an exception; null if nothing is. */
  readonly failure: { readonly kind: string; readonly message: string } | null;
  /** What it was made of and what happened to it; null if it ended in an exception. */
  readonly reached: StormFeatures | null;
  /** Failures on purpose that struck, by kind. */
  readonly injected: Readonly<Record<string, number>>;
  /** Counts to add up: DMA pages, swap, faults, failures on purpose, events. */
  readonly figures: StormFigures;
  /** Features that met: what makes a seed worth keeping if it was not seen before. */
  readonly signature: string;
}

/** What a storm adds up. */
export interface StormFigures {
  readonly dmaPages: number;
  readonly swapOut: number;
  readonly pageRequests: number;
  readonly notifierRanges: number;
  readonly events: number;
  readonly injected: number;
  readonly checks: number;
}

const NO_FIGURES: StormFigures = {
  dmaPages: 0,
  swapOut: 0,
  pageRequests: 0,
  notifierRanges: 0,
  events: 0,
  injected: 0,
  checks: 0,
};

const NOTHING = { reached: null, injected: {}, figures: NO_FIGURES, signature: 'exception' };

/**
 * Runs one machine to its end. A device that iommufd does not let in, and a VM for which there is no memory, are outcomes like any other; an invariant that breaks, a host
 * that crashes and an exception are failures. @throws RangeError for a scenario that cannot be built
 */
export function runStormMachine(seed: number, scenario: ScenarioInput): StormOutcome {
  const parsed = scenarioSchema.parse(scenario);
  const machine = new Machine(parsed, { seed });
  try {
    machine.boot();
    machine.runUntil(Number.POSITIVE_INFINITY);
    const stats = machine.finish();
    return {
      seed,
      scenario,
      failure: failureOf(stats, claimsOf(parsed)),
      reached: reachedFeatures(parsed, stats),
      injected: { ...stats.injected },
      figures: figuresOf(stats),
      signature: signatureOf(stats),
    };
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    return { seed, scenario, failure: { kind: 'exception', message }, ...NOTHING };
  }
}

function failureOf(stats: StatsDocument, claims: StrategyClaims): StormOutcome['failure'] {
  if (stats.verdict === 'host-crashed') return { kind: 'host-crashed', message: stats.crash?.reason ?? '' };
  const excused = new Set<string>();
  // A device that cannot wait dies of a strategy that lets its neighbours fault.
  if (!claims.hitless) excused.add('I13');
  // With no table page to be had, not even in reserve, the whole leaf goes: I8 comes before I4, and a device may die of that too.
  if (stats.iopt.wholeLeafFallbacks > 0) excused.add('I4').add('I13');
  const broken = stats.invariants.find(({ id, violations }) => violations > 0 && !excused.has(id));
  return broken ? { kind: broken.id, message: broken.first ?? '' } : null;
}

function figuresOf(stats: StatsDocument): StormFigures {
  const sum = (numbers: readonly number[]): number => numbers.reduce((all, each) => all + each, 0);
  return {
    dmaPages: stats.dma.completed,
    swapOut: stats.hostMm.swapOut,
    pageRequests: stats.faults.pageRequests,
    notifierRanges: stats.hostMm.notifierRanges,
    events: sum(stats.events.map(({ times }) => times)),
    injected: sum(Object.values(stats.injected)),
    checks: sum(stats.invariants.map(({ checks }) => checks)),
  };
}

/** Which of the rarer things happened, to the order of magnitude. */
function signatureOf(stats: StatsDocument): string {
  const size = (value: number): number => (value === 0 ? 0 : Math.ceil(Math.log10(value + 1)));
  const { faults, iopt, hostMm, innocent, dma } = stats;
  return [
    stats.strategy,
    stats.verdict,
    `v${stats.vms.length}`,
    `f${size(faults.pageRequests)}.${size(faults.responses.invalid)}.${size(faults.responses.failure)}.${size(faults.overflows)}`,
    `s${size(iopt.splits['1G->2M'])}.${size(iopt.splits['2M->4K'])}.${size(iopt.collapses)}.${size(iopt.wholeLeafFallbacks)}`,
    `m${size(hostMm.swapOut)}.${size(hostMm.swapIn)}.${size(hostMm.failedCpuAccesses)}`,
    `d${size(dma.dropped)}.${size(dma.aborted)}.${size(innocent.faulted)}`,
    ...stats.events.map(({ action, outcomes }) => `${action}:${Object.keys(outcomes).sort().join('+')}`).sort(),
    ...Object.entries(stats.injected).flatMap(([what, count]) => (count > 0 ? [what] : [])),
  ].join(' ');
}
