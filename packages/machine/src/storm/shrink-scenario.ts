import type { ScenarioInput } from '../scenario.ts';
import { runStormMachine, type StormOutcome } from './storm-run.ts';

/** A failure with the smallest scenario found that shows it. */
export interface ShrunkFailure {
  readonly scenario: ScenarioInput;
  readonly failure: NonNullable<StormOutcome['failure']>;
  /** Machines run to get there. */
  readonly runs: number;
}

/** What may be spent on {@link shrinkScenario}. */
export interface ShrinkScenarioOptions {
  /** Machines to run at most; default 400. */
  readonly budget?: number;
  /** Asked before each machine; true ends it with what has been reached. */
  readonly shouldStop?: () => boolean;
}

type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

/**
 * Makes a scenario smaller while the same invariant breaks: leaves out settings (which then are as by default), events and VMs, and
 * halves what is counted, until nothing more goes. @throws RangeError for an outcome that did not fail
 */
export function shrinkScenario(
  seed: number,
  found: StormOutcome,
  { budget = 400, shouldStop = () => false }: ShrinkScenarioOptions = {},
): ShrunkFailure {
  if (found.failure === null) throw new RangeError('found: expected an outcome that failed');
  let best: { scenario: ScenarioInput; failure: NonNullable<StormOutcome['failure']> } = {
    scenario: found.scenario,
    failure: found.failure,
  };
  let runs = 0;
  const { kind } = found.failure;
  const attempt = (scenario: ScenarioInput): boolean => {
    runs++;
    try {
      const { failure } = runStormMachine(seed, scenario);
      if (failure?.kind !== kind) return false;
      best = { scenario, failure };
      return true;
    } catch {
      return false; // cannot be built
    }
  };
  const isOver = (): boolean => runs >= budget || shouldStop();
  for (let smaller = true; smaller; ) {
    smaller = false;
    for (const candidate of smallerThan(best.scenario as Json)) {
      if (isOver()) break;
      smaller = attempt(candidate as ScenarioInput);
      if (smaller) break;
    }
  }
  return { ...best, runs };
}

/** Every way to make a document smaller by one: big pieces first. */
function* smallerThan(document: Json, key = ''): Generator<Json> {
  if (Array.isArray(document)) {
    if (document.length > 1) {
      yield document.slice(0, document.length >> 1);
      yield document.slice(document.length >> 1);
    }
    for (let at = 0; at < document.length; at++) {
      // The last VM stays: without any there would be one by default.
      if (key !== 'vms' || document.length > 1) yield document.filter((_, index) => index !== at);
      for (const smaller of smallerThan(document[at] as Json)) yield document.with(at, smaller);
    }
  } else if (document !== null && typeof document === 'object') {
    for (const name of Object.keys(document)) {
      if (name === 'name' && key === '') continue;
      const { [name]: value, ...rest } = document;
      if (DEVICES.has(name) && value !== null) yield { ...document, [name]: null };
      if (!NEEDED.has(name)) yield rest;
      for (const smaller of smallerThan(value as Json, name)) yield { ...document, [name]: smaller };
    }
  } else if (typeof document === 'number' && document > 1) {
    yield 1;
    yield Math.floor(document / 2);
  } else if (typeof document === 'string') {
    const match = /^(\d+)(us|M)$/.exec(document);
    const value = Number(match?.[1]);
    if (match && value > 1) yield `${Math.floor(value / 2)}${match[2]}`;
  }
}

/** A device that is left out would be there by default. */
const DEVICES: ReadonlySet<string> = new Set(['accelerator', 'disk', 'nic', 'reclaim']);
/** What has no default that means less. */
const NEEDED: ReadonlySet<string> = new Set([
  'memory',
  'swap',
  'duration',
  'strategy',
  'name',
  'at',
  'action',
  ...DEVICES,
]);
