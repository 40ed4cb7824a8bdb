import type { Defect, ExploredDefect, MeasuredDefect, Measurement, VerifyResult } from '@faultline/interleave';
import { VERSION } from '@faultline/machine';
import { plural, titleLines, wrapped } from '../columns.ts';
import { EXIT, type ExitCode, UsageError } from '../exit-code.ts';
import { Interruption } from '../interruption.ts';
import { suggestion } from '../nearest.ts';
import { ProgressMeter } from '../progress-meter.ts';
import { jsonText } from '../run/run-directory.ts';
import { type Palette, paletteFor, type Terminal } from '../terminal.ts';
import type { ProtocolVerifier } from '../verify/protocol-verifier.ts';
import { counterexampleLines } from '../verify/verification-text.ts';

/** Options of `vm-sim zoo`. */
export interface ZooOptions {
  readonly json?: boolean;
  readonly quiet?: boolean;
}

/** One defect's row. */
export interface ZooRow {
  readonly id: string;
  readonly title: string;
  readonly found: boolean;
  /** Steps of the shortest schedule, or of the runs that were measured; null if it was not found. */
  readonly steps: number | null;
  /** Invariant that it broke; null for what was measured. */
  readonly invariant: string | null;
  /** What was measured, for a defect that breaks no invariant; else null. */
  readonly measured: string | null;
}

/** What came of a defect. */
type Finding =
  | { readonly defect: ExploredDefect; readonly result: VerifyResult }
  | { readonly defect: MeasuredDefect; readonly measurement: Measurement };

/** Runs every defect, or those named, and prints which the adversary finds. Exit 3 if one is not found. */
export async function zooCommand(
  names: readonly string[],
  options: ZooOptions,
  terminal: Terminal,
  verifier: ProtocolVerifier,
): Promise<ExitCode> {
  const chosen = choose(names, verifier.zoo);
  if (!options.quiet) terminal.stderr.write(`vm-sim ${VERSION}, Node ${process.versions.node}, zoo\n`);
  const interruption = new Interruption(terminal);
  const meter = new ProgressMeter(terminal, options.quiet ?? false);
  const results: Finding[] = [];
  try {
    for (const defect of chosen) {
      if ('measure' in defect) {
        results.push({ defect, measurement: defect.measure() });
        continue;
      }
      const result = await explore(defect, verifier, terminal, interruption, (executions) =>
        meter.update({
          fraction: results.length / chosen.length,
          done: executions,
          unit: `executions of ${defect.id}`,
        }),
      );
      if (interruption.requested && result.verdict === 'interrupted') break;
      results.push({ defect, result });
    }
    meter.clear();
    const rows = results.map(rowOf);
    const color = paletteFor(terminal.stdout, terminal.env);
    const [only] = results;
    terminal.stdout.write(
      options.json
        ? jsonText(rows)
        : names.length === 1 && only
          ? `${defectLines(only, terminal.stdout.columns, color).join('\n')}\n`
          : `${tableLines(rows, chosen.length, color).join('\n')}\n`,
    );
    if (interruption.requested) return EXIT.interrupted;
    return rows.every(({ found }) => found) ? EXIT.ok : EXIT.failed;
  } finally {
    meter.clear();
    interruption.end();
  }
}

function choose(names: readonly string[], zoo: readonly Defect[]): readonly Defect[] {
  if (names.length === 0) return zoo;
  return names.map((name) => {
    const found = zoo.find(({ id }) => id === name);
    if (found) return found;
    const ids = zoo.map(({ id }) => id);
    throw new UsageError(`there is no defect "${name}"${suggestion(name, ids)}; \`vm-sim zoo\` lists them`);
  });
}

async function explore(
  defect: ExploredDefect,
  verifier: ProtocolVerifier,
  terminal: Terminal,
  interruption: Interruption,
  report: (executions: number) => void,
): Promise<VerifyResult> {
  const exploration = verifier.verify(defect.protocol, {
    ...defect.options,
    shouldStop: () => interruption.requested,
  });
  let breathedMs = terminal.nowMs();
  for (;;) {
    const next = exploration.next();
    if (next.done) {
      await terminal.breathe();
      return next.value;
    }
    report(next.value.executions);
    if (terminal.nowMs() - breathedMs > 30) {
      await terminal.breathe();
      breathedMs = terminal.nowMs();
    }
  }
}

function rowOf(finding: Finding): ZooRow {
  const { id, title } = finding.defect;
  if ('measurement' in finding) {
    const { cases, unit, steps } = finding.measurement;
    const found = cases.every(({ right, wrong }) => wrong > right);
    const measured = `${unit}: ${cases.map(caseText).join('; ')}`;
    return { id, title, found, steps: found ? steps : null, invariant: null, measured };
  }
  const { counterexample } = finding.result;
  return {
    id,
    title,
    found: counterexample !== null && finding.defect.breaks.includes(counterexample.invariant),
    steps: counterexample?.schedule.length ?? null,
    invariant: counterexample?.invariant ?? null,
    measured: null,
  };
}

type Case = Measurement['cases'][number];

const number = (value: number): string => value.toLocaleString('en-US');

const caseText = ({ name, right, wrong }: Case): string =>
  `${name} ${number(wrong)} instead of ${number(right)} (${factor({ right, wrong })})`;

const factor = ({ right, wrong }: Pick<Case, 'right' | 'wrong'>): string => `${number(Math.round(wrong / right))}x`;

/** How a defect shows, in a column. */
const shortFinding = ({ found, invariant, steps, measured }: ZooRow): string => {
  if (!found) return 'not found';
  return measured === null ? `${invariant} in ${plural(steps ?? 0, 'step')}` : 'measured';
};

/** Columns of `I12 in 100 steps`. */
const FOUND_WIDTH = 16;

function tableLines(rows: readonly ZooRow[], all: number, color: Palette): string[] {
  const missing = rows.filter(({ found }) => !found).length;
  const heading =
    missing > 0
      ? color.red(color.bold(`${plural(missing, 'defect')} NOT FOUND`))
      : color.green(
          color.bold(rows.length === all ? `ALL ${all} FOUND` : `${rows.length} of ${all} FOUND, then interrupted`),
        );
  return [
    heading,
    ...titleLines(
      rows.map((row) => ({
        name: row.id,
        title: `${shortFinding(row).padEnd(FOUND_WIDTH)}  ${row.title}${row.measured === null ? '' : ` (${row.measured})`}`,
      })),
    ).map((line) => `  ${line}`),
    '',
    '  vm-sim zoo <id> explains one and draws its schedule',
  ];
}

function defectLines(finding: Finding, width: number, color: Palette): string[] {
  const { id, title, text, source } = finding.defect;
  return [
    `${color.bold(id)}  ${title}`,
    ...wrapped(text, Math.min(width, 98) - 2).map((line) => `  ${line}`),
    ...(source === null ? [] : wrapped(`Seen in: ${source}`, Math.min(width, 98) - 2).map((line) => `  ${line}`)),
    ...('measurement' in finding
      ? measurementLines(finding.measurement)
      : counterexampleOf(finding.result, width, color)),
  ];
}

const measurementLines = ({ unit, cases }: Measurement): string[] => [
  `Measured, ${unit}:`,
  ...cases.map((of) => `  ${caseText(of)}`),
];

const counterexampleOf = ({ counterexample }: VerifyResult, width: number, color: Palette): string[] =>
  counterexample === null
    ? [color.red('Not found')]
    : [`In ${counterexample.configuration}:`, ...counterexampleLines(counterexample, width, color)];
