import { parseDurationNs, parseSize } from '@faultline/address';
import { Agent, RandomStream, type Task } from '@faultline/sim';
import {
  cpuTouches,
  type GuestCpuPort,
  type GuestPageAllocator,
  runBalloon,
  type WorkloadContext,
} from '@faultline/vm-guest';
import type { SimulatedDevice } from './device-set.ts';
import { runProgram } from './process-program.ts';
import type { VirtualMachine, VirtualMachineOptions } from './virtual-machine.ts';

type Workload = (context: WorkloadContext) => Task<void>;

/** What runs in a VM. */
export interface GuestActivity {
  readonly vm: VirtualMachine;
  readonly options: VirtualMachineOptions;
  readonly allocator: GuestPageAllocator;
  readonly cpu: GuestCpuPort;
  readonly stopped: () => boolean;
  readonly requestEnded: (device: string | null, startNs: number) => void;
}

/** Starts what runs in a VM, each workload as a task of its own: the steps of its program, or devices, CPU and balloon. */
export function startGuest(activity: GuestActivity): void {
  if (activity.options.settings.program) startProgram(activity, activity.options.settings.program);
  else startWorkloads(activity);
}

/** A process instead of a guest. */
function startProgram(
  { vm, options, stopped }: GuestActivity,
  program: NonNullable<VirtualMachineOptions['settings']['program']>,
): void {
  const { time, host, seed } = options;
  const agent = new Agent(`${vm.name} program`);
  const { first: firstPage, count: pages } = vm.userPages;
  const seat = {
    host,
    mm: vm.mm,
    firstPage,
    pages,
    random: new RandomStream(seed, agent.name),
    now: () => time.nowNs,
    stopped,
    accessed: (userPage: number, write: boolean, lo: number, hi: number) =>
      vm.checker.cpuAccessed(vm.layout.pageAt(userPage - firstPage), write, lo, hi),
    failed: () => vm.failedCpuAccesses++,
  };
  time.spawn(agent, runProgram(agent, program, seat, vm.marks));
}

function startWorkloads(activity: GuestActivity): void {
  const { vm, options, allocator, cpu, stopped } = activity;
  const { time, seed, remainingNs, settings } = options;
  const spawn = (name: string, device: SimulatedDevice | null, workload: Workload): void => {
    const agent = new Agent(`${vm.name} ${name}`);
    const random = new RandomStream(seed, agent.name);
    const finished = (startNs: number): void => activity.requestEnded(device?.name ?? null, startNs);
    // The driver of a device that was pulled out sends it nothing more.
    const isOver = (): boolean => stopped() || device?.endpoint.isRemoved === true;
    time.spawn(agent, workload({ agent, random, stopped: isOver, remainingNs, now: () => time.nowNs, finished }));
  };
  for (const device of vm.devices)
    for (const [index, workload] of device.workloads.entries()) spawn(`${device.name} ${index}`, device, workload);
  const intervalNs = parseDurationNs(settings.cpuTouchInterval);
  const pickPage = (random: RandomStream): number => {
    const gone = random.chance(settings.cpuRefaults) ? vm.reclaimedPage(random) : -1;
    return gone >= 0 ? gone : allocator.pickFree(random, 0, vm.layout.pages);
  };
  spawn('cpu', null, (context) => cpuTouches(context, { cpu, pickPage, intervalNs }));
  if (settings.balloon) startBalloon(activity, settings.balloon, spawn);
}

function startBalloon(
  { vm, allocator }: GuestActivity,
  { size, batch, interval, hold }: NonNullable<VirtualMachineOptions['settings']['balloon']>,
  spawn: (name: string, device: null, workload: Workload) => void,
): void {
  const options = {
    allocator,
    batch,
    pages: Number(parseSize(size) / 4096n),
    intervalNs: parseDurationNs(interval),
    holdNs: parseDurationNs(hold),
    ramPages: vm.layout.pages,
    discard: (agent: Agent, page: number) => vm.discard(agent, page, 1),
    inflated: (pages: number) => {
      vm.balloonedPages += pages;
    },
  };
  spawn('balloon', null, (context) => runBalloon(context, options));
}
