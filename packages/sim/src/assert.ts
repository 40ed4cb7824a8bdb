/**
 * A broken invariant: a bug of Faultline or of the protocol under test, never of the caller. Always on.
 * @param message a function where building the text would cost more than the check
 */
export function assert(condition: boolean, message: string | (() => string)): asserts condition {
  if (!condition) throw new Error(`assertion failed: ${typeof message === 'string' ? message : message()}`);
}
