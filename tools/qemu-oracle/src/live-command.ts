import { closeSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { resolve } from 'node:path';
import { type LiveDifference, type LiveResult, LiveRun } from './live-run.ts';
import type { Answer, Configuration, Operation } from './program.ts';
import { QemuError } from './qtest.ts';
import type { RuleId } from './rules.ts';
import { EXIT, ProgressMeter, type Terminal, UsageError } from './terminal.ts';
import { answerText, configurationText, operationText, START_OVER, subjectOf } from './vectors.ts';

/** A live comparison, as the command line has it. */
export interface LiveOptions {
  readonly seed: number;
  readonly operations: number;
  readonly levels: readonly (3 | 4)[];
  /** File for QEMU's answers. */
  readonly record: string | null;
  /** File for the shrunk program of a difference. */
  readonly shrunk: string | null;
  readonly seconds: number | null;
  readonly qemu: string;
  readonly json: boolean;
  readonly rules: ReadonlySet<RuleId>;
}

const SHRINK_MS = 60_000;

/** The lines of a vectors file for one program. */
function programLines(
  configuration: Configuration,
  program: readonly Operation[],
  answers: readonly (Answer | null)[],
): string {
  return program.map((operation, at) => `${operationText(operation, answers[at] ?? null, configuration)}\n`).join('');
}

/** Writes a recording: programs follow each other, each from the beginning. */
class Recorder {
  readonly #file: number;
  #programs = 0;

  constructor(path: string, shown: string) {
    try {
      this.#file = openSync(path, 'w');
    } catch (error) {
      throw new UsageError(`--record: ${shown} cannot be written (${(error as NodeJS.ErrnoException).code})`);
    }
  }

  add(configuration: Configuration, program: readonly Operation[], answers: readonly (Answer | null)[]): void {
    writeSync(this.#file, `${this.#programs++ === 0 ? configurationText(configuration) : START_OVER}\n`);
    writeSync(this.#file, programLines(configuration, program, answers));
  }

  close(): void {
    closeSync(this.#file);
  }
}

function reportDifference(terminal: Terminal, difference: LiveDifference, options: LiveOptions): void {
  const { at, operation, qemu, model, configuration, program, answers, programIndex } = difference;
  terminal.out(
    `seed ${options.seed}, ${configuration.levels} levels, program ${programIndex}, operation ${at}: ${subjectOf(operation)}\n` +
      `  QEMU  ${answerText(qemu)}\n  model ${answerText(model)}\n`,
  );
  const text = `${configurationText(configuration)}\n${programLines(configuration, program, answers)}`;
  terminal.out(`shrunk to ${program.length} operations, for --vectors:\n`);
  if (options.shrunk === null) terminal.out(text);
  else {
    writeFileSync(resolve(terminal.cwd, options.shrunk), text);
    terminal.out(`  written to ${options.shrunk}\n`);
  }
}

function jsonOf(result: LiveResult, options: LiveOptions, seconds: number): string {
  const { difference, ...rest } = result;
  const shown = difference && {
    levels: difference.configuration.levels,
    program: difference.programIndex,
    at: difference.at,
    operation: subjectOf(difference.operation),
    qemu: JSON.parse(answerText(difference.qemu)) as unknown,
    model: JSON.parse(answerText(difference.model)) as unknown,
    vectors: `${configurationText(difference.configuration)}\n${programLines(difference.configuration, difference.program, difference.answers)}`,
  };
  return JSON.stringify({ seed: options.seed, levels: options.levels, ...rest, seconds, difference: shown });
}

/** `--seed S --ops N`. @returns the exit code */
export async function liveCommand(terminal: Terminal, options: LiveOptions): Promise<number> {
  const recorder = options.record === null ? null : new Recorder(resolve(terminal.cwd, options.record), options.record);
  const meter = new ProgressMeter(terminal);
  const startMs = terminal.nowMs();
  let interrupted = false;
  const undo = terminal.onInterrupt(() => {
    interrupted = true;
  });
  const isOver = (): boolean => options.seconds !== null && terminal.nowMs() - startMs > options.seconds * 1000;
  try {
    const run = new LiveRun({
      seed: options.seed,
      operations: options.operations,
      levels: options.levels,
      qemu: options.qemu,
      rules: options.rules,
      stopped: () => interrupted || isOver(),
      progress: (operations) => meter.update(operations, options.operations, 'operations'),
      shrinkMs: SHRINK_MS,
      record: (configuration, program, answers) => recorder?.add(configuration, program, answers),
    });
    const result = await run.run();
    meter.clear();
    const seconds = Math.round((terminal.nowMs() - startMs) / 100) / 10;
    if (options.json) terminal.out(`${jsonOf(result, options, seconds)}\n`);
    else {
      if (result.difference !== null) reportDifference(terminal, result.difference, options);
      const kinds = Object.entries(result.answers).map(([name, count]) => `${name}: ${count}`);
      terminal.out(
        `QEMU ${result.qemuVersion}, ${result.operations} operations in ${seconds} s; ${kinds.join(', ')}\n`,
      );
      terminal.out(`${result.agree} of ${result.compared} agree\n`);
    }
    if (result.difference !== null) return EXIT.differs;
    return interrupted ? EXIT.interrupted : EXIT.ok;
  } catch (error) {
    meter.clear();
    if (error instanceof QemuError) throw new UsageError(error.message);
    throw error;
  } finally {
    undo();
    recorder?.close();
  }
}
