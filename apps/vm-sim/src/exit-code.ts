/** Exit codes of `vm-sim`, as scripts see them. */
export const EXIT = {
  ok: 0,
  /** A bug in the simulator. */
  internal: 1,
  /** The command line, a scenario or a trace cannot be used. */
  usage: 2,
  /** An invariant is violated, the host crashed where it should not (or not where it should), the model differs from a trace. */
  failed: 3,
  /** A threshold failed, nothing worse. */
  threshold: 99,
  /** Interrupted; what there is was written. */
  interrupted: 130,
} as const;

/** One of {@link EXIT}. */
export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

/** What the user gave cannot be used: printed as it is, without a stack, and exit 2. */
export class UsageError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'UsageError';
  }
}
