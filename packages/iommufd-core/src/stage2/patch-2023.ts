import type { Agent, Task } from '@faultline/sim';
import type { Patch2023Defects } from '../iommu-domain.ts';
import {
  FELL_BACK,
  type Strategy,
  type StrategySeat,
  type StrategyState,
  TAKEN,
  type TakeAwayOutcome,
} from './strategy.ts';
import { StrategyCounters } from './strategy-counters.ts';
import { flushAll, takeAwayWholeLeaf } from './take-away.ts';

/** The defects of the posted patch that this model has, by their numbers; D2 concerns first-stage entries: no domain of this model has them. */
export const PATCH_2023_DEFECTS = ['D1', 'D3', 'D4', 'D5', 'D6', 'D7', 'D8', 'D9'] as const;
/** `D1` .. `D9`, without D2. */
export type Patch2023Defect = (typeof PATCH_2023_DEFECTS)[number];

/**
 * "iommu/vt-d: Atomic breakdown of IOPT into finer granularity" as it was posted in August 2023: unmap splits a large leaf, one
 * level at a time, each by one compare-and-swap. Every defect is a switch, on by default; with all of them off it is a
 * protocol that keeps every invariant, and hitless as long as there are table pages.
 * @param options.defects those that are on
 * @throws RangeError for a defect that there is not, or D2
 */
export function patch2023(options: { readonly defects?: readonly Patch2023Defect[] } = {}): Strategy {
  const { defects = PATCH_2023_DEFECTS } = options;
  for (const defect of defects as readonly string[]) {
    if (defect === 'D2')
      throw new RangeError(
        'defects: D2 concerns directory entries of the first stage, which no domain of this model has',
      );
    if (!(PATCH_2023_DEFECTS as readonly string[]).includes(defect))
      throw new RangeError(`defects: "${defect}" is not one of ${PATCH_2023_DEFECTS.join(', ')}`);
  }
  const has = (defect: Patch2023Defect): boolean => defects.includes(defect);
  const on: Patch2023Defects = {
    D1: has('D1'),
    D3: has('D3'),
    D4: has('D4'),
    D5: has('D5'),
    D6: has('D6'),
    D7: has('D7'),
    D8: has('D8'),
    D9: has('D9'),
  };
  return {
    name: 'patch-2023',
    claimsHitless: true,
    claimsSafe: defects.every((defect) => defect === 'D7'),
    notifierMemory: on.D6 ? 'host' : 'reserve',
    leaves: 'every other page; after a failure the page itself too',
    sharesCpuTable: false,
    start: (seat) => new Patch2023(seat, on),
  };
}

class Patch2023 implements StrategyState {
  readonly counters = new StrategyCounters();
  readonly #seat: StrategySeat;
  readonly #defects: Patch2023Defects;

  constructor(seat: StrategySeat, defects: Patch2023Defects) {
    this.#seat = seat;
    this.#defects = defects;
  }

  *takeAway(agent: Agent, page: number, pages: number): Task<TakeAwayOutcome> {
    const { domain } = this.#seat;
    const gather = domain.gather();
    const defects = this.#defects;
    const { failed, unsplit } = yield* domain.unmapByPatch2023(agent, { page, pages, defects }, gather);
    if (unsplit?.badAddress) return { fellBack: false, unsplit }; // the kernel is dead
    yield* flushAll(agent, domain, gather);
    if (failed === null) {
      if (!defects.D6 && agent.maySleep) yield* domain.refillReserve(agent);
      return unsplit === null ? TAKEN : { fellBack: false, unsplit };
    }
    // An mmu notifier cannot fail: the host goes on as if the page were gone. Who knows better takes the whole leaf.
    if (failed === 'EBUSY' ? defects.D5 : defects.D6) {
      this.counters.failedUnmaps++;
      return unsplit === null ? TAKEN : { fellBack: false, unsplit };
    }
    yield* takeAwayWholeLeaf(agent, domain, page, pages);
    return unsplit === null ? FELL_BACK : { fellBack: true, unsplit };
  }
}
