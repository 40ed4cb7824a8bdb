import { build } from 'hdr-histogram-js';

/** Summary of a distribution of durations, in ns (integers, 3 significant digits). All zero when nothing was recorded. */
export interface LatencySummaryNs {
  readonly mean: number;
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
  readonly p999: number;
  readonly max: number;
}

const HIGHEST_TRACKABLE_NS = 3.6e12;

/** A histogram of durations with 3 significant digits, up to one hour. */
export class LatencyHistogram {
  readonly #histogram = build({
    lowestDiscernibleValue: 1,
    highestTrackableValue: HIGHEST_TRACKABLE_NS,
    numberOfSignificantValueDigits: 3,
    bitBucketSize: 32,
    autoResize: false,
    useWebAssembly: false,
  });

  /** Records a duration in ns. Longer than an hour counts as an hour. */
  record(ns: number): void {
    this.#histogram.recordValue(Math.min(ns, HIGHEST_TRACKABLE_NS));
  }

  /** Adds what another one has recorded. */
  add(other: LatencyHistogram): void {
    this.#histogram.add(other.#histogram);
  }

  /** How many durations were recorded. */
  get count(): number {
    return this.#histogram.totalCount;
  }

  summary(): LatencySummaryNs {
    const h = this.#histogram;
    if (h.totalCount === 0) return { mean: 0, p50: 0, p90: 0, p99: 0, p999: 0, max: 0 };
    // A percentile is the top of its bucket; no duration was longer than the longest.
    const at = (percentile: number) => Math.min(h.getValueAtPercentile(percentile), h.maxValue);
    return { mean: Math.round(h.mean), p50: at(50), p90: at(90), p99: at(99), p999: at(99.9), max: h.maxValue };
  }
}
