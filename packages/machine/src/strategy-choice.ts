import { parseDurationNs } from '@faultline/address';
import { cutAndCollapse, patch2023, STRATEGIES, type Strategy } from '@faultline/iommufd-core';
import type { Scenario } from './scenario.ts';

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

/** Whether a strategy claims that what it takes away is never reached again: not so those that are there to be refuted. */
export const claimsSafe = (name: Scenario['strategy']): boolean => name === 'pinned' || STRATEGIES[name].claimsSafe;
