import { expect, it, vi } from 'vitest';
import { protocolNamed } from '../src/index.ts';
import { outcome } from './outcome.ts';

// Explorations take seconds, and more on a machine that does other things besides.
vi.setConfig({ testTimeout: 90_000 });

it.each(['map', 'unmap', 'collapse', 'dirty-harvest', 'detach'])('%s holds in every order', (name) => {
  const result = outcome(protocolNamed(name));
  expect([result.counterexample, result.verdict]).toEqual([null, 'holds']);
});

// All orders of these take hours; `strategies.slow.test.ts` goes further.
it.each(['fault-vs-notifier', 'fault-vs-fault'])('%s holds in random schedules', (name) => {
  const result = outcome(protocolNamed(name), { random: { executions: 300, seed: 1 } });
  expect([result.counterexample, result.verdict]).toEqual([null, 'holds']);
});
