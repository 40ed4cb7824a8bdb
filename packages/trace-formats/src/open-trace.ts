import { isFtraceLine } from './ftrace-iommu.ts';
import { isIofdLine } from './iofd-log.ts';
import { isQemuVtdLine } from './qemu-vtd-log.ts';
import { TraceFormatError } from './trace-format-error.ts';
import { lineBatches, type TraceSource } from './trace-source.ts';

/** `qemu-vtd-log`: QEMU's `vtd_*` trace events. `ftrace`: text of the Linux kernel's tracer. `iofd`: iommufd calls and what they did. */
export type TraceFormat = 'qemu-vtd-log' | 'ftrace' | 'iofd';

/** A source whose format is known; its lines can be read once. */
export interface OpenTrace {
  readonly name: string;
  readonly format: TraceFormat;
  readonly batches: AsyncIterable<string[]>;
}

const LINES_LOOKED_AT = 100;

/** The format of a trace by its first lines, or null. The first line that is of one format decides. */
export function detectFormat(firstLines: readonly string[]): TraceFormat | null {
  for (const line of firstLines.slice(0, LINES_LOOKED_AT)) {
    if (isQemuVtdLine(line)) return 'qemu-vtd-log';
    if (isFtraceLine(line)) return 'ftrace';
    if (isIofdLine(line)) return 'iofd';
  }
  return null;
}

/**
 * Starts reading a source and finds its format.
 * @throws TraceFormatError EMPTY_INPUT, UNKNOWN_FORMAT or a GZIP code
 */
export async function openTrace(source: TraceSource): Promise<OpenTrace> {
  const batches = lineBatches(source);
  const seen: string[][] = [];
  let lines: string[] = [];
  while (lines.length < LINES_LOOKED_AT) {
    const next = await batches.next();
    if (next.done) break;
    seen.push(next.value);
    lines = lines.concat(next.value.slice(0, LINES_LOOKED_AT));
  }
  const format = detectFormat(lines);
  if (format === null) {
    const first = (lines.find((line) => line.trim() !== '') ?? '').slice(0, 80);
    throw new TraceFormatError(
      'UNKNOWN_FORMAT',
      source.name,
      `neither a QEMU vtd_* log nor ftrace text nor a log of iommufd calls; the first line is ${JSON.stringify(first)}`,
    );
  }
  return { name: source.name, format, batches: resumed(seen, batches) };
}

async function* resumed(
  seen: readonly string[][],
  rest: AsyncGenerator<string[], void, undefined>,
): AsyncGenerator<string[], void, undefined> {
  yield* seen;
  yield* rest;
}

/** Opens a source unless it is open, and insists on a format. @throws TraceFormatError */
export async function openAs(trace: TraceSource | OpenTrace, format: TraceFormat): Promise<OpenTrace> {
  const open = 'batches' in trace ? trace : await openTrace(trace);
  if (open.format !== format)
    throw new TraceFormatError('UNKNOWN_FORMAT', open.name, `expected ${format}, found ${open.format}`);
  return open;
}
