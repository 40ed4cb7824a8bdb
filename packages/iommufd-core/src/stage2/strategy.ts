import type { Agent, Mutex, Task } from '@faultline/sim';
import type { HostAddressSpace } from '../host-address-space.ts';
import type { IoPagetable } from '../ioas/io-pagetable.ts';
import type { IommuDomain, UnsplitUnmapReport } from '../iommu-domain.ts';
import { StrategyCounters } from './strategy-counters.ts';

/** What taking a range away did beyond the range itself. */
export interface TakeAwayOutcome {
  /** No table page could be had for a cut, and whole leaves went instead. */
  readonly fellBack: boolean;
  /** For `naive` and `patch-2023`: what was read, cleared and freed that is no page table; null if nothing was. */
  readonly unsplit: UnsplitUnmapReport | null;
}

/** Nothing beyond the range. */
export const TAKEN: TakeAwayOutcome = { fellBack: false, unsplit: null };
/** Whole leaves went for want of a table page. */
export const FELL_BACK: TakeAwayOutcome = { fellBack: true, unsplit: null };

/**
 * How a range is taken out of a domain when the host's mapping of it changes. Runs under the domain's update lock; when it
 * returns, no DMA may reach the range's frames any more. It cannot fail (I8).
 */
export type TakeAway = (agent: Agent, domain: IommuDomain, page: number, pages: number) => Task<TakeAwayOutcome>;

/** What a strategy works on: one hwpt. */
export interface StrategySeat {
  readonly domain: IommuDomain;
  readonly areas: IoPagetable;
  readonly mm: HostAddressSpace;
  /** False: no leaf is larger than 4K (IOMMU_OPTION_HUGE_PAGES 0). */
  largePages(): boolean;
  /** Held around every call of {@link StrategyState}, except `background`, which takes it for itself. */
  readonly updateLock: Mutex;
  /** Under the update lock: the address space has gone, or the domain is about to, and nothing is mapped any more. */
  released(): boolean;
}

/** What a strategy keeps for one hwpt. */
export interface StrategyState {
  readonly counters: StrategyCounters;
  /** Takes a range of IOVA pages away; see {@link TakeAway}. */
  takeAway(agent: Agent, page: number, pages: number): Task<TakeAwayOutcome>;
  /** Takes the right to write from a range, which stays mapped to be read; without it the range is taken away. */
  dropWrite?(agent: Agent, page: number, pages: number): Task<TakeAwayOutcome>;
  /** Told what one call of the domain's `map` has mapped. Part of the caller's step. */
  mapped?(page: number, pages: number): void;
  /** Told that an area has gone. Part of the caller's step. */
  unmapped?(page: number, pages: number): void;
  /** One pass of {@link StrategyState.background}, for a caller that keeps time itself. */
  backgroundPass?(agent: Agent): Task<void>;
  /**
   * Work that goes on by itself, as long as the hwpt lives: a daemon that the hwpt's owner spawns. It sleeps and wakes for ever, so
   * virtual time never runs dry while it is there: run it to a limit, or stop it.
   */
  background?(agent: Agent): Task<void>;
}

/** Table pages that taking a range away needs: none, from a reserve kept for it, or from the host at that moment. */
export type NotifierMemory = 'none' | 'reserve' | 'host';

/** A way to keep a domain in step with the host: an exchangeable policy of the one mechanism in `HwptPaging`. */
export interface Strategy {
  readonly name: string;
  /** Whether it claims that nobody outside the range notices (I4). */
  readonly claimsHitless: boolean;
  /** Whether it claims that what it takes away is never reached again (I1, I8): not so the two that are here to be refuted. */
  readonly claimsSafe: boolean;
  readonly notifierMemory: NotifierMemory;
  /** What it leaves of a large leaf of which one page was taken away. */
  readonly leaves: string;
  /** The CPU's second-stage table is the domain's: mapping an area fills nothing, CPU faults do. */
  readonly sharesCpuTable: boolean;
  /** Begins for one hwpt. */
  start(seat: StrategySeat): StrategyState;
}

/** What a strategy says of itself beyond its name; see {@link Strategy}. */
export type StrategyTraits = Omit<Strategy, 'name' | 'claimsHitless' | 'start'>;

const PLAIN_TRAITS: StrategyTraits = {
  claimsSafe: true,
  notifierMemory: 'none',
  leaves: 'nothing of the leaf',
  sharesCpuTable: false,
};

/** A strategy that remembers nothing between two ranges. */
export function statelessStrategy(
  name: string,
  claimsHitless: boolean,
  takeAway: TakeAway,
  traits: Partial<StrategyTraits> = {},
): Strategy {
  return {
    ...PLAIN_TRAITS,
    ...traits,
    name,
    claimsHitless,
    start: ({ domain }) => ({
      counters: new StrategyCounters(),
      takeAway: (agent, page, pages) => takeAway(agent, domain, page, pages),
    }),
  };
}
