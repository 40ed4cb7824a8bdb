import type { Agent, Task } from '@faultline/sim';

/** One task under exploration. */
export interface ExploredTask {
  readonly agent: Agent;
  readonly task: Task<unknown>;
  /** A worker that waits for ever when there is nothing to do, such as the invalidation queue's hardware. */
  readonly daemon?: boolean;
  /**
   * Tasks with the same name here run the same code on the same state, such as workers of one queue: of those that have not begun only
   * the first is tried. (One that has is no longer the same: what it did happens before what it does.)
   */
  readonly alike?: string;
}

/** A broken invariant. */
export interface Violation {
  /** `I1` .. `I13`. */
  readonly invariant: string;
  readonly message: string;
}

/** A small world that is built anew for every execution. Building must be deterministic. */
export interface ExploredSystem {
  readonly tasks: readonly ExploredTask[];
  /** After every step: what is broken, or null. Looks only at what the steps' footprints name. */
  check(): Violation | null;
  /** After the last step. */
  checkEnd(): Violation | null;
}
