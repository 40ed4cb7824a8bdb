import type { Agent } from './agent.ts';
import type { Step } from './step.ts';

/**
 * A piece of work that others can interleave with: a generator that yields a {@link Step} before each action on
 * shared state. The same task runs under virtual time, under an adversary, or to its end with {@link runToEnd}.
 */
export type Task<T> = Generator<Step, T, void>;

/** A task being run by some scheduler: its agent, the step it has announced, and in the end its value. */
export class TaskRun<T = unknown> {
  readonly agent: Agent;
  readonly #task: Task<T>;
  #pending: Step | null = null;
  #done = false;
  #value: T | undefined;

  constructor(agent: Agent, task: Task<T>) {
    this.agent = agent;
    this.#task = task;
  }

  /** The announced step, or null before the first and after the last. */
  get pending(): Step | null {
    return this.#pending;
  }

  get done(): boolean {
    return this.#done;
  }

  /** The task's result; undefined until it is done. */
  get value(): T | undefined {
    return this.#value;
  }

  /** Whether the announced step may happen now. */
  get enabled(): boolean {
    return !this.#done && (this.#pending?.waitFor?.ready() ?? true);
  }

  /** Performs the announced step and runs to the next yield. What the task throws goes through, and the task is done. */
  advance(): void {
    const result = this.#next();
    if (result.done) {
      this.#done = true;
      this.#pending = null;
      this.#value = result.value;
    } else {
      this.#pending = result.value;
    }
  }

  #next(): IteratorResult<Step, T> {
    try {
      return this.#task.next();
    } catch (thrown) {
      this.#done = true;
      this.#pending = null;
      throw thrown;
    }
  }

  /** Ends the task early, running its `finally` blocks. */
  cancel(): void {
    this.#task.return(undefined as T);
    this.#done = true;
    this.#pending = null;
  }
}

/**
 * Runs a task to its end with no scheduler: what a plain method call does. Choices take their ordinary outcome. When it waits,
 * `meanwhile` runs: what it does is all that others do.
 * @throws Error if the task would have to wait for somebody else.
 */
export function runToEnd<T>(task: Task<T>, meanwhile: () => void = () => undefined): T {
  for (;;) {
    const result = task.next();
    if (result.done) return result.value;
    const waitFor = result.value.waitFor;
    if (waitFor && !waitFor.ready()) meanwhile();
    if (waitFor && !waitFor.ready())
      throw new Error(`runToEnd: the task waits for ${waitFor.name} (${result.value.label}) and nobody else runs`);
  }
}
