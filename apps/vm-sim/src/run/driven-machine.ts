import {
  evaluateThresholds,
  Machine,
  type MachineOptions,
  type MachineProgress,
  parseThreshold,
  type Scenario,
  type StatsDocument,
} from '@faultline/machine';
import { UsageError } from '../exit-code.ts';
import type { LoadedScenario } from '../scenario/load.ts';

/** A machine as the command line drives it. */
export interface DrivenMachine {
  runUntil(virtualNs: number): boolean;
  readonly progress: MachineProgress;
  finish(options?: { interrupted?: boolean }): StatsDocument;
}

/** What builds a machine; a test may give another. */
export type MachineFactory = (scenario: Scenario, options: MachineOptions) => DrivenMachine;

/** The real one. */
export const buildMachine: MachineFactory = (scenario, options) => new Machine(scenario, options);

/**
 * Builds a machine. @throws UsageError, naming the scenario, for one that the schema allows and that cannot be built:
 * that is the user's to mend
 */
export function builtFor(
  { scenario, given, placeOf }: LoadedScenario,
  options: MachineOptions,
  buildMachine: MachineFactory,
): DrivenMachine {
  try {
    return buildMachine(scenario, options);
  } catch (error) {
    if (error instanceof RangeError) {
      const field = /^[a-z][\w.[\]]*(?=: )/i.exec(error.message)?.[0];
      const known = field !== undefined && Object.hasOwn(scenario, field.split(/[.[]/)[0] ?? '');
      throw new UsageError(`${known ? placeOf(field) : given}: ${error.message}`, { cause: error });
    }
    throw error;
  }
}

/** Adds the values of the scenario's thresholds; a threshold that fails turns `ok` into `threshold-failed`. */
export function withThresholds(stats: StatsDocument, expressions: readonly string[]): StatsDocument {
  const thresholds = evaluateThresholds(stats, expressions.map(parseThreshold));
  const failed = thresholds.some(({ ok }) => !ok);
  return { ...stats, thresholds, verdict: failed && stats.verdict === 'ok' ? 'threshold-failed' : stats.verdict };
}
