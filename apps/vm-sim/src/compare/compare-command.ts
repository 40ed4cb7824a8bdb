import { resolve } from 'node:path';
import { STRATEGIES, type Strategy, VERSION } from '@faultline/machine';
import { compareCommandLine } from '../command-line-text.ts';
import { EXIT, type ExitCode, UsageError } from '../exit-code.ts';
import { Interruption } from '../interruption.ts';
import { suggestion } from '../nearest.ts';
import { builtFor, type MachineFactory } from '../run/driven-machine.ts';
import { COMPARISON_SCHEMA, jsonText, openRunDirectory, writeRunFiles } from '../run/run-directory.ts';
import { simulate } from '../run/simulation.ts';
import { type LoadedScenario, loadScenario } from '../scenario/load.ts';
import { paletteFor, type Terminal } from '../terminal.ts';
import { type Comparison, type ComparisonRow, comparisonRow, type PlannedRun, type SkippedRun } from './comparison.ts';
import { comparisonPage } from './comparison-page.ts';
import { comparisonText } from './comparison-text.ts';

/** Options of `vm-sim compare`. */
export interface CompareOptions {
  readonly seed?: number;
  readonly strategies?: string;
  readonly set: readonly string[];
  readonly json?: boolean;
  readonly output?: string;
  readonly quiet?: boolean;
  readonly verbose?: boolean;
}

/** Runs scenarios with one strategy after the other on the same workload and seed, and prints a table, a row for each run. */
export async function compareCommand(
  given: readonly string[],
  options: CompareOptions,
  terminal: Terminal,
  buildMachine: MachineFactory,
): Promise<ExitCode> {
  const scenarios: LoadedScenario[] = [];
  for (const name of given) scenarios.push(await loadScenario(name, { set: options.set, failOn: [] }, terminal));
  const seed = options.seed ?? scenarios[0]?.seed ?? 1;
  const planned = plannedRuns(scenarios, options.strategies);
  const directory = options.output === undefined ? undefined : resolve(terminal.cwd, options.output);
  if (directory !== undefined) openRunDirectory(directory, options.output ?? '', 'comparison.json');
  const say = (line: string): void => {
    if (!options.quiet) terminal.stderr.write(`${line}\n`);
  };
  const hashes = scenarios.map(({ scenario, hash }) => `${scenario.name} ${hash}`).join(', ');
  say(`vm-sim ${VERSION}, Node ${process.versions.node}, seed ${seed}, scenario ${hashes}`);
  const { runs, skipped } = possible(planned, seed, buildMachine);
  const { rows, interrupted } = await runAll(
    { runs, seed, quiet: options.quiet ?? false, say },
    terminal,
    buildMachine,
  );
  const comparison: Comparison = { schema: COMPARISON_SCHEMA, version: VERSION, seed, interrupted, rows, skipped };
  const again = compareCommandLine(terminal.startedAs, { ...options, scenarios: given, seed });
  terminal.stdout.write(
    options.json ? jsonText(comparison) : comparisonText(comparison, paletteFor(terminal.stdout, terminal.env)),
  );
  if (directory !== undefined) {
    writeRunFiles(directory, {
      'comparison.json': jsonText(comparison),
      'comparison.html': comparisonPage(comparison, again),
    });
    say(`written: ${options.output}: comparison.json, comparison.html`);
  }
  say(again);
  if (interrupted) return EXIT.interrupted;
  return rows.every(({ asClaimed }) => asClaimed) ? EXIT.ok : EXIT.failed;
}

/** One scenario is run with every strategy, several each with its own, unless strategies are named. */
function plannedRuns(scenarios: readonly LoadedScenario[], named: string | undefined): PlannedRun[] {
  const strategies = named === undefined ? (scenarios.length === 1 ? STRATEGIES : null) : strategiesOf(named);
  return scenarios.flatMap((loaded) =>
    (strategies ?? [loaded.scenario.strategy]).map((strategy) => ({
      loaded: { ...loaded, scenario: { ...loaded.scenario, strategy } },
      own: loaded.scenario.strategy,
      strategy,
    })),
  );
}

/**
 * What cannot be built is known before the first row has taken its time.
 * @throws UsageError for a scenario that cannot be built with its own strategy, or nothing to run
 */
function possible(
  planned: readonly PlannedRun[],
  seed: number,
  buildMachine: MachineFactory,
): { runs: PlannedRun[]; skipped: SkippedRun[] } {
  const runs: PlannedRun[] = [];
  const skipped: SkippedRun[] = [];
  for (const run of planned) {
    try {
      builtFor(run.loaded, { seed }, buildMachine);
      runs.push(run);
    } catch (error) {
      if (!(error instanceof UsageError) || run.strategy === run.own) throw error;
      skipped.push({ scenario: run.loaded.scenario.name, strategy: run.strategy, reason: error.message });
    }
  }
  if (runs.length === 0) throw new UsageError(skipped.map(({ reason }) => reason).join('\n'));
  return { runs, skipped };
}

function strategiesOf(named: string): readonly Strategy[] {
  const names = named.split(',').map((name) => name.trim());
  for (const name of names)
    if (!STRATEGIES.some((known) => known === name))
      throw new UsageError(`--strategies ${named}: there is no strategy "${name}"${suggestion(name, STRATEGIES)}`);
  return STRATEGIES.filter((known) => names.includes(known));
}

async function runAll(
  {
    runs,
    seed,
    quiet,
    say,
  }: { runs: readonly PlannedRun[]; seed: number; quiet: boolean; say: (line: string) => void },
  terminal: Terminal,
  buildMachine: MachineFactory,
): Promise<{ rows: ComparisonRow[]; interrupted: boolean }> {
  const interruption = new Interruption(terminal);
  const rows: ComparisonRow[] = [];
  try {
    for (const [index, run] of runs.entries()) {
      const name = `${run.loaded.scenario.name}, ${run.strategy}`;
      const machine = builtFor(run.loaded, { seed }, buildMachine);
      const { stats, timings } = await simulate({ machine, loaded: run.loaded, quiet, name }, terminal, interruption);
      if (stats.interrupted) return { rows, interrupted: true };
      rows.push(comparisonRow(run, stats));
      const seconds = timings.bootSeconds + timings.runSeconds + timings.finishSeconds;
      say(`${index + 1} of ${runs.length}: ${name}: ${stats.verdict} (${seconds.toFixed(1)} s)`);
    }
    return { rows, interrupted: false };
  } finally {
    interruption.end();
  }
}
