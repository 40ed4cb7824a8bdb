import { describe, expect, it } from 'vitest';
import { Machine, type ScenarioInput, scenarioSchema } from '../src/index.ts';
import { checks, run, TINY, violated } from './run-scenario.ts';

type Devices = NonNullable<NonNullable<ScenarioInput['vm']>['devices']>;
const withDevices = (devices: Devices, more: Partial<ScenarioInput> = {}): ScenarioInput => ({
  ...TINY,
  ...more,
  vm: { ...TINY.vm, devices: { accelerator: null, disk: null, nic: null, ...devices } },
});

describe('a device that cannot fault on all paths', () => {
  it.each<[string, Devices]>([
    ['a NIC that declares its rings only', { nic: { declares: ['descriptor', 'completion'] } }],
    ['a NIC that declares nothing', { nic: { declares: false } }],
    ['an accelerator without ATS', { accelerator: { ats: false, workingSet: '8M' } }],
    ['an accelerator that drops writes', { accelerator: { workingSet: '8M', paths: { write: 'drop' } } }],
  ])('%s is refused, with its name and the path', (_, devices) => {
    const [name = ''] = Object.keys(devices);
    const stats = run(withDevices(devices, { expect: 'refused' }));
    expect(stats.verdict).toBe('refused');
    expect(stats.refusal).toMatchObject({ vm: 'vm0', device: name, code: 'EOPNOTSUPP' });
    expect(stats.refusal?.reason).toContain(`vm0 ${name}`);
    expect(stats.dma.requests).toBe(0);
    expect(violated(stats)).toEqual([]);
    expect(checks(stats, 'I12')).toBeGreaterThan(0);
  });

  it('with declared ranges just these are pinned, and nothing of them faults', () => {
    const stats = run(withDevices({ nic: {}, accelerator: TINY.vm.devices.accelerator }));
    expect(stats.verdict).toBe('ok');
    expect(stats.hostMm.pinnedBytes).toBeGreaterThan(0);
    expect(stats.hostMm.pinnedBytes).toBeLessThan(64 << 20);
    expect(stats.dma.dropped).toBe(0);
    expect(stats.hostMm.swapOut).toBeGreaterThan(0);
  });

  it('a disk without ATS works beside devices that fault: all that it uses is pinned', () => {
    const stats = run(withDevices({ disk: { ats: false, buffers: '1M' }, accelerator: TINY.vm.devices.accelerator }));
    expect(violated(stats)).toEqual([]);
    expect(stats.vms[0]?.devices.find(({ name }) => name === 'disk')?.dma).toMatchObject({ aborted: 0, dropped: 0 });
    expect(stats.vms[0]?.devices.find(({ name }) => name === 'disk')?.dma.completed).toBeGreaterThan(0);
  });

  it('pin-all: a device that cannot say where it goes has everything pinned, and nothing is swapped', () => {
    const devices: Devices = { nic: { declares: false }, accelerator: TINY.vm.devices.accelerator };
    const stats = run(withDevices(devices, { iommu: { onUnfaultable: 'pin-all' } }));
    expect(violated(stats)).toEqual([]);
    expect(stats.hostMm).toMatchObject({ pinnedBytes: 64 << 20, swapOut: 0 });
    expect(stats.dma.dropped).toBe(0);
  });

  it('a NIC whose driver says that it can wait, and that drops: iommufd finds the lie', () => {
    const nic = { queues: 4, interval: '2us', receiveBuffers: 256, claims: { write: 'stall' } } as const;
    const events = [{ at: '1ms', every: '500us', action: 'migrate', gpa: '0x1200000', length: '2M' }] as const;
    const stats = run(withDevices({ nic }, { events: [...events] }));
    expect(stats.dma.dropped).toBeGreaterThan(0);
    expect(stats.faults.lies).toBe(stats.dma.dropped);
    expect(violated(stats)).toEqual([]);
    const honest = run(withDevices({ nic: { ...nic, claims: {} } }, { events: [...events] }));
    expect([honest.dma.dropped, honest.faults.lies]).toEqual([0, 0]);
  });

  it('credits bound the page requests under way', () => {
    const accelerator = { workingSet: '32M', queues: 8, refaults: 0.5 } as const;
    const events = [{ at: '1ms', action: 'madvise-dontneed', gpa: '0x2000000', length: '32M' }] as const;
    const few = run(withDevices({ accelerator: { ...accelerator, credits: 1 } }, { events: [...events] }));
    const many = run(withDevices({ accelerator }, { events: [...events] }));
    for (const stats of [few, many]) expect(violated(stats)).toEqual([]);
    expect(few.dma.latencyNs.max).toBeGreaterThan(many.dma.latencyNs.max);
  });

  it.each<[Devices, string]>([
    [{ nic: { ats: false, paths: { read: 'stall' } } }, 'vm.devices.nic.paths.read: to stall needs ATS and PRI'],
    [{ disk: { buffers: '0K' } }, 'vm.devices.disk.buffers: expected a multiple of 4K above zero'],
  ])('%j cannot be built', (devices, message) => {
    expect(() => new Machine(scenarioSchema.parse(withDevices(devices)), { seed: 1 })).toThrow(message);
  });
});

describe('fault policies', () => {
  const devices = { accelerator: { workingSet: '8M', queues: 2, refaults: 0 }, disk: null, nic: null };
  const policy = (faultPolicy: NonNullable<NonNullable<ScenarioInput['iommu']>['faultPolicy']>): ScenarioInput => ({
    ...TINY,
    reclaim: null,
    vm: { ...TINY.vm, devices },
    iommu: { faultPolicy },
  });

  it('nothing is mapped before it is used, with leaves no larger than allowed', () => {
    const none = run(policy({ prefault: 'none', largest: '4K' }));
    expect(violated(none)).toEqual([]);
    expect(none.iopt.leavesBefore).toEqual({ '4K': 0, '2M': 0, '1G': 0 });
    expect(none.iopt.leaves).toMatchObject({ '2M': 0, '1G': 0 });
    expect(none.faults.outcomes.mapped).toBeGreaterThan(100);
    expect(none.innocent.faulted).toBe(0);
  });

  it('fault-around saves page requests', () => {
    const alone = run(policy({ prefault: 'none', largest: '4K' }));
    const around = run(policy({ prefault: 'none', largest: '4K', around: 64 }));
    expect(violated(around)).toEqual([]);
    expect(around.faults.pageRequests).toBeLessThan(alone.faults.pageRequests / 4);
  });

  it('a window that is no power of two is refused', () => {
    expect(() => new Machine(scenarioSchema.parse(policy({ around: 3 })), { seed: 1 })).toThrow(
      'iommu.faultPolicy.around: expected a power of two, got 3',
    );
  });
});

describe('the balloon', () => {
  it('gives pages back and takes them again; no DMA goes to a page that it holds', () => {
    const stats = run({
      ...TINY,
      reclaim: null,
      duration: '10ms',
      vm: { ...TINY.vm, balloon: { size: '256K', batch: 16, interval: '50us', hold: '300us' } },
    });
    expect(violated(stats)).toEqual([]);
    expect(stats.hostMm.balloonedPages).toBeGreaterThan(64);
    expect(stats.hostMm.swapOut).toBe(0);
    expect(stats.innocent.faulted).toBe(0);
  });

  it.each([
    [{ size: '1G' }, 'vm.balloon.size: expected 4K to vm.memory, 64M, got 1G'],
    [{ interval: '0ns' }, 'vm.balloon.interval: expected at least 1ns'],
  ])('%j is refused', (balloon, message) => {
    const scenario = scenarioSchema.parse({ ...TINY, vm: { ...TINY.vm, balloon } });
    expect(() => new Machine(scenario, { seed: 1 })).toThrow(message);
  });
});

describe('dirty tracking', () => {
  it('reports every page that DMA wrote, in whole leaves; without it there is nothing to check', () => {
    const on = run(TINY);
    expect(checks(on, 'I6')).toBe(on.dirty.writtenPages);
    expect(on.dirty.reportedPages).toBeGreaterThan(on.dirty.writtenPages);
    const off = run({ ...TINY, iommu: { accessedDirty: false } });
    expect([checks(off, 'I6'), off.dirty.reportedPages]).toEqual([0, 0]);
  });
});
