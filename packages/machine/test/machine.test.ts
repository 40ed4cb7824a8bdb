import { EventLog } from '@faultline/sim';
import { describe, expect, it } from 'vitest';
import { BUILT_IN_SCENARIOS, Machine, type ScenarioInput, type StatsDocument, scenarioSchema } from '../src/index.ts';

const SMALL: ScenarioInput = {
  vm: { memory: '2G', devices: { accelerator: { workingSet: '2G', queues: 2 }, disk: { buffers: '16M' } } },
  host: { memory: '3G', swap: '1G' },
  reclaim: { pages: 150 },
  duration: '8ms',
};

function run(input: ScenarioInput, seed = 1, sliceNs = Number.POSITIVE_INFINITY): StatsDocument {
  const machine = new Machine(scenarioSchema.parse(input), { seed });
  machine.boot();
  if (sliceNs === Number.POSITIVE_INFINITY) machine.runUntil(sliceNs);
  else for (let at = sliceNs; !machine.runUntil(at); at += sliceNs);
  return machine.finish();
}

const violated = (stats: StatsDocument) => stats.invariants.filter((invariant) => invariant.violations > 0);
const checks = (stats: StatsDocument, id: string) => stats.invariants.find((invariant) => invariant.id === id)?.checks;

describe('cut', () => {
  const stats = run({ ...SMALL, strategy: 'cut' });

  it('holds, and nobody outside the pages taken away faults', () => {
    expect(violated(stats)).toEqual([]);
    expect(stats.verdict).toBe('ok');
    expect(stats.innocent).toEqual({ faulted: 0, stalled: 0, stalledNs: 0 });
    expect(stats.dma.aborted + stats.dma.dropped).toBe(0);
  });

  it('checks each invariant that it claims', () => {
    for (const id of ['I1', 'I2', 'I3', 'I4', 'I6', 'I7', 'I8', 'I9', 'I10', 'I11', 'I12', 'I13'])
      expect(checks(stats, id), id).toBeGreaterThan(0);
  });

  it('swaps out what it was asked for, and device faults bring pages back', () => {
    expect(stats.hostMm.swapOut).toBeGreaterThanOrEqual(100);
    expect(stats.faults.responses.success).toBeGreaterThan(0);
    expect(stats.faults.responses).toMatchObject({ invalid: 0, failure: 0 });
    expect(stats.hostMm.majorFaults).toBeGreaterThan(0);
  });

  it('keeps its books: leaves add up to what is mapped, splits to the tables', () => {
    const { leaves, mappedBytes, splits, tablePages } = stats.iopt;
    expect(leaves['4K'] * 4096 + leaves['2M'] * 2 ** 21 + leaves['1G'] * 2 ** 30).toBe(mappedBytes);
    // Root and one PDPT for the first 512 GiB, then one table per split.
    expect(tablePages).toBe(2 + splits['1G->2M'] + splits['2M->4K']);
    expect(stats.hostMm.residentBytes + stats.hostMm.swappedBytes).toBe(2 ** 31);
    expect(stats.hostMm.freedBytes).toBe(stats.hostMm.swappedBytes);
  });
});

describe('same seed, same bytes', () => {
  it('whole or in slices, with or without a sink', () => {
    const input = { ...SMALL, strategy: 'cut' } as const;
    const whole = JSON.stringify(run(input, 7));
    expect(JSON.stringify(run(input, 7, 100_000))).toBe(whole);
    const machine = new Machine(scenarioSchema.parse(input), { seed: 7, sink: new EventLog() });
    machine.boot();
    machine.runUntil(Number.POSITIVE_INFINITY);
    expect(JSON.stringify(machine.finish())).toBe(whole);
    expect(JSON.stringify(run(input, 8))).not.toBe(whole);
  });

  it.each([2, 3, 4, 5, 6])('cut holds with seed %i', (seed) => {
    const stats = run({ ...SMALL, strategy: 'cut' }, seed);
    expect(violated(stats)).toEqual([]);
  });
});

describe('other strategies', () => {
  it('pinned: nothing is reclaimed and nothing faults', () => {
    const stats = run({ ...SMALL, strategy: 'pinned' });
    expect(stats.verdict).toBe('ok');
    expect(stats.hostMm).toMatchObject({ swapOut: 0, swappedBytes: 0, pinnedBytes: 2 ** 31 });
    expect(stats.faults.pageRequests).toBe(0);
    expect(stats.iopt.leaves).toEqual({ '4K': 0, '2M': 0, '1G': 2 });
  });

  it('whole-leaf: safe, but innocents fault, and no split is made', () => {
    const stats = run({ ...SMALL, strategy: 'whole-leaf' });
    expect(violated(stats)).toEqual([]);
    expect(stats.innocent.faulted).toBeGreaterThan(10);
    expect(stats.iopt.splits).toEqual({ '1G->2M': 0, '2M->4K': 0 });
  });

  it('whole-leaf with several reclaimers maps no page that a notifier is taking away', () => {
    const stats = run({ ...SMALL, strategy: 'whole-leaf', reclaim: { pages: 400, reclaimers: 4, interval: '5us' } });
    expect(violated(stats)).toEqual([]);
  });

  it('naive: guest words are taken for entries until the host dies of it', () => {
    const naive = BUILT_IN_SCENARIOS.find((scenario) => scenario.name === 'naive-unmap');
    const stats = run({ ...naive?.scenario });
    expect(stats.verdict).toBe('host-crashed');
    expect(stats.crash?.reason).toMatch(/bad page state|page fault in the kernel/);
    expect(stats.crash?.mistaken.length).toBeGreaterThan(0);
    expect(stats.crash?.freed.length).toBeGreaterThan(0);
    expect(stats.crash?.mistaken.at(-1)?.owner).toMatch(/^vm0, guest page 0x/);
    // The hardware still has every large leaf: stale DMA is what the other half of the bug looks like.
    expect(stats.iopt.leaves['1G']).toBe(16);
    expect(violated(stats).map((invariant) => invariant.id)).toContain('I8');
  });
});

describe('variations', () => {
  it.each(['thp-2M', '4K', 'contiguous', 'hugetlb-2M'] as const)('backing of %s', (backing) => {
    const stats = run({
      ...SMALL,
      vm: { ...SMALL.vm, backing, memory: '256M' },
      host: { memory: '512M', swap: '256M' },
    });
    expect(violated(stats)).toEqual([]);
    expect(stats.iopt.leavesBefore['1G']).toBe(0);
    // The huge page pool is never swapped.
    if (backing === 'hugetlb-2M') expect(stats.hostMm.swapOut).toBe(0);
    else expect(stats.hostMm.swapOut).toBeGreaterThan(0);
  });

  it('a split that fires CLEAR over the whole leaf, as Linux does, takes it all away', () => {
    const stats = run({ ...SMALL, strategy: 'cut', host: { ...SMALL.host, splitNotify: 'clear' } });
    expect(violated(stats)).toEqual([]);
    expect(stats.faults.pageRequests).toBeGreaterThan(run({ ...SMALL, strategy: 'cut' }).faults.pageRequests);
  });

  it('a full swap device ends reclaim, not the run', () => {
    const stats = run({ ...SMALL, host: { memory: '3G', swap: '64K' }, reclaim: { pages: 1000 } });
    expect(violated(stats)).toEqual([]);
    expect(stats.hostMm.swappedBytes).toBeLessThanOrEqual(65536);
  });

  it('a guest that gives 2M back gets zero pages when it returns', () => {
    const event = { at: '7900us', action: 'madvise-dontneed', gpa: '0x40000000', length: '2M' } as const;
    const stats = run({ ...SMALL, strategy: 'cut', events: [event] });
    expect(violated(stats)).toEqual([]);
    expect(stats.hostMm.freedBytes).toBeGreaterThan(stats.hostMm.swappedBytes);
  });

  it('no device at all, and no reclaim', () => {
    const devices = { accelerator: null, disk: null, nic: null };
    const stats = run({ ...SMALL, vm: { memory: '2G', devices }, reclaim: null });
    expect(stats.verdict).toBe('ok');
    expect(stats.dma.requests).toBe(0);
  });

  it('an interrupted run keeps what it has and says so', () => {
    const machine = new Machine(scenarioSchema.parse({ ...SMALL, duration: '1s' }), { seed: 1 });
    machine.boot();
    expect(machine.runUntil(3_000_000)).toBe(false);
    const stats = machine.finish({ interrupted: true });
    expect(stats.interrupted).toBe(true);
    expect(stats.verdict).toBe('ok');
    expect(stats.dma.requests).toBeGreaterThan(0);
    expect(stats.virtualTimeNs).toBeLessThan(10_000_000);
  });

  it('boots in slices, and says so; interrupted there, it has nothing to check', () => {
    const input = scenarioSchema.parse({ ...SMALL, vm: { memory: '64M', backing: '4K', devices: { disk: null } } });
    const machine = new Machine(input, { seed: 1 });
    expect(machine.runUntil(100_000)).toBe(false);
    expect(machine.progress.phase).toBe('booting');
    const stats = machine.finish({ interrupted: true });
    expect(stats).toMatchObject({ interrupted: true, verdict: 'ok', dma: { requests: 0 } });
    const whole = new Machine(input, { seed: 1 });
    while (!whole.runUntil(whole.progress.virtualTimeNs + 1_000_000));
    expect(whole.finish().bootNs).toBeGreaterThan(1_000_000);
  });

  it('no pause outlives the duration, and reclaim takes no more than it was asked for', () => {
    const stats = run({
      ...SMALL,
      duration: '2ms',
      vm: { ...SMALL.vm, cpuTouchInterval: '10s' },
      reclaim: { pages: 5, batch: 1000, interval: '1us' },
    });
    expect(stats.virtualTimeNs - stats.bootNs).toBeLessThan(5_000_000);
    expect(stats.hostMm.swapOut).toBe(5);
  });

  it('records events for a timeline', () => {
    const sink = new EventLog();
    const machine = new Machine(scenarioSchema.parse({ ...SMALL, strategy: 'cut' }), { seed: 1, sink });
    machine.boot();
    machine.runUntil(Number.POSITIVE_INFINITY);
    machine.finish();
    const names = new Set(sink.events.map((event) => event.name));
    expect([...names].sort()).toEqual(['I/O page fault', 'reclaim', 'take away']);
  });
});

describe('a scenario that cannot be built', () => {
  it.each<[ScenarioInput, string]>([
    [{ vm: { memory: '4G' }, host: { memory: '2G' } }, 'vm.memory: 4G is more than host.memory, 2G'],
    [{ vm: { memory: '1025M' } }, 'vm.memory: 1025M is not a multiple of its backing, pud-thp'],
    [{ events: [{ at: '1ms', action: 'madvise-dontneed', gpa: '0x1001', length: '4K' }] }, 'events[0]: gpa and length'],
    [{ events: [{ at: '1ms', action: 'madvise-dontneed', gpa: '0xc0000000', length: '4K' }] }, 'events[0]: gpa'],
    [{ vm: { memory: '1G', devices: { disk: { buffers: '8G' } } } }, 'disk buffers'],
    [
      { duration: '1ms', events: [{ at: '9s', action: 'madvise-dontneed', gpa: '0x0', length: '4K' }] },
      'events[0].at: 9s is after the end, duration 1ms',
    ],
    [
      {
        vm: {
          memory: '64M',
          backing: 'thp-2M',
          devices: {
            accelerator: { workingSet: '4K', queues: 1, request: '4K' },
            nic: null,
            disk: { request: '4K', buffers: '49136K' },
          },
        },
      },
      'vm.devices.accelerator.workingSet: 4K is all rings and buffers',
    ],
    [{ iommu: { pageRequestEntries: 3 } }, 'iommu.pageRequestEntries: expected a power of two, got 3'],
    [{ duration: '0ns' }, 'duration: expected at least 1ns, got 0ns'],
    [{ vm: { memory: '0K' } }, 'vm.memory: expected at least 64K, got 0K'],
    [{ vm: { memory: '4K', backing: '4K' } }, 'vm.memory: expected at least 64K, got 4K'],
    [{ host: { memory: '9999T' } }, 'host.memory: expected at most 4T, got 9999T'],
    [{ host: { swap: '99T' } }, 'host.swap: expected less than 4T, got 99T'],
    [
      { vm: { devices: { accelerator: { request: '0K' } } } },
      'accelerator.request: expected a multiple of 4K above zero',
    ],
    [{ vm: { devices: { accelerator: { request: '99G' } } } }, 'accelerator.request: 99G is more than workingSet, 16G'],
    [{ vm: { devices: { disk: { buffers: '1K' } } } }, 'vm.devices.disk.buffers: expected a multiple of 4K'],
    [
      { iommu: { iotlb: { '4K': { sets: 3, ways: 4 }, '2M': { sets: 1, ways: 1 }, '1G': { sets: 1, ways: 1 } } } },
      'iommu.iotlb.4K.sets: expected a power of two, got 3',
    ],
  ])('%j', (input, message) => {
    expect(() => new Machine(scenarioSchema.parse(input), { seed: 1 })).toThrow(message);
  });
});
