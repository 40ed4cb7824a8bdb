import { parseDurationNs, parseSize } from '@faultline/address';
import { GuestLayout } from '@faultline/vm-guest';
import { BACKING_GRANULE, type Scenario } from './scenario.ts';

/** Frame numbers are below 2^31. */
const MOST_BYTES = 4n << 40n;
/** Swap entries are below 2^30, the first 512 of them unused. */
const MOST_SWAP_BYTES = (2n ** 30n - 1024n) * 4096n;
/** With less, no page may be left beside the guest's own tables. */
const LEAST_VM_BYTES = 64n << 10n;

/** What the schema cannot say, because it takes several fields. @throws RangeError naming the field */
export function checkScenario(scenario: Scenario): void {
  const refuse = (field: string, what: string): never => {
    throw new RangeError(`${field}: ${what}`);
  };
  const vm = parseSize(scenario.vm.memory);
  const host = parseSize(scenario.host.memory);
  const granule = BACKING_GRANULE[scenario.vm.backing];
  if (parseDurationNs(scenario.duration) < 1) refuse('duration', `expected at least 1ns, got ${scenario.duration}`);
  if (host > MOST_BYTES) refuse('host.memory', `expected at most 4T, got ${scenario.host.memory}`);
  if (parseSize(scenario.host.swap) > MOST_SWAP_BYTES)
    refuse('host.swap', `expected less than 4T, got ${scenario.host.swap}`);
  if (vm < LEAST_VM_BYTES) refuse('vm.memory', `expected at least 64K, got ${scenario.vm.memory}`);
  if (vm % granule !== 0n)
    refuse('vm.memory', `${scenario.vm.memory} is not a multiple of its backing, ${scenario.vm.backing}`);
  if (vm > host) refuse('vm.memory', `${scenario.vm.memory} is more than host.memory, ${scenario.host.memory}`);
  checkDevices(scenario, vm, refuse);
  checkHost(scenario, refuse);
  const { iotlb, pageRequestEntries } = scenario.iommu;
  if (!isPowerOfTwo(pageRequestEntries))
    refuse('iommu.pageRequestEntries', `expected a power of two, got ${pageRequestEntries}`);
  for (const [page, { sets }] of Object.entries(iotlb ?? {}))
    if (!isPowerOfTwo(sets)) refuse(`iommu.iotlb.${page}.sets`, `expected a power of two, got ${sets}`);
  for (const [index, event] of scenario.events.entries()) {
    const aligned = parseSize(event.gpa) % 4096n === 0n && parseSize(event.length) % 4096n === 0n;
    if (!aligned || parseSize(event.length) === 0n)
      throw new RangeError(`events[${index}]: gpa and length must be multiples of 4K, length not zero`);
    if (parseDurationNs(event.at) > parseDurationNs(scenario.duration))
      throw new RangeError(`events[${index}].at: ${event.at} is after the end, duration ${scenario.duration}`);
    const layout = new GuestLayout(vm);
    const first = layout.backingOf(Number(parseSize(event.gpa) / 4096n));
    const last = layout.backingOf(Number((parseSize(event.gpa) + parseSize(event.length)) / 4096n) - 1);
    if (first < 0 || last < 0 || last - first !== Number(parseSize(event.length) / 4096n) - 1)
      throw new RangeError(`events[${index}]: gpa ${event.gpa} + ${event.length} is not within the guest's memory`);
  }
}

/** Requests and buffers are whole pages, and no request is longer than the memory that it goes over. */
function checkDevices(scenario: Scenario, vm: bigint, refuse: (field: string, what: string) => never): void {
  const { accelerator, disk } = scenario.vm.devices;
  const checkSizes = (device: string, key: string, request: string, memory: string): void => {
    for (const [name, text] of [
      ['request', request],
      [key, memory],
    ] as const)
      if (parseSize(text) === 0n || parseSize(text) % 4096n !== 0n)
        refuse(`vm.devices.${device}.${name}`, `expected a multiple of 4K above zero, got ${text}`);
    if (parseSize(request) > parseSize(memory) || parseSize(request) > vm)
      refuse(`vm.devices.${device}.request`, `${request} is more than ${key}, ${memory}, or than vm.memory`);
  };
  if (accelerator) checkSizes('accelerator', 'workingSet', accelerator.request, accelerator.workingSet);
  if (disk) checkSizes('disk', 'buffers', disk.request, disk.buffers);
}

const isPowerOfTwo = (value: number): boolean => value > 0 && Number.isInteger(Math.log2(value));

/** What goes together of a host, its cgroup and a program. */
function checkHost(scenario: Scenario, refuse: (field: string, what: string) => never): void {
  const { host, vm, reclaim } = scenario;
  if (host.swapKind === 'zram' && host.swapQueueDepth > 0)
    refuse('host.swapQueueDepth', 'zram has no queue: it compresses on the CPU that swaps; expected 0');
  if (host.zswap && parseSize(host.swap) === 0n) refuse('host.zswap', 'needs swap behind it, and host.swap is 0');
  if (vm.memoryMax !== undefined && parseSize(vm.memoryMax) === 0n) refuse('vm.memoryMax', 'expected more than 0');
  if (!vm.program) return;
  for (const [name, device] of Object.entries(vm.devices))
    if (device) refuse(`vm.devices.${name}`, 'a process with a program has no devices; expected null');
  if (reclaim) refuse('reclaim', 'a process with a program is reclaimed from by its limit; expected null');
}
