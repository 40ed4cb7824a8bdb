import fc from 'fast-check';
import { Agent, Condition, Cost, Location, Mutex, RwSemaphore, type Task } from '../src/index.ts';

/** One statement of a random task. Numbers are taken modulo what there is. */
export type Op =
  | { readonly kind: 'spend'; readonly units: number; readonly cost: number }
  | { readonly kind: 'lock' | 'read' | 'write'; readonly lock: number; readonly body: readonly Op[] }
  | { readonly kind: 'wait'; readonly flag: number }
  | { readonly kind: 'signal'; readonly flag: number }
  | { readonly kind: 'choose' }
  | { readonly kind: 'stop' }
  | { readonly kind: 'spawn'; readonly body: readonly Op[] };

const COSTS = [Cost.free, Cost.nanosecond, Cost.walkRead, Cost.entryRead] as const;

/** Random statements, nested a few levels deep. */
export const programs: fc.Arbitrary<readonly (readonly Op[])[]> = fc.array(
  fc.letrec<{ ops: Op[]; op: Op }>((tie) => ({
    ops: fc.array(tie('op'), { maxLength: 6 }),
    op: fc.oneof(
      { maxDepth: 3, withCrossShrink: true },
      fc.record({ kind: fc.constant('spend' as const), units: fc.nat(6), cost: fc.nat(3) }),
      fc.record({ kind: fc.constantFrom('wait' as const, 'signal' as const), flag: fc.nat(1) }),
      fc.record({ kind: fc.constantFrom('choose' as const, 'stop' as const) }),
      fc.record({
        kind: fc.constantFrom('lock' as const, 'read' as const, 'write' as const),
        lock: fc.nat(1),
        body: tie('ops'),
      }),
      fc.record({ kind: fc.constant('spawn' as const), body: tie('ops') }),
    ),
  })).ops,
  { minLength: 1, maxLength: 5 },
);

/** What a program needs of whoever runs it. */
export interface Clock {
  readonly nowNs: number;
  spawn(agent: Agent, task: Task<void>): unknown;
  stop(): void;
}

/** Interprets programs and writes down what each task does when. */
export class ProgramRun {
  readonly log: string[] = [];
  readonly #clock: Clock;
  readonly #flags = [0, 0];
  readonly #conditions = [0, 1].map((flag) => new Condition(`flag ${flag}`, () => (this.#flags[flag] as number) > 0));
  readonly #mutexes = [new Mutex('mutex 0'), new Mutex('mutex 1')];
  readonly #semaphores = [new RwSemaphore('rwsem 0'), new RwSemaphore('rwsem 1')];

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  start(name: string, ops: readonly Op[]): void {
    const agent = new Agent(name);
    this.#clock.spawn(agent, this.#run(agent, ops));
  }

  #note(agent: Agent, what: string): void {
    this.log.push(`${this.#clock.nowNs} ${agent.name} ${what}`);
  }

  *#run(agent: Agent, ops: readonly Op[]): Task<void> {
    for (const [index, op] of ops.entries()) {
      this.#note(agent, op.kind);
      yield* this.#perform(agent, op, index);
    }
    this.#note(agent, 'end');
  }

  *#perform(agent: Agent, op: Op, index: number): Task<void> {
    if (op.kind === 'spend') yield agent.reads('spend', Location.frame, 1, COSTS[op.cost] as 0, op.units);
    else if (op.kind === 'stop') this.#clock.stop();
    else if (op.kind === 'choose') {
      yield agent.chooses('choose', 3);
      this.#note(agent, `chose ${agent.step.chosen}`);
    } else if (op.kind === 'spawn') this.start(`${agent.name}.${index}`, op.body);
    else if (op.kind === 'signal') {
      this.#flags[op.flag] = (this.#flags[op.flag] as number) + 1;
      this.#conditions[op.flag]?.wake();
    } else if (op.kind === 'wait') {
      const condition = this.#conditions[op.flag] as Condition;
      do yield agent.waits('wait', condition);
      while (!condition.ready());
      this.#flags[op.flag] = (this.#flags[op.flag] as number) - 1;
    } else if (op.kind === 'lock') yield* this.#locked(agent, this.#mutexes[op.lock] as Mutex, op.body);
    else yield* this.#shared(agent, this.#semaphores[op.lock] as RwSemaphore, op.kind, op.body);
  }

  *#locked(agent: Agent, mutex: Mutex, body: readonly Op[]): Task<void> {
    if (mutex.owner === agent) return;
    yield* mutex.acquire(agent);
    yield* this.#run(agent, body);
    mutex.release(agent);
  }

  *#shared(agent: Agent, lock: RwSemaphore, kind: 'read' | 'write', body: readonly Op[]): Task<void> {
    yield* kind === 'read' ? lock.acquireRead(agent) : lock.acquireWrite(agent);
    yield* this.#run(agent, body);
    if (kind === 'read') lock.releaseRead(agent);
    else lock.releaseWrite(agent);
  }
}
