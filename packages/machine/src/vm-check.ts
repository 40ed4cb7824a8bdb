import { parseDurationNs, parseSize } from '@faultline/address';
import { GuestLayout } from '@faultline/vm-guest';
import { DEVICE_NAMES, type DeviceSettings } from './device-settings.ts';
import { BACKING_GRANULE, type VmSettings } from './scenario.ts';

/** Ends the check: the field, and what is wrong with it. */
export type Refuse = (field: string, what: string) => never;

/** With less, no page may be left beside the guest's own tables. */
const LEAST_VM_BYTES = 64n << 10n;

/** Checks what goes together in the settings of one VM, whose field it is. */
export function checkVm(field: string, vm: VmSettings, refuse: Refuse): void {
  const memory = parseSize(vm.memory);
  if (memory < LEAST_VM_BYTES) refuse(`${field}.memory`, `expected at least 64K, got ${vm.memory}`);
  if (memory % BACKING_GRANULE[vm.backing] !== 0n)
    refuse(`${field}.memory`, `${vm.memory} is not a multiple of its backing, ${vm.backing}`);
  if (vm.memoryMax !== undefined && parseSize(vm.memoryMax) === 0n)
    refuse(`${field}.memoryMax`, 'expected more than 0');
  for (const name of DEVICE_NAMES) {
    const device = vm.devices[name];
    if (!device) continue;
    if (vm.program) refuse(`${field}.devices.${name}`, 'a process with a program has no devices; expected null');
    checkDevice(`${field}.devices.${name}`, device, refuse);
  }
  checkTransfers(field, vm, memory, refuse);
  checkGuest(field, vm, refuse);
}

function checkDevice(field: string, { ats, paths }: DeviceSettings, refuse: Refuse): void {
  if (ats) return;
  for (const [path, action] of Object.entries(paths))
    if (action === 'stall')
      refuse(`${field}.paths.${path}`, 'to stall needs ATS and PRI; expected drop or fatal, or ats: true');
}

/** Requests and buffers are whole pages, and no request is longer than the memory that it goes over. */
function checkTransfers(
  field: string,
  { devices: { accelerator, disk } }: VmSettings,
  vm: bigint,
  refuse: Refuse,
): void {
  const checkSizes = (device: string, key: string, request: string, memory: string): void => {
    for (const [name, text] of [
      ['request', request],
      [key, memory],
    ] as const)
      if (parseSize(text) === 0n || parseSize(text) % 4096n !== 0n)
        refuse(`${field}.devices.${device}.${name}`, `expected a multiple of 4K above zero, got ${text}`);
    if (parseSize(request) > parseSize(memory) || parseSize(request) > vm)
      refuse(
        `${field}.devices.${device}.request`,
        `${request} is more than ${key}, ${memory}, or than ${field}.memory`,
      );
  };
  if (accelerator) checkSizes('accelerator', 'workingSet', accelerator.request, accelerator.workingSet);
  if (disk) checkSizes('disk', 'buffers', disk.request, disk.buffers);
}

function checkGuest(field: string, vm: VmSettings, refuse: Refuse): void {
  const { balloon, equalPages } = vm;
  if (equalPages) checkRange(`${field}.equalPages`, vm, equalPages, refuse);
  if (!balloon) return;
  if (vm.program) refuse(`${field}.balloon`, 'a process with a program has none; expected null');
  if (vm.backing.startsWith('hugetlb'))
    refuse(`${field}.balloon`, `the huge page pool gives no 4K back; expected another backing than ${vm.backing}`);
  if (parseSize(balloon.size) < 4096n || parseSize(balloon.size) > parseSize(vm.memory))
    refuse(`${field}.balloon.size`, `expected 4K to ${field}.memory, ${vm.memory}, got ${balloon.size}`);
  for (const key of ['interval', 'hold'] as const)
    if (parseDurationNs(balloon[key]) < 1)
      refuse(`${field}.balloon.${key}`, `expected at least 1ns, got ${balloon[key]}`);
}

/** A range of guest memory: whole pages, in one piece, and there. */
export function checkRange(
  field: string,
  vm: VmSettings,
  { gpa, length }: { readonly gpa: string; readonly length: string },
  refuse: Refuse,
): void {
  const [start, bytes] = [parseSize(gpa), parseSize(length)];
  if (start % 4096n !== 0n || bytes % 4096n !== 0n || bytes === 0n)
    refuse(field, `gpa and length must be multiples of 4K, length not zero; got ${gpa} and ${length}`);
  const layout = new GuestLayout(parseSize(vm.memory));
  const pages = Number(bytes / 4096n);
  const first = layout.backingOf(Number(start / 4096n));
  const last = layout.backingOf(Number(start / 4096n) + pages - 1);
  if (first < 0 || last - first !== pages - 1)
    refuse(field, `gpa ${gpa} + ${length} is not within the memory of ${vm.name}`);
}
