import { type Command, Option } from 'commander';
import { integer, json, positive, quiet, verbose } from '../option.ts';
import type { Terminal } from '../terminal.ts';
import { fuzzCommand } from './fuzz-command.ts';

/** Adds `vm-sim fuzz`. */
export function addFuzz(program: Command, terminal: Terminal, setCode: (code: number) => void): void {
  program
    .command('fuzz')
    .description('run machines built at random, with failures on purpose, and check every invariant')
    .addOption(new Option('--runs <n>', 'machines (default: 300, or as many as --time allows)').argParser(positive))
    .option('--time <duration>', 'begin none after so long, such as 90s')
    .addOption(new Option('--jobs <n>', 'machines at a time (default: one for each processor)').argParser(positive))
    .addOption(new Option('--seed <integer>', 'seed of the first machine; the next has the next').argParser(integer))
    .option('--corpus <file>', 'remember what was seen, go on there next time, and try again what failed')
    .option('--output <directory>', 'where the scenario of a failure is written (default: here)')
    .option(...json)
    .option(...quiet)
    .option(...verbose)
    .addHelpText('after', EXAMPLES)
    .action(async (options) => setCode(await fuzzCommand(options, terminal)));
}

const EXAMPLES = `
Examples:
  vm-sim fuzz --runs 50
  vm-sim fuzz --time 600s --jobs 2 --corpus storm.json

A failure is made small (in five minutes at most) and written as a scenario file; its command is printed. Ctrl-C gives up the machines
that are under way and keeps the corpus, which goes on with them (exit 130).`;
