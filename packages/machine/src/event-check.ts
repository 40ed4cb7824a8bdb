import { parseDurationNs } from '@faultline/address';
import { DEVICE_NAMES } from './device-settings.ts';
import { type HostEvent, needsOf } from './host-event.ts';
import { type Scenario, type VmSettings, vmsOf } from './scenario.ts';
import { checkRange, type Refuse } from './vm-check.ts';

/** Checks that each event says what its action needs to know, and names what is there. */
export function checkEvents(scenario: Scenario, refuse: Refuse): void {
  for (const [index, event] of scenario.events.entries()) {
    const field = `events[${index}]`;
    checkTimes(field, event, scenario, refuse);
    const { vm: takesVm } = needsOf(event.action);
    if (event.vm !== undefined && !takesVm)
      refuse(`${field}.vm`, `${event.action} is for the whole host; expected none`);
    const vms = vmsOf(scenario);
    const named =
      event.vm === undefined
        ? event.action === 'ksm'
          ? vms
          : vms.slice(0, 1)
        : vms.filter(({ name }) => name === event.vm);
    if (named.length === 0)
      refuse(`${field}.vm`, `there is no VM "${event.vm}"; there is ${vms.map(({ name }) => name).join(', ')}`);
    for (const vm of named) {
      checkEventRange(field, event, vm, refuse);
      checkEventDevice(field, event, vm, refuse);
    }
  }
}

function checkTimes(field: string, event: HostEvent, { duration }: Scenario, refuse: Refuse): void {
  if (parseDurationNs(event.at) > parseDurationNs(duration))
    refuse(`${field}.at`, `${event.at} is after the end, duration ${duration}`);
  if (event.every !== undefined && parseDurationNs(event.every) < 1)
    refuse(`${field}.every`, `expected at least 1ns, got ${event.every}`);
  if (event.times !== undefined && event.every === undefined)
    refuse(`${field}.times`, 'is for an event that repeats; expected every');
  if (event.every !== undefined && (event.action === 'unplug' || event.action === 'process-exit'))
    refuse(`${field}.every`, `${event.action} happens once; expected none`);
}

function checkEventRange(field: string, event: HostEvent, vm: VmSettings, refuse: Refuse): void {
  const { range } = needsOf(event.action);
  const { gpa, length, action } = event;
  if (gpa === undefined || length === undefined) {
    if (range === 'required' || gpa !== length) refuse(field, `${action} needs a range; expected gpa and length`);
    return;
  }
  if (range === 'none') refuse(`${field}.gpa`, `${action} has no range; expected none`);
  checkRange(field, vm, { gpa, length }, refuse);
}

function checkEventDevice(field: string, event: HostEvent, vm: VmSettings, refuse: Refuse): void {
  const { device: need } = needsOf(event.action);
  const there = DEVICE_NAMES.filter((name) => vm.devices[name] !== null);
  if (event.device === undefined) {
    if (need === 'required')
      refuse(`${field}.device`, `${event.action} needs one; ${vm.name} has ${there.join(', ') || 'none'}`);
    return;
  }
  if (need === 'none') refuse(`${field}.device`, `${event.action} has no device; expected none`);
  if (!there.some((name) => name === event.device))
    refuse(`${field}.device`, `${vm.name} has no device "${event.device}"; it has ${there.join(', ') || 'none'}`);
}
