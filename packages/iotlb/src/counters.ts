/** Positions in the counter array of an {@link Iotlb}. Hits are counted at the level of the entry. A look-up counts once. */
export const Counter = {
  misses: 0,
  hits4K: 1,
  hits2M: 2,
  hits1G: 3,
  fills: 4,
  evictions: 5,
  invalidations: 6,
  dropped: 7,
  resets: 8,
  lost: 9,
} as const;

const SIZE = Object.keys(Counter).length;

/** Live counts of one IOTLB since it was made. Exact to 2^53. */
export class IotlbCounters {
  readonly #values: Float64Array;

  /** @param values the owner's array, indexed by {@link Counter} */
  constructor(values: Float64Array) {
    this.#values = values;
  }

  /** Look-ups that count: every `lookup`, no `peek`. */
  get lookups(): number {
    return this.hits + this.misses;
  }
  /** Look-ups that found an entry, of any size. */
  get hits(): number {
    return this.hits4K + this.hits2M + this.hits1G;
  }
  /** Look-ups that found none. */
  get misses(): number {
    return this.#values[Counter.misses]!;
  }
  /** Hits on 4K entries. */
  get hits4K(): number {
    return this.#values[Counter.hits4K]!;
  }
  /** Hits on 2M entries. */
  get hits2M(): number {
    return this.#values[Counter.hits2M]!;
  }
  /** Hits on 1G entries. */
  get hits1G(): number {
    return this.#values[Counter.hits1G]!;
  }
  /** Entries written, also over one with the same tag. */
  get fills(): number {
    return this.#values[Counter.fills]!;
  }
  /** Entries lost because their place was needed. */
  get evictions(): number {
    return this.#values[Counter.evictions]!;
  }
  /** Invalidation requests of any granularity, including those that found nothing. */
  get invalidations(): number {
    return this.#values[Counter.invalidations]!;
  }
  /** Entries dropped by invalidations. */
  get dropped(): number {
    return this.#values[Counter.dropped]!;
  }
  /** Times that a full cache was emptied as a whole (`resetAtEntries`). */
  get resets(): number {
    return this.#values[Counter.resets]!;
  }
  /** Entries that went with no invalidation and for no other entry (`mayLoseEntries`, `lose`). */
  get lost(): number {
    return this.#values[Counter.lost]!;
  }

  /** A plain copy for reports. */
  snapshot(): Readonly<Record<keyof typeof Counter | 'hits' | 'lookups', number>> {
    const { lookups, hits, misses, hits4K, hits2M, hits1G, fills, evictions, invalidations, dropped, resets, lost } =
      this;
    return { lookups, hits, misses, hits4K, hits2M, hits1G, fills, evictions, invalidations, dropped, resets, lost };
  }
}

/** A zeroed array for {@link IotlbCounters}. */
export const counterArray = (): Float64Array => new Float64Array(SIZE);
