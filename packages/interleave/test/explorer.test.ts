import { Agent, Condition, Cost, Location, Mutex, type Task } from '@faultline/sim';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type ExplorationResult, type ExploredSystem, explore, InvariantError } from '../src/index.ts';

function run(build: () => ExploredSystem, reduction: 'none' | 'sleep-sets' | 'dpor' = 'dpor'): ExplorationResult {
  const search = explore(build, { reduction });
  let next = search.next();
  while (!next.done) next = search.next();
  return next.value;
}

/** One operation of a random program over shared cells, locks and flags; what was read shows in the outcome. */
type Operation =
  | { readonly does: 'read' | 'write'; readonly cell: number }
  | { readonly does: 'lock' | 'unlock'; readonly lock: number }
  | { readonly does: 'raise' | 'await'; readonly flag: number }
  | { readonly does: 'choose' | 'local' };

/** A program of some threads. Outcomes, deadlocks among them, are added to `outcomes`. */
function program(threads: readonly (readonly Operation[])[], outcomes: Set<string>): () => ExploredSystem {
  return () => {
    const cells = [0, 0, 0];
    const flags = [false, false];
    const locks = [new Mutex('a'), new Mutex('b')];
    const raised = flags.map((_, flag) => new Condition(`flag ${flag}`, () => flags[flag] === true));
    const seen: unknown[][] = threads.map(() => []);
    const note = (index: number, what: unknown) => {
      (seen[index] as unknown[]).push(what);
      return null;
    };
    const task = function* (agent: Agent, index: number): Task<void> {
      for (const [at, operation] of (threads[index] ?? []).entries())
        switch (operation.does) {
          case 'write':
            yield agent.writes('write', Location.frame, operation.cell, Cost.free);
            cells[operation.cell] = (cells[operation.cell] as number) * 10 + index * 3 + at + 1;
            break;
          case 'read':
            yield agent.reads('read', Location.frame, operation.cell, Cost.free);
            note(index, cells[operation.cell]);
            break;
          case 'lock':
            if (locks[operation.lock]?.owner !== agent) yield* (locks[operation.lock] as Mutex).acquire(agent);
            break;
          case 'unlock':
            if (locks[operation.lock]?.owner === agent) locks[operation.lock]?.release(agent);
            break;
          case 'raise':
            yield agent.writes('raise', Location.device, operation.flag, Cost.free);
            flags[operation.flag] = true;
            break;
          case 'await':
            yield agent.waits('await', raised[operation.flag] as Condition);
            break;
          case 'choose':
            yield agent.chooses('choose', 2);
            note(index, `chose ${agent.step.chosen}`);
            break;
          default:
            yield agent.spends('think', Cost.free);
        }
      for (const lock of locks) if (lock.owner === agent) lock.release(agent);
      note(index, 'done');
    };
    const agents = threads.map((_, index) => new Agent(`t${index}`));
    return {
      // Daemons: a program that waits for ever is an outcome like any other.
      tasks: agents.map((agent, index) => ({ agent, task: task(agent, index), daemon: true })),
      check: () => null,
      checkEnd: () => {
        outcomes.add(JSON.stringify([cells, seen]));
        return null;
      },
    };
  };
}

const operation: fc.Arbitrary<Operation> = fc.oneof(
  fc.record({ does: fc.constantFrom('read' as const, 'write' as const), cell: fc.integer({ min: 0, max: 2 }) }),
  fc.record({ does: fc.constantFrom('lock' as const, 'unlock' as const), lock: fc.integer({ min: 0, max: 1 }) }),
  fc.record({ does: fc.constantFrom('raise' as const, 'await' as const), flag: fc.integer({ min: 0, max: 1 }) }),
  fc.record({ does: fc.constantFrom('choose' as const, 'local' as const) }),
);

const GIVER = new Agent('giver');

/** Workers that take jobs from a queue which a task fills; a job multiplies cells. Outcomes do not say who did what. */
function workplace(
  jobs: readonly (readonly number[])[],
  workers: number,
  alike: boolean,
  outcomes: Set<string>,
): () => ExploredSystem {
  return () => {
    const cells = [1, 1, 1];
    const queue: (readonly number[])[] = [];
    const finished: string[] = [];
    const work = new Condition('work', () => queue.length > 0);
    const giver = function* (agent: Agent): Task<void> {
      for (const job of jobs) {
        yield agent.writes('give', Location.lock, work.id, Cost.free);
        queue.push(job);
      }
    };
    const worker = function* (agent: Agent): Task<void> {
      for (;;) {
        yield agent.waits('take', work);
        const job = queue.shift();
        if (!job) continue;
        for (const [at, cell] of job.entries()) {
          yield agent.writes('write', Location.frame, cell, Cost.free);
          cells[cell] = ((cells[cell] as number) * 7 + at + job.length + jobs.indexOf(job)) % 1009;
        }
        yield agent.writes('finish', Location.device, 0, Cost.free);
        finished.push(job.join());
      }
    };
    return {
      tasks: [
        { agent: GIVER, task: giver(GIVER) },
        ...Array.from({ length: workers }, (_, index) => {
          const agent = new Agent(`worker ${index}`);
          return { agent, task: worker(agent), daemon: true, ...(alike ? { alike: 'worker' } : {}) };
        }),
      ],
      check: () => null,
      checkEnd: () => {
        outcomes.add(JSON.stringify([cells, finished]));
        return null;
      },
    };
  };
}

describe('explore', () => {
  it('tries all orders of conflicting steps: two threads of two writes to one cell have six', () => {
    const two = [
      { does: 'write', cell: 0 },
      { does: 'write', cell: 0 },
    ] as const;
    expect(run(program([two, two], new Set())).executions).toBe(6);
  });

  it('tries one order of steps that do not conflict', () => {
    const result = run(
      program([[{ does: 'write', cell: 0 }], [{ does: 'write', cell: 1 }], [{ does: 'write', cell: 2 }]], new Set()),
    );
    expect(result.executions).toBe(1);
  });

  it('no reduction loses an outcome of a random program, and each needs no more executions than the one before', () => {
    fc.assert(
      fc.property(fc.array(fc.array(operation, { maxLength: 4 }), { minLength: 2, maxLength: 3 }), (threads) => {
        const results = (['none', 'sleep-sets', 'dpor'] as const).map((reduction) => {
          const outcomes = new Set<string>();
          const { executions, pruned } = run(program(threads, outcomes), reduction);
          return { outcomes: [...outcomes].sort(), tried: executions + pruned };
        });
        const [all, sleeping, reduced] = results as [(typeof results)[0], (typeof results)[0], (typeof results)[0]];
        expect(sleeping.outcomes).toEqual(all.outcomes);
        expect(reduced.outcomes).toEqual(all.outcomes);
        expect(sleeping.tried).toBeLessThanOrEqual(all.tried);
        expect(reduced.tried).toBeLessThanOrEqual(sleeping.tried);
      }),
      { numRuns: 300 },
    );
  });

  it('workers that are alike: each outcome is found, whoever came to it, in fewer executions', () => {
    fc.assert(
      fc.property(
        fc.array(fc.array(fc.integer({ min: 0, max: 2 }), { minLength: 1, maxLength: 2 }), {
          minLength: 1,
          maxLength: 3,
        }),
        fc.integer({ min: 2, max: 3 }),
        (jobs, workers) => {
          const results = [false, true].map((alike) => {
            const outcomes = new Set<string>();
            const { executions } = run(workplace(jobs, workers, alike, outcomes));
            return { outcomes: [...outcomes].sort(), executions };
          });
          const [all, reduced] = results as [(typeof results)[0], (typeof results)[0]];
          expect(reduced.outcomes).toEqual(all.outcomes);
          expect(reduced.executions).toBeLessThan(all.executions);
        },
      ),
      { numRuns: 60 },
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
