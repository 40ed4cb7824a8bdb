import { expect, it } from 'vitest';
import { Agent, Cost, type CostProfile, Location, Mutex, type Task, VirtualTime } from '../src/index.ts';

const zero = Object.fromEntries(Object.keys(Cost).map((name) => [name, { ns: 0, source: 'readme' }]));

it('the example of the README holds', () => {
  const profile = { ...zero, walkRead: { ns: 45, source: 'assumed' } } as unknown as CostProfile;
  const time = new VirtualTime(profile);
  const lock = new Mutex('page-table lock');
  function* reader(agent: Agent): Task<number> {
    yield* lock.acquire(agent);
    yield agent.reads('load entry', Location.entry, 0x1000, Cost.walkRead);
    lock.release(agent);
    return time.nowNs;
  }
  const runs = [new Agent('a'), new Agent('b')].map((agent) => time.spawn(agent, reader(agent)));
  time.run();
  expect(runs.map((run) => run.value)).toEqual([45, 90]);
});
