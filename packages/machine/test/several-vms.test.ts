import { describe, expect, it } from 'vitest';
import { Machine, type ScenarioInput, scenarioSchema } from '../src/index.ts';
import { run, TINY, violated } from './run-scenario.ts';

const { vm, ...rest } = TINY;
const PAIR: ScenarioInput = {
  ...rest,
  vms: [
    { ...vm, name: 'alpha' },
    { ...vm, name: 'beta', backing: '4K', devices: { ...vm.devices, nic: null } },
  ],
};

describe('two VMs on one host', () => {
  const stats = run(PAIR);

  it('hold, each with its own figures, and the totals are their sums', () => {
    expect(violated(stats)).toEqual([]);
    expect(stats.vms.map(({ name }) => name)).toEqual(['alpha', 'beta']);
    const [alpha, beta] = stats.vms;
    expect(stats.dma.requests).toBe((alpha?.dma.requests ?? 0) + (beta?.dma.requests ?? 0));
    expect(stats.hostMm.residentBytes).toBe((alpha?.hostMm.residentBytes ?? 0) + (beta?.hostMm.residentBytes ?? 0));
    expect(stats.hostMm.notifierRanges).toBe((alpha?.hostMm.notifierRanges ?? 0) + (beta?.hostMm.notifierRanges ?? 0));
    expect(stats.faults.groups).toBe((alpha?.faults.groups ?? 0) + (beta?.faults.groups ?? 0));
    for (const each of [alpha, beta]) {
      expect(each?.faults.responses.success).toBeGreaterThan(0);
      expect(each?.dirty.reportedPages).toBeGreaterThanOrEqual(each?.dirty.writtenPages ?? 0);
    }
    expect(beta?.devices.map(({ name }) => name)).toEqual(['accelerator', 'disk']);
  });

  it('give the same bytes for the same seed', () => {
    expect(JSON.stringify(run(PAIR))).toBe(JSON.stringify(stats));
    expect(JSON.stringify(run(PAIR, 2))).not.toBe(JSON.stringify(stats));
  });

  it('one VM in a list is the VM of before', () => {
    const listed = run({ ...rest, vms: [vm] });
    expect(listed).toEqual(run(TINY));
  });

  it('one process dies, the other goes on', () => {
    const after = run({ ...PAIR, events: [{ at: '1ms', action: 'process-exit', vm: 'beta' }] });
    expect(violated(after)).toEqual([]);
    expect(after.vms.map(({ hostMm }) => hostMm.residentBytes > 0)).toEqual([true, false]);
    expect(after.vms[0]?.dma.requests).toBeGreaterThan(after.vms[1]?.dma.requests ?? 0);
  });

  it('more memory than the host has is taken from both', () => {
    const tight = run({ ...PAIR, host: { memory: '112M', swap: '128M' }, reclaim: null });
    expect(violated(tight)).toEqual([]);
    expect(tight.hostMm.swapOut).toBeGreaterThan(1000);
  });
});

describe('VMs that do not go together', () => {
  it.each<[ScenarioInput, string]>([
    [{ ...rest, vms: [vm, vm] }, 'vms[1].name: vm0 is the name of another VM'],
    [{ ...PAIR, vm: { memory: '2G' } }, 'vm: is for a scenario with one VM'],
    [{ ...PAIR, strategy: 'pinned', host: { memory: '100M', swap: '1G' } }, 'vms: 128M of pinned or hugetlb memory'],
    [
      { ...PAIR, host: { memory: '80M', swap: '32M' } },
      'vms: 128M in all is more than host.memory, 80M, and host.swap',
    ],
    [{ ...PAIR, host: { memory: '32M', swap: '1G' } }, 'vms[0].memory: 64M is more than host.memory, 32M'],
    [
      { ...rest, vms: [{ ...vm, devices: { disk: { request: '1K' } } }] },
      'vms[0].devices.disk.request: expected a multiple of 4K',
    ],
  ])('%#: %s', (input, message) => {
    expect(() => new Machine(scenarioSchema.parse(input), { seed: 1 })).toThrow(message);
  });
});
