import { breakBeforeMake } from './break-before-make.ts';
import { cutAndCollapse } from './cut-and-collapse.ts';
import { HITLESS_CUT, SHARED_EPT } from './hitless-cut.ts';
import { paired } from './paired.ts';
import { patch2023 } from './patch-2023.ts';
import { type Strategy, statelessStrategy } from './strategy.ts';
import { takeAwayNaively, takeAwayWholeLeaf } from './take-away.ts';

/** The names of {@link STRATEGIES}. */
export type StrategyName =
  | 'naive'
  | 'paired'
  | 'whole-leaf'
  | 'break-before-make'
  | 'patch-2023'
  | 'cut'
  | 'cut+collapse'
  | 'shared-ept';

/** The strategies that follow a host's changes. `pinned` is none of them: what is pinned does not change. */
export const STRATEGIES: Readonly<Record<StrategyName, Strategy>> = {
  naive: statelessStrategy('naive', false, takeAwayNaively, {
    claimsSafe: false,
    leaves: 'the whole leaf, and damaged memory where it believed to find tables',
  }),
  paired: paired(),
  'whole-leaf': statelessStrategy('whole-leaf', false, takeAwayWholeLeaf),
  'break-before-make': breakBeforeMake(),
  'patch-2023': patch2023(),
  cut: HITLESS_CUT,
  'cut+collapse': cutAndCollapse(),
  'shared-ept': SHARED_EPT,
};
