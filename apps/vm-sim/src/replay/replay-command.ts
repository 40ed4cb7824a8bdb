import {
  type OpenTrace,
  openTrace,
  replayFtrace,
  replayIofd,
  replayPair,
  replayQemuLog,
  type TraceFormat,
  TraceFormatError,
} from '@faultline/trace-formats';
import { plural } from '../columns.ts';
import { EXIT, type ExitCode, UsageError } from '../exit-code.ts';
import { Interruption } from '../interruption.ts';
import { ProgressMeter } from '../progress-meter.ts';
import { jsonText } from '../run/run-directory.ts';
import { paletteFor, type Terminal } from '../terminal.ts';
import { agrees, lineCountsOf, type ReplayResult } from './agreement.ts';
import { replaySummary } from './replay-summary.ts';
import { openTraceFile, ReadInterrupted } from './trace-file.ts';

/** Options of `vm-sim replay`. */
export interface ReplayOptions {
  readonly json?: boolean;
  /** Damaged or unknown lines make the trace unusable. */
  readonly strict?: boolean;
  readonly quiet?: boolean;
}

/** Replays one recording, or the two of one run, on the model, and prints how far they agree. */
export async function replayCommand(
  files: readonly string[],
  options: ReplayOptions,
  terminal: Terminal,
): Promise<ExitCode> {
  if (files.length > 2)
    throw new UsageError(
      `replay takes one recording, or the QEMU log and the ftrace of one run, not ${files.length} files`,
    );
  if (files.filter((file) => file === '-').length > 1) throw new UsageError('replay: only one of the files can be -');
  const interruption = new Interruption(terminal);
  const meter = new ProgressMeter(terminal, options.quiet ?? false);
  try {
    // A read from stdin may wait for ever, and the interruption must not wait for it.
    const stopped = interruption.pressed.then(() => Promise.reject(new ReadInterrupted()));
    const result = await Promise.race([replay(files, terminal, meter, interruption), stopped]);
    meter.clear();
    terminal.stdout.write(
      options.json ? jsonText(result) : replaySummary(result, paletteFor(terminal.stdout, terminal.env)),
    );
    return judge(result, options, terminal);
  } catch (error) {
    meter.clear();
    if (interruption.requested) {
      terminal.stderr.write('interrupted: a part of a recording says nothing, so there is no result\n');
      return EXIT.interrupted;
    }
    if (error instanceof TraceFormatError) throw new UsageError(error.message, { cause: error });
    throw error;
  } finally {
    interruption.end();
  }
}

async function replay(
  files: readonly string[],
  terminal: Terminal,
  meter: ProgressMeter,
  interruption: Interruption,
): Promise<ReplayResult> {
  let read = 0;
  const watch = (bytes: number): void => {
    if (interruption.requested) throw new ReadInterrupted();
    read += bytes;
    const known = opened.every(({ bytes: size }) => size !== undefined);
    const total = opened.reduce((sum, { bytes: size }) => sum + (size ?? 0), 0);
    meter.update({
      fraction: known && total > 0 ? read / total : undefined,
      done: Math.round(read / 1024),
      unit: 'KiB',
    });
  };
  const opened = files.map((file) => openTraceFile(file, terminal, watch));
  const [first, second] = await Promise.all(opened.map(({ source }) => openTrace(source)));
  if (first === undefined) throw new UsageError('replay: expected a file');
  if (second === undefined) return REPLAYS[first.format](first);
  const formats = [first.format, second.format];
  if (!(formats.includes('ftrace') && formats.includes('qemu-vtd-log')))
    throw new UsageError(
      `${first.name}, ${second.name}: ${formatsText(first.format, second.format)}; two files must be the QEMU log and the ftrace of one run`,
    );
  const [qemu, ftrace] = first.format === 'ftrace' ? [second, first] : [first, second];
  return replayPair(qemu, ftrace);
}

const REPLAYS: Readonly<Record<TraceFormat, (trace: OpenTrace) => Promise<ReplayResult>>> = {
  'qemu-vtd-log': (trace) => replayQemuLog(trace),
  ftrace: (trace) => replayFtrace(trace),
  iofd: replayIofd,
};

const FORMAT_NAMES: Readonly<Record<TraceFormat, readonly [one: string, both: string]>> = {
  'qemu-vtd-log': ['a QEMU log', 'QEMU logs'],
  ftrace: ['ftrace text', 'ftrace text'],
  iofd: ['a log of iommufd calls', 'logs of iommufd calls'],
};

const formatsText = (first: TraceFormat, second: TraceFormat): string =>
  first === second ? `both are ${FORMAT_NAMES[first][1]}` : `${FORMAT_NAMES[first][0]} and ${FORMAT_NAMES[second][0]}`;

function judge(result: ReplayResult, { strict }: ReplayOptions, terminal: Terminal): ExitCode {
  const unknown = lineCountsOf(result).reduce((sum, lines) => sum + lines.unknown, 0);
  if (!agrees(result)) return EXIT.failed;
  if (strict && unknown > 0) {
    terminal.stderr.write(`${plural(unknown, 'unknown or damaged line')}, and --strict\n`);
    return EXIT.usage;
  }
  return EXIT.ok;
}
