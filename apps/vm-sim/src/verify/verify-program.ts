import { type Command, Option } from 'commander';
import type { Engines } from '../application.ts';
import { titleLines } from '../columns.ts';
import { type ExitCode, UsageError } from '../exit-code.ts';
import { integer, json, natural, positive, quiet, verbose } from '../option.ts';
import type { Terminal } from '../terminal.ts';
import { type VerifyOptions, verifyCommand, verifyReplayCommand } from './verify-command.ts';

/** Adds `vm-sim verify`. */
export function addVerify(
  program: Command,
  terminal: Terminal,
  engines: Engines,
  setCode: (code: number) => void,
): void {
  const { protocols } = engines.verifier;
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
