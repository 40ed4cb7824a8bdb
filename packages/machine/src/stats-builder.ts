import type { HostMemory } from '@faultline/host-mm';
import type { IopfQueue } from '@faultline/iommufd-core';
import { LatencyHistogram } from '@faultline/sim';
import type { TableMemory } from '@faultline/vtd-pagetable';
import type { RemappingUnit } from '@faultline/vtd-remapping';
import type { Scenario } from './scenario.ts';
import type { EventStats, InjectionStats, IotlbStats, RefusalStats, StatsDocument, VmStats } from './stats.ts';
import { VERSION } from './version.ts';
import type { VirtualMachine } from './virtual-machine.ts';
import { type BootSnapshot, vmStats } from './vm-stats.ts';

/** Everything a stats document is made from. */
export interface StatsSources {
  readonly scenario: Scenario;
  readonly seed: number;
  /** By VM. */
  readonly boot: readonly BootSnapshot[];
  readonly nowNs: number;
  readonly interrupted: boolean;
  readonly vms: readonly VirtualMachine[];
  readonly host: HostMemory;
  readonly unit: RemappingUnit;
  readonly tables: TableMemory;
  readonly iopf: IopfQueue;
  readonly events: readonly EventStats[];
  readonly refusal: RefusalStats | null;
  readonly injected: InjectionStats;
}

/** Builds the document as of now, before teardown; verdict, crash and invariants are filled in by the machine. */
export function buildStats(sources: StatsSources): StatsDocument {
  const { scenario, seed, nowNs, boot, host, unit } = sources;
  const { overflows } = unit.pageRequestQueue;
  const vms = sources.vms.map((vm, index) =>
    vmStats({ vm, boot: boot[index] as BootSnapshot, nowNs, host, overflows }),
  );
  return {
    schema: 'faultline.stats/1',
    scenario: scenario.name,
    strategy: scenario.strategy,
    seed,
    version: VERSION,
    virtualTimeNs: nowNs,
    bootNs: boot[0]?.atNs ?? 0,
    interrupted: sources.interrupted,
    verdict: 'ok',
    expect: scenario.expect,
    crash: null,
    refusal: sources.refusal,
    ...totals(sources, vms),
    iotlb: iotlbOf(sources),
    invariants: [],
    thresholds: [],
    injected: sources.injected,
    isolatedDevices: sources.vms.flatMap(({ isolated }) => isolated.map(({ endpoint }) => endpoint.name)),
    events: sources.events.map((event) => ({ ...event, outcomes: { ...event.outcomes } })),
    vms,
  };
}

/** The groups of all VMs together: numbers add up, except those that are the host's or the unit's. */
function totals(sources: StatsSources, vms: readonly VmStats[]): Omit<VmStats, 'name' | 'devices'> {
  const { tables, iopf, unit, host } = sources;
  const latency = new LatencyHistogram();
  const faultLatency = new LatencyHistogram();
  for (const vm of sources.vms) {
    latency.add(vm.latency);
    faultLatency.add(vm.checker.faultLatency);
  }
  const [first] = vms;
  if (!first) throw new RangeError('vms: expected at least one VM');
  const { swapOut, swapIn, minorFaults, majorFaults, folioSplits, ksm } = first.hostMm;
  const hostMm = added(vms.map((vm) => vm.hostMm));
  return {
    dma: { ...added(vms.map((vm) => vm.dma)), latencyNs: latency.summary() },
    iopt: { ...added(vms.map((vm) => vm.iopt)), tablePagesPeak: tables.peak },
    faults: {
      ...added(vms.map((vm) => vm.faults)),
      pageRequests: unit.pageRequestQueue.requests,
      groups: iopf.answered,
      overflows: unit.pageRequestQueue.overflows,
      latencyNs: faultLatency.summary(),
    },
    hostMm: {
      ...hostMm,
      ...{ swapOut, swapIn, minorFaults, majorFaults },
      notifierRanges: host.counters.notifierRanges,
      folioSplits: { ...folioSplits },
      ksm: { ...ksm },
      vmstat: host.vmstat(),
      marks: vms.flatMap((vm) => vm.hostMm.marks.map((mark) => ({ ...mark }))),
    },
    innocent: added(vms.map((vm) => vm.innocent)),
    dirty: added(vms.map((vm) => vm.dirty)),
  };
}

/** Adds figures up, field by field; the parts need not have all of a record's. */
function added<T extends object>(parts: readonly T[]): T {
  const sum: Record<string, unknown> = {};
  for (const part of parts)
    for (const [key, value] of Object.entries(part)) {
      if (typeof value === 'number') sum[key] = ((sum[key] as number | undefined) ?? 0) + value;
      else if (Array.isArray(value)) sum[key] = [...((sum[key] as unknown[] | undefined) ?? []), ...value];
      else sum[key] = added([(sum[key] as object | undefined) ?? {}, value as object]);
    }
  return sum as T;
}

function iotlbOf({ unit, vms }: StatsSources): IotlbStats {
  const { lookups, hits, misses, hits4K, hits2M, hits1G } = unit.iotlb.counters;
  let deviceTlbLookups = 0;
  let deviceTlbHits = 0;
  for (const { endpoint } of vms.flatMap((vm) => vm.devices)) {
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
