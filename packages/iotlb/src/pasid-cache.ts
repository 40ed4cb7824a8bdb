import { checkPasid, checkSourceId } from './pasid.ts';
import { SetAssociative, type SetAssociativeGeometry } from './set-associative.ts';

/** The G field of a PASID-cache invalidate descriptor; 2 is reserved: an invalid descriptor (VT-d Rev 5.10, 6.5.2.2). */
export const PasidCacheGranularity = { domain: 0, pasid: 1, global: 3 } as const;
/** A G field that hardware accepts. */
export type PasidCacheGranularity = (typeof PasidCacheGranularity)[keyof typeof PasidCacheGranularity];

/** One cached PASID-table entry, for reports. */
export interface PasidCacheEntry<V> {
  readonly slot: number;
  readonly sourceId: number;
  readonly pasid: number;
  readonly did: number;
  /** What was cached. */
  readonly value: V;
}

/** Options of a {@link PasidCache}. */
export interface PasidCacheOptions {
  /** Default 1 set of 64. No source gives a size. */
  readonly geometry?: SetAssociativeGeometry;
  /**
   * The finest granularity that this hardware carries out; a finer request is done at this one, which the
   * specification allows (VT-d Rev 5.10, 6.5.2.2). Default `pasid`: exactly what is asked.
   */
  readonly finestInvalidation?: 'pasid' | 'domain' | 'global';
}

/**
 * The PASID-cache of scalable mode: look-up by source-id and PASID, invalidation by domain-id and PASID (VT-d Rev 5.10,
 * 6.2.1 Table 17, 6.2.3). A request without PASID is looked up with RID_PASID of its context entry. The value is the
 * caller's: the fields of a PASID-table entry that translation needs.
 */
export class PasidCache<V> {
  readonly #store: SetAssociative;
  readonly #finest: 'pasid' | 'domain' | 'global';
  readonly #did: Int32Array;
  readonly #values: (V | undefined)[];
  #lookups = 0;
  #hits = 0;

  /** @throws RangeError for sets that are no power of two. */
  constructor(options: PasidCacheOptions = {}) {
    this.#store = SetAssociative.alone('PASID cache', options.geometry ?? { sets: 1, ways: 64 }, 0);
    this.#finest = options.finestInvalidation ?? 'pasid';
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

  /** The slot of (source-id, PASID), or -1. Counts, and is a use for the replacement. Allocates nothing. */
  lookup(sourceId: number, pasid: number): number {
    this.#lookups++;
    const slot = this.#store.find(sourceId, 0, keyOf(sourceId, pasid), 0);
    if (slot < 0) return -1;
    this.#hits++;
    this.#store.touch(slot);
    return slot;
  }

  /**
   * Caches a present PASID-table entry, replacing the one of the same source-id and PASID.
   * @returns the slot, or -1 without ways @throws RangeError for a source-id above 16 bits or a PASID above 20
   */
  fill(sourceId: number, pasid: number, did: number, value: V): number {
    checkSourceId(sourceId);
    checkPasid(pasid);
    if (this.#store.slots === 0) return -1;
    const key = keyOf(sourceId, pasid);
    let slot = this.#store.find(sourceId, 0, key, 0);
    if (slot >= 0) this.#store.touch(slot);
    else slot = this.#store.insert(sourceId, 0, key, 0);
    this.#did[slot] = did;
    this.#values[slot] = value;
    return slot;
  }

  /** Domain-id of the entry. */
  didAt(slot: number): number {
    return this.#did[slot]!;
  }

  /** What was cached. The slot must be one that {@link lookup} gave. @throws RangeError for an empty slot */
  valueAt(slot: number): V {
    const value = this.#values[slot];
    if (value === undefined) throw new RangeError(`slot: ${slot} holds no PASID-table entry`);
    return value;
  }

  /** What the descriptor's G field asks for (6.5.2.2). Fields that G makes irrelevant are not looked at. */
  invalidate(granularity: PasidCacheGranularity, did: number, pasid: number): number {
    if (granularity === PasidCacheGranularity.global) return this.invalidateGlobal();
    if (granularity === PasidCacheGranularity.domain) return this.invalidateDomain(did);
    return this.invalidatePasid(did, pasid);
  }

  /** Global. @returns entries dropped */
  invalidateGlobal(): number {
    return this.#invalidateWhere(() => true);
  }

  /** Domain-selective: all PASIDs of the domain. @returns entries dropped */
  invalidateDomain(did: number): number {
    if (this.#finest === 'global') return this.invalidateGlobal();
    return this.#invalidateWhere((slot) => this.#did[slot]! === did);
  }

  /** PASID-selective within the domain, whatever the source-id. @returns entries dropped */
  invalidatePasid(did: number, pasid: number): number {
    if (this.#finest !== 'pasid') return this.invalidateDomain(did);
    return this.#invalidateWhere((slot) => this.#did[slot]! === did && this.#pasidAt(slot) === pasid);
  }

  /** All entries in slot order. For reports. */
  *entries(): IterableIterator<PasidCacheEntry<V>> {
    for (let slot = 0; slot < this.#store.slots; slot++) {
      const value = this.#values[slot];
      if (value === undefined) continue;
      yield { slot, sourceId: this.#store.tagAt(slot), pasid: this.#pasidAt(slot), did: this.didAt(slot), value };
    }
  }

  #pasidAt(slot: number): number {
    return keyOf(this.#store.tagAt(slot), this.#store.loAt(slot));
  }

  #invalidateWhere(matches: (slot: number) => boolean): number {
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

/**
 * The part of the key that selects the set. The source-id is mixed in so that one PASID of several functions does not
 * thrash a set (6.2.3). The source-id is also the tag, so the key is unique, and applying it twice gives the PASID back.
 */
const keyOf = (sourceId: number, pasid: number): number => sourceId ^ pasid;
