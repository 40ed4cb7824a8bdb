/** What one round of a benchmark gave. */
export interface Outcome {
  /** Nanoseconds of the measured part: set-up, checks and tear-down are left out. */
  readonly ns: number;
  /** Hash, as an unsigned 32-bit number, over everything that was computed. The native side has to give the same. */
  readonly checksum: number;
}

/** One kind of work, done here and by the native side. */
export interface Benchmark {
  /** Also the name by which the native side knows it. */
  readonly name: string;
  /** Operations in one round; the same on both sides, so that the checksums can be compared. */
  readonly operations: number;
  /** Most that the ratio to C may be, or null: for information. */
  readonly target: number | null;
  /** Does that many operations. */
  readonly run: (operations: number) => Outcome;
}

/** Nanoseconds since some moment. */
export const clockNs = (): bigint => process.hrtime.bigint();

/** Makes an outcome of a start, an end and a hash. */
export const outcome = (start: bigint, end: bigint, hash: number): Outcome => ({
  ns: Number(end - start),
  checksum: hash >>> 0,
});
