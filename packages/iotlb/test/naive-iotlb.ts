import type { LeafLevel, PartialInvalidation } from '../src/index.ts';

/** What the cache holds for one (source-id, page), written with BigInt and no cleverness. */
export interface NaiveEntry {
  readonly sourceId: number;
  readonly did: number;
  readonly iova: bigint;
  readonly level: LeafLevel;
  readonly leaf: bigint;
  readonly rights: number;
}

export const pageBytes = (level: number): bigint => 1n << BigInt(12 + 9 * (level - 1));
const keyOf = (sourceId: number, level: number, iova: bigint): string => `${sourceId}/${level}/${iova}`;

/** A Map. It never evicts: it is the set of entries that a cache of unbounded size would hold. */
export class NaiveIotlb {
  readonly entries = new Map<string, NaiveEntry>();
  readonly #partial: PartialInvalidation;

  constructor(partial: PartialInvalidation) {
    this.#partial = partial;
  }

  fill(entry: NaiveEntry): void {
    const iova = entry.iova & ~(pageBytes(entry.level) - 1n);
    this.entries.set(keyOf(entry.sourceId, entry.level, iova), { ...entry, iova });
  }

  lookup(sourceId: number, iova: bigint): NaiveEntry | undefined {
    for (const level of [1, 2, 3]) {
      const found = this.entries.get(keyOf(sourceId, level, iova & ~(pageBytes(level) - 1n)));
      if (found) return found;
    }
    return undefined;
  }

  pfn(entry: NaiveEntry, iova: bigint): number {
    const offset = iova & (pageBytes(entry.level) - 1n);
    const frame = entry.leaf & ((1n << 52n) - 1n) & ~(pageBytes(entry.level) - 1n);
    return Number((frame | offset) >> 12n);
  }

  invalidatePages(matches: (entry: NaiveEntry) => boolean, iova: bigint, addressMask: number): number {
    const length = 1n << BigInt(12 + addressMask);
    const start = (iova / length) * length;
    return this.invalidate((entry) => {
      const bytes = pageBytes(entry.level);
      if (!matches(entry) || entry.iova >= start + length || start >= entry.iova + bytes) return false;
      const whole = entry.iova >= start && entry.iova + bytes <= start + length;
      return whole || this.#partial === 'whole';
    });
  }

  invalidate(matches: (entry: NaiveEntry) => boolean): number {
    const doomed = [...this.entries].filter(([, entry]) => matches(entry));
    for (const [key] of doomed) this.entries.delete(key);
    return doomed.length;
  }
}
