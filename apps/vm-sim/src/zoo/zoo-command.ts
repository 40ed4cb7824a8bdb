import type { Defect, VerifyResult } from '@faultline/interleave';
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
  /** Steps of the shortest schedule; null if it was not found. */
  readonly steps: number | null;
  /** Invariant that it broke. */
  readonly invariant: string | null;
}

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
  const results: { readonly defect: Defect; readonly result: VerifyResult }[] = [];
  try {
    for (const defect of chosen) {
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
  defect: Defect,
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

const rowOf = ({ defect, result }: { defect: Defect; result: VerifyResult }): ZooRow => ({
  id: defect.id,
  title: defect.title,
  found: result.counterexample !== null && defect.breaks.includes(result.counterexample.invariant),
  steps: result.counterexample?.schedule.length ?? null,
  invariant: result.counterexample?.invariant ?? null,
});

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
      rows.map(({ id, title, found, steps, invariant }) => ({
        name: id,
        title: `${(found ? `${invariant} in ${plural(steps ?? 0, 'step')}` : 'not found').padEnd(FOUND_WIDTH)}  ${title}`,
      })),
    ).map((line) => `  ${line}`),
    '',
    '  vm-sim zoo <id> explains one and draws its schedule',
  ];
}

function defectLines(
  { defect, result }: { defect: Defect; result: VerifyResult },
  width: number,
  color: Palette,
): string[] {
  const found = result.counterexample;
  return [
    `${color.bold(defect.id)}  ${defect.title}`,
    ...wrapped(defect.text, Math.min(width, 98) - 2).map((line) => `  ${line}`),
    ...(defect.source === null
      ? []
      : wrapped(`Seen in: ${defect.source}`, Math.min(width, 98) - 2).map((line) => `  ${line}`)),
    ...(found === null
      ? [color.red('Not found')]
      : [`In ${found.configuration}:`, ...counterexampleLines(found, width, color)]),
  ];
}
