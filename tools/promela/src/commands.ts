import { type DefectModel, type ProtocolModel, switchOf } from './catalogue.ts';
import { COMPARED, runAdversary } from './comparison.ts';
import {
  type ComparisonRow,
  comparisonDocument,
  comparisonTable,
  counterexampleText,
  type DefectRow,
  defectDocument,
  defectTable,
  isFound,
  type ProtocolRow,
  protocolDocument,
  protocolTable,
} from './report.ts';
import { type Exploration, explore, type Limits } from './spin.ts';
import { EXIT, type Terminal } from './terminal.ts';

/** What all commands have in common. */
export interface Command {
  readonly terminal: Terminal;
  readonly json: boolean;
  readonly limits: Limits;
}

/** Does `each` for every item until Ctrl-C. @returns what was done until then */
async function untilInterrupted<T, R>(
  { terminal }: Command,
  items: readonly T[],
  each: (item: T) => Promise<R>,
): Promise<R[]> {
  const done: R[] = [];
  try {
    for (const item of items) done.push(await each(item));
  } catch (error) {
    if (!terminal.interruption.aborted) throw error;
  }
  return done;
}

function finish({ terminal, json }: Command, text: string, document: string, ok: boolean): number {
  terminal.out(json ? document : text);
  if (terminal.interruption.aborted) return EXIT.interrupted;
  return ok ? EXIT.ok : EXIT.failed;
}

const progress = ({ terminal }: Command, text: string): void => terminal.err(`promela: ${text}\n`);

/** All configurations of the protocols. @returns the exit code */
export async function exploreProtocols(command: Command, models: readonly ProtocolModel[]): Promise<number> {
  const jobs = models.flatMap((model) => model.configurations.map((configuration) => ({ model, configuration })));
  const rows = await untilInterrupted(command, jobs, async ({ model, configuration }): Promise<ProtocolRow> => {
    progress(command, `${model.name}: ${configuration.name}`);
    const found = await explore({ protocol: model.name, defines: configuration.defines }, command.limits);
    return { model, configuration: configuration.name, ...found };
  });
  const isExpected = ({ model, verdict }: ProtocolRow): boolean => verdict === model.expected;
  // Of a protocol that was asked for, those that are expected, too.
  const shown = rows.filter((row) => row.counterexample.length > 0 && (models.length === 1 || !isExpected(row)));
  const text =
    protocolTable(rows) +
    shown
      .map((row) => `\n${row.model.name}, ${row.configuration}:\n${counterexampleText(row.counterexample)}`)
      .join('');
  return finish(command, text, protocolDocument(rows), rows.every(isExpected));
}

/** A protocol in a configuration of the user's own, with its counterexample. @returns the exit code */
export async function exploreOwn(command: Command, model: ProtocolModel, defines: readonly string[]): Promise<number> {
  const configuration = defines.join(' ');
  const rows = await untilInterrupted(command, [defines], async (): Promise<ProtocolRow> => {
    const found = await explore({ protocol: model.name, defines }, command.limits);
    return { model, configuration, ...found };
  });
  const text = protocolTable(rows) + rows.map((row) => counterexampleText(row.counterexample)).join('');
  return finish(
    command,
    text,
    protocolDocument(rows),
    rows.every(({ verdict }) => verdict === 'holds'),
  );
}

/** Defects, each alone over a correct model. @returns the exit code */
export async function exploreZoo(command: Command, defects: readonly DefectModel[]): Promise<number> {
  const rows = await untilInterrupted(command, defects, async (defect): Promise<DefectRow> => {
    progress(command, `${defect.id} over ${defect.protocol}`);
    return { defect, ...(await exploreDefect(defect, command.limits)) };
  });
  // One that was asked for is shown, too.
  const [only] = rows;
  const schedule = defects.length === 1 && only ? `\n${counterexampleText(only.counterexample)}` : '';
  return finish(command, defectTable(rows) + schedule, defectDocument(rows), rows.every(isFound));
}

/** Explores a defect over its protocol. */
export const exploreDefect = ({ id, protocol, defines }: DefectModel, limits: Limits): Promise<Exploration> =>
  explore({ protocol, defines: [...defines, switchOf(id)] }, limits);

/** The protocols that `interleave` explores too. @returns the exit code */
export async function compareProtocols(command: Command, models: readonly ProtocolModel[]): Promise<number> {
  const compared = models.filter(({ name }) => COMPARED.includes(name));
  const rows = await untilInterrupted(command, compared, (model) => compareProtocol(command, model));
  const agree = rows.every(({ adversary, spin }) => adversary.verdict === spin.verdict);
  return finish(command, comparisonTable(rows), comparisonDocument(rows), agree);
}

async function compareProtocol(command: Command, model: ProtocolModel): Promise<ComparisonRow> {
  const { terminal, limits } = command;
  progress(command, `${model.name}: interleave`);
  const adversary = runAdversary(model.name, () => terminal.nowMs(), limits.seconds);
  progress(command, `${model.name}: spin`);
  return { protocol: model.name, adversary, spin: await exploreAll(model, limits) };
}

/** All configurations of a protocol as one result: violated if one is. */
export async function exploreAll(model: ProtocolModel, limits: Limits): Promise<ComparisonRow['spin']> {
  const found: Exploration[] = [];
  for (const { defines } of model.configurations) found.push(await explore({ protocol: model.name, defines }, limits));
  const sum = (of: (row: Exploration) => number): number => found.reduce((total, row) => total + of(row), 0);
  const broken =
    found.find(({ verdict }) => verdict === 'violated') ?? found.find(({ verdict }) => verdict !== 'holds');
  return {
    verdict: broken?.verdict ?? 'holds',
    invariant: broken?.invariant ?? null,
    states: sum(({ states }) => states),
    seconds: sum(({ seconds }) => seconds),
  };
}
