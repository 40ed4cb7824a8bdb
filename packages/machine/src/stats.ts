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

/**
 * Page requests and how they were answered; `latencyNs` from the request to its response. `outcomes` are pages as the stage-2 fault
 * handler saw them: mapped anew, found mapped already, tried again because the host changed meanwhile. `overflows` are the
 * unit's, the same in every VM.
 */
export interface FaultStats {
  pageRequests: number;
  groups: number;
  responses: { success: number; invalid: number; failure: number };
  outcomes: { mapped: number; spurious: number; retried: number };
  overflows: number;
  /** Page requests and faults of devices that contradict what their drivers told vfio. */
  lies: number;
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
 * counters of /proc/vmstat under their names. `freedBytes` is what the host gained: resident at boot less resident now. In `vms`, what an
 * address space has is the VM's; what reclaim and faults count (`swapOut` to `majorFaults`, `folioSplits`, `ksm`, `vmstat`) is the host's.
 */
export interface HostMmStats {
  swapOut: number;
  swapIn: number;
  minorFaults: number;
  /** CPU accesses that failed for want of memory. */
  failedCpuAccesses: number;
  majorFaults: number;
  notifierRanges: number;
  /** Notifier ranges by event, under the names of Linux's `enum mmu_notifier_event`; what did not occur is left out. */
  notifierEvents: Record<string, number>;
  residentBytes: number;
  residentBytesBefore: number;
  swappedBytes: number;
  pinnedBytes: number;
  freedBytes: number;
  folioSplits: { '1G->2M': number; '2M->4K': number };
  /** KSM pages, and mappings saved by them. */
  ksm: { pagesShared: number; pagesSharing: number };
  /** Pages that balloons gave to the host, over the whole run. */
  balloonedPages: number;
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

/** A host event of the scenario: how often it happened, and how often it ended how. */
export interface EventStats {
  action: string;
  times: number;
  /** In the words of the kernel where it has some (`moved`, `EAGAIN`, `SCAN_SUCCEED`, ...); a range counts by its folios or pages. */
  outcomes: Record<string, number>;
}

/** A device that iommufd does not let in, and why; or memory that the host does not have for a VM at its boot. */
export interface RefusalStats {
  vm: string;
  /** Null if it is about memory. */
  device: string | null;
  /** The errno. */
  code: string;
  reason: string;
}

/** Failures on purpose, by what failed. */
export interface InjectionStats {
  frameAllocation: number;
  tableAllocation: number;
  swapRead: number;
  swapWrite: number;
  /** Device-TLB invalidations that a device did not answer. */
  invalidationTimeout: number;
}

/** Pages that nobody took away and that faulted all the same; those of them whose DMA waited, and for how long in all. */
export interface InnocentStats {
  faulted: number;
  stalled: number;
  stalledNs: number;
}

/** Groups that exist per VM and for the whole host. */
export interface VmStats {
  name: string;
  dma: DmaStats;
  iopt: IoptStats;
  faults: FaultStats;
  hostMm: HostMmStats;
  innocent: InnocentStats;
  /** Pages that DMA wrote, and pages that were reported dirty: whole leaves. */
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
  verdict: 'ok' | 'threshold-failed' | 'invariant-violated' | 'host-crashed' | 'refused';
  /** What the scenario expects; a verdict equal to it is no failure. */
  expect: 'ok' | 'host-crashed' | 'invariant-violated' | 'refused';
  crash: CrashStats | null;
  refusal: RefusalStats | null;
  iotlb: IotlbStats;
  invariants: InvariantStats[];
  thresholds: ThresholdStats[];
  events: EventStats[];
  injected: InjectionStats;
  /** Devices that were isolated since they did not answer invalidations. */
  isolatedDevices: string[];
  vms: VmStats[];
}
