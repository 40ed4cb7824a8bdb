import { randomScenario, runStormMachine, type StormOutcome, shrinkScenario } from '@faultline/machine';

/** What became of the machine of one seed; a failure with the smallest scenario that shows it. */
export interface StormResult extends StormOutcome {
  /** The scenario made small; the one that was drawn if nothing failed. */
  readonly shrunk: StormOutcome['scenario'];
}

/** A slow machine is not made small for ever: what is reached by then shows the failure as well. */
const SHRINK_MS = 300_000;

/** Builds the machine of a seed, runs it, and shrinks its scenario if it fails. */
export function stormOf(seed: number): StormResult {
  const scenario = randomScenario(seed);
  const outcome = runStormMachine(seed, scenario);
  if (outcome.failure === null) return { ...outcome, shrunk: scenario };
  const end = performance.now() + SHRINK_MS;
  const { scenario: shrunk, failure } = shrinkScenario(seed, outcome, { shouldStop: () => performance.now() >= end });
  return { ...outcome, failure, shrunk };
}
