import { Agent, Condition, Cost, Location, Mutex, type Task } from '@faultline/sim';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type ExplorationResult, type ExploredSystem, explore, InvariantError } from '../src/index.ts';

function run(build: () => ExploredSystem, sleepSets = true): ExplorationResult {
  const search = explore(build, { sleepSets });
  let next = search.next();
  while (!next.done) next = search.next();
  return next.value;
}

/** Programs over a few shared cells: each operation reads or writes one of them, and what was read decides what is written. */
interface Operation {
  readonly cell: number;
  readonly write: boolean;
}

function program(threads: readonly (readonly Operation[])[], finals: Set<string>): () => ExploredSystem {
  return () => {
    const cells = [0, 0, 0];
    const seen: number[][] = threads.map(() => []);
    const task = function* (agent: Agent, index: number): Task<void> {
      for (const [at, { cell, write }] of (threads[index] ?? []).entries()) {
        if (write) yield agent.writes('write', Location.frame, cell, Cost.free);
        else yield agent.reads('read', Location.frame, cell, Cost.free);
        if (write) cells[cell] = (cells[cell] as number) * 10 + index * 3 + at + 1;
        else seen[index]?.push(cells[cell] as number);
      }
    };
    const agents = threads.map((_, index) => new Agent(`t${index}`));
    return {
      tasks: agents.map((agent, index) => ({ agent, task: task(agent, index) })),
      check: () => null,
      checkEnd: () => {
        finals.add(JSON.stringify([cells, seen]));
        return null;
      },
    };
  };
}

const operation = fc.record({ cell: fc.integer({ min: 0, max: 2 }), write: fc.boolean() });

describe('explore', () => {
  it('tries all orders of conflicting steps: two threads of two writes to one cell have six', () => {
    const two = [
      { cell: 0, write: true },
      { cell: 0, write: true },
    ];
    expect(run(program([two, two], new Set())).executions).toBe(6);
  });

  it('tries one order of steps that do not conflict', () => {
    const result = run(
      program([[{ cell: 0, write: true }], [{ cell: 1, write: true }], [{ cell: 2, write: true }]], new Set()),
    );
    expect(result.executions).toBe(1);
  });

  it('sleep sets lose no outcome and need no more executions', () => {
    fc.assert(
      fc.property(fc.array(fc.array(operation, { maxLength: 3 }), { minLength: 1, maxLength: 3 }), (threads) => {
        const all = new Set<string>();
        const reduced = new Set<string>();
        const plain = run(program(threads, all), false);
        const sleeping = run(program(threads, reduced), true);
        expect([...reduced].sort()).toEqual([...all].sort());
        expect(sleeping.executions).toBeLessThanOrEqual(plain.executions);
      }),
      { numRuns: 200 },
    );
  });

  it('finds a lost update and returns the schedule', () => {
    const build = (): ExploredSystem => {
      let counter = 0;
      const increment = function* (agent: Agent): Task<void> {
        yield agent.reads('load', Location.frame, 7, Cost.free);
        const value = counter;
        yield agent.writes('store', Location.frame, 7, Cost.free);
        counter = value + 1;
      };
      const [a, b] = [new Agent('a'), new Agent('b')];
      return {
        tasks: [
          { agent: a, task: increment(a) },
          { agent: b, task: increment(b) },
        ],
        check: () => null,
        checkEnd: () => (counter === 2 ? null : { invariant: 'I2', message: `counter is ${counter}` }),
      };
    };
    const { violation } = run(build);
    expect(violation).toMatchObject({ invariant: 'I2', message: 'counter is 1' });
    expect(
      violation?.schedule
        .filter((step) => step.step === 'load')
        .map((step) => step.agent)
        .sort(),
    ).toEqual(['a', 'b']);
    expect(violation?.schedule[0]?.what).toBe('frame 0x7');
  });

  it('reports a deadlock as I13', () => {
    const build = (): ExploredSystem => {
      const locks = [new Mutex('first'), new Mutex('second')] as const;
      const both = function* (agent: Agent, one: Mutex, two: Mutex): Task<void> {
        yield* one.acquire(agent);
        yield* two.acquire(agent);
        two.release(agent);
        one.release(agent);
      };
      const [a, b] = [new Agent('a'), new Agent('b')];
      return {
        tasks: [
          { agent: a, task: both(a, locks[0], locks[1]) },
          { agent: b, task: both(b, locks[1], locks[0]) },
        ],
        check: () => null,
        checkEnd: () => null,
      };
    };
    expect(run(build).violation).toMatchObject({ invariant: 'I13' });
  });

  it('takes every outcome of a choice, and a daemon may wait for ever', () => {
    const chosen = new Set<number>();
    const build = (): ExploredSystem => {
      const pick = function* (agent: Agent): Task<void> {
        yield agent.chooses('pick', 3);
        chosen.add(agent.step.chosen);
      };
      const never = new Condition('never', () => false);
      const wait = function* (agent: Agent): Task<void> {
        yield agent.waits('idle', never);
      };
      const [a, d] = [new Agent('a'), new Agent('d')];
      return {
        tasks: [
          { agent: a, task: pick(a) },
          { agent: d, task: wait(d), daemon: true },
        ],
        check: () => null,
        checkEnd: () => null,
      };
    };
    expect(run(build).violation).toBe(null);
    expect([...chosen].sort()).toEqual([0, 1, 2]);
  });

  it('turns what a step throws into a violation', () => {
    const build = (): ExploredSystem => {
      const broken = function* (agent: Agent): Task<void> {
        yield agent.spends('work', Cost.free);
        throw new InvariantError('I5', 'freed too early');
      };
      const a = new Agent('a');
      return { tasks: [{ agent: a, task: broken(a) }], check: () => null, checkEnd: () => null };
    };
    expect(run(build).violation).toMatchObject({ invariant: 'I5', message: 'freed too early' });
  });

  it('gives up on a task that never ends', () => {
    const build = (): ExploredSystem => {
      const spin = function* (agent: Agent): Task<void> {
        for (;;) yield agent.spends('spin', Cost.free);
      };
      const a = new Agent('a');
      return { tasks: [{ agent: a, task: spin(a) }], check: () => null, checkEnd: () => null };
    };
    expect(() => run(build)).toThrow('an execution exceeds 10000 steps');
  });
});
