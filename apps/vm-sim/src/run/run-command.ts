import { resolve } from 'node:path';
import { formatBytes } from '@faultline/address';
import { type RefusalStats, type StatsDocument, VERSION } from '@faultline/machine';
import { EventLog } from '@faultline/sim';
import { counted } from '../columns.ts';
import { runCommandLine } from '../command-line-text.ts';
import type { ExitCode } from '../exit-code.ts';
import { Interruption } from '../interruption.ts';
import { type LoadedScenario, loadScenario } from '../scenario/load.ts';
import { paletteFor, type Terminal } from '../terminal.ts';
import { builtFor, type MachineFactory } from './driven-machine.ts';
import { eventFiles } from './event-files.ts';
import { outcomeOf } from './outcome.ts';
import { reportPage } from './report-page.ts';
import { CONFIG_SCHEMA, jsonText, openRunDirectory, type RunConfig, writeRunFiles } from './run-directory.ts';
import { runSummary } from './run-summary.ts';
import { simulate, type Timings } from './simulation.ts';

/** Options of `vm-sim run`. */
export interface RunOptions {
  readonly seed?: number;
  readonly set: readonly string[];
  readonly failOn: readonly string[];
  readonly json?: boolean;
  readonly output?: string;
  readonly timings?: boolean;
  readonly quiet?: boolean;
  readonly verbose?: boolean;
}

/** How many events `--output` keeps; what comes after is counted and reported. */
export const EVENT_LIMIT = 500_000;

/** Runs a scenario, prints what happened, and writes the run directory. */
export async function runCommand(
  given: string,
  options: RunOptions,
  terminal: Terminal,
  buildMachine: MachineFactory,
): Promise<ExitCode> {
  const loaded = await loadScenario(given, options, terminal);
  const seed = options.seed ?? loaded.seed ?? 1;
  const directory = options.output === undefined ? undefined : resolve(terminal.cwd, options.output);
  if (directory !== undefined) openRunDirectory(directory, options.output ?? '');
  const say = (line: string): void => {
    if (!options.quiet) terminal.stderr.write(`${line}\n`);
  };
  say(
    `vm-sim ${VERSION}, Node ${process.versions.node}, seed ${seed}, scenario ${loaded.scenario.name} ${loaded.hash}`,
  );
  if (options.verbose) say(JSON.stringify(loaded.scenario));

  const events = new EventLog(EVENT_LIMIT);
  const machine = builtFor(loaded, directory === undefined ? { seed } : { seed, sink: events }, buildMachine);
  const interruption = new Interruption(terminal);
  const simulation = { machine, loaded, quiet: options.quiet ?? false };
  const { stats, timings } = await simulate(simulation, terminal, interruption).finally(() => interruption.end());
  const again = runCommandLine(terminal.startedAs, { ...options, scenario: given, seed });
  const input = { stats, scenario: loaded.scenario, again };
  terminal.stdout.write(options.json ? jsonText(stats) : runSummary(input, paletteFor(terminal.stdout, terminal.env)));

  if (directory !== undefined) {
    const notes =
      events.dropped > 0
        ? [`${counted(events.dropped)} events after the first ${counted(EVENT_LIMIT)} were left out`]
        : [];
    const config: RunConfig = { schema: CONFIG_SCHEMA, version: VERSION, seed, scenario: loaded.scenario };
    writeRunFiles(directory, {
      'config.json': jsonText(config),
      'stats.json': jsonText(stats),
      'report.html': reportPage(input, notes),
      ...eventFiles(events.events, { scenario: loaded.scenario.name, seed: String(seed), version: VERSION }),
    });
    for (const note of notes) say(`warning: ${note}`);
    say(`written: ${options.output}: config.json, stats.json, events.parquet, trace.pftrace, report.html`);
  }
  if (options.timings) reportTimings(timings, stats, directory, terminal);
  const outcome = outcomeOf(stats);
  if (stats.refusal !== null && !outcome.good) say(refusalLine(stats.refusal, loaded));
  if (options.json && !outcome.good) say(failureLine(outcome.headline, outcome.remark, stats));
  say(again);
  return outcome.code;
}

/** Where the scenario says what iommufd does not accept. */
function refusalLine({ vm, device, reason }: RefusalStats, { scenario, placeOf }: LoadedScenario): string {
  const index = scenario.vms.findIndex(({ name }) => name === vm);
  const of = index < 0 ? 'vm' : `vms[${index}]`;
  const field = device === null ? `${of}.memory` : `${of}.devices.${device}`;
  return `${placeOf(field)}: ${field}: ${reason}`;
}

function failureLine(headline: string, remark: string, stats: StatsDocument): string {
  const failed = stats.thresholds.filter(({ ok }) => !ok).map(({ expression, value }) => `${expression}: ${value}`);
  return [`${headline}${remark === '' ? '' : `, ${remark}`}`, ...failed].join('; ');
}

function reportTimings(
  timings: Timings,
  stats: StatsDocument,
  directory: string | undefined,
  terminal: Terminal,
): void {
  const peakRssBytes = terminal.peakRssBytes();
  const wallSeconds = terminal.nowMs() / 1000;
  const requestsPerSecond = timings.runSeconds > 0 ? Math.round(stats.dma.requests / timings.runSeconds) : 0;
  terminal.stderr.write(
    `wall time ${wallSeconds.toFixed(2)} s, peak memory ${formatBytes(peakRssBytes)}, ${counted(requestsPerSecond)} requests/s\n`,
  );
  if (directory !== undefined)
    writeRunFiles(directory, {
      'timings.json': jsonText({
        schema: 'faultline.timings/1',
        node: process.versions.node,
        wallSeconds,
        ...timings,
        requestsPerSecond,
        peakRssBytes,
      }),
    });
}
