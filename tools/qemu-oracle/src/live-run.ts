import { Comparison, type ProgramDifference } from './comparison.ts';
import { randomProgram } from './generator.ts';
import type { Answer, Configuration, Operation } from './program.ts';
import { CONTEXT_TABLE, ROOT_TABLE } from './program-world.ts';
import { QemuSubject } from './qemu-subject.ts';
import type { RuleId } from './rules.ts';
import { shrink } from './shrink.ts';

/** Operations of one program; then everything starts over. */
const PROGRAM_OPERATIONS = 2000;

/** What to compare. */
export interface LiveRunOptions {
  readonly seed: number;
  /** In all, over all levels. */
  readonly operations: number;
  readonly levels: readonly (3 | 4)[];
  /** QEMU's program name. */
  readonly qemu: string;
  readonly rules: ReadonlySet<RuleId>;
  /** True ends the run. */
  readonly stopped: () => boolean;
  readonly progress: (operations: number) => void;
  /** How long to look for a shorter program, in milliseconds. */
  readonly shrinkMs: number;
  /** Takes every program that agreed, with QEMU's answers, in order. */
  readonly record: (
    configuration: Configuration,
    program: readonly Operation[],
    answers: readonly (Answer | null)[],
  ) => void;
}

/** A difference with everything that is needed to see it again. */
export interface LiveDifference extends ProgramDifference {
  readonly configuration: Configuration;
  /** Number of the program in the run. */
  readonly programIndex: number;
  /** The shrunk program, with QEMU's answers. */
  readonly program: readonly Operation[];
  readonly answers: readonly (Answer | null)[];
}

/** What became of the run. */
export interface LiveResult {
  readonly operations: number;
  readonly compared: number;
  readonly agree: number;
  /** By what QEMU answered: hits, walks, faults by reason, and the rest. */
  readonly answers: Readonly<Record<string, number>>;
  readonly qemuVersion: string;
  readonly difference: LiveDifference | null;
}

const answerClass = (answer: Answer): string =>
  answer.kind === 'translated'
    ? answer.hit
      ? 'hit'
      : 'walk'
    : answer.kind === 'fault'
      ? `fault ${answer.reason}`
      : answer.kind;

/** Compares random programs until the operations are used up, somebody stops it, or an answer differs. */
export class LiveRun {
  readonly #options: LiveRunOptions;
  #operations = 0;
  #compared = 0;
  #agree = 0;
  #version = '';
  #programs = 0;
  readonly #classes = new Map<string, number>();

  constructor(options: LiveRunOptions) {
    this.#options = options;
  }

  async run(): Promise<LiveResult> {
    const { levels, operations, stopped } = this.#options;
    let difference: LiveDifference | null = null;
    for (const [index, level] of levels.entries()) {
      const until = Math.round((operations * (index + 1)) / levels.length);
      if (!stopped() && difference === null) difference = await this.#runLevel(level, until);
    }
    return this.#result(difference);
  }

  /** What there is so far. */
  #result(difference: LiveDifference | null): LiveResult {
    return {
      operations: this.#operations,
      compared: this.#compared,
      agree: this.#agree,
      answers: Object.fromEntries([...this.#classes].sort(([a], [b]) => (a < b ? -1 : 1))),
      qemuVersion: this.#version,
      difference,
    };
  }

  async #runLevel(levels: 3 | 4, until: number): Promise<LiveDifference | null> {
    const { seed, qemu, rules, stopped } = this.#options;
    const subject = await QemuSubject.start({
      program: qemu,
      levels,
      root: BigInt(ROOT_TABLE),
      contextTable: BigInt(CONTEXT_TABLE),
      seed: String(seed),
    });
    try {
      this.#version = subject.configuration.qemu;
      const comparison = new Comparison(subject, rules);
      while (this.#operations < until && !stopped()) {
        const operations = Math.min(PROGRAM_OPERATIONS, until - this.#operations);
        const index = this.#programs++;
        const program = randomProgram({ seed, index, levels, operations: PROGRAM_OPERATIONS }).slice(0, operations);
        const difference = await this.#runProgram(comparison, program);
        if (difference !== null) return await this.#shrunk(comparison, program, { ...difference, programIndex: index });
      }
      return null;
    } finally {
      await subject.close();
    }
  }

  async #runProgram(comparison: Comparison, program: readonly Operation[]): Promise<ProgramDifference | null> {
    const { stopped, progress, record } = this.#options;
    const before = this.#operations;
    const result = await comparison.run(program, (done) => {
      progress(before + done);
      return stopped();
    });
    this.#operations += Math.min(result.done, program.length);
    this.#compared += result.compared;
    this.#agree += result.compared - (result.difference === null ? 0 : 1);
    for (const answer of result.answers) {
      if (answer === null) continue;
      const name = answerClass(answer);
      this.#classes.set(name, (this.#classes.get(name) ?? 0) + 1);
    }
    record(comparison.configuration, result.program.slice(0, result.done), result.answers);
    return result.difference;
  }

  async #shrunk(
    comparison: Comparison,
    program: readonly Operation[],
    found: ProgramDifference & { readonly programIndex: number },
  ): Promise<LiveDifference> {
    const deadline = performance.now() + this.#options.shrinkMs;
    const smallest = await shrink({
      program: program.slice(0, found.at + 1),
      neededOf: async (candidate) => 1 + ((await comparison.run(candidate)).difference?.at ?? -1),
      expired: () => performance.now() > deadline || this.#options.stopped(),
    });
    const last = await comparison.run(smallest);
    const { configuration } = comparison;
    return { ...found, configuration, program: last.program.slice(0, last.done), answers: last.answers };
  }
}
