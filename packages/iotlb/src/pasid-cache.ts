import { checkOneOf, checkPasid, checkSourceId } from './argument.ts';
import type { SetAssociativeGeometry } from './set-associative.ts';
import { ValueCache } from './value-cache.ts';

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
export class PasidCache<V> extends ValueCache<V> {
  readonly #finest: 'pasid' | 'domain' | 'global';

  /** @throws RangeError for sets that are no power of two, or an unknown finestInvalidation */
  constructor(options: PasidCacheOptions = {}) {
    super('PASID cache', options.geometry);
    this.#finest = options.finestInvalidation ?? 'pasid';
    checkOneOf('finestInvalidation', this.#finest, ['pasid', 'domain', 'global']);
  }

  /** The slot of (source-id, PASID), or -1. Counts, and is a use for the replacement. Allocates nothing. */
  lookup(sourceId: number, pasid: number): number {
    return this.lookupTags(sourceId, keyOf(sourceId, pasid));
  }

  /**
   * Caches a present PASID-table entry, replacing the one of the same source-id and PASID.
   * @returns the slot, or -1 without ways @throws RangeError for a source-id above 16 bits or a PASID above 20
   */
  fill(sourceId: number, pasid: number, did: number, value: V): number {
    checkSourceId(sourceId);
    checkPasid(pasid);
    return this.fillTags(sourceId, keyOf(sourceId, pasid), did, value);
  }

  /** What the descriptor's G field asks for (6.5.2.2). Fields that G makes irrelevant are not looked at. @throws RangeError for a reserved G */
  invalidate(granularity: PasidCacheGranularity, did: number, pasid: number): number {
    checkOneOf('granularity', granularity, Object.values(PasidCacheGranularity));
    if (granularity === PasidCacheGranularity.global) return this.invalidateGlobal();
    if (granularity === PasidCacheGranularity.domain) return this.invalidateDomain(did);
    return this.invalidatePasid(did, pasid);
  }

  /** Domain-selective: all PASIDs of the domain. @returns entries dropped */
  invalidateDomain(did: number): number {
    if (this.#finest === 'global') return this.invalidateGlobal();
    return this.dropWhere((slot) => this.didAt(slot) === did);
  }

  /** PASID-selective within the domain, whatever the source-id. @returns entries dropped */
  invalidatePasid(did: number, pasid: number): number {
    if (this.#finest !== 'pasid') return this.invalidateDomain(did);
    return this.dropWhere((slot) => this.didAt(slot) === did && this.#pasidAt(slot) === pasid);
  }

  /** All entries in slot order. For reports. */
  *entries(): IterableIterator<PasidCacheEntry<V>> {
    for (const slot of this.occupiedSlots())
      yield {
        ...{ slot, sourceId: this.tagAt(slot), pasid: this.#pasidAt(slot), did: this.didAt(slot) },
        value: this.valueAt(slot),
      };
  }

  #pasidAt(slot: number): number {
    return keyOf(this.tagAt(slot), this.keyAt(slot));
  }
}

/**
 * The part of the key that selects the set. The source-id is mixed in so that one PASID of several functions does not
 * thrash a set (6.2.3). The source-id is also the tag, so the key is unique, and applying it twice gives the PASID back.
 */
const keyOf = (sourceId: number, pasid: number): number => sourceId ^ pasid;
