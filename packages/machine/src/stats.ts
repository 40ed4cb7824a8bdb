import type { PageSize } from '@faultline/address';
import type { LatencySummaryNs } from '@faultline/sim';

/** DMA by 4K page. `latencyNs` is per request (descriptor, data, completion), think time excluded. */
export interface DmaStats {
  requests: number;
  completed: number;
  faulted: number;
  aborted: number;
  dropped: number;
  bytes: number;
  bytesPerSecond: number;
  latencyNs: LatencySummaryNs;
}

/** IOTLB of the unit; a device with ATS looks up its device TLB first, counted apart. */
export interface IotlbStats {
  lookups: number;
  hits: number;
  misses: number;
  hitsBySize: Record<PageSize, number>;
  pagingCacheHits: number;
  walkReads: number;
  invalidations: number;
  deviceTlbLookups: number;
  deviceTlbHits: number;
}

/** The I/O page table. `leavesBefore` is at the end of boot; `splits` count leaves replaced by tables. */
export interface IoptStats {
  leaves: Record<PageSize, number>;
  leavesBefore: Record<PageSize, number>;
  mappedBytes: number;
  mappedBytesBefore: number;
  tablePages: number;
  tablePagesBefore: number;
  tablePagesPeak: number;
  splits: { '1G->2M': number; '2M->4K': number };
  collapses: number;
  /** Cuts that found no table page and took the whole leaf instead. */
  wholeLeafFallbacks: number;
  reservePages: number;
}

/** Page requests and how they were answered; `latencyNs` from the request to its response. */
export interface FaultStats {
  pageRequests: number;
  groups: number;
  responses: { success: number; invalid: number; failure: number };
  overflows: number;
  latencyNs: LatencySummaryNs;
}

/** Figures of a process at a mark of its program, as smaps_rollup and vmstat show them; `vmstat` since the program began. */
export interface MarkStats {
  name: string;
  atNs: number;
  residentBytes: number;
  anonHugeBytes: number;
  swappedBytes: number;
  vmstat: Record<string, number>;
}

/**
 * Host memory, under the kernel's ideas. `swapOut` counts pages whose frame reclaim freed, `swapIn` pages read from swap; `vmstat` are the
 * counters of /proc/vmstat under their names. `freedBytes` is what the host gained: resident at boot less resident now. */
export interface HostMmStats {
  swapOut: number;
  swapIn: number;
  minorFaults: number;
  /** CPU accesses that failed for want of memory. */
  failedCpuAccesses: number;
  majorFaults: number;
  notifierRanges: number;
  residentBytes: number;
  residentBytesBefore: number;
  swappedBytes: number;
  pinnedBytes: number;
  freedBytes: number;
  folioSplits: { '1G->2M': number; '2M->4K': number };
  vmstat: Record<string, number>;
  /** Of a scenario with a program. */
  marks: MarkStats[];
}

/** One invariant: how often it was checked and broken; `first` says where it broke first. */
export interface InvariantStats {
  id: string;
  checks: number;
  violations: number;
  first?: string;
}

/** A threshold with the value that was found. */
export interface ThresholdStats {
  expression: string;
  value: number;
  ok: boolean;
}

/** Why the simulated host died. */
export interface CrashStats {
  reason: string;
  /** A VT-d fault reason if hardware reported one, else null. */
  faultReason: number | null;
  /** Hexadecimal IOVA of the page that was being taken away. */
  iova: string;
  atNs: number;
  /** Over the whole run: unmaps that took memory for tables, the words they read as entries, and those they set to zero. */
  totals: { unmaps: number; mistaken: number; corrupted: number };
  /** The walk that took memory for tables. */
  mistaken: { level: number; hpa: string; word: string; owner: string }[];
  /** What it set to zero. */
  corrupted: { hpa: string; word: string; owner: string }[];
  /** What it gave to the page allocator as table pages. */
  freed: { hpa: string; owner: string }[];
}

/** Groups that exist per VM and for the whole host. */
export interface VmStats {
  name: string;
  dma: DmaStats;
  iopt: IoptStats;
  faults: FaultStats;
  hostMm: HostMmStats;
  innocent: { faulted: number; stalled: number };
  dirty: { writtenPages: number; reportedPages: number };
  devices: { name: string; dma: DmaStats }[];
}

/** The stats document, schema `faultline.stats/1`. Fields may be added, none renamed. It holds no wall-clock time. */
export interface StatsDocument extends Omit<VmStats, 'name' | 'devices'> {
  schema: 'faultline.stats/1';
  scenario: string;
  strategy: string;
  seed: number;
  version: string;
  virtualTimeNs: number;
  /** Virtual time of the boot, which comes first: pinning 16 GiB takes its time. */
  bootNs: number;
  /** Whether the run ended early because the user interrupted it. */
  interrupted: boolean;
  verdict: 'ok' | 'threshold-failed' | 'invariant-violated' | 'host-crashed';
  /** What the scenario expects; a verdict equal to it is no failure. */
  expect: 'ok' | 'host-crashed';
  crash: CrashStats | null;
  iotlb: IotlbStats;
  invariants: InvariantStats[];
  thresholds: ThresholdStats[];
  vms: VmStats[];
}
