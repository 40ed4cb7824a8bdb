import type { PageSize } from '@faultline/address';
import { type HostMemory, NotifierEvent } from '@faultline/host-mm';
import type { LatencyHistogram } from '@faultline/sim';
import type { SimulatedDevice } from './device-set.ts';
import type { DmaStats, FaultStats, HostMmStats, InnocentStats, IoptStats, VmStats } from './stats.ts';
import type { VirtualMachine } from './virtual-machine.ts';
import type { HwptFigures } from './vm-iommu.ts';

/** What is compared with at the end. */
export interface BootSnapshot {
  readonly atNs: number;
  readonly leaves: Record<PageSize, number>;
  readonly mappedBytes: number;
  readonly tablePages: number;
  readonly residentBytes: number;
}

/** Takes the figures of a VM at the end of boot. */
export function snapshotAfterBoot(vm: VirtualMachine, atNs: number): BootSnapshot {
  const { leaves, mappedBytes, tablePages } = tablesOf(vm);
  return { atNs, leaves, mappedBytes, tablePages, residentBytes: vm.mm.residentBytes };
}

/** All tables of a VM together: several while one of its HWPTs is being replaced. */
function tablesOf(vm: VirtualMachine) {
  const all = vm.iommu.figures();
  const sum = (of: (figures: HwptFigures) => number): number => all.reduce((total, each) => total + of(each), 0);
  return {
    leaves: {
      '4K': sum(({ leaves }) => leaves['4K']),
      '2M': sum(({ leaves }) => leaves['2M']),
      '1G': sum(({ leaves }) => leaves['1G']),
    },
    mappedBytes: sum(({ mappedPages }) => mappedPages) * 4096,
    tablePages: sum(({ tablePages }) => tablePages),
    tablePagesPeak: Math.max(0, ...all.map(({ tablePagesPeak }) => tablePagesPeak)),
    splits: { '1G->2M': sum(({ splits }) => splits['1G->2M']), '2M->4K': sum(({ splits }) => splits['2M->4K']) },
    collapses: sum(({ collapses }) => collapses),
    wholeLeafFallbacks: sum((each) => each.wholeLeafFallbacks),
    reservePages: sum((each) => each.reservePages),
    outcomes: {
      mapped: sum(({ faults }) => faults.mapped),
      spurious: sum(({ faults }) => faults.spurious),
      retried: sum(({ faults }) => faults.retried),
    },
  };
}

/** What one VM's figures are made from. */
export interface VmStatsSources {
  readonly vm: VirtualMachine;
  readonly boot: BootSnapshot;
  readonly nowNs: number;
  readonly host: HostMemory;
  /** Of the unit. */
  readonly overflows: number;
}

/** The figures of one VM. */
export function vmStats(sources: VmStatsSources): VmStats {
  const { vm } = sources;
  const { checker } = vm;
  return {
    name: vm.name,
    dma: dmaOf(sources, vm.devices, vm.latency),
    iopt: ioptOf(sources),
    faults: faultsOf(sources),
    hostMm: hostMmOf(sources),
    innocent: innocentOf(vm),
    dirty: { writtenPages: checker.writtenByDma.size, reportedPages: vm.dirty.pages },
    devices: vm.devices.map((device) => ({
      name: device.name,
      dma: dmaOf(sources, [device], vm.loads.get(device.name)?.latency ?? vm.latency),
    })),
  };
}

const innocentOf = ({ checker }: VirtualMachine): InnocentStats => ({
  faulted: checker.innocentFaulted,
  stalled: checker.innocentStalled,
  stalledNs: checker.innocentStalledNs,
});

function dmaOf(
  { vm, boot, nowNs }: VmStatsSources,
  devices: readonly SimulatedDevice[],
  latency: LatencyHistogram,
): DmaStats {
  const sum = { completed: 0, faulted: 0, aborted: 0, dropped: 0, requests: 0 };
  for (const device of devices) {
    const { completed, faulted, aborted, dropped } = device.endpoint.counters;
    sum.completed += completed;
    sum.faulted += faulted;
    sum.aborted += aborted;
    sum.dropped += dropped;
    sum.requests += vm.loads.get(device.name)?.requests ?? 0;
  }
  const { requests, completed, faulted, aborted, dropped } = sum;
  const bytes = completed * 4096;
  const seconds = (nowNs - boot.atNs) / 1e9;
  const bytesPerSecond = seconds > 0 ? Math.round(bytes / seconds) : 0;
  return { requests, completed, faulted, aborted, dropped, bytes, bytesPerSecond, latencyNs: latency.summary() };
}

function ioptOf({ vm, boot }: VmStatsSources): IoptStats {
  const { outcomes: _, ...tables } = tablesOf(vm);
  return {
    ...tables,
    leavesBefore: { ...boot.leaves },
    mappedBytesBefore: boot.mappedBytes,
    tablePagesBefore: boot.tablePages,
    tablePagesPeak: Math.max(boot.tablePages, tables.tablePagesPeak),
  };
}

function faultsOf({ vm, overflows }: VmStatsSources): FaultStats {
  const responses = { success: 0, invalid: 0, failure: 0 };
  let pageRequests = 0;
  for (const { endpoint } of vm.devices) {
    pageRequests += endpoint.counters.pageRequests;
    for (const code of ['success', 'invalid', 'failure'] as const) responses[code] += endpoint.counters.responses[code];
  }
  return {
    pageRequests,
    groups: responses.success + responses.invalid + responses.failure,
    responses,
    outcomes: tablesOf(vm).outcomes,
    overflows,
    lies: vm.checker.lies,
    latencyNs: vm.checker.faultLatency.summary(),
  };
}

const EVENT_NAMES = Object.entries(NotifierEvent).map(([name, number]) => [number, name] as const);

/** Notifier ranges by the name of their event. */
const eventsByName = (events: readonly number[]): Record<string, number> =>
  Object.fromEntries(
    EVENT_NAMES.filter(([event]) => (events[event] ?? 0) > 0).map(([event, name]) => [name, events[event] ?? 0]),
  );

function hostMmOf({ host, vm, boot }: VmStatsSources): HostMmStats {
  const { reclaimedPages, minorFaults, pgmajfault, folioSplits, swap } = host.counters;
  const { residentBytes, swappedBytes, pinnedBytes } = vm.mm;
  return {
    swapOut: reclaimedPages,
    swapIn: swap.pswpin + swap.zswpin + swap.swpin_zero,
    minorFaults,
    failedCpuAccesses: vm.failedCpuAccesses,
    majorFaults: pgmajfault,
    notifierRanges: vm.notifierEvents.reduce((sum, each) => sum + each, 0),
    notifierEvents: eventsByName(vm.notifierEvents),
    residentBytes,
    residentBytesBefore: boot.residentBytes,
    swappedBytes,
    pinnedBytes,
    freedBytes: boot.residentBytes - residentBytes,
    folioSplits: { ...folioSplits },
    ksm: { ...host.ksm },
    balloonedPages: vm.balloonedPages,
    vmstat: host.vmstat(),
    marks: vm.marks.map((mark) => ({ ...mark })),
  };
}
