import { createHash } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { BUILT_IN_SCENARIOS, parseThreshold, type Scenario, scenarioSchema } from '@faultline/machine';
import { COMMANDS } from '../command-line-text.ts';
import { UsageError } from '../exit-code.ts';
import { nearest } from '../nearest.ts';
import { CONFIG_SCHEMA } from '../run/run-directory.ts';
import { checkThresholdField } from '../run/stats-sample.ts';
import type { Terminal } from '../terminal.ts';
import { complaintsOf, valueAt } from './issue-text.ts';
import { type Override, parseOverride, withOverrides } from './override.ts';
import { readScenarioText, type ScenarioText } from './scenario-text.ts';
import { type KeyPath, type Shape, scenarioShape } from './shape.ts';

/** A scenario that can be run. */
export interface LoadedScenario {
  /** With every default, override and `--fail-on` in it. */
  readonly scenario: Scenario;
  /** As the user named it: a built-in name, a path or `-`. */
  readonly given: string;
  /** First 12 hexadecimal digits of the SHA-256 of the resolved scenario as JSON. */
  readonly hash: string;
  /** The seed that a run directory's `config.json` says, else undefined. */
  readonly seed: number | undefined;
  /** Where the value of a field such as `vm.memory` or `events[0].at` comes from: `file:line:column` or the `--set`. */
  placeOf(field: string): string;
}

/** What the user said besides the name. */
export interface LoadOptions {
  readonly set: readonly string[];
  readonly failOn: readonly string[];
}

const LARGEST_FILE_BYTES = 4 << 20;

interface RawScenario {
  readonly value: Record<string, unknown>;
  readonly seed: number | undefined;
  placeOf(path: KeyPath, atKey: boolean): string;
}

/**
 * Finds, reads, overrides and checks a scenario.
 * @throws UsageError with one line for each thing that is wrong
 */
export async function loadScenario(given: string, options: LoadOptions, terminal: Terminal): Promise<LoadedScenario> {
  const shape = scenarioShape();
  const raw = await rawScenario(given, shape, terminal);
  const overrides = options.set.map((text) => parseOverride(text, shape));
  const input = withOverrides(raw.value, overrides);
  if (options.failOn.length > 0) input.thresholds = withThresholds(input.thresholds, options.failOn);
  const parsed = scenarioSchema.safeParse(input);
  if (!parsed.success) {
    const lines = complaintsOf(parsed.error.issues, input, shape).map(
      ({ path, atKey, message }) => `${placeIn(raw, overrides, path, atKey)}: ${message}`,
    );
    throw new UsageError([...new Set(lines)].join('\n'));
  }
  checkThresholds(parsed.data, options.failOn, raw, overrides);
  const hash = createHash('sha256').update(JSON.stringify(parsed.data)).digest('hex').slice(0, 12);
  const placeOf = (field: string): string => {
    const path = field.split(/[.[\]]+/).flatMap((key) => (key === '' ? [] : /^\d+$/.test(key) ? Number(key) : key));
    return placeIn(raw, overrides, path, false);
  };
  return { scenario: parsed.data, given, hash, seed: raw.seed, placeOf };
}

function withThresholds(own: unknown, failOn: readonly string[]): unknown {
  return own === undefined ? [...failOn] : Array.isArray(own) ? [...own, ...failOn] : own;
}

/** An override is to blame for what is wrong below its path, and for what is missing in a map that is there for its sake. */
function placeIn(raw: RawScenario, overrides: readonly Override[], path: KeyPath, atKey: boolean): string {
  const blamed =
    overrides.findLast((override) => override.path.every((key, index) => path[index] === key)) ??
    overrides.findLast((override) => {
      const apart = override.path.findIndex((key, index) => path[index] !== key);
      return apart > 0 && (valueAt(raw.value, path.slice(0, apart)) ?? null) === null;
    });
  return blamed === undefined ? raw.placeOf(path, atKey) : `--set ${blamed.text}`;
}

function checkThresholds(
  scenario: Scenario,
  failOn: readonly string[],
  raw: RawScenario,
  overrides: readonly Override[],
): void {
  const own = scenario.thresholds.length - failOn.length;
  const complaints = scenario.thresholds.flatMap((expression, index) => {
    try {
      checkThresholdField(parseThreshold(expression));
      return [];
    } catch (error) {
      const place = index < own ? placeIn(raw, overrides, ['thresholds', index], false) : '--fail-on';
      return [`${place}: ${error instanceof Error ? error.message : String(error)}`];
    }
  });
  if (complaints.length > 0) throw new UsageError(complaints.join('\n'));
}

async function rawScenario(given: string, shape: Shape, terminal: Terminal): Promise<RawScenario> {
  const builtIn = BUILT_IN_SCENARIOS.find(({ name }) => name === given);
  if (builtIn !== undefined) {
    const value = structuredClone(builtIn.scenario) as Record<string, unknown>;
    return { value, seed: undefined, placeOf: () => given };
  }
  if (given === '') throw new UsageError('the name of the scenario is empty; vm-sim list shows the built-in ones');
  const bytes = given === '-' ? await allOf(terminal.stdin()) : fileBytes(given, terminal.cwd);
  const name = given === '-' ? '<stdin>' : given;
  if (bytes.length > LARGEST_FILE_BYTES)
    throw new UsageError(`${name}: ${bytes.length} bytes are too many for a scenario; traces go to vm-sim replay`);
  if (bytes[0] === 0x1f && bytes[1] === 0x8b)
    throw new UsageError(`${name}: this is gzip, not a scenario; traces go to vm-sim replay`);
  return unwrapped(name, readScenarioText(name, new TextDecoder().decode(bytes), shape), bytes, shape);
}

/** A run directory's `config.json` holds the scenario beside the seed. */
function unwrapped(name: string, text: ScenarioText, bytes: Uint8Array, shape: Shape): RawScenario {
  const { schema, seed } = text.value;
  if (schema === undefined) return { ...text, seed: undefined };
  if (schema !== CONFIG_SCHEMA)
    throw new UsageError(
      `${text.placeOf(['schema'], false)}: expected a scenario or the config.json of a run (${CONFIG_SCHEMA}), found ${JSON.stringify(schema)}`,
    );
  const inner: Shape = { type: 'object', properties: { scenario: shape } };
  const whole = readScenarioText(name, new TextDecoder().decode(bytes), inner);
  const { scenario } = whole.value;
  if (typeof scenario !== 'object' || scenario === null || Array.isArray(scenario))
    throw new UsageError(`${whole.placeOf(['scenario'], false)}: expected the scenario of a run, a map`);
  if (!Number.isSafeInteger(seed))
    throw new UsageError(`${whole.placeOf(['seed'], false)}: seed: expected a whole number`);
  return {
    value: scenario as Record<string, unknown>,
    seed: seed as number,
    placeOf: (path, atKey) => whole.placeOf(['scenario', ...path], atKey),
  };
}

function fileBytes(given: string, cwd: string): Uint8Array {
  const path = resolve(cwd, given);
  try {
    const { isDirectory, size } = inspect(path);
    if (isDirectory) {
      const holdsRun = inspect(join(path, 'config.json'), true) !== undefined;
      throw new UsageError(
        `${given}: is a directory${holdsRun ? `; to repeat its run give ${join(given, 'config.json')}` : ', not a scenario file'}`,
      );
    }
    if (size > LARGEST_FILE_BYTES)
      throw new UsageError(`${given}: ${size} bytes are too many for a scenario; traces go to vm-sim replay`);
    return readFileSync(path);
  } catch (error) {
    if (error instanceof UsageError) throw error;
    const code = (error as NodeJS.ErrnoException).code ?? String(error);
    throw new UsageError(code === 'ENOENT' ? noSuchScenario(given) : `${given}: cannot be read (${code})`);
  }
}

function inspect(path: string): { isDirectory: boolean; size: number };
function inspect(path: string, quiet: true): { isDirectory: boolean; size: number } | undefined;
function inspect(path: string, quiet = false): { isDirectory: boolean; size: number } | undefined {
  const stats = statSync(path, { throwIfNoEntry: !quiet });
  return stats === undefined ? undefined : { isDirectory: stats.isDirectory(), size: stats.size };
}

function noSuchScenario(given: string): string {
  const names = BUILT_IN_SCENARIOS.map(({ name }) => name);
  if (/[/\\]|\.(ya?ml|json)$/.test(given)) return `${given}: no such file`;
  const command = nearest(given, COMMANDS);
  if (nearest(given, names) === undefined && command !== undefined)
    return `there is no command, scenario or file "${given}"; did you mean the command "${command}"?`;
  const near = nearest(given, names);
  return near === undefined
    ? `"${given}" is neither a built-in scenario (${names.join(', ')}) nor a file, nor a command (vm-sim --help)`
    : `there is no scenario or file "${given}"; did you mean "${near}"?`;
}

async function allOf(chunks: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of chunks) {
    parts.push(chunk);
    bytes += chunk.length;
    if (bytes > LARGEST_FILE_BYTES) break;
  }
  return Buffer.concat(parts);
}
