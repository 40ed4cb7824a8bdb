import { Agent, Cost, Location, type Task } from '@faultline/sim';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type Counterexample,
  contextSwitches,
  type ExplorationResult,
  type ExploredSystem,
  estimateOrders,
  explore,
  exploreAtRandom,
  mermaidSequence,
  replaySchedule,
  shrink,
  textSequence,
} from '../src/index.ts';

function ended(search: Generator<unknown, ExplorationResult>): ExplorationResult {
  let next = search.next();
  while (!next.done) next = search.next();
  return next.value;
}

/** Some threads that each do private reads, then add to a counter without a lock, then read more; `noise` reads before and after. */
function lostUpdate(threads: number, noise: number): () => ExploredSystem {
  return () => {
    let counter = 0;
    const increment = function* (agent: Agent): Task<void> {
      for (let i = 0; i < noise; i++) yield agent.reads('prepare', Location.device, 1, Cost.free);
      yield agent.reads('load', Location.frame, 7, Cost.free);
      const value = counter;
      yield agent.writes('store', Location.frame, 7, Cost.free);
      counter = value + 1;
      for (let i = 0; i < noise; i++) yield agent.reads('rest', Location.device, 1, Cost.free);
    };
    const agents = Array.from({ length: threads }, (_, index) => new Agent(`t${index}`));
    return {
      tasks: agents.map((agent) => ({ agent, task: increment(agent) })),
      check: () => null,
      checkEnd: () => (counter === threads ? null : { invariant: 'I2', message: `counter is ${counter}` }),
    };
  };
}

/** A flag that one thread raises for a moment; another must not see it. */
function glimpse(noise: number): () => ExploredSystem {
  return () => {
    let flag = false;
    let seen = false;
    const a = new Agent('a');
    const b = new Agent('b');
    const raise = function* (): Task<void> {
      for (let i = 0; i < noise; i++) yield a.reads('prepare', Location.device, 1, Cost.free);
      yield a.writes('raise', Location.frame, 1, Cost.free);
      flag = true;
      yield a.writes('lower', Location.frame, 1, Cost.free);
      flag = false;
    };
    const look = function* (): Task<void> {
      for (let i = 0; i < noise; i++) yield b.writes('think', Location.device, 2, Cost.free);
      yield b.reads('look', Location.frame, 1, Cost.free);
      seen = flag;
    };
    return {
      tasks: [
        { agent: a, task: raise() },
        { agent: b, task: look() },
      ],
      check: () => (seen ? { invariant: 'I3', message: 'the flag was seen' } : null),
      checkEnd: () => null,
    };
  };
}

const violationOf = (result: ExplorationResult): Counterexample => {
  if (result.violation === null) throw new Error('nothing was found');
  return result.violation;
};

describe('replaySchedule', () => {
  it('takes the same steps and breaks the same invariant', () => {
    const found = violationOf(ended(explore(lostUpdate(2, 1))));
    const { violation } = replaySchedule(lostUpdate(2, 1), found.schedule);
    expect(violation).toEqual(found);
  });

  it('names the step that cannot be taken', () => {
    expect(() =>
      replaySchedule(lostUpdate(2, 0), [
        { task: 0, chosen: 0 },
        { task: 0, chosen: 1 },
      ]),
    ).toThrow('schedule[1]: t0 cannot go on with outcome 1 here');
    expect(() => replaySchedule(lostUpdate(2, 0), [{ task: 9, chosen: 0 }])).toThrow(
      'schedule[0]: task 9 cannot go on',
    );
  });

  it('of a part of a schedule says only what broke until then', () => {
    const found = violationOf(ended(explore(glimpse(2))));
    expect(replaySchedule(glimpse(2), found.schedule.slice(0, -1)).violation).toBe(null);
  });
});

describe('shrink', () => {
  it('finds the shortest schedule: what is not needed is left out, and the switches that are not', () => {
    const found = violationOf(ended(exploreAtRandom(glimpse(3), { seed: 5, executions: 5000 })));
    const small = shrink(glimpse(3), found);
    // The looker has to come as far as its look, the other as far as its raise: 4 + 4 steps, one switch.
    expect(small.schedule.map(({ step }) => step).sort()).toEqual(
      ['look', 'prepare', 'prepare', 'prepare', 'raise', 'think', 'think', 'think'].sort(),
    );
    expect(contextSwitches(small.schedule)).toBe(1 + Number(small.schedule[0]?.agent === 'b'));
    expect(small.invariant).toBe('I3');
  });

  it('never returns another invariant or a longer schedule, and what it returns can be replayed', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 2, max: 3 }),
        fc.integer({ min: 0, max: 2 }),
        fc.integer(),
        (threads, noise, seed) => {
          const build = lostUpdate(threads, noise);
          const { violation } = ended(exploreAtRandom(build, { seed, executions: 2000 }));
          if (violation === null) return;
          const small = shrink(build, violation, { executions: 2000 });
          expect(small.schedule.length).toBeLessThanOrEqual(violation.schedule.length);
          expect(contextSwitches(small.schedule)).toBeLessThanOrEqual(contextSwitches(violation.schedule));
          expect(replaySchedule(build, small.schedule).violation).toEqual(small);
        },
      ),
      { numRuns: 25 },
    );
  });
});

describe('exploreAtRandom', () => {
  it('finds what needs one preemption, and the same again with the same seed', () => {
    const [first, second] = [1, 1].map((seed) => ended(exploreAtRandom(lostUpdate(3, 2), { seed, executions: 500 })));
    expect(first?.violation?.invariant).toBe('I2');
    expect(second).toEqual(first);
  });

  it('refuses a depth of 0', () => {
    expect(() => ended(exploreAtRandom(glimpse(0), { seed: 1, executions: 1, depth: 0 }))).toThrow(
      'depth: 0 is not a whole number above 0',
    );
  });
});

describe('explore with a bound on preemptions', () => {
  it('finds no lost update with none, and finds it with one', () => {
    expect(ended(explore(lostUpdate(2, 1), { preemptions: 0 })).violation).toBe(null);
    expect(ended(explore(lostUpdate(2, 1), { preemptions: 1 })).violation?.invariant).toBe('I2');
  });

  it('tries both orders of two threads with none, and nothing else', () => {
    expect(ended(explore(glimpse(3), { preemptions: 0 })).executions).toBe(2);
  });
});

describe('estimateOrders', () => {
  it('comes near the number of orders of two threads of steps: (6 over 3) is 20', () => {
    const build = (): ExploredSystem => ({
      tasks: [new Agent('a'), new Agent('b')].map((agent) => ({
        agent,
        task: (function* (): Task<void> {
          for (let i = 0; i < 3; i++) yield agent.writes('write', Location.frame, 1, Cost.free);
        })(),
      })),
      check: () => null,
      checkEnd: () => null,
    });
    expect(ended(explore(build, { reduction: 'none' })).executions).toBe(20);
    expect(10 ** estimateOrders(build, { seed: 1, walks: 20_000 })).toBeCloseTo(20, 0);
  });
});

describe('a counterexample as a picture', () => {
  const small = shrink(glimpse(1), violationOf(ended(explore(glimpse(1)))));

  it('in Mermaid: a participant each, an arrow for what is touched, the verdict as a note', () => {
    const lines = mermaidSequence(small).trimEnd().split('\n');
    expect(lines[0]).toBe('sequenceDiagram');
    expect(lines).toContain('  participant K1 as frame');
    expect(lines.filter((line) => line.includes('->>'))).toHaveLength(small.schedule.length);
    expect(lines.at(-1)).toBe('  Note over A0,A1: I3 broken: the flag was seen');
  });

  it('in text: a column each, no line wider than the terminal', () => {
    for (const width of [40, 80, 120]) {
      const lines = textSequence(small, width);
      for (const line of lines) expect(line.length).toBeLessThanOrEqual(width);
      expect(lines.at(-1)).toBe('I3 broken: the flag was seen');
      expect(lines.filter((line) => /[●○]/.test(line))).toHaveLength(small.schedule.length);
    }
  });
});
