import { expect, it } from 'vitest';
import { Machine, scenarioSchema } from '../src/index.ts';

it('the example of the README holds', () => {
  const scenario = scenarioSchema.parse({
    strategy: 'cut',
    vm: { memory: '2G', devices: { disk: null } },
    host: { memory: '3G', swap: '1G' },
    reclaim: { pages: 100 },
    duration: '5ms',
  });
  const machine = new Machine(scenario, { seed: 1 });
  machine.boot();
  while (!machine.runUntil(machine.progress.virtualTimeNs + 1e6)); // a slice of 1 ms
  const stats = machine.finish();
  expect(stats.verdict).toBe('ok');
  expect(stats.innocent).toEqual({ faulted: 0, stalled: 0, stalledNs: 0 });
  expect(stats.hostMm.swapOut).toBeGreaterThan(0);
});
