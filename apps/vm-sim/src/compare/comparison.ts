import { claimsOf, type StatsDocument, type Strategy } from '@faultline/machine';
import type { COMPARISON_SCHEMA } from '../run/run-directory.ts';
import type { LoadedScenario } from '../scenario/load.ts';

/** One run, as a row: what is compared. Times are in ns. */
export interface ComparisonRow {
  readonly scenario: string;
  readonly strategy: string;
  readonly verdict: StatsDocument['verdict'];
  /** Whether it ended as the scenario, or for another strategy than the scenario's that strategy, claims. */
  readonly asClaimed: boolean;
  /** Why the host crashed, the device that was refused, the first violation, or nothing. */
  readonly remark: string;
  readonly innocent: StatsDocument['innocent'];
  readonly invalidations: number;
  readonly tablePagesPeak: number;
  readonly splits: StatsDocument['iopt']['splits'];
  readonly collapses: number;
  readonly pageRequests: number;
  /** Pages reported dirty for each page that DMA wrote; null if none was written, or reported. */
  readonly dirtyInflation: number | null;
  readonly dma: {
    readonly requests: number;
    readonly bytesPerSecond: number;
    readonly p50Ns: number;
    readonly p99Ns: number;
  };
  readonly swapOut: number;
  readonly freedBytes: number;
  readonly invariants: { readonly held: readonly string[]; readonly violated: readonly string[] };
}

/** What `--json` prints. Rows that were not finished when the user interrupted are missing. */
export interface Comparison {
  readonly schema: typeof COMPARISON_SCHEMA;
  readonly version: string;
  readonly seed: number;
  readonly interrupted: boolean;
  readonly rows: readonly ComparisonRow[];
  /** Runs that cannot be: a strategy that does not go with the scenario. */
  readonly skipped: readonly SkippedRun[];
}

/** A run that cannot be, and why. */
export interface SkippedRun {
  readonly scenario: string;
  readonly strategy: string;
  readonly reason: string;
}

/** A run that is to be made: a scenario with one strategy. */
export interface PlannedRun {
  /** With the strategy put in. */
  readonly loaded: LoadedScenario;
  readonly strategy: Strategy;
  /** The scenario's own. */
  readonly own: Strategy;
}

/** What the row says of a finished run. */
export function comparisonRow({ loaded, strategy, own }: PlannedRun, stats: StatsDocument): ComparisonRow {
  const { dma, iopt, dirty, hostMm, innocent, iotlb, faults } = stats;
  const ids = (broken: boolean): string[] =>
    stats.invariants
      .filter(({ checks, violations }) => (broken ? violations > 0 : violations === 0 && checks > 0))
      .map(({ id }) => id);
  return {
    scenario: stats.scenario,
    strategy,
    verdict: stats.verdict,
    asClaimed: isAsClaimed({ loaded, strategy, own }, stats),
    remark: stats.crash?.reason ?? stats.refusal?.reason ?? firstViolation(stats),
    innocent: { ...innocent },
    invalidations: iotlb.invalidations,
    tablePagesPeak: iopt.tablePagesPeak,
    splits: { ...iopt.splits },
    collapses: iopt.collapses,
    pageRequests: faults.pageRequests,
    dirtyInflation: dirty.writtenPages > 0 && dirty.reportedPages > 0 ? dirty.reportedPages / dirty.writtenPages : null,
    dma: {
      requests: dma.requests,
      bytesPerSecond: dma.bytesPerSecond,
      p50Ns: dma.latencyNs.p50,
      p99Ns: dma.latencyNs.p99,
    },
    swapOut: hostMm.swapOut,
    freedBytes: hostMm.freedBytes,
    invariants: { held: ids(false), violated: ids(true) },
  };
}

function firstViolation({ invariants }: StatsDocument): string {
  const [broken] = invariants.filter(({ violations }) => violations > 0);
  return broken?.first === undefined ? '' : `${broken.id}: ${broken.first}`;
}

/**
 * The scenario's own strategy has to end as the scenario expects. Another one has to keep its claims: whoever claims to be safe
 * violates nothing, except that a device which cannot wait may die (I13) where neighbours fault. Those that are there to be
 * refuted may end as they do.
 */
function isAsClaimed({ loaded, strategy, own }: PlannedRun, { verdict, invariants }: StatsDocument): boolean {
  const { expect } = loaded.scenario;
  const found = verdict === 'threshold-failed' ? 'ok' : verdict;
  if (strategy === own) return found === expect;
  const { safe, hitless } = claimsOf(loaded.scenario);
  if (!safe) return true;
  if (found === 'refused') return expect === 'refused';
  if (found === 'invariant-violated')
    return !hitless && invariants.every(({ id, violations }) => violations === 0 || id === 'I13');
  return found === 'ok';
}
