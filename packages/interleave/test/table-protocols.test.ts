import { expect, it, vi } from 'vitest';
import { type Protocol, protocolNamed } from '../src/index.ts';
import { outcome } from './outcome.ts';

// Explorations take seconds, and more on a machine that does other things besides.
vi.setConfig({ testTimeout: 90_000 });

it.each(['map', 'unmap', 'collapse', 'dirty-harvest', 'detach'])('%s holds in every order', (name) => {
  const result = outcome(protocolNamed(name));
  expect([result.counterexample, result.verdict]).toEqual([null, 'holds']);
});

const some = (protocol: Protocol, of: RegExp): Protocol => ({
  ...protocol,
  configurations: protocol.configurations.filter(({ name }) => of.test(name)),
});

it('fault-vs-fault holds in every order where no table page is refused', () => {
  const result = outcome(some(protocolNamed('fault-vs-fault'), /allocation succeeds$/));
  expect([result.counterexample, result.verdict]).toEqual([null, 'holds']);
  expect(result.configurations).toHaveLength(4);
});

// A DMA to the page that is taken has many more orders: `strategies.slow.test.ts` has them all.
it('fault-vs-notifier holds in every order of a DMA to the neighbour of a 2M leaf, and in random ones of all', () => {
  const protocol = protocolNamed('fault-vs-notifier');
  const all = outcome(some(protocol, /^2M.*neighbour.*allocation succeeds$/));
  expect([all.counterexample, all.configurations.length]).toEqual([null, 1]);
  const random = outcome(protocol, { random: { executions: 100, seed: 1 } });
  expect([random.counterexample, random.configurations.length]).toEqual([null, 8]);
});
