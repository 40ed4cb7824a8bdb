import { lineBatches, TraceFormatError, type TraceSource } from '@faultline/trace-formats';
import { ModelSubject } from './model-subject.ts';
import { type Answer, type Configuration, type Operation, perform, sameAnswer } from './program.ts';
import { ALL_RULES, type RuleId } from './rules.ts';
import { readVectorLine, type VectorLine, VectorsError } from './vectors.ts';

/** The command prints the file's name before the line. */
const withoutFile = ({ file, message }: TraceFormatError): string => message.slice(`${file}: `.length);

/** A DMA to which the model gives another answer than the file. */
export interface VectorDifference {
  readonly line: number;
  readonly operation: Operation;
  readonly recorded: Answer;
  readonly model: Answer;
}

/** What became of a file. */
export interface VectorsResult {
  /** Lines read, the first included. */
  readonly lines: number;
  /** DMAs compared. */
  readonly compared: number;
  readonly agree: number;
  /** The first of those that differ. */
  readonly differences: readonly VectorDifference[];
  /** Why reading ended early; what was compared before counts. */
  readonly damage: { readonly line: number; readonly message: string } | null;
}

/** How to run one. */
export interface VectorsOptions {
  readonly rules?: ReadonlySet<RuleId>;
  /** Differences kept, all are counted. Default 10. */
  readonly keep?: number;
  /** Asked after every batch of lines; true ends the run. */
  readonly stopped?: (lines: number, compared: number) => boolean;
}

/** Runs the operations of one file on the model, line by line. */
class VectorsRun {
  readonly #rules: ReadonlySet<RuleId>;
  readonly #keep: number;
  #configuration: Configuration | null = null;
  #model: ModelSubject | null = null;
  lines = 0;
  compared = 0;
  agree = 0;
  readonly differences: VectorDifference[] = [];

  constructor(options: VectorsOptions) {
    this.#rules = options.rules ?? ALL_RULES;
    this.#keep = options.keep ?? 10;
  }

  line(text: string): void {
    const number = this.lines + 1;
    const line = readVectorLine(text, number, this.#configuration);
    this.lines = number;
    if (line.kind === 'configuration') {
      this.#configuration = line.configuration;
      this.#model = this.#possible(() => new ModelSubject(line.configuration, this.#rules));
    } else if (this.#model !== null && this.#configuration !== null) {
      if (line.kind === 'operation') this.#perform(this.#model, line);
      else {
        const { memory } = this.#model;
        memory.halves.fill(0);
        this.#model = new ModelSubject(this.#configuration, this.#rules, memory);
      }
    }
  }

  /** What the model cannot do is an error of the file. */
  #possible<T>(action: () => T): T {
    try {
      return action();
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      throw new VectorsError(this.lines, `expected what the model can do: ${error.message}`);
    }
  }

  #perform(model: ModelSubject, { operation, answer }: Extract<VectorLine, { kind: 'operation' }>): void {
    const given = this.#possible(() => perform(model, operation));
    if (answer === null || given === null || given instanceof Promise) return;
    this.compared++;
    if (sameAnswer(given, answer)) this.agree++;
    else if (this.differences.length < this.#keep)
      this.differences.push({ line: this.lines, operation, recorded: answer, model: given });
  }
}

/** Compares a whole file with the model. A damaged file ends the comparison, and the result says where and why. */
export async function runVectors(source: TraceSource, options: VectorsOptions = {}): Promise<VectorsResult> {
  const run = new VectorsRun(options);
  let damage: VectorsResult['damage'] = null;
  try {
    for await (const batch of lineBatches(source)) {
      for (const text of batch) run.line(text);
      if (options.stopped?.(run.lines, run.compared) === true) break;
    }
    if (run.compared === 0) throw new VectorsError(run.lines + 1, 'expected at least one answer, got none');
  } catch (error) {
    if (error instanceof VectorsError) damage = { line: error.line, message: error.message };
    else if (error instanceof TraceFormatError) damage = { line: run.lines + 1, message: withoutFile(error) };
    else throw error;
  }
  const { lines, compared, agree, differences } = run;
  return { lines, compared, agree, differences, damage };
}
