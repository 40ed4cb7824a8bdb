import type { Benchmark } from './benchmark.ts';
import type { Native } from './native.ts';

/** One row of the result; times are nanoseconds for one operation. */
export interface Row {
  readonly name: string;
  /** TypeScript and C: the best round, which other work on the machine disturbed least. */
  readonly nsPerOp: number;
  readonly nativeNsPerOp: number;
  /** nsPerOp / nativeNsPerOp. */
  readonly ratio: number;
  /** The median round of each. */
  readonly medianNsPerOp: number;
  readonly nativeMedianNsPerOp: number;
  readonly target: number | null;
  /** Whether the ratio is within the target; null without one. */
  readonly ok: boolean | null;
}

/** How much is measured. */
export interface Effort {
  /** Measured rounds. */
  readonly rounds: number;
  /** Rounds before them, until the JIT has compiled what is hot; their times are dropped. */
  readonly warmUpRounds: number;
  /** Operations are divided by this, down to one. */
  readonly divisor: number;
}

/** The two sides computed different things, so their times say nothing. */
export class ResultsDiffer extends Error {
  override readonly name = 'ResultsDiffer';
}

/** Median of at least one number. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] as number;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] as number) + upper) / 2;
}

/** The row of a benchmark from its rounds, given in nanoseconds for one operation. */
export function rowOf(
  { name, target }: Pick<Benchmark, 'name' | 'target'>,
  own: readonly number[],
  native: readonly number[],
): Row {
  const nsPerOp = Math.min(...own);
  const nativeNsPerOp = Math.min(...native);
  const ratio = nsPerOp / nativeNsPerOp;
  const ok = target === null ? null : ratio <= target;
  const medians = { medianNsPerOp: median(own), nativeMedianNsPerOp: median(native) };
  return { name, nsPerOp, nativeNsPerOp, ratio, ...medians, target, ok };
}

/**
 * Runs every benchmark here and in C in turns, A B A B. The rounds are the outer loop: all benchmarks run in one process,
 * with the JIT's types polluted by the others as in real use, and a disturbance of the machine does not fall on
 * one of them. Every round's checksums must agree.
 * @throws ResultsDiffer
 */
export async function measure(
  benchmarks: readonly Benchmark[],
  native: Pick<Native, 'run'>,
  effort: Effort,
  progress: (message: string) => void,
): Promise<Row[]> {
  const samples = benchmarks.map((benchmark) => ({ benchmark, own: [] as number[], native: [] as number[] }));
  for (let round = -effort.warmUpRounds; round < effort.rounds; round++) {
    if (round === -effort.warmUpRounds) progress('warming up');
    if (round >= 0 && round % 10 === 0) progress(`round ${round + 1} of ${effort.rounds}`);
    for (const sample of samples) {
      const { name, run } = sample.benchmark;
      const operations = Math.max(1, Math.floor(sample.benchmark.operations / effort.divisor));
      globalThis.gc?.();
      // A tenth first, untimed, so that each side starts with its own data in the CPU's caches.
      const tenth = Math.ceil(operations / 10);
      run(tenth);
      const here = run(operations);
      await native.run(name, tenth);
      const there = await native.run(name, operations);
      if (here.checksum !== there.checksum)
        throw new ResultsDiffer(
          `${name}: checksum 0x${here.checksum.toString(16)} here, 0x${there.checksum.toString(16)} in C, after ${operations} operations`,
        );
      if (round < 0) continue;
      sample.own.push(here.ns / operations);
      sample.native.push(there.ns / operations);
    }
  }
  return samples.map((sample) => rowOf(sample.benchmark, sample.own, sample.native));
}
