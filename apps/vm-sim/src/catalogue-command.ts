import { BUILT_IN_SCENARIOS, scenarioJsonSchema } from '@faultline/machine';
import { titleLines } from './columns.ts';
import { EXIT, type ExitCode, UsageError } from './exit-code.ts';
import { suggestion } from './nearest.ts';
import { builtFor, type MachineFactory } from './run/driven-machine.ts';
import { jsonText } from './run/run-directory.ts';
import { statsJsonSchema } from './run/stats-sample.ts';
import { type LoadOptions, loadScenario } from './scenario/load.ts';
import { paletteFor, type Terminal } from './terminal.ts';

/** `vm-sim list`: the built-in scenarios. */
export function listCommand(options: { readonly json?: boolean }, terminal: Terminal): ExitCode {
  const entries = BUILT_IN_SCENARIOS.map(({ name, title }) => ({ name, title }));
  if (options.json) terminal.stdout.write(jsonText(entries));
  else
    for (const [index, line] of titleLines(entries).entries()) {
      const color = paletteFor(terminal.stdout, terminal.env);
      terminal.stdout.write(`${index === 0 ? color.bold(line) : line}\n`);
    }
  return EXIT.ok;
}

/** `vm-sim check`: whether a scenario can be run, and what it resolves to. */
export async function checkCommand(
  given: string,
  options: LoadOptions & { readonly json?: boolean; readonly quiet?: boolean },
  terminal: Terminal,
  buildMachine: MachineFactory,
): Promise<ExitCode> {
  const loaded = await loadScenario(given, options, terminal);
  builtFor(loaded, { seed: 1 }, buildMachine);
  const { scenario, hash } = loaded;
  if (options.json) terminal.stdout.write(jsonText(scenario));
  else if (!options.quiet)
    terminal.stdout.write(`${given}: ok; scenario ${scenario.name} ${hash}, strategy ${scenario.strategy}\n`);
  return EXIT.ok;
}

const SCHEMAS = { scenario: scenarioJsonSchema, stats: statsJsonSchema } as const;

/** `vm-sim schema`: JSON schema of a document. */
export function schemaCommand(name: string, terminal: Terminal): ExitCode {
  if (!Object.hasOwn(SCHEMAS, name))
    throw new UsageError(`there is no schema "${name}"${suggestion(name, Object.keys(SCHEMAS))}`);
  terminal.stdout.write(jsonText(SCHEMAS[name as keyof typeof SCHEMAS]()));
  return EXIT.ok;
}
