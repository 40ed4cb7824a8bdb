import type { Command } from 'commander';
import type { Engines } from '../application.ts';
import { json, quiet, verbose } from '../option.ts';
import type { Terminal } from '../terminal.ts';
import { zooCommand } from './zoo-command.ts';

/** Adds `vm-sim zoo`. */
export function addZoo(program: Command, terminal: Terminal, engines: Engines, setCode: (code: number) => void): void {
  program
    .command('zoo')
    .description('run the known defects of such protocols, and say which the explorer finds')
    .argument('[id...]', 'some of them; one alone is explained, and its schedule drawn')
    .option(...json)
    .option(...quiet)
    .option(...verbose)
    .addHelpText('after', '\nExample:\n  vm-sim zoo device-tlb-before-iotlb')
    .action(async (ids, options) => setCode(await zooCommand(ids, options, terminal, engines.verifier)));
}
