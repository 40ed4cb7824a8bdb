import { TableMemory } from '@faultline/vtd-pagetable';
import { ModelSubject } from './model-subject.ts';
import { type Answer, type Configuration, type Operation, perform, type Subject, sameAnswer } from './program.ts';
import type { RuleId } from './rules.ts';

/** An operation that was answered in two ways. */
export interface ProgramDifference {
  /** Position in the program. */
  readonly at: number;
  readonly operation: Operation;
  readonly qemu: Answer;
  readonly model: Answer;
}

/** What became of one program. */
export interface ProgramResult {
  /** What was run: the program, and at its end a look at every word that DMA wrote. */
  readonly program: readonly Operation[];
  /** Operations done, fewer if it was stopped or a difference was found. */
  readonly done: number;
  /** QEMU's answers by position in the program; null for what has none. */
  readonly answers: readonly (Answer | null)[];
  readonly compared: number;
  readonly difference: ProgramDifference | null;
}

/** DMAs that are under way together before their answers are looked at. */
const WINDOW = 64;

/** A subject that starts over, as QEMU does for every program. */
export interface ResettableSubject extends Subject {
  readonly configuration: Configuration;
  reset(): Promise<void>;
}

/** Runs programs on QEMU and on the model, each from the same beginning, and compares every answer. */
export class Comparison {
  readonly #qemu: ResettableSubject;
  readonly #rules: ReadonlySet<RuleId>;
  readonly #memory: TableMemory;

  constructor(qemu: ResettableSubject, rules: ReadonlySet<RuleId>) {
    this.#qemu = qemu;
    this.#rules = rules;
    this.#memory = new TableMemory({ basePfn: 0, pages: qemu.configuration.ramBytes / 4096 });
  }

  get configuration(): Configuration {
    return this.#qemu.configuration;
  }

  /** @param stopped asked now and then; true ends the program where it is */
  async run(given: readonly Operation[], stopped: (done: number) => boolean = () => false): Promise<ProgramResult> {
    await this.#qemu.reset();
    this.#memory.halves.fill(0);
    const model = new ModelSubject(this.configuration, this.#rules, this.#memory);
    const program = [...given];
    const answers: (Answer | null)[] = [];
    let compared = 0;
    for (let from = 0; from < program.length; from = answers.length) {
      const { ours, theirs, end } = this.#start(model, program, from);
      for (const [offset, qemu] of (await Promise.all(theirs)).entries()) {
        answers.push(qemu);
        const our = ours[offset] ?? null;
        if (qemu === null || our === null) continue;
        compared++;
        if (sameAnswer(our, qemu)) continue;
        const at = from + offset;
        const operation = program[at] as Operation;
        return { program, done: at + 1, answers, compared, difference: { at, operation, qemu, model: our } };
      }
      if (stopped(end)) break;
      if (end === given.length) program.push(...model.storedAddresses.map((pa): Operation => ({ kind: 'read', pa })));
    }
    return { program, done: answers.length, answers, compared, difference: null };
  }

  /** Gives both sides the operations up to the next full window of DMAs. */
  #start(model: ModelSubject, program: readonly Operation[], from: number) {
    const ours: (Answer | null)[] = [];
    const theirs: (Promise<Answer> | Answer | null)[] = [];
    let dmas = 0;
    let end = from;
    for (; end < program.length && dmas < WINDOW; end++) {
      const operation = program[end] as Operation;
      if (operation.kind === 'dma') dmas++;
      theirs.push(perform(this.#qemu, operation));
      const answer = perform(model, operation);
      ours.push(answer instanceof Promise ? null : answer);
    }
    return { ours, theirs, end };
  }
}
