import type { PageSize } from '@faultline/address';
import type { HostMemory } from '@faultline/host-mm';
import type { IopfQueue } from '@faultline/iommufd-core';
import type { LatencyHistogram } from '@faultline/sim';
import type { TableMemory } from '@faultline/vtd-pagetable';
import type { RemappingUnit } from '@faultline/vtd-remapping';
import type { SimulatedDevice } from './device-set.ts';
import type { Scenario } from './scenario.ts';
import type { DmaStats, FaultStats, HostMmStats, IoptStats, IotlbStats, StatsDocument } from './stats.ts';
import { VERSION } from './version.ts';
import type { VirtualMachine } from './virtual-machine.ts';

/** What is compared with at the end. */
export interface BootSnapshot {
  readonly atNs: number;
  readonly leaves: Record<PageSize, number>;
  readonly mappedBytes: number;
  readonly tablePages: number;
  readonly residentBytes: number;
}

/** Takes the figures at the end of boot. */
export const snapshotAfterBoot = (vm: VirtualMachine, atNs: number): BootSnapshot => ({
  atNs,
  leaves: vm.domain.table.leafCounts,
  mappedBytes: vm.domain.table.mappedPages * 4096,
  tablePages: vm.domain.table.tablePages,
  residentBytes: vm.mm.residentBytes,
});

/** Everything a stats document is made from. */
export interface StatsSources {
  readonly scenario: Scenario;
  readonly seed: number;
  readonly boot: BootSnapshot;
  readonly nowNs: number;
  readonly interrupted: boolean;
  readonly vm: VirtualMachine;
  readonly host: HostMemory;
  readonly unit: RemappingUnit;
  readonly tables: TableMemory;
  readonly iopf: IopfQueue;
}

/** Builds the document as of now, before teardown; verdict, crash and invariants are filled in by the machine. */
export function buildStats(sources: StatsSources): StatsDocument {
  const { scenario, seed, nowNs, vm } = sources;
  const perDevice = vm.devices.map((device) => ({ name: device.name, dma: dmaOf(sources, [device]) }));
  // Built twice, so that the document shares no object with its only VM.
  const groups = () => ({
    dma: dmaOf(sources, vm.devices),
    iopt: ioptOf(sources),
    faults: faultsOf(sources),
    hostMm: hostMmOf(sources),
    innocent: { faulted: vm.checker.innocentFaulted, stalled: vm.checker.innocentStalled },
    // Legacy mode has no A and D bits (they need SSADE of a PASID entry), so nothing can be reported dirty.
    dirty: { writtenPages: vm.checker.writtenByDma.size, reportedPages: 0 },
  });
  return {
    schema: 'faultline.stats/1',
    scenario: scenario.name,
    strategy: scenario.strategy,
    seed,
    version: VERSION,
    virtualTimeNs: nowNs,
    bootNs: sources.boot.atNs,
    interrupted: sources.interrupted,
    verdict: 'ok',
    expect: scenario.expect,
    crash: null,
    ...groups(),
    iotlb: iotlbOf(sources),
    invariants: [],
    thresholds: [],
    vms: [{ name: vm.name, ...groups(), devices: perDevice }],
  };
}

function dmaOf(sources: StatsSources, devices: readonly SimulatedDevice[]): DmaStats {
  const { vm, boot, nowNs } = sources;
  const sum = { completed: 0, faulted: 0, aborted: 0, dropped: 0, requests: 0 };
  let latency: LatencyHistogram = vm.latency;
  for (const device of devices) {
    const { completed, faulted, aborted, dropped } = device.endpoint.counters;
    sum.completed += completed;
    sum.faulted += faulted;
    sum.aborted += aborted;
    sum.dropped += dropped;
    const load = vm.loads.get(device.name);
    sum.requests += load?.requests ?? 0;
    if (devices.length === 1 && load) latency = load.latency;
  }
  const { requests, completed, faulted, aborted, dropped } = sum;
  const bytes = completed * 4096;
  const seconds = (nowNs - boot.atNs) / 1e9;
  const bytesPerSecond = seconds > 0 ? Math.round(bytes / seconds) : 0;
  return { requests, completed, faulted, aborted, dropped, bytes, bytesPerSecond, latencyNs: latency.summary() };
}

function iotlbOf({ unit, vm }: StatsSources): IotlbStats {
  const { lookups, hits, misses, hits4K, hits2M, hits1G } = unit.iotlb.counters;
  let deviceTlbLookups = 0;
  let deviceTlbHits = 0;
  for (const { endpoint } of vm.devices) {
    deviceTlbLookups += endpoint.deviceTlb?.counters.lookups ?? 0;
    deviceTlbHits += endpoint.deviceTlb?.counters.hits ?? 0;
  }
  return {
    lookups,
    hits,
    misses,
    hitsBySize: { '4K': hits4K, '2M': hits2M, '1G': hits1G },
    pagingCacheHits: unit.pagingCacheHits,
    walkReads: unit.walkReads,
    invalidations: unit.invalidations,
    deviceTlbLookups,
    deviceTlbHits,
  };
}

function ioptOf({ vm, boot, tables }: StatsSources): IoptStats {
  const { table } = vm.domain;
  return {
    leaves: table.leafCounts,
    leavesBefore: { ...boot.leaves },
    mappedBytes: table.mappedPages * 4096,
    mappedBytesBefore: boot.mappedBytes,
    tablePages: table.tablePages,
    tablePagesBefore: boot.tablePages,
    tablePagesPeak: tables.peak,
    splits: { '1G->2M': table.splits[3] ?? 0, '2M->4K': table.splits[2] ?? 0 },
    collapses: 0,
    wholeLeafFallbacks: vm.checker.wholeLeafFallbacks,
    reservePages: table.reserve.held,
  };
}

function faultsOf({ vm, unit, iopf }: StatsSources): FaultStats {
  const responses = { success: 0, invalid: 0, failure: 0 };
  for (const { endpoint } of vm.devices)
    for (const code of ['success', 'invalid', 'failure'] as const) responses[code] += endpoint.counters.responses[code];
  return {
    pageRequests: unit.pageRequestQueue.requests,
    groups: iopf.answered,
    responses,
    overflows: unit.pageRequestQueue.overflows,
    latencyNs: vm.checker.faultLatency.summary(),
  };
}

function hostMmOf({ host, vm, boot }: StatsSources): HostMmStats {
  const { reclaimedPages, minorFaults, pgmajfault, notifierRanges, folioSplits, swap } = host.counters;
  const { residentBytes, swappedBytes, pinnedBytes } = vm.mm;
  return {
    swapOut: reclaimedPages,
    swapIn: swap.pswpin + swap.zswpin + swap.swpin_zero,
    minorFaults,
    failedCpuAccesses: vm.failedCpuAccesses,
    majorFaults: pgmajfault,
    notifierRanges,
    residentBytes,
    residentBytesBefore: boot.residentBytes,
    swappedBytes,
    pinnedBytes,
    freedBytes: boot.residentBytes - residentBytes,
    folioSplits: { ...folioSplits },
    vmstat: host.vmstat(),
    marks: vm.marks.map((mark) => ({ ...mark })),
  };
}
