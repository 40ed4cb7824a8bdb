import { Agent, Cost, Location, type Task } from '@faultline/sim';
import { expect, it } from 'vitest';
import { type ExploredSystem, explore } from '../src/index.ts';

it('the example of the README holds', () => {
  const build = (): ExploredSystem => {
    let counter = 0;
    const increment = function* (agent: Agent): Task<void> {
      yield agent.reads('load', Location.frame, 7, Cost.free);
      const value = counter;
      yield agent.writes('store', Location.frame, 7, Cost.free);
      counter = value + 1;
    };
    return {
      tasks: [new Agent('a'), new Agent('b')].map((agent) => ({ agent, task: increment(agent) })),
      check: () => null,
      checkEnd: () => (counter === 2 ? null : { invariant: 'I2', message: `counter is ${counter}` }),
    };
  };
  const search = explore(build);
  let next = search.next();
  while (!next.done) next = search.next();
  expect(next.value.violation?.message).toBe('counter is 1');
  const schedule = next.value.violation?.schedule.map(({ agent, step }) => `${agent} ${step}`) ?? [];
  expect(schedule).toHaveLength(4);
  expect(schedule.slice(0, 2)).toEqual(['a load', 'b load']);
});
