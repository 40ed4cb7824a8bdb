/** A broken invariant: a bug of Faultline or of the protocol under test, never of the caller. Always on. */
export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new Error(`assertion failed: ${message}`);
}
