import { claimsSafe, type StatsDocument, type Strategy } from '@faultline/machine';
import type { COMPARISON_SCHEMA } from '../run/run-directory.ts';
import type { LoadedScenario } from '../scenario/load.ts';

/** One run, as a row: what is compared. Times are in ns. */
export interface ComparisonRow {
  readonly scenario: string;
  readonly strategy: string;
  readonly verdict: StatsDocument['verdict'];
  /** Whether it ended as the scenario, or for another strategy than the scenario's that strategy, claims. */
  readonly asClaimed: boolean;
  /** Why the host crashed, the device that was refused, or nothing. */
  readonly remark: string;
  readonly innocent: StatsDocument['innocent'];
  readonly invalidations: number;
  readonly tablePagesPeak: number;
  readonly splits: StatsDocument['iopt']['splits'];
  readonly collapses: number;
  readonly pageRequests: number;
  /** Pages reported dirty for each page that DMA wrote; null if none was written. */
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
    asClaimed: isAsClaimed({ own, strategy, expect: loaded.scenario.expect }, stats.verdict),
    remark: stats.crash?.reason ?? stats.refusal?.reason ?? '',
    innocent: { ...innocent },
    invalidations: iotlb.invalidations,
    tablePagesPeak: iopt.tablePagesPeak,
    splits: { ...iopt.splits },
    collapses: iopt.collapses,
    pageRequests: faults.pageRequests,
    dirtyInflation: dirty.writtenPages > 0 ? dirty.reportedPages / dirty.writtenPages : null,
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

/**
 * The scenario's own strategy has to end as the scenario expects. Another one has to hold, if it claims to be safe; those that are
 * there to be refuted may end as they do.
 */
function isAsClaimed(
  { own, strategy, expect }: { own: Strategy; strategy: Strategy; expect: StatsDocument['expect'] },
  verdict: StatsDocument['verdict'],
): boolean {
  const found = verdict === 'threshold-failed' ? 'ok' : verdict;
  if (strategy === own) return found === expect;
  if (!claimsSafe(strategy)) return true;
  return found === 'ok' || (expect === 'refused' && found === 'refused');
}
