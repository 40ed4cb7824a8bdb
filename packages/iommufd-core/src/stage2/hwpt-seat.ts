import { type Agent, ANY_LOCATION, Cost, Location, type Mutex, type Task } from '@faultline/sim';
import { type HostAddressSpace, VM_FAULT_COMPLETED, VM_FAULT_RETRY } from '../host-address-space.ts';
import type { Area } from '../ioas/area.ts';
import type { IoPagetable } from '../ioas/io-pagetable.ts';
import type { PinnedRanges } from '../ioas/pinned-ranges.ts';
import type { IommuDomain } from '../iommu-domain.ts';
import { LEAF_LEVEL } from './fault-policy.ts';
import type { StrategyState, TakeAwayOutcome } from './strategy.ts';

/** Where a hwpt reports what it does, for checks and timelines. All optional. */
export interface HwptObserver {
  /** The notifier begins to take a range of IOVA pages away. */
  takingAway?(page: number, pages: number): void;
  /** The notifier has taken a range of IOVA pages away: from here on no DMA may reach it (I1). */
  takenAway?(page: number, pages: number, outcome: TakeAwayOutcome): void;
  /** The notifier begins to take the right to write away from a range of IOVA pages, which stay readable. */
  takingWrite?(page: number, pages: number): void;
  /** The notifier has taken the right to write: from here on no DMA may write there. */
  writeTaken?(page: number, pages: number, outcome: TakeAwayOutcome): void;
  /** A fault was resolved by mapping; called before the domain is changed (I10). */
  mapping?(page: number, pages: number, frame: number): void;
  /** The map that {@link mapping} announced is done. */
  mapped?(page: number, pages: number): void;
  /** Pages are about to be mapped onto the frames that devices' pins hold. */
  mappingPinned?(page: number, pages: number): void;
}

/** What the parts of one hwpt share: its domain and whoever changes it. */
export interface HwptSeat {
  readonly domain: IommuDomain;
  readonly areas: IoPagetable;
  readonly mm: HostAddressSpace;
  /** What is pinned for devices: mapped to the pins' frames, and left alone by the notifier. */
  readonly pins: PinnedRanges;
  readonly observer: HwptObserver;
  /** Held by whoever changes the domain until the invalidations of the change are complete. */
  readonly updateLock: Mutex;
  /** False: no leaf is larger than 4K (IOMMU_OPTION_HUGE_PAGES). */
  largePages(): boolean;
  /** What the strategy keeps; null if everything is pinned. */
  readonly strategy: StrategyState | null;
  /** The address space has gone, or the domain is about to: nothing is mapped any more. */
  released(): boolean;
  /** The domain has gone: nothing looks at it any more. */
  gone(): boolean;
  /** Times that what devices have pinned could not be mapped again, beside a leaf that was taken whole or a pin that went: no table page was left. */
  lostPins: number;
}

/** Maps a part of an area, and tells the strategy. What a map that fails has done stays, so it is told of that as well. */
export function* mapInto(
  agent: Agent,
  seat: HwptSeat,
  area: Area,
  request: { readonly page: number; readonly frame: number; readonly pages: number; readonly write: boolean },
): Task<number> {
  const largest = seat.largePages() ? LEAF_LEVEL[area.policy.largest] : 1;
  try {
    return yield* seat.domain.map(agent, { ...request, read: area.readable, largest });
  } finally {
    if (area.unpinned) seat.strategy?.mapped?.(request.page, request.pages);
  }
}

/** Maps pages onto the frames that a pin holds. Under the update lock. @throws IommufdError ENOMEM for a table page */
export function mapPinned(
  agent: Agent,
  seat: HwptSeat,
  area: Area,
  request: { readonly page: number; readonly frame: number; readonly pages: number },
): Task<number> {
  seat.observer.mappingPinned?.(request.page, request.pages);
  return mapInto(agent, seat, area, { ...request, write: area.writeable });
}

/**
 * Whether what was looked up for the pages since `sequence` may be stale. Under the update lock, which the notifier takes. Its step is also that in
 * which the caller looks at the owner's entries, as far as a run of them goes.
 */
export function* hasChanged(
  agent: Agent,
  mm: HostAddressSpace,
  userPage: number,
  pages: number,
  sequence: number,
): Task<boolean> {
  const step = agent.reads('check notifier sequence', Location.notifierSequence, mm.notifierLocation, Cost.free);
  yield agent.alsoReads(step, Location.cpuEntry, ANY_LOCATION);
  return mm.notifierReadRetry(userPage, sequence, pages);
}

/**
 * handle_mm_fault for a page of the owner under its `mmap_lock`, which may be given back meanwhile (FAULT_FLAG_ALLOW_RETRY).
 * @returns VM_FAULT bits; with RETRY the page is to be looked up again
 */
export function* fixHost(agent: Agent, mm: HostAddressSpace, userPage: number, write: boolean): Task<number> {
  yield* mm.mmapLock.acquireRead(agent);
  let held = true;
  try {
    const bits = yield* mm.handleMmFault(agent, userPage, { write, allowRetry: true });
    held = (bits & (VM_FAULT_RETRY | VM_FAULT_COMPLETED)) === 0;
    return bits;
  } finally {
    if (held) mm.mmapLock.releaseRead(agent);
  }
}

/** Whether a map failed for want of a table page. */
export const isOutOfMemory = (error: unknown): boolean => (error as { code?: unknown }).code === 'ENOMEM';
