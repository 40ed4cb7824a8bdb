import fc from 'fast-check';
import { expect } from 'vitest';

/** A cache as the laws see it: entries and invalidations are plain data. */
export interface CacheUnderTest<E, I> {
  fill(entry: E): void;
  invalidate(invalidation: I): void;
  held(): readonly E[];
}

/** What the specification says of one kind of cache. */
export interface CacheSpecification<E, I> {
  readonly entries: fc.Arbitrary<E>;
  readonly invalidations: fc.Arbitrary<I>;
  /** Two entries with the same key cannot be held at once. */
  keyOf(entry: E): string;
  /** Whether an invalidation has to drop an entry that is held. */
  mustDrop(invalidation: I, entry: E): boolean;
  /** What a fill makes of an entry: a fraction of a large page, or itself. */
  cached?(entry: E): E;
}

const text = (entry: unknown): string =>
  JSON.stringify(entry, (_key, value) => (typeof value === 'bigint' ? `0x${value.toString(16)}` : value));

function checkFill<E, I>(cache: CacheUnderTest<E, I>, specification: CacheSpecification<E, I>, entry: E): void {
  const cached = specification.cached?.(entry) ?? entry;
  const key = specification.keyOf(cached);
  const others = cache.held().filter((other) => specification.keyOf(other) !== key);
  cache.fill(entry);
  expect(cache.held().map(text).sort()).toEqual([...others, cached].map(text).sort());
}

function checkInvalidation<E, I>(
  cache: CacheUnderTest<E, I>,
  specification: CacheSpecification<E, I>,
  invalidation: I,
  exact: boolean,
): void {
  const before = cache.held();
  cache.invalidate(invalidation);
  const after = new Set(cache.held().map(text));
  for (const entry of before) {
    const must = specification.mustDrop(invalidation, entry);
    if (must) expect(after, `${text(invalidation)} has to drop`).not.toContain(text(entry));
    else if (exact) expect(after, `${text(invalidation)} has to keep`).toContain(text(entry));
  }
  const known = new Set(before.map(text));
  for (const entry of after) expect(known, `${text(invalidation)} makes no entry`).toContain(entry);
}

/**
 * The laws of a cache that is large enough for every program: a fill adds its entry and removes only one with the same
 * key; an invalidation drops all that it must and, if `exact`, nothing else; it adds nothing.
 */
export function checkCacheLaws<E, I>(
  make: () => CacheUnderTest<E, I>,
  specification: CacheSpecification<E, I>,
  { exact, runs = 150 }: { readonly exact: boolean; readonly runs?: number },
): void {
  const operation = fc.oneof(
    { weight: 3, arbitrary: fc.record({ fill: specification.entries }) },
    { weight: 1, arbitrary: fc.record({ invalidate: specification.invalidations }) },
  );
  fc.assert(
    fc.property(fc.array(operation, { maxLength: 40 }), (program) => {
      const cache = make();
      for (const step of program) {
        if ('fill' in step) checkFill(cache, specification, step.fill);
        else checkInvalidation(cache, specification, step.invalidate, exact);
      }
    }),
    { numRuns: runs },
  );
}

/** A map that does what the specification says and no more: it shows that the laws can be kept, and lets them be broken. */
export class NaiveCache<E, I> implements CacheUnderTest<E, I> {
  readonly #entries = new Map<string, E>();
  readonly #specification: CacheSpecification<E, I>;

  constructor(specification: CacheSpecification<E, I>) {
    this.#specification = specification;
  }

  fill(entry: E): void {
    const cached = this.#specification.cached?.(entry) ?? entry;
    this.#entries.set(this.#specification.keyOf(cached), cached);
  }

  invalidate(invalidation: I): void {
    for (const [key, entry] of this.#entries)
      if (this.#specification.mustDrop(invalidation, entry)) this.#entries.delete(key);
  }

  held(): readonly E[] {
    return [...this.#entries.values()];
  }
}
