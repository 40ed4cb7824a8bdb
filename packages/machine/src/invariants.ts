import type { InvariantStats } from './stats.ts';

/** Invariants that a machine checks while it runs; I6 only with the A and D bits of the second stage. */
export const CHECKED_INVARIANTS = [
  'I1',
  'I2',
  'I3',
  'I4',
  'I5',
  'I6',
  'I7',
  'I8',
  'I9',
  'I10',
  'I11',
  'I12',
  'I13',
] as const;
/** An invariant of ARCHITECTURE.md by its id. */
export type InvariantId = (typeof CHECKED_INVARIANTS)[number];

/** Counts checks and violations by invariant, and keeps the first violation of each in words. */
export class InvariantLedger {
  readonly #checks = new Map<InvariantId, number>(CHECKED_INVARIANTS.map((id) => [id, 0]));
  readonly #violations = new Map<InvariantId, { count: number; first: string }>();
  readonly #now: () => number;

  /** @param now virtual time in ns, for the place of a violation */
  constructor(now: () => number) {
    this.#now = now;
  }

  /** Counts a check; `describe` is called only for the first violation. @returns `holds` */
  check(id: InvariantId, holds: boolean, describe: () => string): boolean {
    this.#checks.set(id, (this.#checks.get(id) ?? 0) + 1);
    if (!holds) {
      const known = this.#violations.get(id);
      if (known) known.count++;
      else this.#violations.set(id, { count: 1, first: `${describe()} (at ${this.#now()} ns)` });
    }
    return holds;
  }

  /** Whether any invariant was violated. */
  get violated(): boolean {
    return this.#violations.size > 0;
  }

  /** For the stats document. */
  summary(): InvariantStats[] {
    return CHECKED_INVARIANTS.map((id) => {
      const violation = this.#violations.get(id);
      const checks = this.#checks.get(id) ?? 0;
      return violation
        ? { id, checks, violations: violation.count, first: violation.first }
        : { id, checks, violations: 0 };
    });
  }
}
