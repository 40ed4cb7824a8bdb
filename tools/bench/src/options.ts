import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import type { Benchmark } from './benchmark.ts';
import type { Effort } from './measurement.ts';
import { BENCHMARKS } from './suite.ts';
import { EXPLORED } from './verification.ts';

/** What the command line asks for. */
export interface Options {
  readonly benchmarks: readonly Benchmark[];
  /** Protocols to explore beside spin. */
  readonly protocols: readonly string[];
  readonly effort: Effort;
  readonly json: boolean;
}

/** A command line that cannot be followed; `exitCode` 0 if it asked for help, which is the message. */
export class Usage extends Error {
  override readonly name = 'Usage';
  readonly exitCode: number;
  constructor(message: string, exitCode: number) {
    super(message);
    this.exitCode = exitCode;
  }
}

function positiveInteger(text: string): number {
  const value = Number(text);
  if (!/^\d+$/.test(text) || value < 1 || value > 10_000)
    throw new InvalidArgumentError('expected an integer in 1..10000');
  return value;
}

type Chosen = Pick<Options, 'benchmarks' | 'protocols'>;

const ALL: Chosen = { benchmarks: BENCHMARKS, protocols: EXPLORED };

function matching(part: string): Chosen {
  const benchmarks = BENCHMARKS.filter(({ name }) => name.includes(part));
  const protocols = EXPLORED.filter((name) => `verify ${name}`.includes(part));
  if (benchmarks.length + protocols.length > 0) return { benchmarks, protocols };
  throw new InvalidArgumentError(`no benchmark has this in its name; there are ${names()}`);
}

const names = (): string =>
  [...BENCHMARKS.map(({ name }) => name), ...EXPLORED.map((name) => `verify ${name}`)]
    .map((name) => `"${name}"`)
    .join(', ');

/** @throws Usage */
export function parseOptions(args: readonly string[]): Options {
  let text = '';
  const keep = (written: string): void => {
    text += written;
  };
  const only = new Option('--only <name>', 'only benchmarks with this in their name')
    .argParser(matching)
    .default(ALL, 'all');
  const command = new Command('bench')
    .usage('[options]')
    .description('Times the hot paths side by side with the same work in C, compiled for this run.')
    .option('--json', 'print [{name, nsPerOp, nativeNsPerOp, ratio}] and nothing else', false)
    .addOption(only)
    .option('--rounds <n>', 'measured rounds', positiveInteger)
    .option('--quick', 'one short round, to see that everything runs; its times mean nothing', false)
    .allowExcessArguments(false)
    .exitOverride()
    .configureOutput({ writeOut: keep, writeErr: keep });
  try {
    command.parse([...args], { from: 'user' });
  } catch (error) {
    if (error instanceof CommanderError) throw new Usage(text.trimEnd(), error.exitCode === 0 ? 0 : 2);
    throw error;
  }
  const {
    json,
    only: { benchmarks, protocols },
    rounds,
    quick,
  } = command.opts<{
    json: boolean;
    only: Chosen;
    rounds?: number;
    quick: boolean;
  }>();
  const effort = quick
    ? { rounds: rounds ?? 1, warmUpRounds: 1, divisor: 10 }
    : { rounds: rounds ?? 40, warmUpRounds: 8, divisor: 1 };
  // An exploration has no short round.
  return { benchmarks, protocols: quick ? [] : protocols, effort, json };
}
