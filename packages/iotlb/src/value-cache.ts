import { SetAssociative, type SetAssociativeGeometry } from './set-associative.ts';

/** What the context cache and the PASID-cache have in common: values of the caller's, tagged for look-up and by domain-id. */
export class ValueCache<V> {
  readonly #store: SetAssociative;
  readonly #did: Int32Array;
  readonly #values: (V | undefined)[];
  #lookups = 0;
  #hits = 0;

  /** @param geometry default 1 set of 64; no source gives a size @throws RangeError for a geometry that cannot be */
  constructor(name: string, geometry: SetAssociativeGeometry = { sets: 1, ways: 64 }) {
    this.#store = SetAssociative.alone(name, geometry, 0);
    this.#did = new Int32Array(this.#store.slots);
    this.#values = new Array<V | undefined>(this.#store.slots).fill(undefined);
  }

  /** Look-ups and hits since it was made. */
  get counters(): { readonly lookups: number; readonly hits: number } {
    return { lookups: this.#lookups, hits: this.#hits };
  }

  /** Entries held now. */
  get size(): number {
    return this.#store.count;
  }

  /** Domain-id of the entry. */
  didAt(slot: number): number {
    return this.#did[slot]!;
  }

  /** What was cached. The slot must be one that a look-up gave. @throws RangeError for an empty slot */
  valueAt(slot: number): V {
    if (!this.#store.occupies(slot)) throw new RangeError(`slot: ${slot} holds no entry`);
    return this.#values[slot] as V;
  }

  /** Global. @returns entries dropped */
  invalidateGlobal(): number {
    return this.dropWhere(() => true);
  }

  /** The slot of the tags, or -1. Counts, and is a use for the replacement. @param key also selects the set */
  protected lookupTags(tag: number, key: number): number {
    this.#lookups++;
    const slot = this.#store.find(tag, 0, key, 0);
    if (slot < 0) return -1;
    this.#hits++;
    this.#store.touch(slot);
    return slot;
  }

  /** Puts a value in, or replaces the one with the same tags. @returns the slot, or -1 without ways */
  protected fillTags(tag: number, key: number, did: number, value: V): number {
    if (this.#store.slots === 0) return -1;
    let slot = this.#store.find(tag, 0, key, 0);
    if (slot >= 0) this.#store.touch(slot);
    else slot = this.#store.insert(tag, 0, key, 0);
    this.#did[slot] = did;
    this.#values[slot] = value;
    return slot;
  }

  protected tagAt(slot: number): number {
    return this.#store.tagAt(slot);
  }

  protected keyAt(slot: number): number {
    return this.#store.loAt(slot);
  }

  /** The slots that hold entries, in order. */
  protected *occupiedSlots(): IterableIterator<number> {
    for (let slot = 0; slot < this.#store.slots; slot++) if (this.#store.occupies(slot)) yield slot;
  }

  /** @returns entries dropped */
  protected dropWhere(matches: (slot: number) => boolean): number {
    let dropped = 0;
    this.#store.forEach((slot) => {
      if (!matches(slot)) return;
      this.#store.drop(slot);
      this.#values[slot] = undefined;
      dropped++;
    });
    return dropped;
  }
}
