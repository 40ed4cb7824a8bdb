import { type Agent, Cost, Location, type Mutex, type Task } from '@faultline/sim';
import type { HostAddressSpace } from '../host-address-space.ts';
import type { IoPagetable } from '../ioas/io-pagetable.ts';
import type { IommuDomain } from '../iommu-domain.ts';
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
}

/** What the parts of one hwpt share: its domain and whoever changes it. */
export interface HwptSeat {
  readonly domain: IommuDomain;
  readonly areas: IoPagetable;
  readonly mm: HostAddressSpace;
  readonly observer: HwptObserver;
  /** Held by whoever changes the domain until the invalidations of the change are complete. */
  readonly updateLock: Mutex;
  /** What the strategy keeps; null if everything is pinned. */
  readonly strategy: StrategyState | null;
  /** The address space has gone: nothing is mapped any more. */
  released(): boolean;
}

/** Maps, and tells the strategy. What a map that fails has done stays, so it is told of that as well. */
export function* mapInto(
  agent: Agent,
  seat: HwptSeat,
  request: { readonly page: number; readonly frame: number; readonly pages: number; readonly write: boolean },
): Task<number> {
  try {
    return yield* seat.domain.map(agent, request);
  } finally {
    seat.strategy?.mapped?.(request.page, request.pages);
  }
}

/** Whether what was looked up for the pages since `sequence` may be stale. Under the update lock, which the notifier takes. */
export function* hasChanged(
  agent: Agent,
  mm: HostAddressSpace,
  userPage: number,
  pages: number,
  sequence: number,
): Task<boolean> {
  yield agent.reads('check notifier sequence', Location.notifierSequence, mm.notifierLocation, Cost.free);
  return mm.notifierReadRetry(userPage, sequence, pages);
}
