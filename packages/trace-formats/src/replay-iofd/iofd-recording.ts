import { type IofdCall, type IofdDetail, type IofdObservation, type IofdOpen, readIofdLine } from '../iofd-log.ts';
import { LineAccount, type LineCounts } from '../line-account.ts';
import type { OpenTrace } from '../open-trace.ts';

/** The kernels whose behaviour is told apart. */
export type IofdKernel = '6.12' | '7.3';

/** A line below a call: what the kernel's tracer, its page-table dump or /proc said after it. */
export interface PlacedDetail {
  readonly line: number;
  readonly detail: IofdDetail;
}

/** A call, or what the program saw the device do, with all that was printed below it. */
export interface RecordedStep {
  /** 1-based. */
  readonly line: number;
  /** The section that it stands in, or an empty text. */
  readonly section: string;
  readonly call: IofdCall | IofdObservation;
  readonly details: readonly PlacedDetail[];
}

/** A whole log. */
export interface IofdRecording {
  readonly lines: LineCounts;
  readonly steps: readonly RecordedStep[];
  /** The descriptors that the program had when it began; null if the log does not say. */
  readonly open: IofdOpen | null;
  readonly kernel: IofdKernel;
  /** CAP and ECAP of the unit, as GET_HW_INFO told them; null if it was not asked. */
  readonly registers: { readonly cap: bigint; readonly ecap: bigint } | null;
}

/** Software's bit 10, which Linux 7.3 sets in entries that lead to a table, and 6.12 does not. */
const TABLE_MARK = 1n << 10n;
const ATS_NOT_SUPPORTED = 8;

/** Reads a log to its end: what it says of the kernel and the unit stands behind the first calls. */
export async function readIofdRecording(trace: OpenTrace): Promise<IofdRecording> {
  const account = new LineAccount(trace.name);
  const steps: (RecordedStep & { readonly details: PlacedDetail[] })[] = [];
  let open: IofdOpen | null = null;
  let section = '';
  for await (const batch of trace.batches)
    for (const text of batch) {
      const read = readIofdLine(text, account);
      if (read === null) continue;
      if (read.kind === 'open') open = read;
      else if (read.kind === 'section') section = read.text;
      else if (read.kind === 'call' || read.kind === 'observation')
        steps.push({ line: account.line, section, call: read, details: [] });
      else steps.at(-1)?.details.push({ line: account.line, detail: read });
    }
  return { lines: account.snapshot(), steps, open, kernel: kernelOf(steps), registers: registersOf(steps) };
}

/** Who made the log: 7.3 marks its table entries. Without a dump of one, the capabilities of GET_HW_INFO decide. */
function kernelOf(steps: readonly RecordedStep[]): IofdKernel {
  for (const { details } of steps)
    for (const { detail } of details) {
      const [top = 0n] = detail.kind === 'tableRow' ? detail.entries : [];
      if (top !== 0n) return (top & TABLE_MARK) !== 0n ? '7.3' : '6.12';
    }
  const capabilities = steps.map(({ call }) => (call.kind === 'call' ? call.out.caps : undefined));
  const told = capabilities.find((each) => each !== undefined);
  return told === undefined || (Number.parseInt(told, 16) & ATS_NOT_SUPPORTED) !== 0 ? '7.3' : '6.12';
}

function registersOf(steps: readonly RecordedStep[]): IofdRecording['registers'] {
  for (const { call } of steps) {
    if (call.kind !== 'call') continue;
    const { cap, ecap } = call.out;
    if (isHex(cap) && isHex(ecap)) return { cap: BigInt(`0x${cap}`), ecap: BigInt(`0x${ecap}`) };
  }
  return null;
}

const isHex = (text: string | undefined): text is string => text !== undefined && /^[0-9a-f]{1,16}$/.test(text);
