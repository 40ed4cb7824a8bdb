import { expect, it } from 'vitest';
import { patch2023Protocol, protocolNamed } from '../src/index.ts';
import { outcome, quick } from './outcome.ts';

it.each(['cut', 'whole-leaf', 'paired', 'break-before-make', 'cut+collapse'])(
  '%s holds in every order of every configuration',
  (name) => {
    const result = outcome(protocolNamed(name));
    expect([result.counterexample, result.verdict]).toEqual([null, 'holds']);
    expect(result.configurations).toHaveLength(60);
  },
);

// `fault-vs-notifier` has half a million executions.
it.each([
  ['prq', 9],
  ['fault-vs-fault', 8],
  ['fault-vs-notifier', 8],
])('%s holds in every order of every configuration', { timeout: 3_600_000 }, (name, configurations) => {
  const result = outcome(protocolNamed(name));
  expect([result.counterexample, result.verdict]).toEqual([null, 'holds']);
  expect(result.configurations).toHaveLength(configurations);
});

it('shared-ept holds in every order from 2M, without page requests, a second walker or lost entries', () => {
  const { configurations: all, ...protocol } = quick(protocolNamed('shared-ept'));
  const configurations = all.filter(({ name }) => /^2M.*, (no )?ATS,/.test(name));
  const result = outcome({ ...protocol, configurations });
  expect([result.counterexample, result.verdict]).toEqual([null, 'holds']);
  expect(result.configurations).toHaveLength(24);
});

it.each(['D1', 'D3', 'D5', 'D6', 'D8', 'D9'] as const)(
  'the posted patch without defects holds in all orders of the worlds of %s',
  (stage) => {
    expect(outcome(patch2023Protocol(stage, [])).verdict).toBe('holds');
  },
);

it('the posted patch without defects holds with one preemption where 700 pages are discarded', () => {
  const { configurations, ...protocol } = patch2023Protocol('D4', []);
  // One configuration: all eight take eight minutes.
  expect(outcome({ ...protocol, configurations: configurations.slice(0, 1) }, { preemptions: 1 }).verdict).toBe(
    'holds',
  );
});
