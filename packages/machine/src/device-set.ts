import { parseDurationNs, parseSize } from '@faultline/address';
import type { DeviceReport } from '@faultline/iommufd-core';
import {
  ACCELERATOR_FAULTS,
  DEFAULT_DEVICE_TLB,
  DMA_PATHS,
  type DmaFaultReport,
  type DmaPath,
  type DmaTarget,
  Endpoint,
  LEGACY_FAULTS,
  NIC_FAULTS,
  NVME_FAULTS,
  WorkQueue,
} from '@faultline/pci-device';
import { RandomStream, type Task } from '@faultline/sim';
import {
  type GuestLayout,
  type GuestPageAllocator,
  networkReceive,
  randomAcceleratorDma,
  sequentialDiskReads,
  type WorkloadContext,
} from '@faultline/vm-guest';
import type { RemappingUnit } from '@faultline/vtd-remapping';
import type { DeviceName, DeviceSettings } from './device-settings.ts';
import type { Scenario } from './scenario.ts';

/** A device of a VM: the endpoint, what vfio reports of it, and the workloads that drive it. */
export interface SimulatedDevice {
  readonly name: DeviceName;
  readonly endpoint: Endpoint;
  readonly report: DeviceReport;
  /** One per queue slot; each is run as a task of its own. */
  readonly workloads: readonly ((context: WorkloadContext) => Task<void>)[];
}

/** What devices are built from. */
export interface DeviceSetOptions {
  readonly vm: Scenario['vm'];
  /** What becomes of a device with a path that cannot fault and no declared ranges. */
  readonly unfaultable: 'refuse' | 'pin-all';
  /** Bus of the VM's functions. */
  readonly bus: number;
  readonly unit: RemappingUnit;
  readonly target: DmaTarget;
  readonly layout: GuestLayout;
  readonly allocator: GuestPageAllocator;
  /** A page that the host has taken away and the guest still has, or -1. */
  readonly reclaimedPage: (random: RandomStream) => number;
  /** Of one more device: what it asks at each device-TLB invalidation; see `EndpointOptions.unansweredNs`. */
  readonly unansweredBy: () => () => number;
}

type TranslatedPath = Exclude<DmaPath, 'msi'>;

const pagesOf = (size: string): number => Math.max(1, Number(parseSize(size) / 4096n));

/** Builds the devices that a scenario gives a VM: endpoints, rings and buffers in guest memory, workloads. */
export function buildDevices(options: DeviceSetOptions): SimulatedDevice[] {
  const { accelerator, disk, nic } = options.vm.devices;
  const devices: SimulatedDevice[] = [];
  if (accelerator) devices.push(buildAccelerator(options, accelerator));
  if (disk) devices.push(buildDisk(options, disk));
  if (nic) devices.push(buildNic(options, nic));
  if (accelerator) checkWorkingSet(options, accelerator.workingSet);
  return devices;
}

/** The accelerator's pages: the top of RAM, so that a small working set shares no large leaf with the kernel and the rings. */
function workingSet(layout: GuestLayout, size: string): { firstIndex: number; pages: number } {
  const pages = Math.min(layout.pages, pagesOf(size));
  return { firstIndex: layout.pages - pages, pages };
}

function checkWorkingSet({ layout, allocator }: DeviceSetOptions, size: string): void {
  const { firstIndex, pages } = workingSet(layout, size);
  if (allocator.pickFree(new RandomStream(0, 'working set'), firstIndex, pages) < 0)
    throw new RangeError(
      `vm.devices.accelerator.workingSet: ${size} is all rings and buffers; no page is left to work on`,
    );
}

/** Which slot a device is in, and what a missing page means to it as a rule. */
const KINDS: Readonly<Record<DeviceName, { readonly slot: number; readonly faults: DmaFaultReport }>> = {
  accelerator: { slot: 1, faults: ACCELERATOR_FAULTS },
  disk: { slot: 2, faults: NVME_FAULTS },
  nic: { slot: 3, faults: NIC_FAULTS },
};

/** What the device does on each path when a page is missing. */
export function faultsOf(name: DeviceName, { ats, paths }: DeviceSettings): DmaFaultReport {
  const usual = ats ? KINDS[name].faults : LEGACY_FAULTS;
  const entries = DMA_PATHS.map((path) => {
    const own = path === 'msi' ? undefined : paths[path];
    return [path, own === undefined ? usual[path] : { whenMissing: own }] as const;
  });
  return Object.fromEntries(entries) as unknown as DmaFaultReport;
}

function newEndpoint(options: DeviceSetOptions, name: DeviceName, settings: DeviceSettings): Endpoint {
  return new Endpoint({
    name: `${options.vm.name} ${name}`,
    sourceId: (options.bus << 8) | (KINDS[name].slot << 3),
    unit: options.unit,
    target: options.target,
    faults: faultsOf(name, settings),
    pageRequestCredits: settings.credits,
    unansweredNs: options.unansweredBy(),
    ...(settings.ats ? { deviceTlb: DEFAULT_DEVICE_TLB } : {}),
  });
}

/** A queue pair with a ring page and a completion page of its own. */
function newQueue(options: DeviceSetOptions, endpoint: Endpoint, rings: number[]): WorkQueue {
  const [descriptorPage = 0, completionPage = 0] = options.allocator.allocate(2, `${endpoint.name} rings`);
  rings.push(descriptorPage, completionPage);
  return new WorkQueue({ endpoint, descriptorPage, completionPage });
}

/**
 * What vfio tells iommufd: every translated path, what a missing page means to it, and the pages that it uses, as far as its driver
 * declares them. A path that may go anywhere has none.
 */
function reportOf(
  { unfaultable }: DeviceSetOptions,
  endpoint: Endpoint,
  { claims, declares }: DeviceSettings,
  pagesOfPath: Partial<Record<DmaPath, readonly number[]>>,
): DeviceReport {
  const isDeclared = (path: TranslatedPath): boolean =>
    typeof declares === 'boolean' ? declares : declares.includes(path);
  const paths = (['descriptor', 'read', 'write', 'completion'] as const).map((path) => {
    const pages = pagesOfPath[path];
    const claim = claims[path];
    const whenMissing = claim ?? endpoint.faults[path].whenMissing;
    return {
      path,
      whenMissing,
      canFault: whenMissing === 'stall',
      ...(pages && isDeclared(path) ? { ranges: runsOf(pages) } : {}),
    };
  });
  return { name: endpoint.name, paths, unfaultable };
}

/** Ascending pages as ranges. */
function runsOf(pages: readonly number[]): { page: number; pages: number }[] {
  const runs: { page: number; pages: number }[] = [];
  for (const page of [...new Set(pages)].sort((a, b) => a - b)) {
    const last = runs.at(-1);
    if (last && last.page + last.pages === page) last.pages++;
    else runs.push({ page, pages: 1 });
  }
  return runs;
}

function buildAccelerator(
  options: DeviceSetOptions,
  settings: NonNullable<Scenario['vm']['devices']['accelerator']>,
): SimulatedDevice {
  const { layout, allocator } = options;
  const endpoint = newEndpoint(options, 'accelerator', settings);
  const rings: number[] = [];
  const { firstIndex, pages: workingPages } = workingSet(layout, settings.workingSet);
  const pickPage = (random: RandomStream): number => {
    const gone = random.chance(settings.refaults) ? options.reclaimedPage(random) : -1;
    const page = gone >= 0 ? gone : allocator.pickFree(random, firstIndex, workingPages);
    allocator.use(page);
    return page;
  };
  const release = (pages: readonly number[]): void => {
    for (const page of pages) allocator.release(page);
  };
  const workloads = Array.from({ length: settings.queues }, () => {
    const queue = newQueue(options, endpoint, rings);
    return (context: WorkloadContext) =>
      randomAcceleratorDma(context, {
        queue,
        pickPage,
        release,
        pagesPerRequest: pagesOf(settings.request),
        writeFraction: settings.writeFraction,
        thinkNs: parseDurationNs(settings.thinkTime),
      });
  });
  const report = reportOf(options, endpoint, settings, { descriptor: rings, completion: rings });
  return { name: 'accelerator', endpoint, report, workloads };
}

function buildDisk(
  options: DeviceSetOptions,
  settings: NonNullable<Scenario['vm']['devices']['disk']>,
): SimulatedDevice {
  const endpoint = newEndpoint(options, 'disk', settings);
  const rings: number[] = [];
  const queue = newQueue(options, endpoint, rings);
  const buffers = options.allocator.allocate(pagesOf(settings.buffers), 'disk buffers');
  const cursor = { next: 0 };
  const workloads = Array.from(
    { length: settings.queueDepth },
    () => (context: WorkloadContext) =>
      sequentialDiskReads(context, {
        queue,
        buffers,
        pagesPerRequest: pagesOf(settings.request),
        mediaNs: parseDurationNs(settings.mediaTime),
        cursor,
      }),
  );
  return {
    name: 'disk',
    endpoint,
    report: reportOf(options, endpoint, settings, { descriptor: rings, completion: rings, write: buffers, read: [] }),
    workloads,
  };
}

function buildNic(options: DeviceSetOptions, settings: NonNullable<Scenario['vm']['devices']['nic']>): SimulatedDevice {
  const endpoint = newEndpoint(options, 'nic', settings);
  const rings: number[] = [];
  const allBuffers: number[] = [];
  const workloads = Array.from({ length: settings.queues }, () => {
    const queue = newQueue(options, endpoint, rings);
    const buffers = options.allocator.allocate(settings.receiveBuffers, 'receive buffers');
    allBuffers.push(...buffers);
    return (context: WorkloadContext) =>
      networkReceive(context, { queue, buffers, intervalNs: parseDurationNs(settings.interval) });
  });
  return {
    name: 'nic',
    endpoint,
    report: reportOf(options, endpoint, settings, {
      descriptor: rings,
      completion: rings,
      write: allBuffers,
      read: [],
    }),
    workloads,
  };
}
