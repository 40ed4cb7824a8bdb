import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Agent, type ChoicePolicy, Condition, Cost, type Task, VirtualTime } from '../src/index.ts';
import { NaiveTime } from './naive-time.ts';
import { type Op, ProgramRun, programs } from './task-program.ts';
import { TEST_PROFILE } from './test-profile.ts';

function* sleeper(agent: Agent, ns: readonly number[], log: string[], time: VirtualTime): Task<number> {
  for (const units of ns) {
    yield agent.spends('sleep', Cost.nanosecond, units);
    log.push(`${time.nowNs} ${agent.name}`);
  }
  return time.nowNs;
}

function* wait(agent: Agent, condition: Condition): Task<void> {
  do yield agent.waits('wait', condition);
  while (!condition.ready());
}

describe('order', () => {
  it('is by time, then by who was scheduled first', () => {
    const time = new VirtualTime(TEST_PROFILE);
    const log: string[] = [];
    const runs = [
      ['a', [5, 5]],
      ['b', [10]],
      ['c', [3, 2, 5]],
    ].map(([name, ns]) => {
      const agent = new Agent(name as string);
      return time.spawn(agent, sleeper(agent, ns as number[], log, time));
    });
    expect(time.run()).toBe(true);
    // Scheduled for 10 ns: b at 0 ns, then a and c at 5 ns, a first.
    expect(log).toEqual(['3 c', '5 a', '5 c', '10 b', '10 a', '10 c']);
    expect(runs.map((run) => [run.done, run.value, run.pending])).toEqual([
      [true, 10, null],
      [true, 10, null],
      [true, 10, null],
    ]);
    expect(time.unfinished()).toEqual([]);
  });
  it('rounds the cost of a step, not of a unit', () => {
    const time = new VirtualTime(TEST_PROFILE);
    expect([time.costNs(Cost.walkRead), time.costNs(Cost.walkRead, 4), time.costNs(Cost.free, 100)]).toEqual([0, 2, 0]);
  });
});

type Outcome = { log: string[]; error: string; endNs: number };

function outcome(log: string[], time: { nowNs: number }, go: () => void): Outcome {
  let error = '';
  try {
    go();
  } catch (thrown) {
    error = (thrown as Error).message;
  }
  return { log, error, endNs: time.nowNs };
}

const choices = (): ChoicePolicy => {
  let calls = 0;
  return (_agent, _label, count) => calls++ % count;
};

function naively(tasks: readonly (readonly Op[])[]): Outcome {
  const time = new NaiveTime(choices());
  const run = new ProgramRun(time);
  for (const [index, ops] of tasks.entries()) run.start(`t${index}`, ops);
  return outcome(run.log, time, () => time.run());
}

/** In slices of `sliceNs`; a program's own `stop` ends a slice early. */
function virtually(tasks: readonly (readonly Op[])[], sliceNs: number): Outcome {
  const time = new VirtualTime(TEST_PROFILE, choices());
  const run = new ProgramRun(time);
  for (const [index, ops] of tasks.entries()) run.start(`t${index}`, ops);
  return outcome(run.log, time, () => {
    for (let untilNs = sliceNs; !time.run(untilNs); untilNs += sliceNs) expect(time.nowNs).toBeLessThanOrEqual(untilNs);
  });
}

describe('running on without requeueing', () => {
  it('gives the order, times, choices and deadlocks of a scheduler that always requeues', () => {
    fc.assert(
      fc.property(programs, (tasks) => {
        expect(virtually(tasks, Number.POSITIVE_INFINITY)).toEqual(naively(tasks));
      }),
      { numRuns: 1000 },
    );
  });
  it('is not changed by stops and time limits', () => {
    fc.assert(
      fc.property(programs, fc.integer({ min: 1, max: 9 }), (tasks, sliceNs) => {
        expect(virtually(tasks, sliceNs)).toEqual(naively(tasks));
      }),
      { numRuns: 500 },
    );
  });
});

describe('waiting', () => {
  it('ends with a wake-up and reports who waits for ever', () => {
    const time = new VirtualTime(TEST_PROFILE);
    let open = false;
    const gate = new Condition('gate', () => open);
    const [early, late] = [new Agent('early'), new Agent('late')];
    const run = time.spawn(early, wait(early, gate));
    time.spawn(late, wait(late, new Condition('godot', () => false)));
    expect(() => time.run()).toThrow(/^deadlock at 0 ns: early waits for gate; late waits for godot$/);
    expect(gate.waiters).toBe(1);
    open = true;
    gate.wake();
    expect(() => time.run()).toThrow(/^deadlock at 0 ns: late waits for godot$/);
    expect([run.done, gate.waiters]).toEqual([true, 0]);
  });
  it('of a daemon is no deadlock', () => {
    const time = new VirtualTime(TEST_PROFILE);
    const agent = new Agent('kswapd');
    time.spawn(agent, wait(agent, new Condition('pressure', () => false)), { daemon: true });
    expect(time.run()).toBe(true);
    expect(time.unfinished()).toEqual([]);
  });
});

describe('stop and time limits', () => {
  it('a limit leaves the clock at the last step and runs what is due at the limit itself', () => {
    const time = new VirtualTime(TEST_PROFILE);
    const log: string[] = [];
    const agent = new Agent('a');
    time.spawn(agent, sleeper(agent, [4, 4, 4], log, time));
    expect([time.run(8), time.nowNs, log.length]).toEqual([false, 8, 2]);
    expect([time.run(11), time.nowNs, log.length]).toEqual([false, 8, 2]);
    expect([time.run(), time.nowNs, log.length]).toEqual([true, 12, 3]);
  });
  it('a limit in the past runs nothing, also when the run was stopped amid one instant', () => {
    const time = new VirtualTime(TEST_PROFILE);
    const log: string[] = [];
    const [a, b] = [new Agent('a'), new Agent('b')];
    function* stopper(): Task<void> {
      yield a.spends('sleep', Cost.nanosecond, 10);
      time.stop();
    }
    time.spawn(a, stopper());
    time.spawn(b, sleeper(b, [10], log, time));
    expect(time.run()).toBe(false);
    expect([time.run(5), log]).toEqual([false, []]);
    expect([time.run(), log]).toEqual([true, ['10 b']]);
  });
});

describe('a task that throws', () => {
  it('throws through run, counts as done, and leaves the others able to go on', () => {
    const time = new VirtualTime(TEST_PROFILE);
    const log: string[] = [];
    const [bad, good] = [new Agent('bad'), new Agent('good')];
    function* thrower(): Task<void> {
      yield bad.spends('sleep', Cost.nanosecond, 3);
      throw new Error('broken');
    }
    const run = time.spawn(bad, thrower());
    time.spawn(good, sleeper(good, [5], log, time));
    expect(() => time.run()).toThrow('broken');
    expect([run.done, run.enabled, time.unfinished().length]).toEqual([true, false, 1]);
    expect([time.run(), log]).toEqual([true, ['5 good']]);
  });
});

describe('a cancelled task', () => {
  it('does not move the clock to where it slept', () => {
    const time = new VirtualTime(TEST_PROFILE);
    const agent = new Agent('a');
    const run = time.spawn(agent, sleeper(agent, [10, 1000], [], time));
    expect(time.run(10)).toBe(false);
    run.cancel();
    expect([time.run(), time.nowNs, run.done]).toEqual([true, 10, true]);
  });
  it('that waits is not missed by the deadlock report nor by a wake-up', () => {
    const time = new VirtualTime(TEST_PROFILE);
    const agent = new Agent('a');
    const gate = new Condition('gate', () => false);
    const run = time.spawn(agent, wait(agent, gate));
    expect(() => time.run()).toThrow('deadlock');
    run.cancel();
    expect(time.run()).toBe(true);
    gate.wake();
    expect(time.run()).toBe(true);
  });
});
