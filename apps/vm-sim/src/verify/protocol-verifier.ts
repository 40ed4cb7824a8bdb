import type { Protocol, VerifyOptions, VerifyResult } from '@faultline/interleave';

/** What explores protocols; a test may give another. */
export interface ProtocolVerifier {
  readonly protocols: readonly Protocol[];
  /** Yields now and then, so that the caller can draw progress and let signals in. */
  verify(
    protocol: Protocol,
    options: VerifyOptions,
  ): Generator<{ executions: number; steps: number }, VerifyResult, undefined>;
}
