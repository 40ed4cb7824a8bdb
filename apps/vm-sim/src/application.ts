import { BUILT_IN_SCENARIOS, VERSION } from '@faultline/machine';
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { checkCommand, listCommand, schemaCommand } from './catalogue-command.ts';
import { titleLines } from './columns.ts';
import { COMMANDS } from './command-line-text.ts';
import { EXIT, type ExitCode, UsageError } from './exit-code.ts';
import { addExplain } from './explain/explain-program.ts';
import { replayCommand } from './replay/replay-command.ts';
import type { MachineFactory } from './run/driven-machine.ts';
import { runCommand } from './run/run-command.ts';
import { paletteFor, type Terminal } from './terminal.ts';
import type { ProtocolVerifier } from './verify/protocol-verifier.ts';
import { type VerifyOptions, verifyCommand, verifyReplayCommand } from './verify/verify-command.ts';

/** What the commands drive; tests give others. */
export interface Engines {
  readonly buildMachine: MachineFactory;
  readonly verifier: ProtocolVerifier;
}

/** Commands of the design that this version does not have. */
const PLANNED = ['compare', 'density', 'fuzz', 'sweep', 'reproduce', 'report'];

/** Options without a value that several commands have. */
const FLAGS: ReadonlySet<string> = new Set(['-q', '--quiet', '-v', '--verbose', '--json']);

const repeated = (value: string, before: string[] | undefined): string[] => [...(before ?? []), value];

function integer(text: string): number {
  const value = /^[+-]?\d+$/.test(text) ? Number(text) : Number.NaN;
  if (!Number.isSafeInteger(value)) throw new InvalidArgumentError('Expected a whole number, such as 1.');
  return value === 0 ? 0 : value;
}

function natural(text: string): number {
  const value = integer(text);
  if (value < 0) throw new InvalidArgumentError('Expected a whole number of at least 0.');
  return value;
}

function positive(text: string): number {
  const value = integer(text);
  if (value < 1) throw new InvalidArgumentError('Expected a whole number of at least 1.');
  return value;
}

const setOption = (): Option =>
  new Option('--set <path=value>', 'override a setting of the scenario, such as vm.memory=2G (repeatable)').argParser(
    repeated,
  );
const failOnOption = (): Option =>
  new Option(
    '--fail-on <expression>',
    "threshold on the stats, such as 'dma.latencyNs.p99 < 500us' (repeatable)",
  ).argParser(repeated);
const NO_CHANGES = { set: [], failOn: [] } as const;
const json = ['--json', 'print the result as one JSON document'] as const;
const quiet = ['-q, --quiet', 'nothing on stderr but errors'] as const;
const verbose = ['-v, --verbose', 'more on stderr; the stack of an error'] as const;

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
  addReplayAndVerify(program, terminal, engines, setCode);
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
    .addOption(new Option('--seed <integer>', 'seed of all randomness (default: 1)').argParser(integer))
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

function addReplayAndVerify(
  program: Command,
  terminal: Terminal,
  engines: Engines,
  setCode: (code: number) => void,
): void {
  const { protocols } = engines.verifier;
  program
    .command('replay')
    .description('replay a recording on the model: a QEMU vtd_* log, ftrace iommu:* text, or the two of one run')
    .argument('<file...>', 'plain or gzip, the format is detected; - for stdin')
    .option(...json)
    .option('--strict', 'exit 2 if a line is unknown or damaged')
    .option(...quiet)
    .option(...verbose)
    .action(async (files, options) => setCode(await replayCommand(files, options, terminal)));
  program
    .command('verify')
    .description('explore every interleaving of a protocol')
    .argument('[protocol]', protocols.map(({ name }) => name).join(', '))
    .addOption(new Option('--max-executions <n>', 'stop after so many').argParser(positive))
    .addOption(new Option('--preemptions <n>', 'only executions with at most so many preemptions').argParser(natural))
    .addOption(
      new Option('--random <n>', 'so many random schedules in each configuration, not all').argParser(positive),
    )
    .addOption(new Option('--seed <integer>', 'seed of the random schedules (default: 1)').argParser(integer))
    .option('--replay <file>', 'take the steps of a counterexample again, from what --json printed')
    .option('--mermaid <file>', 'write the counterexample as a Mermaid sequence diagram')
    .option(...json)
    .option(...quiet)
    .option(...verbose)
    .addHelpText(
      'after',
      `\nExample:\n  vm-sim verify naive --mermaid naive.mmd\n\nProtocols:\n${titleLines(protocols)
        .map((line) => `  ${line}`)
        .join('\n')}`,
    )
    .action(async (name, options) => setCode(await verifyOrReplay(name, options, terminal, engines)));
}

/** `verify` with a protocol, or with a recorded counterexample. */
function verifyOrReplay(
  name: string | undefined,
  options: VerifyOptions & { readonly replay?: string },
  terminal: Terminal,
  { verifier }: Engines,
): Promise<ExitCode> | ExitCode {
  if (options.replay !== undefined) {
    if (name !== undefined) throw new UsageError('verify: --replay takes the protocol from its file; leave it out');
    return verifyReplayCommand(options.replay, options, terminal, verifier);
  }
  if (name === undefined)
    throw new UsageError(`verify: expected a protocol: ${verifier.protocols.map((of) => of.name).join(', ')}`);
  return verifyCommand(name, options, terminal, verifier);
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
