/** What the command needs from the process around it. */
export interface Terminal {
  out(text: string): void;
  err(text: string): void;
  nowMs(): number;
  /** Aborted at Ctrl-C. */
  readonly interruption: AbortSignal;
}

/** Exit codes, as scripts see them. */
export const EXIT = {
  ok: 0,
  /** A bug of this tool or of a model. */
  internal: 1,
  /** The command line cannot be followed, or spin or gcc is not there. */
  usage: 2,
  /** A verdict is not the expected one, a defect was not found, or an own configuration breaks an invariant. */
  failed: 3,
  /** Ctrl-C; what was explored until then was printed. */
  interrupted: 130,
} as const;

/** What the user gave, or the machine has, cannot be used: printed without a stack, exit 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}
