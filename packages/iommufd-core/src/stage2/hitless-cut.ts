import type { Strategy, StrategySeat, StrategyState } from './strategy.ts';
import { StrategyCounters } from './strategy-counters.ts';
import { dropWriteByCut, takeAwayByCut } from './take-away.ts';

const CUT_TRAITS = {
  claimsHitless: true,
  claimsSafe: true,
  notifierMemory: 'reserve',
  leaves: 'every other page, in the largest leaves that fit around the range',
} as const;

const startCut = ({ domain }: StrategySeat): StrategyState => ({
  counters: new StrategyCounters(),
  takeAway: (agent, page, pages) => takeAwayByCut(agent, domain, page, pages),
  dropWrite: (agent, page, pages) => dropWriteByCut(agent, domain, page, pages),
});

/** A private sub-tree, one compare-and-swap, maximal leaves on both sides. */
export const HITLESS_CUT: Strategy = { ...CUT_TRAITS, name: 'cut', sharesCpuTable: false, start: startCut };

/**
 * Kevin Tian's second mail: the CPU's second-stage table is the domain. Mapping an area fills nothing; the faults of CPU and
 * devices go straight to the mm and fill one table; what the host takes away its owner cuts out, hitless, and the IOMMU follows
 * by invalidation.
 */
export const SHARED_EPT: Strategy = { ...CUT_TRAITS, name: 'shared-ept', sharesCpuTable: true, start: startCut };
