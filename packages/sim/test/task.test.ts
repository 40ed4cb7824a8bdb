import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  Access,
  type AccessMode,
  Agent,
  ANY_LOCATION,
  assert,
  Condition,
  Cost,
  type CostProfile,
  costTableNs,
  EventLog,
  type Footprint,
  Location,
  NULL_SINK,
  runToEnd,
  Step,
  stepsConflict,
  type Task,
  TaskRun,
} from '../src/index.ts';
import { TEST_PROFILE } from './test-profile.ts';

const agent = new Agent('walker');

function* twoSteps(log: string[]): Task<string> {
  try {
    yield agent.reads('first', Location.entry, 7, Cost.walkRead);
    log.push('first');
    yield agent.chooses('second', 2);
    log.push(`second ${agent.step.chosen}`);
    return 'value';
  } finally {
    log.push('finally');
  }
}

describe('a step', () => {
  it('is the one object of its agent, refilled whole each time', () => {
    const gate = new Condition('gate', () => true);
    const written = agent.writes('w', Location.frame, 9, Cost.entryWrite, 3);
    expect({ ...written }).toMatchObject({ label: 'w', kind: 5, location: 9, access: 2, cost: 6, units: 3 });
    expect(agent.waits('wait', gate)).toBe(written);
    expect({ ...written }).toMatchObject({
      kind: Location.lock,
      location: gate.id,
      access: 2,
      units: 0,
      waitFor: gate,
    });
    agent.chooses('pick', 3).chosen = 2;
    expect({ ...written }).toMatchObject({ waitFor: null, choices: 3, access: 0 });
    agent.spends('think', Cost.nanosecond, 5);
    expect({ ...written }).toMatchObject({ choices: 0, chosen: 0, kind: Location.nothing, access: 0, units: 5 });
    expect({ ...agent.reads('r', Location.entry, 1, Cost.walkRead) }).toMatchObject({
      access: 1,
      units: 1,
      waitFor: null,
    });
    expect({ ...new Step() }).toMatchObject({ label: '', waitFor: null, choices: 0, chosen: 0 });
  });
  it('conflicts with another iff they share a location that one of them writes', () => {
    const mode = fc.constantFrom<AccessMode>(Access.none, Access.read, Access.write);
    const kind = fc.constantFrom(Location.entry, Location.frame);
    const location = fc.constantFrom(0, 1, ANY_LOCATION);
    const step = fc.record({
      access: mode,
      kind,
      location,
      alsoAccess: mode,
      alsoKind: kind,
      alsoLocation: location,
    });
    type Touch = { access: number; kind: number; location: number };
    const touches = (footprint: Footprint): Touch[] => [
      { access: footprint.access, kind: footprint.kind, location: footprint.location },
      { access: footprint.alsoAccess, kind: footprint.alsoKind, location: footprint.alsoLocation },
    ];
    const clash = (a: Touch, b: Touch): boolean => {
      const same = a.location === b.location || a.location === ANY_LOCATION || b.location === ANY_LOCATION;
      const modes = `${[a.access, b.access].sort()}`;
      return a.kind === b.kind && same && (modes === '1,2' || modes === '2,2');
    };
    fc.assert(
      fc.property(step, step, (a, b) => {
        const expected = touches(a).some((one) => touches(b).some((other) => clash(one, other)));
        expect(stepsConflict(a, b)).toBe(expected);
        expect(stepsConflict(b, a)).toBe(expected);
      }),
    );
  });
  it('has room for a second location, which the next step forgets', () => {
    const agent = new Agent('walker');
    const step = agent.reads('read SS-PDE', Location.entry, 8, Cost.walkRead);
    expect(agent.alsoWrites(step, Location.translationCache, 3)).toMatchObject({
      access: Access.read,
      alsoAccess: Access.write,
      alsoKind: Location.translationCache,
      alsoLocation: 3,
    });
    expect(agent.reads('read SS-PTE', Location.entry, 9, Cost.walkRead).alsoAccess).toBe(Access.none);
  });
});

describe('a task run', () => {
  it('announces a step before it happens and keeps the value', () => {
    const log: string[] = [];
    const run = new TaskRun(agent, twoSteps(log));
    expect([run.pending, run.enabled, run.done, run.value]).toEqual([null, true, false, undefined]);
    run.advance();
    expect([run.pending?.label, log.length]).toEqual(['first', 0]);
    run.advance();
    expect([run.pending?.label, log]).toEqual(['second', ['first']]);
    agent.step.chosen = 1;
    run.advance();
    expect([run.done, run.enabled, run.value, run.pending]).toEqual([true, false, 'value', null]);
    expect(log).toEqual(['first', 'second 1', 'finally']);
  });
  it('is enabled as its waitable is ready', () => {
    let open = false;
    const gate = new Condition('gate', () => open);
    function* waiter(): Task<void> {
      yield agent.waits('wait', gate);
    }
    const run = new TaskRun(agent, waiter());
    run.advance();
    expect(run.enabled).toBe(false);
    open = true;
    expect(run.enabled).toBe(true);
  });
  it('is cancelled through its finally blocks, also before its first step', () => {
    const log: string[] = [];
    const run = new TaskRun(agent, twoSteps(log));
    run.advance();
    run.cancel();
    expect([run.done, run.enabled, run.pending, log]).toEqual([true, false, null, ['finally']]);
    const unstarted = new TaskRun(agent, twoSteps(log));
    unstarted.cancel();
    expect([unstarted.done, log]).toEqual([true, ['finally']]);
  });
});

describe('runToEnd', () => {
  it('takes the ordinary outcome of every choice', () => {
    const log: string[] = [];
    expect(runToEnd(twoSteps(log))).toBe('value');
    expect(log).toEqual(['first', 'second 0', 'finally']);
  });
  it('passes on what is thrown and refuses to wait for nobody', () => {
    function* waiter(): Task<void> {
      yield agent.waits('sleep', new Condition('godot', () => false));
    }
    expect(() => runToEnd(waiter())).toThrow('runToEnd: the task waits for godot (sleep) and nobody else runs');
    function* thrower(): Task<void> {
      yield agent.spends('x', Cost.free);
      throw new TypeError('mine');
    }
    expect(() => runToEnd(thrower())).toThrow(TypeError);
  });
});

describe('costs', () => {
  it('are indexed by class and must all be there', () => {
    expect(costTableNs(TEST_PROFILE)[Cost.lock]).toBe(2.3);
    const { lock: _, ...rest } = TEST_PROFILE;
    expect(() => costTableNs(rest as CostProfile)).toThrow('cost profile: lock has no duration in ns');
    for (const ns of [-1, Number.NaN])
      expect(() => costTableNs({ ...TEST_PROFILE, pinPage: { ns, source: 'test' } })).toThrow(RangeError);
  });
});

describe('events and assertions', () => {
  it('a log keeps the first events and counts the rest', () => {
    const log = new EventLog(1);
    const event = { atNs: 1, durationNs: 0, track: 'a', name: 'cut', args: {} };
    log.record(event);
    log.record(event);
    expect([log.enabled, log.events, log.dropped]).toEqual([true, [event], 1]);
    NULL_SINK.record(event);
    expect(NULL_SINK.enabled).toBe(false);
  });
  it('assert throws what is wrong', () => {
    expect(() => assert(false, 'I12: a pin is left')).toThrow('assertion failed: I12: a pin is left');
    assert(true, 'fine');
  });
});
