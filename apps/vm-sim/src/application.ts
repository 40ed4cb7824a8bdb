import { BUILT_IN_SCENARIOS, VERSION } from '@faultline/machine';
import { Command, CommanderError, Option } from 'commander';
import { checkCommand, listCommand, schemaCommand } from './catalogue-command.ts';
import { COMMANDS } from './command-line-text.ts';
import { addCompare } from './compare/compare-program.ts';
import { EXIT, UsageError } from './exit-code.ts';
import { addExplain } from './explain/explain-program.ts';
import { addFuzz } from './fuzz/fuzz-program.ts';
import { json, quiet, repeated, seedOption, setOption, verbose } from './option.ts';
import { replayCommand } from './replay/replay-command.ts';
import type { MachineFactory } from './run/driven-machine.ts';
import { runCommand } from './run/run-command.ts';
import { paletteFor, type Terminal } from './terminal.ts';
import type { ProtocolVerifier } from './verify/protocol-verifier.ts';
import { addVerify } from './verify/verify-program.ts';
import { addZoo } from './zoo/zoo-program.ts';

/** What the commands drive; tests give others. */
export interface Engines {
  readonly buildMachine: MachineFactory;
  readonly verifier: ProtocolVerifier;
}

/** Commands of the design that this version does not have. */
const PLANNED = ['density', 'sweep', 'reproduce', 'report'];

/** Options without a value that several commands have. */
const FLAGS: ReadonlySet<string> = new Set(['-q', '--quiet', '-v', '--verbose', '--json']);

const failOnOption = (): Option =>
  new Option(
    '--fail-on <expression>',
    "threshold on the stats, such as 'dma.latencyNs.p99 < 500us' (repeatable)",
  ).argParser(repeated);
const NO_CHANGES = { set: [], failOn: [] } as const;
/**
 * Runs one command line.
 * @param args without the interpreter and the script
 * @returns the exit code
 */
export async function runApplication(args: readonly string[], terminal: Terminal, engines: Engines): Promise<number> {
  let code: number = EXIT.ok;
  const program = programOf(terminal, engines, (result) => {
    code = result;
  });
  try {
    const words = commandFirst(args);
    refusePlanned(words);
    await program.parseAsync(words, { from: 'user' });
    return code;
  } catch (error) {
    return reportFailure(error, args, terminal);
  }
}

/** `vm-sim -q list` is `vm-sim list -q`: without this it would be the default command, with `list` for its scenario. */
function commandFirst(args: readonly string[]): string[] {
  const at = args.findIndex((arg) => !FLAGS.has(arg));
  const command = args[at];
  if (at <= 0 || command === undefined || !(COMMANDS.includes(command) || PLANNED.includes(command))) return [...args];
  return [command, ...args.slice(0, at), ...args.slice(at + 1)];
}

function refusePlanned(args: readonly string[]): void {
  const [command] = args;
  if (command !== undefined && PLANNED.includes(command))
    throw new UsageError(`${command} is not implemented yet; there is ${COMMANDS.join(', ')}`);
}

function programOf(terminal: Terminal, engines: Engines, setCode: (code: number) => void): Command {
  const program = new Command('vm-sim')
    .description('Simulates DMA of a virtual machine into memory that its host may swap.')
    .version(VERSION, '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print this help')
    .helpCommand(false)
    .configureOutput({
      writeOut: (text) => terminal.stdout.write(text),
      writeErr: (text) => terminal.stderr.write(text),
      getOutHelpWidth: () => Math.min(100, terminal.stdout.columns),
      getErrHelpWidth: () => Math.min(100, terminal.stderr.columns),
      getOutHasColors: () => false,
      getErrHasColors: () => false,
    })
    .exitOverride()
    .addHelpText('after', HELP_END);
  addRun(program, terminal, engines, setCode);
  addCatalogue(program, terminal, engines, setCode);
  addCompare(program, terminal, engines, setCode);
  addReplay(program, terminal, setCode);
  addVerify(program, terminal, engines, setCode);
  addZoo(program, terminal, engines, setCode);
  addFuzz(program, terminal, setCode);
  addExplain(program, terminal, setCode);
  return program;
}

const HELP_END = `
Exit codes: 0 ok; 1 internal error; 2 usage or scenario; 3 invariant violated, unexpected crash or differing trace;
            99 threshold failed; 130 interrupted, with what there was.`;

function addRun(program: Command, terminal: Terminal, engines: Engines, setCode: (code: number) => void): void {
  program
    .command('run', { isDefault: true })
    .description('run a scenario and say what happened (the default command)')
    .argument('[scenario]', 'a name of `vm-sim list`, a YAML or JSON file, or - for stdin', BUILT_IN_SCENARIOS[0]?.name)
    .addOption(seedOption())
    .addOption(setOption())
    .addOption(failOnOption())
    .option(...json)
    .option('--output <directory>', 'write config.json, stats.json, events.parquet, trace.pftrace and report.html')
    .option('--timings', 'wall time and peak memory, to stderr and to timings.json')
    .option(...quiet)
    .option(...verbose)
    .action(async (scenario, options) =>
      setCode(await runCommand(scenario, { ...NO_CHANGES, ...options }, terminal, engines.buildMachine)),
    );
}

function addCatalogue(program: Command, terminal: Terminal, engines: Engines, setCode: (code: number) => void): void {
  program
    .command('list')
    .description('list the built-in scenarios')
    .option(...json)
    .action((options) => setCode(listCommand(options, terminal)));
  program
    .command('check')
    .description('check a scenario without running it')
    .argument('<scenario>', 'a name of `vm-sim list`, a YAML or JSON file, or - for stdin')
    .addOption(setOption())
    .addOption(failOnOption())
    .option('--json', 'print the scenario with every default filled in')
    .option(...quiet)
    .option(...verbose)
    .action(async (scenario, options) =>
      setCode(await checkCommand(scenario, { ...NO_CHANGES, ...options }, terminal, engines.buildMachine)),
    );
  program
    .command('schema')
    .description('print the JSON schema of scenarios, or of the stats document')
    .argument('[document]', 'scenario or stats', 'scenario')
    .action((name) => setCode(schemaCommand(name, terminal)));
}

function addReplay(program: Command, terminal: Terminal, setCode: (code: number) => void): void {
  program
    .command('replay')
    .description(
      'replay a recording on the model: a QEMU vtd_* log, ftrace iommu:* text, the two of one run, or a log of iommufd calls (iofd-*.log)',
    )
    .argument('<file...>', 'plain or gzip, the format is detected; - for stdin')
    .option(...json)
    .option('--strict', 'exit 2 if a line is unknown or damaged')
    .option(...quiet)
    .option(...verbose)
    .action(async (files, options) => setCode(await replayCommand(files, options, terminal)));
}

const STARTS_WITH_PLACE = /^\S.*?:\d+:\d+: /;

function reportFailure(error: unknown, args: readonly string[], terminal: Terminal): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.ok : EXIT.usage;
  const verbosely = args.includes('-v') || args.includes('--verbose');
  const color = paletteFor(terminal.stderr, terminal.env);
  const message = error instanceof Error ? error.message : String(error);
  const stack = verbosely && error instanceof Error ? `${error.stack ?? ''}\n` : '';
  if (error instanceof UsageError) {
    // A place comes first in its line, so that editors can jump to it.
    const lines = message
      .split('\n')
      .map((line) => (STARTS_WITH_PLACE.test(line) ? line : `${color.red('error:')} ${line}`));
    terminal.stderr.write(`${lines.join('\n')}\n${stack}`);
    return EXIT.usage;
  }
  const hint = verbosely ? '' : '; -v shows the stack';
  terminal.stderr.write(`${color.red('internal error:')} ${message.split('\n')[0] ?? ''}${hint}\n${stack}`);
  return EXIT.internal;
}
