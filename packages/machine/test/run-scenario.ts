import { Machine, type ScenarioInput, type StatsDocument, scenarioSchema } from '../src/index.ts';

/** Runs a scenario to its end. */
export function run(input: ScenarioInput, seed = 1): StatsDocument {
  const machine = new Machine(scenarioSchema.parse(input), { seed });
  machine.runUntil(Number.POSITIVE_INFINITY);
  return machine.finish();
}

/** Ids of the invariants that were violated, with the first violation. */
export const violated = (stats: StatsDocument): string[] =>
  stats.invariants.filter(({ violations }) => violations > 0).map(({ id, first }) => `${id}: ${first}`);

/** How often an invariant was checked. */
export const checks = (stats: StatsDocument, id: string): number =>
  stats.invariants.find((invariant) => invariant.id === id)?.checks ?? 0;

/** A VM that boots in no time: 64 MiB, with an accelerator that comes back to what the host takes. */
export const TINY = {
  strategy: 'cut',
  duration: '6ms',
  host: { memory: '256M', swap: '128M' },
  reclaim: { pages: 60, interval: '20us' },
  vm: {
    memory: '64M',
    backing: 'thp-2M',
    devices: {
      accelerator: { workingSet: '48M', queues: 2, refaults: 0.1 },
      disk: { buffers: '1M' },
      nic: { queues: 1, receiveBuffers: 16 },
    },
  },
} as const satisfies ScenarioInput;
