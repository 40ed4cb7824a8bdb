import type { SwapCounters } from './swap/swap-counters.ts';

/**
 * What the host has done so far, under the names of /proc/vmstat; in pages, folios or events as there. They only grow.
 * Counters whose names are not lower-case are the model's own.
 */
export class HostCounters {
  /** What swap I/O counts. */
  readonly swap: SwapCounters;

  constructor(swap: SwapCounters) {
    this.swap = swap;
  }

  /** Faults, and those that read swap. */
  pgfault = 0;
  pgmajfault = 0;
  /** Pages that reclaim looked at and freed, by who asked. */
  pgscan_kswapd = 0;
  pgscan_direct = 0;
  pgscan_proactive = 0;
  pgsteal_kswapd = 0;
  pgsteal_direct = 0;
  pgsteal_proactive = 0;
  /** Allocations that had to reclaim themselves. */
  allocstall = 0;
  pgactivate = 0;
  pgdeactivate = 0;
  pgrotated = 0;
  pglazyfree = 0;
  pglazyfreed = 0;
  /** Pages read ahead into the swap cache, and those that a fault then found there. */
  swap_ra = 0;
  swap_ra_hit = 0;
  workingset_refault_anon = 0;
  workingset_activate_anon = 0;
  thp_fault_alloc = 0;
  thp_fault_fallback = 0;
  thp_collapse_alloc = 0;
  thp_collapse_alloc_failed = 0;
  thp_split_page = 0;
  thp_split_page_failed = 0;
  thp_deferred_split_page = 0;
  thp_split_pmd = 0;
  thp_split_pud = 0;
  thp_swpout_fallback = 0;
  pgmigrate_success = 0;
  pgmigrate_fail = 0;
  thp_migration_success = 0;
  thp_migration_fail = 0;
  thp_migration_split = 0;
  compact_success = 0;
  compact_fail = 0;
  numa_pte_updates = 0;
  numa_hint_faults = 0;
  numa_pages_migrated = 0;
  ksm_swpin_copy = 0;
  cow_ksm = 0;
  unevictable_pgs_scanned = 0;
  oom_kill = 0;

  /** Faults without I/O: `pgfault` less `pgmajfault`. */
  get minorFaults(): number {
    return this.pgfault - this.pgmajfault;
  }
  /** Notifier ranges started. */
  notifierRanges = 0;
  /** Pages whose frame reclaim freed. */
  reclaimedPages = 0;
  /** Faults that found the page's folio in the swap cache. */
  swapCacheHits = 0;
  /** Folios split, by level of the leaves that they had. */
  readonly folioSplits = { '1G->2M': 0, '2M->4K': 0 };
  /** Writes to swap that failed, and reads. */
  swapWriteErrors = 0;
  swapReadErrors = 0;
  /** Allocations made to fail on purpose. */
  injectedAllocationFailures = 0;
}
