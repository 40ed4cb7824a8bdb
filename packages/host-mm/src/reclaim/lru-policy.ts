import type { Agent, Task } from '@faultline/sim';
import { FRAMES_PER_1G } from '../folio/folio-order.ts';
import type { MemoryCgroup } from './memory-cgroup.ts';

/** `DEF_PRIORITY`: a scan looks at 1/4096 of a list first, then at twice as much, and at all of it in the end. */
export const DEF_PRIORITY = 12;
/** `SWAP_CLUSTER_MAX`: pages that a scan takes off a list at a time, and the least that reclaim aims at. */
export const SWAP_CLUSTER_MAX = 32;

/**
 * What a batch takes off the pages that a scan may still look at: its size, whatever large folio it met, as in Linux; but all that it saw if
 * that were (hypothetical) folios of 1G, which it would look at thousands of times otherwise.
 */
export const pagesCharged = (batch: number, seen: number): number => (seen >= FRAMES_PER_1G ? seen : batch);

/** One reclaim run (Linux's scan_control). */
export interface ScanControl {
  /** Pages that it aims at. */
  readonly nrToReclaim: number;
  /** The cgroup that is over its limit, or null when the host is short of memory. */
  readonly target: MemoryCgroup | null;
  /** Who scans: decides the counters. */
  readonly by: 'direct' | 'kswapd' | 'proactive';
  /** 12 to 0. */
  priority: number;
  nrReclaimed: number;
  nrScanned: number;
  /** Pages whose write-back it began. */
  nrPageout: number;
  /** Active pages may be deactivated although there are enough inactive ones. */
  forceDeactivate: boolean;
  /** Active pages were left alone. */
  skippedDeactivate: boolean;
}

/** What the lists of one cgroup hold, in 4 KiB pages. */
export interface LruSizes {
  readonly active: number;
  readonly inactive: number;
}

/**
 * How reclaim knows which folios are cold: the two lists of classic Linux, or its generations (MGLRU). Plain methods are part
 * of the caller's step.
 */
export interface LruPolicy {
  readonly name: 'classic' | 'mglru';
  /** Puts a folio on a list of its cgroup, by its flags. @param tail next to be looked at */
  add(folio: number, tail?: boolean): void;
  /** Takes a folio off, if it is on a list. @returns whether it was */
  remove(folio: number): boolean;
  isOn(folio: number): boolean;
  /** A folio on a list was split: its pieces take its place, lowest oldest. @param before pages that it had */
  split(folio: number, pieces: readonly number[], before: number): void;
  /** To where the next scan begins (`folio_rotate_reclaimable`). */
  rotate(folio: number): void;
  /** To the cold end of what is kept (MADV_COLD). */
  deactivate(folio: number): void;
  /** A folio that faults come back to. */
  activate(folio: number): void;
  sizes(memcg: MemoryCgroup): LruSizes;
  /** Folios of a cgroup that may be evicted, coldest first; for walks that do not change the lists. */
  coldestFirst(memcg: MemoryCgroup): Generator<number, void, void>;
  /** Scans one cgroup at the priority of the run: shrink_lruvec. */
  shrink(agent: Agent, memcg: MemoryCgroup, scan: ScanControl): Task<void>;
}
