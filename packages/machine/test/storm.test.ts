import { describe, expect, it } from 'vitest';
import { randomScenario, runStormMachine, scenarioSchema, shrinkScenario } from '../src/index.ts';

describe('a storm', () => {
  it('draws scenarios that the schema takes, the same for the same seed', () => {
    for (let seed = 1; seed <= 300; seed++) {
      expect(scenarioSchema.safeParse(randomScenario(seed)).success).toBe(true);
      expect(randomScenario(seed)).toEqual(randomScenario(seed));
    }
    expect(new Set(Array.from({ length: 100 }, (_, seed) => JSON.stringify(randomScenario(seed)))).size).toBe(100);
  });

  it('runs machines with no violation, some of them with failures on purpose', () => {
    const outcomes = Array.from({ length: 12 }, (_, index) => runStormMachine(index + 1, randomScenario(index + 1)));
    for (const { seed, failure } of outcomes) expect([seed, failure]).toEqual([seed, null]);
    expect(outcomes.reduce((sum, { figures }) => sum + figures.dmaPages, 0)).toBeGreaterThan(1000);
  }, 60_000);

  it('a VM for which there is no memory, and an empty reserve without table pages, are no failure', () => {
    const short = { strategy: 'pinned', reclaim: null, duration: '1us' } as const;
    const vm = { name: 'vm0', memory: '2M', backing: '4K', memoryMax: '1M' } as const;
    const devices = { accelerator: null, disk: null, nic: null };
    expect(runStormMachine(1, { ...short, vm: { ...vm, devices } }).failure).toBe(null);
    const empty = {
      strategy: 'cut',
      duration: '300us',
      iommu: { reservePages: 0 },
      inject: { tableAllocation: 0.5 },
    } as const;
    expect(runStormMachine(1034, { ...empty, vm: { memory: '1G' }, host: { memory: '2G', swap: '1G' } }).failure).toBe(
      null,
    );
  });

  it('notices what breaks, and makes it small', () => {
    const scenario = {
      strategy: 'naive',
      duration: '400us',
      vm: { memory: '1G', devices: { nic: null, disk: null } },
      host: { memory: '2G', swap: '1G' },
      reclaim: { pages: 64, interval: '5us' },
      events: [{ at: '100us', action: 'compact' }],
    } as const;
    const outcome = runStormMachine(3, { ...scenario, events: [...scenario.events] });
    expect(outcome.failure).not.toBe(null);
    const { scenario: small, failure } = shrinkScenario(3, outcome, { budget: 40 });
    expect(failure.kind).toBe(outcome.failure?.kind);
    expect(small.events).toBe(undefined);
    expect(runStormMachine(3, small).failure?.kind).toBe(failure.kind);
    let asked = 0;
    const stopped = shrinkScenario(3, outcome, { shouldStop: () => ++asked > 2 });
    expect(stopped.runs).toBe(2);
    expect(stopped.failure.kind).toBe(failure.kind);
  }, 60_000);
});
