import { checkOneOf, checkSourceId } from './argument.ts';
import type { SetAssociativeGeometry } from './set-associative.ts';
import { ValueCache } from './value-cache.ts';

/** What a legacy context entry says, as the translation path needs it. */
export interface ContextCacheValue {
  /** Frame of the second-stage table's root. */
  readonly tablePfn: number;
  /** AW field: levels of the table minus 2 (1 = 3 levels, 2 = 4, 3 = 5). */
  readonly addressWidth: number;
  /** TT field: 0 untranslated only, 1 also device-TLB, 2 pass-through. */
  readonly translationType: number;
  /** FPD: faults of this device are not recorded. */
  readonly faultDisable: boolean;
}

/** One cached context entry, for reports. */
export interface ContextCacheEntry<V = ContextCacheValue> {
  readonly slot: number;
  readonly sourceId: number;
  readonly did: number;
  /** What was cached. */
  readonly value: V;
}

/** Options of a {@link ContextCache}. */
export interface ContextCacheOptions {
  /** Default 1 set of 64. No source gives a size. */
  readonly geometry?: SetAssociativeGeometry;
  /**
   * In `scalable` mode entries are tagged by source-id alone: domain-selective acts as global, and device-selective
   * ignores its DID (VT-d Rev 5.10, 6.2.1 and 6.5.2.1). Default `legacy`.
   */
  readonly mode?: 'legacy' | 'scalable';
  /**
   * The finest granularity that this hardware carries out; a finer request is done at this one, which the
   * specification allows (VT-d Rev 5.10, 6.5.2.1). Default `device`: exactly what is asked.
   */
  readonly finestInvalidation?: 'device' | 'domain' | 'global';
}

/** Source-id bits that a function mask ignores: none, 2, 2:1, 2:0 (VT-d Rev 5.10 Table 21). */
const FUNCTION_MASK_BITS = [0, 0b100, 0b110, 0b111] as const;
/** A function mask as the descriptor carries it. */
export type FunctionMask = 0 | 1 | 2 | 3;

/**
 * The context cache: look-up by source-id, invalidation by domain-id (legacy mode) and source-id (VT-d Rev 5.10, 6.2.1
 * Table 17). The value is the caller's: scalable-mode context entries hold other fields than legacy ones, and have no
 * domain-id, so that in scalable mode `did` is not looked at; pass 0.
 */
export class ContextCache<V = ContextCacheValue> extends ValueCache<V> {
  readonly #legacy: boolean;
  readonly #finest: 'device' | 'domain' | 'global';

  /** @throws RangeError for sets that are no power of two, or an unknown mode or finestInvalidation */
  constructor(options: ContextCacheOptions = {}) {
    super('context cache', options.geometry);
    const { mode = 'legacy', finestInvalidation = 'device' } = options;
    checkOneOf('mode', mode, ['legacy', 'scalable']);
    checkOneOf('finestInvalidation', finestInvalidation, ['device', 'domain', 'global']);
    this.#legacy = mode === 'legacy';
    this.#finest = finestInvalidation;
  }

  /** The slot of a source-id, or -1. Counts, and is a use for the replacement. Allocates nothing. */
  lookup(sourceId: number): number {
    return this.lookupTags(0, sourceId);
  }

  /**
   * Caches a present context entry, replacing the one of the same source-id.
   * @returns the slot, -1 without ways @throws RangeError for a source-id above 16 bits
   */
  fill(sourceId: number, did: number, value: V): number {
    checkSourceId(sourceId);
    return this.fillTags(0, sourceId, did, value);
  }

  /** Domain-selective. @returns entries dropped */
  invalidateDomain(did: number): number {
    if (this.#finest === 'global' || !this.#legacy) return this.invalidateGlobal();
    return this.dropWhere((slot) => this.didAt(slot) === did);
  }

  /** Device-selective, for 1, 2, 4 or 8 functions. @returns entries dropped @throws RangeError for another mask */
  invalidateDevice(did: number, sourceId: number, functionMask: FunctionMask): number {
    checkOneOf('functionMask', functionMask, [0, 1, 2, 3]);
    if (this.#finest !== 'device') return this.invalidateDomain(did);
    const compared = 0xffff & ~FUNCTION_MASK_BITS[functionMask];
    return this.dropWhere(
      (slot) => ((this.keyAt(slot) ^ sourceId) & compared) === 0 && (!this.#legacy || this.didAt(slot) === did),
    );
  }

  /** All entries in slot order. For reports. */
  *entries(): IterableIterator<ContextCacheEntry<V>> {
    for (const slot of this.occupiedSlots())
      yield { slot, sourceId: this.keyAt(slot), did: this.didAt(slot), value: this.valueAt(slot) };
  }
}
