import { parseArgs } from 'node:util';
import { liveCommand } from './live-command.ts';
import { ALL_RULES, isRuleId, RULES, type RuleId } from './rules.ts';
import { EXIT, type Terminal, UsageError } from './terminal.ts';
import { vectorsCommand } from './vectors-command.ts';

const USAGE = `usage: npm run --silent oracle -- <one of>

  --vectors FILE        compares the model with recorded answers (JSON lines, plain or gzip)
  --seed S --ops N      compares the model with a running QEMU on N random operations
      --levels 3|4        tables of 3 or 4 levels only (default: both in turn)
      --record FILE       writes QEMU's answers as a vectors file (one of --levels is needed)
      --shrunk FILE       where the shrunk program of a difference goes (default: stdout)
      --time SECONDS      stops when they are over, with what was compared until then
      --qemu PROGRAM      default qemu-system-x86_64
  --rules               prints where QEMU is not the truth, and what the comparison does about it

  --without-rule ID     switches a rule off; may be given several times
  --json                the summary as JSON

Exit: 0 all agree, 2 the command line, a file or QEMU cannot be used, 3 an answer differs, 130 interrupted.
`;

const OPTIONS = {
  vectors: { type: 'string' },
  seed: { type: 'string' },
  ops: { type: 'string' },
  levels: { type: 'string' },
  record: { type: 'string' },
  shrunk: { type: 'string' },
  time: { type: 'string' },
  qemu: { type: 'string' },
  rules: { type: 'boolean' },
  'without-rule': { type: 'string', multiple: true },
  json: { type: 'boolean' },
  help: { type: 'boolean', short: 'h' },
} as const;

function parse(args: readonly string[]) {
  try {
    return parseArgs({ args: [...args], options: OPTIONS, strict: true, allowPositionals: false }).values;
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
}

type Values = ReturnType<typeof parse>;

function integer(name: string, value: string, least: number, most: number): number {
  const number = Number(value);
  if (!/^\d+$/.test(value) || number < least || number > most)
    throw new UsageError(`--${name}: expected an integer from ${least} to ${most}, got ${value}`);
  return number;
}

function rulesOf(values: Values): ReadonlySet<RuleId> {
  const rules = new Set(ALL_RULES);
  for (const id of values['without-rule'] ?? []) {
    if (!isRuleId(id)) throw new UsageError(`--without-rule: expected one of ${[...ALL_RULES].join(', ')}, got ${id}`);
    rules.delete(id);
  }
  return rules;
}

function printRules(terminal: Terminal, json: boolean): number {
  if (json) terminal.out(`${JSON.stringify(RULES, null, 2)}\n`);
  else
    for (const { id, qemu, hardware, treatment, comparison, seen } of RULES)
      terminal.out(
        `${id} (${treatment})\n  QEMU:       ${qemu}\n  hardware:   ${hardware}\n  comparison: ${comparison}\n  seen:       ${seen}\n\n`,
      );
  return EXIT.ok;
}

function live(terminal: Terminal, values: Values, rules: ReadonlySet<RuleId>): Promise<number> {
  if (values.seed === undefined) throw new UsageError('--seed: needed with --ops, an integer');
  if (values.ops === undefined) throw new UsageError('--ops: needed with --seed, the number of operations');
  const levels = values.levels === undefined ? null : integer('levels', values.levels, 3, 4);
  if (values.record !== undefined && levels === null)
    throw new UsageError('--record: needs --levels 3 or --levels 4, since a vectors file has one configuration');
  return liveCommand(terminal, {
    seed: integer('seed', values.seed, 0, Number.MAX_SAFE_INTEGER),
    operations: integer('ops', values.ops, 1, 1_000_000_000),
    levels: levels === null ? [4, 3] : [levels === 3 ? 3 : 4],
    record: values.record ?? null,
    shrunk: values.shrunk ?? null,
    seconds: values.time === undefined ? null : integer('time', values.time, 1, 1_000_000),
    qemu: values.qemu ?? 'qemu-system-x86_64',
    json: values.json === true,
    rules,
  });
}

async function command(terminal: Terminal, args: readonly string[]): Promise<number> {
  const values = parse(args);
  if (values.help === true) {
    terminal.out(USAGE);
    return EXIT.ok;
  }
  const chosen = [values.vectors !== undefined, values.seed !== undefined || values.ops !== undefined, values.rules];
  if (chosen.filter((is) => is === true).length !== 1)
    throw new UsageError(`expected exactly one of --vectors FILE, --seed S --ops N, --rules\n\n${USAGE}`);
  if (values.rules === true) return printRules(terminal, values.json === true);
  const rules = rulesOf(values);
  if (values.vectors === undefined) return live(terminal, values, rules);
  return vectorsCommand(terminal, values.vectors, { json: values.json === true, rules });
}

/** Runs one command line. @returns the exit code; what the user got wrong is said on stderr */
export async function runOracle(terminal: Terminal, args: readonly string[]): Promise<number> {
  try {
    return await command(terminal, args);
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    terminal.err(`oracle: ${error.message}\n`);
    return EXIT.usage;
  }
}
