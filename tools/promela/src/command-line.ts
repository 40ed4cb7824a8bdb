import { parseArgs } from 'node:util';
import { DEFECT_MODELS, PROTOCOL_MODELS, switchOf } from './catalogue.ts';
import { type Command, compareProtocols, exploreOwn, exploreProtocols, exploreZoo } from './commands.ts';
import { toolVersions } from './spin.ts';
import { EXIT, type Terminal, UsageError } from './terminal.ts';

const USAGE = `usage: npm run --silent promela -- [options] [protocol ...]

  (no option)         all configurations of the protocols, or of all
  --zoo [id ...]      the defects instead, each alone over a correct model, or all
  --compare           the protocols that interleave explores too, side by side
  --define NAME[=V]   one protocol in a configuration of your own; may be given several times
  --list              protocols and defects

  --memory MIB        for one search (default 2000)
  --time SECONDS      for one search (default 300)
  --json              the result as JSON, and nothing else on stdout

Exit: 0 all verdicts as expected and all defects found, 2 the command line is wrong or spin or gcc is not there, 3 a verdict is not
the expected one or not reached, a defect not found, or a configuration of your own breaks an invariant, 130 interrupted.
`;

const OPTIONS = {
  zoo: { type: 'boolean' },
  compare: { type: 'boolean' },
  define: { type: 'string', multiple: true },
  list: { type: 'boolean' },
  memory: { type: 'string' },
  time: { type: 'string' },
  json: { type: 'boolean' },
  help: { type: 'boolean', short: 'h' },
} as const;

function parse(args: readonly string[]) {
  try {
    return parseArgs({ args: [...args], options: OPTIONS, strict: true, allowPositionals: true });
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
}

function integer(name: string, text: string | undefined, standard: number): number {
  if (text === undefined) return standard;
  const value = Number(text);
  if (!/^\d+$/.test(text) || value < 1 || value > 1_000_000)
    throw new UsageError(`--${name}: expected an integer from 1 to 1000000, got ${text}`);
  return value;
}

/** Those that are named, or all. */
function choose<T>(
  all: readonly T[],
  nameOf: (item: T) => string,
  names: readonly string[],
  kind: string,
): readonly T[] {
  for (const name of names)
    if (!all.some((item) => nameOf(item) === name))
      throw new UsageError(`${kind}: expected one of ${all.map(nameOf).join(', ')}, got ${name}`);
  return names.length === 0 ? all : all.filter((item) => names.includes(nameOf(item)));
}

const DEFINE = /^[A-Z][A-Z0-9_]*(=\d+)?$/;

function definesOf(given: readonly string[]): readonly string[] {
  for (const define of given)
    if (!DEFINE.test(define)) throw new UsageError(`--define: expected NAME or NAME=number in capitals, got ${define}`);
  return given;
}

function list(terminal: Terminal): number {
  for (const { name, expected, configurations } of PROTOCOL_MODELS) {
    terminal.out(`${name} (${expected})\n`);
    for (const { name: text, defines } of configurations)
      terminal.out(`  ${text}: ${defines.join(' ') || 'as it is'}\n`);
  }
  terminal.out('\n');
  for (const { id, protocol, defines, invariants, what } of DEFECT_MODELS)
    terminal.out(`${id}: ${what}\n  ${protocol} ${[...defines, switchOf(id)].join(' ')}: ${invariants.join(' or ')}\n`);
  return EXIT.ok;
}

async function command(terminal: Terminal, args: readonly string[]): Promise<number> {
  const { values, positionals } = parse(args);
  if (values.help === true) {
    terminal.out(USAGE);
    return EXIT.ok;
  }
  if (values.list === true) return list(terminal);
  if ([values.zoo, values.compare, values.define !== undefined].filter((is) => is === true).length > 1)
    throw new UsageError('expected at most one of --zoo, --compare, --define');
  const request: Command = {
    terminal,
    json: values.json === true,
    limits: {
      memoryMib: integer('memory', values.memory, 2000),
      seconds: integer('time', values.time, 300),
      signal: terminal.interruption,
    },
  };
  const defects = values.zoo === true ? choose(DEFECT_MODELS, ({ id }) => id, positionals, 'defect') : [];
  const protocols = values.zoo === true ? [] : choose(PROTOCOL_MODELS, ({ name }) => name, positionals, 'protocol');
  const defines = definesOf(values.define ?? []);
  const [own] = protocols;
  if (values.define !== undefined && (positionals.length !== 1 || own === undefined))
    throw new UsageError('--define: expected the name of one protocol with it');
  terminal.err(`promela: ${await toolVersions()}\n`);
  if (values.zoo === true) return exploreZoo(request, defects);
  if (values.compare === true) return compareProtocols(request, protocols);
  if (values.define !== undefined && own !== undefined) return exploreOwn(request, own, defines);
  return exploreProtocols(request, protocols);
}

/** Runs one command line. @returns the exit code; what the user got wrong is said on stderr */
export async function runPromela(terminal: Terminal, args: readonly string[]): Promise<number> {
  try {
    return await command(terminal, args);
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    terminal.err(`promela: ${error.message}\n`);
    return EXIT.usage;
  }
}
