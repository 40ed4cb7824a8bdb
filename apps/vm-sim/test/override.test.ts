import { describe, expect, it } from 'vitest';
import { buildMachine } from '../src/run/driven-machine.ts';
import { invoke } from './support/invocation.ts';

async function resolved(...sets: string[]) {
  const args = sets.flatMap((set) => ['--set', set]);
  const { code, out, err } = await invoke(['check', '1g-swap-storm', '--json', ...args]);
  return code === 0 ? JSON.parse(out) : err;
}

describe('--set', () => {
  it('types the value by what the schema expects, later ones win', async () => {
    expect(await resolved('vm.memory=2G', 'reclaim.batch=8', 'strategy=whole-leaf', 'reclaim.batch=9')).toMatchObject({
      vm: { memory: '2G' },
      reclaim: { batch: 9 },
      strategy: 'whole-leaf',
    });
    expect(await resolved('vm.devices.accelerator.writeFraction=.25', 'name=7')).toMatchObject({
      name: '7',
      vm: { devices: { accelerator: { writeFraction: 0.25 } } },
    });
  });

  it('takes null, lists and maps, and members of lists', async () => {
    const event = '[{at: 1ms, action: madvise-dontneed, gpa: 0x0, length: 2M}]';
    expect(
      await resolved('vm.devices.nic=null', `events=${event}`, 'events.0.at=2ms', 'events[0].length=4M'),
    ).toMatchObject({
      vm: { devices: { nic: null } },
      events: [{ at: '2ms', gpa: '0x0', length: '4M' }],
    });
    expect(await resolved('vm.devices.nic=null', 'vm.devices.nic.queues=3')).toMatchObject({
      vm: { devices: { nic: { queues: 3 } } },
    });
    expect(await resolved('reclaim=null')).toMatchObject({ reclaim: null });
    expect(await resolved('vm.devices.nic={queues: 5}')).toMatchObject({ vm: { devices: { nic: { queues: 5 } } } });
  });

  it.each([
    ['vm.memroy=2G', 'vm has no "memroy"; did you mean "vm.memory"?'],
    ['memory=2G', 'a scenario has no "memory"; did you mean "host.memory" or "vm.memory"?'],
    ['memmory=2G', 'did you mean "host.memory" or "vm.memory"?'],
    ['xyzzy=1', 'a scenario has no "xyzzy"; there is name'],
    ['vm.memory.x=1', 'vm.memory is a single value, it has no "x"'],
    ['events.first.at=1ms', 'events is a list: its members are numbered from 0'],
    ['events.1.at=1ms', 'the list has 0 members, there is no 1'],
    ['seed=4', 'the seed is an option of its own, --seed'],
    ['iommu.reservePages=1000000000', 'iommu.reservePages: expected at most 65536'],
    ['vm.devices.disk.queueDepth=1000000000', 'expected at most 1024'],
    ['name=', 'name: expected at least one character, and none that controls a terminal, got ""'],
    ['events[0].at=5ms', '--set events[0].at=5ms: events[0].action: expected one of madvise-dontneed, migrate,'],
    ['iommu.iotlb.4K.sets=4', '--set iommu.iotlb.4K.sets=4: iommu.iotlb.2M is missing; expected a map'],
    ['vm.memory', 'expected path=value'],
    ['=3', 'expected path=value'],
    ['vm.memory=16', '--set vm.memory=16: vm.memory: expected a size'],
    ['vm.memory=', 'expected a size'],
    ['reclaim.batch=', 'expected a number, got ""'],
    ['reclaim.batch=0x10', 'expected a number, got "0x10"'],
    ['reclaim.batch=-1', 'expected at least 1, got -1'],
    ['vm={', '--set vm={: '],
    ['vm={memroy: 1G}', '--set vm={memroy: 1G}: unknown key "memroy" in vm; did you mean "memory"?'],
    ['__proto__.x=1', 'a scenario has no "__proto__"'],
    ['vm.constructor=1', 'vm has no "constructor"'],
  ])('%s is refused', async (set, message) => {
    expect(await resolved(set)).toContain(message);
  });

  it.each([
    ['duration=0ns', '--set duration=0ns: duration: expected at least 1ns, got 0ns'],
    ['vm.memory=0B', '--set vm.memory=0B: vm.memory: expected at least 64K, got 0B'],
    ['host.memory=1G', '1g-swap-storm: vm.memory: 16G is more than host.memory, 1G'],
    [
      'iommu.pageRequestEntries=3',
      '--set iommu.pageRequestEntries=3: iommu.pageRequestEntries: expected a power of two',
    ],
  ])('%s, which only the machine can refuse, is refused with its place', async (set, message) => {
    const { code, err } = await invoke(['check', '1g-swap-storm', '--set', set], { buildMachine });
    expect({ code, err }).toEqual({ code: 2, err: expect.stringContaining(message) });
  });
});
