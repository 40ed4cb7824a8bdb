import { describe, expect, it } from 'vitest';
import { Machine, type ScenarioInput, STRATEGIES, type StatsDocument, scenarioSchema } from '../src/index.ts';
import { checks, run, TINY, violated } from './run-scenario.ts';

type EventInput = NonNullable<ScenarioInput['events']>[number];

const WORKING_SET = { gpa: '0x2000000', length: '4M' } as const;
const withEvents = (events: EventInput[], more: Partial<ScenarioInput> = {}): ScenarioInput => ({
  ...TINY,
  ...more,
  events,
});
const outcomesOf = (stats: StatsDocument, index = 0) => stats.events[index]?.outcomes ?? {};

describe('host events under DMA', () => {
  it.each<[string, EventInput[], string[]]>([
    ['migrate', [{ at: '1ms', every: '1ms', action: 'migrate', gpa: '0x2000000', length: '512K' }], ['moved']],
    ['compact', [{ at: '1ms', every: '1ms', action: 'compact' }], ['done']],
    ['numa-hint', [{ at: '1ms', every: '500us', action: 'numa-hint', ...WORKING_SET }], ['done']],
    ['soft-dirty', [{ at: '1ms', every: '2ms', action: 'soft-dirty' }], ['done']],
    ['madvise-dontneed', [{ at: '1ms', every: '1ms', action: 'madvise-dontneed', ...WORKING_SET }], ['done']],
    ['khugepaged', [{ at: '1ms', every: '1ms', action: 'khugepaged' }], []],
    ['collapse', [{ at: '2ms', every: '1ms', action: 'collapse', ...WORKING_SET }], []],
  ])('%s: nothing is violated, and no innocent page faults', (action, events, outcomes) => {
    const stats = run(withEvents(events));
    expect(violated(stats)).toEqual([]);
    expect(stats.verdict).toBe('ok');
    expect(stats.innocent.faulted).toBe(0);
    expect(stats.events).toMatchObject([{ action }]);
    expect(stats.events[0]?.times).toBeGreaterThan(0);
    for (const outcome of outcomes) expect(outcomesOf(stats)[outcome]).toBeGreaterThan(0);
  });

  it('ksm merges what the guest made equal, also of two VMs, and DMA breaks the merge by a copy', () => {
    const equalPages = { gpa: '0x2000000', length: '512K', distinct: 16 };
    const { reclaim, ...tiny } = TINY;
    const stats = run({
      ...tiny,
      reclaim: null,
      vm: {
        ...tiny.vm,
        equalPages,
        devices: { accelerator: { workingSet: '32M', refaults: 0.3 }, disk: null, nic: null },
      },
      events: [{ at: '500us', every: '1ms', action: 'ksm', gpa: '0x2000000', length: '512K' }],
    });
    expect(violated(stats)).toEqual([]);
    expect(outcomesOf(stats).merged).toBeGreaterThan(50);
    expect(stats.hostMm.vmstat.cow_ksm).toBeGreaterThan(0);
    const two = run({
      ...tiny,
      vms: ['a', 'b'].map((name) => ({
        ...tiny.vm,
        name,
        cpuRefaults: 0,
        equalPages: { ...equalPages, distinct: 128 },
        devices: { accelerator: { workingSet: '16M', refaults: 0 }, disk: null, nic: null },
      })),
      vm: undefined,
      reclaim: null,
      events: [{ at: '500us', action: 'ksm', gpa: '0x2000000', length: '512K' }],
    });
    expect(violated(two)).toEqual([]);
    // Of 128 contents in each, none is twice in one VM.
    expect(outcomesOf(two).merged).toBeGreaterThan(50);
    expect(two.hostMm.ksm.pagesSharing).toBeGreaterThan(0);
  });

  it('poison: the page is lost, whoever comes back to it is refused, and nothing leaks', () => {
    const stats = run(
      withEvents([{ at: '1ms', action: 'poison', gpa: '0x2000000', length: '256K' }], {
        vm: { ...TINY.vm, devices: { ...TINY.vm.devices, accelerator: { workingSet: '32M', refaults: 0.5 } } },
      }),
    );
    expect(violated(stats)).toEqual([]);
    expect(outcomesOf(stats).recovered).toBeGreaterThan(50);
    expect(stats.faults.responses.invalid + stats.hostMm.failedCpuAccesses).toBeGreaterThan(0);
  });

  it.each(['cut', 'pinned'] as const)(
    'process-exit under %s: every fault has its answer, every pin comes back',
    (strategy) => {
      const stats = run(withEvents([{ at: '2ms', action: 'process-exit' }], { strategy }));
      expect(violated(stats)).toEqual([]);
      expect(stats.hostMm.residentBytes).toBe(0);
      expect(checks(stats, 'I12')).toBeGreaterThan(0);
      if (strategy === 'cut') expect(stats.faults.responses.invalid).toBeGreaterThan(0);
    },
  );

  it('happens as often as it was asked for, and is an event of the timeline', () => {
    const stats = run(withEvents([{ at: '1ms', every: '200us', times: 3, action: 'compact' }]));
    expect(stats.events).toEqual([{ action: 'compact', times: 3, outcomes: { done: 3 } }]);
  });

  it.each(STRATEGIES.filter((name) => name !== 'naive' && name !== 'patch-2023'))(
    '%s holds under migration, numa hints and soft-dirty at once',
    (strategy) => {
      const devices = { accelerator: TINY.vm.devices.accelerator, disk: null, nic: null };
      const events: EventInput[] = [
        { at: '1ms', every: '700us', action: 'migrate', ...WORKING_SET },
        { at: '1ms', every: '900us', action: 'numa-hint', ...WORKING_SET },
        { at: '2ms', every: '3ms', action: 'soft-dirty' },
      ];
      const stats = run(withEvents(events, { strategy, vm: { ...TINY.vm, devices } }));
      expect(violated(stats)).toEqual([]);
      for (const id of ['I1', 'I2', 'I6', 'I12']) expect(checks(stats, id), id).toBeGreaterThan(0);
    },
  );
});

describe('an event that cannot happen', () => {
  it.each<[Partial<EventInput>, string]>([
    [{ action: 'migrate' }, 'events[0]: migrate needs a range; expected gpa and length'],
    [{ action: 'migrate', gpa: '0x0' }, 'events[0]: migrate needs a range'],
    [{ action: 'compact', gpa: '0x0', length: '4K' }, 'events[0].gpa: compact has no range'],
    [{ action: 'ksm', gpa: '0x3fff000', length: '8K' }, 'is not within the memory of vm0'],
    [{ action: 'ksm', gpa: '0x10', length: '8K' }, 'gpa and length must be multiples of 4K'],
    [{ action: 'soft-dirty', vm: 'vm7' }, 'events[0].vm: there is no VM "vm7"; there is vm0'],
    [{ action: 'compact', vm: 'vm0' }, 'events[0].vm: compact is for the whole host'],
    [{ action: 'unplug' }, 'events[0].device: unplug needs one; vm0 has accelerator, disk, nic'],
    [{ action: 'unplug', device: 'gpu' }, 'vm0 has no device "gpu"; it has accelerator, disk, nic'],
    [{ action: 'compact', device: 'nic' }, 'events[0].device: compact has no device'],
    [{ action: 'compact', times: 3 }, 'events[0].times: is for an event that repeats'],
    [{ action: 'compact', every: '0ns' }, 'events[0].every: expected at least 1ns'],
    [{ action: 'process-exit', every: '1ms' }, 'events[0].every: process-exit happens once'],
    [{ action: 'compact', at: '7ms' }, 'events[0].at: 7ms is after the end, duration 6ms'],
  ])('%j: %s', (event, message) => {
    const scenario = scenarioSchema.parse({ ...TINY, events: [{ at: '1ms', ...event }] });
    expect(() => new Machine(scenario, { seed: 1 })).toThrow(message);
  });
});

describe('devices that come off their HWPT under DMA', () => {
  const busy = {
    ...TINY.vm,
    devices: { ...TINY.vm.devices, accelerator: { workingSet: '32M', queues: 8, refaults: 0.5 } },
  };

  it.each(['cut', 'whole-leaf', 'shared-ept', 'pinned'] as const)(
    'hwpt-replace under %s: each group has one answer, nothing leaks, no device dies',
    (strategy) => {
      const devices = strategy === 'whole-leaf' ? { ...busy.devices, disk: null, nic: null } : busy.devices;
      const events: EventInput[] = [{ at: '1ms', every: '600us', action: 'hwpt-replace' }];
      const stats = run(withEvents(events, { strategy, vm: { ...busy, devices } }));
      expect(violated(stats)).toEqual([]);
      expect(outcomesOf(stats).done).toBeGreaterThan(2);
      for (const id of ['I6', 'I9', 'I12']) expect(checks(stats, id), id).toBeGreaterThan(0);
    },
  );

  it('one device moves, the others stay where they are, and the old HWPT with them', () => {
    const stats = run(withEvents([{ at: '1ms', action: 'hwpt-replace', device: 'accelerator' }], { vm: busy }));
    expect(violated(stats)).toEqual([]);
    // Two tables map the guest now.
    expect(stats.iopt.mappedBytes).toBeGreaterThan(2 * (60 << 20));
  });

  it('unplug with page requests under way: they are answered, and the device asks for nothing more', () => {
    const events: EventInput[] = [
      { at: '2ms', action: 'madvise-dontneed', gpa: '0x2000000', length: '32M' },
      { at: '2040us', action: 'unplug', device: 'accelerator' },
    ];
    const stats = run(withEvents(events, { vm: busy }));
    expect(violated(stats)).toEqual([]);
    expect(stats.vms[0]?.devices.find(({ name }) => name === 'accelerator')?.dma.aborted).toBeGreaterThan(0);
    expect(stats.vms[0]?.devices.find(({ name }) => name === 'nic')?.dma.requests).toBeGreaterThan(100);
  });

  it('two devices pulled out, one after the other, and a replacement of what is left', () => {
    const events: EventInput[] = [
      { at: '1ms', action: 'unplug', device: 'accelerator' },
      { at: '1500us', action: 'hwpt-replace' },
      { at: '2ms', action: 'unplug', device: 'nic' },
    ];
    const stats = run(withEvents(events, { vm: busy }));
    expect(violated(stats)).toEqual([]);
    expect(stats.events.map(({ outcomes }) => outcomes)).toEqual([{ done: 1 }, { done: 1 }, { done: 1 }]);
  });
});
