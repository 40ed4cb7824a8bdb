import { type Patch2023Defect, STRATEGIES } from '@faultline/iommufd-core';
import { describe, expect, it, vi } from 'vitest';
import { type Protocol, patch2023Protocol, protocolNamed, splitProtocol } from '../src/index.ts';
import { outcome, quick } from './outcome.ts';

// Explorations take seconds, and more on a machine that does other things besides.
vi.setConfig({ testTimeout: 90_000 });

/** Less still: from 2M, without ATS or with page requests. */
const small = (protocol: Protocol): Protocol => {
  const { configurations, ...rest } = quick(protocol);
  return { ...rest, configurations: configurations.filter(({ name }) => /^2M.*(no ATS|PRI)/.test(name)) };
};

describe('a strategy that claims to be safe', () => {
  it.each(['paired', 'break-before-make', 'cut+collapse'])('%s holds with one preemption', (name) => {
    const result = outcome(small(protocolNamed(name)), { preemptions: 1 });
    expect([result.counterexample, result.verdict]).toEqual([null, 'holds']);
    expect(result.executions).toBeGreaterThan(500);
  });

  it('shared-ept, with CPU faults beside it, holds in orders with no preemption, and in the first ones with one', () => {
    const protocol = small(protocolNamed('shared-ept'));
    const result = outcome(protocol, { preemptions: 0 });
    expect([result.counterexample, result.verdict]).toEqual([null, 'holds']);
    expect(outcome(protocol, { preemptions: 1, maxExecutions: 1000 }).counterexample).toBe(null);
  });

  it('break-before-make is not hitless: the adversary finds the neighbour that faults in between (I4)', () => {
    const claim = { strategy: STRATEGIES['break-before-make'], hitless: true };
    const result = outcome(splitProtocol('claim', 'claim', claim));
    expect(result.counterexample?.invariant).toBe('I4');
    expect(result.counterexample?.configuration).toContain('neighbour');
  });
});

/** What each defect breaks. */
const BREAKS: Readonly<Record<Exclude<Patch2023Defect, 'D7'>, string>> = {
  D1: 'I4',
  D3: 'I8',
  D4: 'I3',
  D5: 'I8',
  D6: 'I8',
  D8: 'I4',
  D9: 'I1',
};
const defects = Object.entries(BREAKS) as [Exclude<Patch2023Defect, 'D7'>, string][];

describe.each(defects)('the posted patch', (defect, breaks) => {
  it(`with ${defect} alone breaks ${breaks}`, () => {
    expect(outcome(patch2023Protocol(defect)).counterexample?.invariant).toBe(breaks);
  });

  it(`without any defect holds in the worlds in which ${defect} shows itself`, () => {
    const { configurations, ...protocol } = patch2023Protocol(defect, []);
    const result = outcome({ ...protocol, configurations: configurations.slice(0, 3) }, { preemptions: 0 });
    expect([result.counterexample, result.verdict]).toEqual([null, 'holds']);
  });
});

it('the posted patch with all its defects is violated', () => {
  expect(outcome(protocolNamed('patch-2023')).verdict).toBe('violated');
});
