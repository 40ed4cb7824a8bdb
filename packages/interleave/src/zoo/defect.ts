import type { Protocol } from '../protocol.ts';
import type { VerifyOptions } from '../verify.ts';

/** What is wrong, in words. */
interface DefectAccount {
  /** Its name, such as `D4` or `missing-iotlb-invalidation`. */
  readonly id: string;
  /** One line for a list. */
  readonly title: string;
  /** Where it was seen: a patch, a fix, an erratum, a paper; null if nowhere that we know of. */
  readonly source: string | null;
  /** What is wrong and why it matters, for an engineer who wants to check it. */
  readonly text: string;
}

/** A protocol with one thing wrong: some order of its steps breaks an invariant. */
export interface ExploredDefect extends DefectAccount {
  /** The invariants one of which it breaks. */
  readonly breaks: readonly string[];
  /** The protocol that is right but for this. */
  readonly protocol: Protocol;
  /** How it is looked for, where all orders would take too long. */
  readonly options?: Pick<VerifyOptions, 'random' | 'preemptions' | 'shrink'>;
}

/** A defect that breaks no invariant and costs something, in every order. */
export interface MeasuredDefect extends DefectAccount {
  /** Runs the same with the defect and without. */
  readonly measure: () => Measurement;
}

/** What a defect costs. */
export interface Measurement {
  /** What is counted. */
  readonly unit: string;
  readonly cases: readonly {
    readonly name: string;
    /** The count without the defect. */
    readonly right: number;
    /** The count with it. */
    readonly wrong: number;
  }[];
  /** Steps of the runs with the defect, together. */
  readonly steps: number;
}

/** Something that is wrong with a protocol, and how it shows. */
export type Defect = ExploredDefect | MeasuredDefect;
