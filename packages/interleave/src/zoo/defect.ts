import type { Protocol } from '../protocol.ts';
import type { VerifyOptions } from '../verify.ts';

/** A protocol with one thing wrong. */
export interface Defect {
  /** Its name, such as `D4` or `missing-iotlb-invalidation`. */
  readonly id: string;
  /** One line for a list. */
  readonly title: string;
  /** Where it was seen: a patch, a fix, an erratum, a paper; null if nowhere that we know of. */
  readonly source: string | null;
  /** What is wrong and why it matters, for an engineer who wants to check it. */
  readonly text: string;
  /** The invariants one of which it breaks. */
  readonly breaks: readonly string[];
  /** The protocol that is right but for this. */
  readonly protocol: Protocol;
  /** How it is looked for, where all orders would take too long. */
  readonly options?: Pick<VerifyOptions, 'random' | 'preemptions'>;
}
