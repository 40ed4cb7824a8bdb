import type { IofdCall, IofdPagemap } from '../iofd-log.ts';
import { type OpenTrace, openAs } from '../open-trace.ts';
import type { TraceSource } from '../trace-source.ts';
import { type CallOutcome, hexText, rangesText } from './call-outcome.ts';
import { compareEvents, recordedEvents } from './event-comparison.ts';
import { type IofdRecording, type RecordedStep, readIofdRecording } from './iofd-recording.ts';
import type { IofdDifference, IofdReplayResult } from './iofd-replay-result.ts';
import { RecordedMachine } from './recorded-machine.ts';
import { RecordedProgram } from './recorded-program.ts';
import { countLeaves, leavesText, rowText, sameRow, tableRow } from './table-comparison.ts';

type Writeable<T> = { -readonly [Key in keyof T]: T[Key] };

class IofdReplay {
  readonly #machine: RecordedMachine;
  readonly #program: RecordedProgram;
  readonly #differences: IofdDifference[] = [];
  /** First bytes of areas that were ever mapped. */
  readonly #mapped = new Set<bigint>();
  #agree = 0;
  readonly compared: Writeable<IofdReplayResult['compared']> = {
    results: 0,
    outFields: 0,
    mapEvents: 0,
    unmapEvents: 0,
    attachEvents: 0,
    eventTotals: 0,
    tableRows: 0,
    leafCounts: 0,
    pagemaps: 0,
  };
  readonly notCompared: Writeable<IofdReplayResult['notCompared']> = {
    foreignEvents: 0,
    eventTotals: 0,
    callsWithoutEvents: 0,
  };

  constructor(recording: IofdRecording) {
    this.#machine = new RecordedMachine(recording);
    this.#program = new RecordedProgram(this.#machine);
  }

  get agree(): number {
    return this.#agree;
  }

  get differences(): readonly IofdDifference[] {
    return this.#differences;
  }

  /** Makes one call and compares all that the log has of it. */
  step(step: RecordedStep): void {
    const before = this.#differences.length;
    const outcome = this.#program.perform(step);
    const events = this.#machine.takeEvents();
    if (outcome === null)
      this.#differ(step, { line: step.line, what: 'call', expected: 'a call that is known', got: 'not understood' });
    else this.#compareOutcome(step, outcome);
    for (const event of events) if (event.kind === 'map') this.#mapped.add(event.iova);
    if (this.#program.seesEvents(step)) this.#compareEvents(step, events);
    else this.notCompared.callsWithoutEvents++;
    for (const detail of step.details) this.#compareDetail(step, detail);
    if (this.#differences.length === before) this.#agree++;
  }

  #compareOutcome(step: RecordedStep, outcome: CallOutcome): void {
    const { call, line } = step;
    const compare = (what: string, expected: string, got: string): void => {
      if (expected !== got) this.#differ(step, { line, what, expected, got });
    };
    this.compared.results++;
    if (call.kind === 'observation') {
      compare(call.text, hexText(call.value), outcome.out.value ?? '');
      return;
    }
    compare('result', call.result, outcome.result);
    for (const [name, value] of Object.entries(call.out)) {
      this.compared.outFields++;
      compare(name, value, outcome.out[name] ?? 'nothing');
    }
    if (outcome.ranges === undefined || !hasRanges(call)) return;
    this.compared.outFields++;
    compare('ranges', rangesText(call.ranges), outcome.ranges);
  }

  #compareEvents(step: RecordedStep, events: ReturnType<RecordedMachine['takeEvents']>): void {
    const recorded = recordedEvents(step.details, (iova) => this.#mapped.has(iova));
    const { mismatches, totalsCompared } = compareEvents(recorded, events, step.line);
    const { compared, notCompared } = this;
    compared.mapEvents += recorded.maps.length;
    compared.unmapEvents += recorded.unmaps.length;
    compared.attachEvents += recorded.attaches;
    notCompared.foreignEvents += recorded.foreign;
    if (totalsCompared) compared.eventTotals++;
    else if (recorded.totals !== null) notCompared.eventTotals++;
    for (const mismatch of mismatches) this.#differ(step, mismatch);
  }

  #compareDetail(step: RecordedStep, { line, detail }: RecordedStep['details'][number]): void {
    const { domain } = this.#machine;
    const { compared } = this;
    const differ = (what: string, expected: string, got: string): void =>
      this.#differ(step, { line, what, expected, got });
    if (detail.kind === 'tableRow') {
      compared.tableRows++;
      const entries = tableRow(domain, detail.page);
      if (!sameRow(detail, entries)) differ('table entries', rowText(detail.entries), rowText(entries));
    } else if (detail.kind === 'leafCounts') {
      compared.leafCounts++;
      const [expected, got] = [leavesText(detail.leaves), leavesText(countLeaves(domain, detail))];
      if (expected !== got) differ('leaves', expected, got);
    } else if (detail.kind === 'pagemap') {
      compared.pagemaps++;
      const [expected, got] = [pagemapText(detail), pagemapText(this.#pagemap(detail.text))];
      if (expected !== got) differ('pagemap', expected, got);
    }
  }

  #pagemap(text: string): Pick<IofdPagemap, 'present' | 'swapped'> {
    const { memory } = this.#program;
    const page = this.#machine.run((agent) => this.#machine.process.region(agent, text));
    // A call that the program makes without a word of its result.
    if (/\bMADV_COLLAPSE\b/.test(text)) memory.collapse(page);
    return memory.pagemap(page);
  }

  #differ({ call }: RecordedStep, difference: Omit<IofdDifference, 'call'>): void {
    this.#differences.push({ call: call.text, ...difference });
  }
}

/** What is printed of it: ranges that somebody asks for, not those that he gives. */
const hasRanges = (call: IofdCall): boolean => call.result === '0' && call.text.startsWith('IOVA_RANGES');

const pagemapText = ({ present, swapped }: Pick<IofdPagemap, 'present' | 'swapped'>): string =>
  `present=${present} swapped=${swapped}`;

/**
 * Makes the calls of a log again, one by one, through the binary uAPI of a model of the recorded machine, and compares what each does: result,
 * out-fields, the tracer's events, the page table's leaves and entries, pagemap. A call that is not understood is a difference.
 * @throws TraceFormatError if the input is empty, damaged gzip, or of another format
 */
export async function replayIofd(trace: TraceSource | OpenTrace): Promise<IofdReplayResult> {
  const open = await openAs(trace, 'iofd');
  const recording = await readIofdRecording(open);
  const replay = new IofdReplay(recording);
  for (const step of recording.steps) replay.step(step);
  const calls = recording.steps.length;
  return {
    schema: 'faultline.replay.iofd/1',
    file: open.name,
    lines: recording.lines,
    kernel: recording.kernel,
    calls,
    agree: replay.agree,
    differ: calls - replay.agree,
    differences: replay.differences,
    compared: replay.compared,
    notCompared: replay.notCompared,
  };
}
