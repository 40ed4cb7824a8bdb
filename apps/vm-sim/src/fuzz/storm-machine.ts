import { randomScenario, runStormMachine, type StormOutcome, shrinkScenario } from '@faultline/machine';

/** What became of the machine of one seed; a failure with the smallest scenario that shows it. */
export interface StormResult extends StormOutcome {
  /** The scenario made small; the one that was drawn if nothing failed. */
  readonly shrunk: StormOutcome['scenario'];
}

/** Builds the machine of a seed, runs it, and shrinks its scenario if it fails. */
export function stormOf(seed: number): StormResult {
  const scenario = randomScenario(seed);
  const outcome = runStormMachine(seed, scenario);
  if (outcome.failure === null) return { ...outcome, shrunk: scenario };
  const { scenario: shrunk, failure } = shrinkScenario(seed, outcome);
  return { ...outcome, failure, shrunk };
}
