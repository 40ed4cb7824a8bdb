import type { Row } from './measurement.ts';
import type { VerificationRow } from './verification.ts';

/** Three significant digits, with a unit. */
export function duration(ns: number): string {
  const [unit, scale] = ns < 1e3 ? ['ns', 1] : ns < 1e6 ? ['us', 1e3] : ['ms', 1e6];
  const value = ns / scale;
  return `${value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0)} ${unit}`;
}

/** The document of `--json`. */
export function toDocument(rows: readonly Row[], verified: readonly VerificationRow[] = []): string {
  const document = rows.map(({ name, nsPerOp, nativeNsPerOp, ratio }) => ({ name, nsPerOp, nativeNsPerOp, ratio }));
  return `${JSON.stringify([...document, ...verified], null, 2)}\n`;
}

const HEAD = ['per operation', 'TypeScript', 'C', 'ratio', 'target', 'ok', 'median', 'C median'] as const;

/** The table: the best round of each side and their ratio, and the medians, whose distance to the best is the noise. */
export function toTable(rows: readonly Row[]): string {
  const cells = rows.map((row) => [
    row.name,
    duration(row.nsPerOp),
    duration(row.nativeNsPerOp),
    row.ratio.toFixed(2),
    row.target === null ? '-' : `<= ${row.target}`,
    row.ok === null ? '-' : row.ok ? 'yes' : 'NO',
    duration(row.medianNsPerOp),
    duration(row.nativeMedianNsPerOp),
  ]);
  return lined([[...HEAD], ...cells]);
}

const VERIFY_HEAD = [
  'per state',
  'interleave',
  'spin',
  'ratio',
  'verdicts',
  'executions',
  'executions/s',
  'states',
  'spin states',
  'spin states/s',
] as const;

/** Protocols explored on the code that runs, and as models by spin. */
export const verificationTable = (rows: readonly VerificationRow[]): string =>
  lined([
    [...VERIFY_HEAD],
    ...rows.map((row) => [
      row.name.replace(', a state', ''),
      duration(row.nsPerOp),
      duration(row.nativeNsPerOp),
      row.ratio.toFixed(1),
      row.agree ? 'agree' : 'DIFFER',
      ...[row.executions, row.executionsPerSecond, row.states, row.nativeStates, row.nativeStatesPerSecond].map(
        (count) => count.toLocaleString('en'),
      ),
    ]),
  ]);

function lined(lines: readonly (readonly string[])[]): string {
  const widths = (lines[0] ?? []).map((_, column) => Math.max(...lines.map((line) => (line[column] as string).length)));
  const pad = (cell: string, column: number): string =>
    column === 0 ? cell.padEnd(widths[0] as number) : cell.padStart(widths[column] as number);
  return `${lines.map((line) => line.map(pad).join('  ').trimEnd()).join('\n')}\n`;
}
