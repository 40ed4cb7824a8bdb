import { parseDurationNs } from '@faultline/address';
import { cutAndCollapse, patch2023, STRATEGIES, type Strategy } from '@faultline/iommufd-core';
import { type Scenario, vmsOf } from './scenario.ts';

/** The strategy that a scenario asks for, with its settings; null for `pinned`, which follows nothing. */
export function strategyOf({ strategy, iommu }: Scenario): Strategy | null {
  switch (strategy) {
    case 'pinned':
      return null;
    case 'cut+collapse':
      return cutAndCollapse({
        intervalNs: parseDurationNs(iommu.collapse.interval),
        quietPasses: iommu.collapse.quietPasses,
      });
    case 'patch-2023':
      return patch2023({ defects: iommu.patchDefects });
    default:
      return STRATEGIES[strategy];
  }
}

/** What a strategy claims of itself. */
export interface StrategyClaims {
  /** What it takes away is never reached again: not so those that are there to be refuted. */
  readonly safe: boolean;
  /** Nobody outside the range notices (I4), so that no device that cannot wait dies of it (I13). */
  readonly hitless: boolean;
}

/**
 * The claims of a scenario's strategy. Pinned memory whose content the owner gives up (MADV_DONTNEED, a balloon) is not the same for
 * CPU and devices any more, in Linux as here, so that pinning is safe only without that.
 */
export function claimsOf(scenario: Scenario): StrategyClaims {
  const { strategy, events } = scenario;
  if (strategy !== 'pinned') {
    const { claimsSafe: safe, claimsHitless: hitless } = STRATEGIES[strategy];
    return { safe, hitless };
  }
  const givesUp =
    events.some(({ action }) => action === 'madvise-dontneed') ||
    vmsOf(scenario).some(({ balloon }) => balloon !== null);
  return { safe: !givesUp, hitless: true };
}
