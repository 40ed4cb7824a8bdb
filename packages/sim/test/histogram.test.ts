import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { LatencyHistogram } from '../src/index.ts';

describe('a latency histogram', () => {
  it('is all zero while empty', () => {
    const histogram = new LatencyHistogram();
    expect(histogram.count).toBe(0);
    expect(histogram.summary()).toEqual({ mean: 0, p50: 0, p90: 0, p99: 0, p999: 0, max: 0 });
  });
  it('gives percentiles of the sorted list to three digits', () => {
    const duration = fc.oneof(fc.nat(3000), fc.integer({ min: 0, max: 3.6e12 }));
    fc.assert(
      fc.property(fc.array(duration, { minLength: 1, maxLength: 60 }), (durations) => {
        const histogram = new LatencyHistogram();
        for (const ns of durations) histogram.record(ns);
        const sorted = [...durations].sort((a, b) => a - b);
        const rank = (share: number) => sorted[Math.max(1, Math.ceil(share * sorted.length)) - 1] as number;
        const summary = histogram.summary();
        expect(histogram.count).toBe(durations.length);
        const exact = { p50: rank(0.5), p90: rank(0.9), p99: rank(0.99), p999: rank(0.999), max: rank(1) };
        for (const [name, value] of Object.entries(exact)) {
          const found = summary[name as keyof typeof exact];
          expect(Math.abs(found - value), `${name} ${found} of ${value}`).toBeLessThanOrEqual(value / 1000);
        }
        const mean = durations.reduce((sum, ns) => sum + ns, 0) / durations.length;
        expect(Math.abs(summary.mean - mean)).toBeLessThanOrEqual(mean / 1000 + 1);
      }),
    );
  });
  it('counts what is longer than an hour as an hour', () => {
    const histogram = new LatencyHistogram();
    histogram.record(1e15);
    expect(Math.abs(histogram.summary().max - 3.6e12)).toBeLessThan(3.6e9);
  });
  it('adds another one: as if all had been recorded in one', () => {
    const duration = fc.array(fc.nat(1e9), { maxLength: 30 });
    fc.assert(
      fc.property(duration, duration, (some, others) => {
        const [sum, other, all] = [new LatencyHistogram(), new LatencyHistogram(), new LatencyHistogram()];
        for (const ns of some) sum.record(ns);
        for (const ns of others) other.record(ns);
        for (const ns of [...some, ...others]) all.record(ns);
        sum.add(other);
        expect([sum.count, sum.summary()]).toEqual([all.count, all.summary()]);
        expect(other.count).toBe(others.length);
      }),
      { numRuns: 20 },
    );
  });
});
