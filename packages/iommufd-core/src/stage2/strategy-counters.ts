/** What a strategy did for one hwpt. Each counts only what its own strategy can do; the others stay 0. */
export class StrategyCounters {
  /** `cut+collapse`: large leaves put back. */
  collapses = 0;
  /** `break-before-make`: innocent pages that left the domain and were mapped back in the same call. */
  mappedBack = 0;
  /** `break-before-make`: innocent pages that stayed unmapped, since there was no table page for them. */
  lostInnocents = 0;
  /** `paired`: innocent pages that went with the unit of the one asked for. */
  unitInnocents = 0;
  /** `patch-2023`: unmaps that failed and left the page mapped. */
  failedUnmaps = 0;
}
