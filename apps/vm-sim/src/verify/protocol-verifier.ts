/** A protocol that can be verified. */
export interface Protocol {
  readonly name: string;
  readonly title: string;
}

/** A step of the schedule that breaks an invariant. */
export interface ScheduleStep {
  readonly agent: string;
  readonly step: string;
  readonly what: string;
}

/** What exploring all orders of a protocol's steps found. */
export interface Verification {
  readonly protocol: string;
  /** What the protocol claims, in one line. */
  readonly title: string;
  readonly verdict: 'holds' | 'violated' | 'interrupted';
  readonly executions: number;
  readonly steps: number;
  /** Steps of the longest execution. */
  readonly longest: number;
  readonly configurations: readonly { readonly name: string; readonly executions: number; readonly verdict: string }[];
  readonly counterexample: null | {
    readonly configuration: string;
    readonly invariant: string;
    readonly message: string;
    readonly schedule: readonly ScheduleStep[];
  };
}

/** What explores protocols; a test may give another. */
export interface ProtocolVerifier {
  readonly protocols: readonly Protocol[];
  /** Yields now and then, so that the caller can draw progress and let signals in. */
  verify(
    name: string,
    options: { maxExecutions?: number; shouldStop?: () => boolean },
  ): Generator<{ executions: number; steps: number }, Verification, undefined>;
}
