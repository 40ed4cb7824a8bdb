import { type Agent, type ChoicePolicy, costTableNs, type Task, TaskRun } from '../src/index.ts';
import { TEST_PROFILE } from './test-profile.ts';

interface Entry {
  readonly run: TaskRun;
  readonly atNs: number;
  readonly sequence: number;
}

/** Virtual time the slow way: every step goes back into one unsorted list, and the least (time, sequence) comes next. */
export class NaiveTime {
  nowNs = 0;
  #sequence = 0;
  readonly #costNs = costTableNs(TEST_PROFILE);
  readonly #entries: Entry[] = [];
  readonly #runs: TaskRun[] = [];
  readonly #choose: ChoicePolicy;

  constructor(choose: ChoicePolicy) {
    this.#choose = choose;
  }

  spawn(agent: Agent, task: Task<void>): void {
    const run = new TaskRun(agent, task);
    this.#runs.push(run);
    this.#push(run, this.nowNs);
  }

  stop(): void {}

  run(): boolean {
    while (this.#entries.length > 0) this.#step();
    const stuck = this.#runs.filter((run) => !run.done);
    if (stuck.length === 0) return true;
    const list = stuck.map((run) => `${run.agent.name} waits for ${run.pending?.waitFor?.name ?? '?'}`);
    throw new Error(`deadlock at ${this.nowNs} ns: ${list.join('; ')}`);
  }

  #push(run: TaskRun, atNs: number): void {
    this.#entries.push({ run, atNs, sequence: ++this.#sequence });
  }

  #step(): void {
    let least = 0;
    for (const [index, entry] of this.#entries.entries()) {
      const best = this.#entries[least] as Entry;
      if (entry.atNs < best.atNs || (entry.atNs === best.atNs && entry.sequence < best.sequence)) least = index;
    }
    const [{ run, atNs }] = this.#entries.splice(least, 1) as [Entry];
    this.nowNs = atNs;
    const waitFor = run.pending?.waitFor;
    if (waitFor && !waitFor.ready()) {
      waitFor.park({ unpark: () => this.#push(run, this.nowNs) });
      return;
    }
    if (run.pending && run.pending.choices > 0)
      run.pending.chosen = this.#choose(run.agent, run.pending.label, run.pending.choices);
    run.advance();
    const step = run.pending;
    if (step) this.#push(run, this.nowNs + Math.round((this.#costNs[step.cost] as number) * step.units));
  }
}
