import { STRATEGIES } from '@faultline/machine';
import type { Command } from 'commander';
import type { Engines } from '../application.ts';
import { json, quiet, seedOption, setOption, verbose } from '../option.ts';
import type { Terminal } from '../terminal.ts';
import { compareCommand } from './compare-command.ts';

/** Adds `vm-sim compare`. */
export function addCompare(
  program: Command,
  terminal: Terminal,
  engines: Engines,
  setCode: (code: number) => void,
): void {
  program
    .command('compare')
    .description('run the same workload with several strategies, or several scenarios, and print a table')
    .argument('<scenario...>', 'names of `vm-sim list`, or YAML or JSON files; one is run with every strategy')
    .option('--strategies <names>', `a list with commas, of ${STRATEGIES.join(', ')}`)
    .addOption(seedOption())
    .addOption(setOption())
    .option(...json)
    .option('--output <directory>', 'write comparison.json and comparison.html')
    .option(...quiet)
    .option(...verbose)
    .addHelpText('after', EXAMPLES)
    .action(async (scenarios, options) =>
      setCode(await compareCommand(scenarios, { set: [], ...options }, terminal, engines.buildMachine)),
    );
}

const EXAMPLES = `
Examples:
  vm-sim compare 1g-swap-storm --set vm.memory=4G --set host.memory=6G
  vm-sim compare 1g-swap-storm --strategies cut,whole-leaf --output out
  vm-sim compare migration ksm balloon

Ctrl-C keeps the rows that are finished (exit 130). A row that does not end as its scenario or its strategy claims: exit 3.`;
