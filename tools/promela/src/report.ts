import type { DefectModel, ProtocolModel } from './catalogue.ts';
import type { AdversaryResult } from './comparison.ts';
import type { Exploration } from './spin.ts';
import type { TrailStep } from './trail.ts';

/** A protocol in one configuration, explored. */
export interface ProtocolRow extends Exploration {
  readonly model: ProtocolModel;
  readonly configuration: string;
}

/** A defect, explored. */
export interface DefectRow extends Exploration {
  readonly defect: DefectModel;
}

/** A protocol, explored by both. */
export interface ComparisonRow {
  readonly protocol: string;
  readonly adversary: AdversaryResult;
  readonly spin: Pick<Exploration, 'verdict' | 'invariant' | 'states' | 'seconds'>;
}

const perSecond = (amount: number, seconds: number): number => (seconds > 0 ? Math.round(amount / seconds) : 0);
const verdictOf = ({ verdict, invariant, reason }: Exploration): string =>
  verdict === 'violated' ? `violated ${invariant}` : reason === null ? verdict : `${verdict}: ${reason}`;

/** Left-aligned text and right-aligned numbers, two spaces between. */
function table(head: readonly string[], rows: readonly (readonly (string | number)[])[]): string {
  const cells = [
    head,
    ...rows.map((row) => row.map((cell) => (typeof cell === 'number' ? cell.toLocaleString('en') : cell))),
  ];
  const widths = head.map((_, column) => Math.max(...cells.map((row) => row[column]?.length ?? 0)));
  const isNumber = head.map((_, column) => rows.length > 0 && rows.every((row) => typeof row[column] === 'number'));
  return cells
    .map((row) =>
      row
        .map((cell, column) =>
          isNumber[column] ? cell.padStart(widths[column] ?? 0) : cell.padEnd(widths[column] ?? 0),
        )
        .join('  ')
        .trimEnd(),
    )
    .map((line) => `${line}\n`)
    .join('');
}

/** Protocols as a table. */
export const protocolTable = (rows: readonly ProtocolRow[]): string =>
  table(
    ['protocol', 'configuration', 'verdict', 'states', 'transitions', 'depth', 'ms', 'states/s'],
    rows.map((row) => [
      row.model.name,
      row.configuration,
      verdictOf(row),
      row.states,
      row.transitions,
      row.depth,
      Math.round(row.seconds * 1000),
      perSecond(row.states, row.seconds),
    ]),
  );

/** Protocols as JSON. */
export const protocolDocument = (rows: readonly ProtocolRow[]): string =>
  document(
    rows.map(({ model, configuration, reason, ...row }) => ({
      protocol: model.name,
      configuration,
      expected: model.expected,
      ...row,
      statesPerSecond: perSecond(row.states, row.seconds),
      ...(reason === null ? {} : { reason }),
    })),
  );

/** Whether a defect was found, by an invariant that it can break. */
export const isFound = ({ defect, verdict, invariant }: DefectRow): boolean =>
  verdict === 'violated' && invariant !== null && defect.invariants.includes(invariant);

/** Defects as a table. */
export const defectTable = (rows: readonly DefectRow[]): string =>
  table(
    ['defect', 'over', 'found', 'steps', 'states', 'what'],
    rows.map((row) => [
      row.defect.id,
      row.defect.protocol,
      isFound(row) ? `${row.invariant}` : `NOT FOUND (${verdictOf(row)})`,
      row.counterexample.length,
      row.states,
      row.defect.what,
    ]),
  );

/** Defects as JSON. */
export const defectDocument = (rows: readonly DefectRow[]): string =>
  document(
    rows.map((row) => ({
      id: row.defect.id,
      found: isFound(row),
      steps: row.counterexample.length,
      protocol: row.defect.protocol,
      defines: row.defect.defines,
      invariant: row.invariant,
      states: row.states,
      seconds: row.seconds,
      counterexample: row.counterexample,
    })),
  );

/** Both explorations side by side. */
export const comparisonTable = (rows: readonly ComparisonRow[]): string =>
  table(
    ['protocol', 'interleave', 'executions', 'states', 'executions/s', 'spin', 'states', 'states/s'],
    rows.map(({ protocol, adversary, spin }) => [
      protocol,
      `${adversary.verdict} ${adversary.invariant ?? ''}`,
      adversary.executions,
      adversary.states,
      perSecond(adversary.executions, adversary.seconds),
      `${spin.verdict} ${spin.invariant ?? ''}`,
      spin.states,
      perSecond(spin.states, spin.seconds),
    ]),
  );

/** Both explorations as JSON. */
export const comparisonDocument = (rows: readonly ComparisonRow[]): string =>
  document(
    rows.map(({ protocol, adversary, spin }) => ({
      protocol,
      agree: adversary.verdict === spin.verdict,
      interleave: { ...adversary, executionsPerSecond: perSecond(adversary.executions, adversary.seconds) },
      spin: { ...spin, statesPerSecond: perSecond(spin.states, spin.seconds) },
    })),
  );

/** A counterexample, a step a line. */
export function counterexampleText(steps: readonly TrailStep[]): string {
  const processes = Math.max(0, ...steps.map(({ process }) => process.length));
  const places = Math.max(0, ...steps.map(({ place }) => place.length));
  return steps
    .map(({ process, place, text }) => `  ${process.padEnd(processes)}  ${place.padEnd(places)}  ${text}\n`)
    .join('');
}

const document = (value: unknown): string => `${JSON.stringify(value, null, 2)}\n`;
