import { PAGE_SIZE_SHIFT, PAGE_SIZES } from '@faultline/address';
import { checkAddressMask, checkDomainId, checkPasid, checkRights, checkSourceId } from './argument.ts';
import { Counter, counterArray, IotlbCounters } from './counters.ts';
import { addressOf, rangeShiftOf } from './invalidation-range.ts';
import {
  checkIotlbOptions,
  DEFAULT_IOTLB_GEOMETRY,
  type IotlbGeometry,
  type IotlbOptions,
  type SpontaneousLoss,
} from './iotlb-options.ts';
import { ANY_PASID, EVERY_PASID, NO_PASID } from './pasid.ts';
import { SetAssociative } from './set-associative.ts';
import { type IotlbEntry, type LeafLevel, TranslationEntries } from './translation-entries.ts';
import { hasFirstStage, TranslationKind } from './translation-kind.ts';

/** One size of entries. */
interface SizedStore {
  readonly level: LeafLevel;
  readonly store: SetAssociative;
  /** Number of the store's first slot among those of the whole cache; 0 if all sizes share one array. */
  readonly base: number;
  /** The next larger size. */
  readonly larger: SizedStore | null;
}

/**
 * An IOTLB with entries of 4K, 2M and 1G. Look-up is by source-id and address, and by PASID for requests with one;
 * invalidation is by domain-id, PASID and address (VT-d Rev 5.10, 6.2.1 Table 17), so two devices of one domain have
 * entries of their own and one invalidation drops both. If two sizes hold the address (legal between a split and its
 * invalidation), the smaller one answers.
 *
 * Addresses are two signed 32-bit halves. `lookup`, `pfnAt` and `rightsAt` allocate nothing. Slots stay valid until the
 * next fill or invalidation. For a device's own cache see {@link DeviceTlb}.
 */
export class Iotlb extends TranslationEntries {
  /** Live counts. */
  readonly counters: IotlbCounters;
  readonly #counts = counterArray();
  readonly #partial: 'whole' | 'none';
  readonly #largestLevel: LeafLevel;
  readonly #finest: 'page' | 'domain' | 'global';
  readonly #pasidHitsRidEntries: boolean;
  readonly #loss: SpontaneousLoss | null;
  /** Whether a look-up is more than finding an entry. */
  readonly #special: boolean = false;
  readonly #exact: boolean;
  readonly #resetAtEntries: number;
  readonly #sizes: readonly [SizedStore, SizedStore, SizedStore];
  /** The first of them, from which {@link SizedStore.larger} leads to the others. */
  readonly #smallest: SizedStore;
  /** Whether an entry with a first stage was ever cached: page-selective invalidations then have more to look for. */
  #holdsFirstStage = false;

  /** @throws RangeError for a geometry with sets that are no power of two, or an option with a value that it cannot have */
  constructor(options: IotlbOptions = {}) {
    checkIotlbOptions(options);
    const sizes = sizedStores(options.geometry ?? DEFAULT_IOTLB_GEOMETRY);
    const [small, , large] = sizes;
    super(large.base + large.store.slots);
    this.#partial = options.partialInvalidation ?? 'none';
    this.#largestLevel = options.fracture === '4K' ? 1 : options.fracture === '2M' ? 2 : 3;
    this.#finest = options.finestInvalidation ?? 'page';
    this.#pasidHitsRidEntries = options.pasidHitsRidEntries ?? false;
    this.#loss = options.mayLoseEntries ?? null;
    this.#special = this.#loss !== null || this.#pasidHitsRidEntries;
    this.#exact = (options.comparedPageBits ?? 64) === 64;
    this.#resetAtEntries = options.resetAtEntries ?? Number.POSITIVE_INFINITY;
    this.#sizes = sizes;
    this.#smallest = small;
    this.counters = new IotlbCounters(this.#counts);
  }

  /** Entries held now, of all sizes. */
  get size(): number {
    const [small, medium, large] = this.#sizes;
    return small.store.count + medium.store.count + large.store.count;
  }

  /**
   * The slot that answers (source-id, address, and PASID for a request with one), or -1. Counts, and is a use for the
   * replacement. A request with PASID is answered by an entry of one without only if `pasidHitsRidEntries` says so.
   */
  lookup(sourceId: number, iovaHi: number, iovaLo: number, pasid = -1): number {
    // NO_PASID by a literal number: bundlers make variables of a module's constants.
    // One loop, and not the three sizes in turn: so everything up to `RemappingUnit.translate` is small enough for V8 to inline into
    // its callers (920 bytes of bytecode in all). Compared with true, since V8 tests the truth of a field for every kind of value.
    if (this.#special === true) return this.#lookupSpecially(sourceId, iovaHi, iovaLo, pasid);
    const counts = this.#counts;
    let sized: SizedStore | null = this.#smallest;
    do {
      const slot = sized.store.find(sourceId, iovaHi, iovaLo, pasid);
      if (slot >= 0) {
        counts[sized.level]!++;
        sized.store.touch(slot);
        return (slot + sized.base) | 0;
      }
      sized = sized.larger;
    } while (sized !== null);
    counts[0]!++;
    return -1;
  }

  /** Like {@link lookup}, with no effect on counters or replacement, and nothing gets lost. */
  peek(sourceId: number, iovaHi: number, iovaLo: number, pasid: number = NO_PASID): number {
    for (const { store, base } of this.#sizes) {
      let local = store.find(sourceId, iovaHi, iovaLo, pasid);
      if (local < 0 && this.#pasidHitsRidEntries) {
        local = store.find(sourceId, iovaHi, iovaLo, NO_PASID);
        if (local >= 0 && this.pasidAt(local + base) !== pasid) local = -1;
      }
      if (local >= 0) return local + base;
    }
    return -1;
  }

  /**
   * Caches a translation. Replaces the entry of the same source-id, PASID, page and size; else takes a slot of its set. Flat
   * numbers, since a miss in a storm takes this way too.
   * @param leafLo lower half of the 64-bit leaf entry; the frame is its bits 51:12
   * @param rights bit 0 read, bit 1 write: the AND over all levels of the walk
   * @param pasid of the request; {@link NO_PASID} for one without
   * @param ridPasid of a request without PASID in scalable mode: the tag by which PASID-selective invalidations find it
   * @returns the slot, or -1 if the geometry has no entries of this size
   * @throws RangeError for a source-id or domain-id above 16 bits, a PASID above 20, a level that has no leaf, other rights
   */
  fill(
    sourceId: number,
    did: number,
    iovaHi: number,
    iovaLo: number,
    level: LeafLevel,
    leafLo: number,
    leafHi: number,
    rights: number,
    pasid: number = NO_PASID,
    ridPasid = 0,
    kind: TranslationKind = TranslationKind.secondStage,
  ): number {
    checkSourceId(sourceId);
    checkDomainId(did);
    checkRights(rights);
    if (level !== 1 && level !== 2 && level !== 3) throw new RangeError(`level: ${level} is not one of 1, 2, 3`);
    const pasidTag = pasid === NO_PASID ? ridPasid : pasid;
    checkPasid(pasidTag);
    const cachedLevel = Math.min(level, this.#largestLevel) as LeafLevel;
    const { store, base } = this.#sizes[(cachedLevel - 1) as 0 | 1 | 2];
    if (store.slots === 0) return -1;
    this.#counts[Counter.fills]!++;
    if (this.size >= this.#resetAtEntries) this.#reset();
    let local = store.find(sourceId, iovaHi, iovaLo, pasid);
    if (local >= 0) store.touch(local);
    else {
      const evictions = store.evictions;
      local = store.insert(sourceId, iovaHi, iovaLo, pasid);
      this.#counts[Counter.evictions]! += store.evictions - evictions;
    }
    if (hasFirstStage(kind)) this.#holdsFirstStage = true;
    const slot = local + base;
    this.write(slot, iovaLo, cachedLevel, level, leafLo, leafHi, rights, did, pasidTag, kind);
    return slot;
  }

  /**
   * Page-selective within a domain: drops the domain's second-stage and pass-through entries whose page lies in the
   * aligned range of 2^addressMask 4K pages around the address (low address bits are ignored), and all its first-stage and
   * nested ones (VT-d Rev 5.10, 6.5.2.3 Table 23). Entries larger than the range: `partialInvalidation`.
   * @returns entries dropped @throws RangeError if the mask is outside 0..63
   */
  invalidatePages(did: number, iovaHi: number, iovaLo: number, addressMask: number): number {
    checkAddressMask(addressMask);
    if (this.#finest !== 'page') return this.invalidateDomain(did);
    return this.#invalidateDomainPages(did, iovaHi, iovaLo, addressMask, this.#partial);
  }

  /**
   * What a recorded page request implies for second-stage and pass-through mappings: a page-selective invalidation of one 4K page
   * (VT-d Rev 5.10, 6.5.3.1 Table 27) that reaches whatever entry serves the address, a large one too, or it could not
   * make the retry walk. Of a fractured page the other fractions stay. @returns entries dropped
   */
  invalidateForPageRequest(did: number, iovaHi: number, iovaLo: number): number {
    if (this.#finest !== 'page') return this.invalidateDomain(did);
    return this.#invalidateDomainPages(did, iovaHi, iovaLo, 0, 'whole');
  }

  /**
   * PASID-selective: drops the entries of (domain-id, PASID), second-stage and pass-through ones too, and those that
   * requests without PASID made under this RID_PASID (VT-d Rev 5.10, 6.5.2.4 Table 24). @returns entries dropped
   */
  invalidatePasid(did: number, pasid: number): number {
    if (this.#finest !== 'page') return this.invalidateDomain(did);
    return this.#invalidateWhere((slot) => this.didAt(slot) === did && this.pasidAt(slot) === pasid);
  }

  /**
   * Page-selective within a PASID: drops first-stage and nested entries of (domain-id, PASID) in the range; second-stage
   * and pass-through ones stay (Table 24). @returns entries dropped @throws RangeError if the mask is outside 0..63
   */
  invalidatePasidPages(did: number, pasid: number, iovaHi: number, iovaLo: number, addressMask: number): number {
    checkAddressMask(addressMask);
    if (this.#finest !== 'page') return this.invalidateDomain(did);
    return this.#countInvalidation(
      this.#dropRange(
        iovaHi,
        iovaLo,
        addressMask,
        this.#partial,
        (slot) => this.didAt(slot) === did && this.pasidAt(slot) === pasid && hasFirstStage(this.kindAt(slot)),
      ),
    );
  }

  /** Domain-selective. @returns entries dropped */
  invalidateDomain(did: number): number {
    if (this.#finest === 'global') return this.invalidateGlobal();
    return this.#invalidateWhere((slot) => this.didAt(slot) === did);
  }

  /** Global. @returns entries dropped */
  invalidateGlobal(): number {
    return this.#invalidateWhere(() => true);
  }

  /**
   * Everything of one source-id, whatever the domain: no descriptor of the remapping unit does that, but a device's own cache
   * that functions share is emptied so. @param pasid NO_PASID: only entries of requests without one; default all
   */
  invalidateSource(sourceId: number, pasid: number = ANY_PASID): number {
    return this.#invalidateWhere((_slot, store, local) => isOf(store, local, sourceId, pasid));
  }

  /**
   * Everything of one source-id in the aligned range of 2^addressMask 4K pages: the device-TLB invalidation, whose S
   * bit and address encode the mask (VT-d Rev 5.10, 6.5.2.5). Entries larger than the range: `partialInvalidation`.
   * @param pasid NO_PASID: only entries of requests without one; default all
   * @returns entries dropped @throws RangeError if the mask is outside 0..63
   */
  invalidateSourcePages(
    sourceId: number,
    iovaHi: number,
    iovaLo: number,
    addressMask: number,
    pasid: number = ANY_PASID,
  ): number {
    checkAddressMask(addressMask);
    if (this.#finest !== 'page') return this.invalidateSource(sourceId, pasid);
    return this.#countInvalidation(
      this.#dropRange(iovaHi, iovaLo, addressMask, this.#partial, (_slot, store, local) =>
        isOf(store, local, sourceId, pasid),
      ),
    );
  }

  /** The entry of an occupied slot goes with no invalidation, as hardware may let it (VT-d Rev 5.10, 6.2.4). */
  lose(slot: number): void {
    const { store, base } = this.#sizes[(this.levelAt(slot) - 1) as 0 | 1 | 2];
    store.drop(slot - base);
    this.#counts[Counter.lost]!++;
  }

  /** All entries, smallest pages first, then in slot order. For reports and for checks of I1. */
  *entries(): IterableIterator<IotlbEntry> {
    for (const { store, base } of this.#sizes) {
      for (let local = 0; local < store.slots; local++) {
        if (!store.occupies(local)) continue;
        const slot = base + local;
        yield {
          slot,
          sourceId: store.tagAt(local),
          pasid: this.pasidAt(slot),
          withPasid: store.secondAt(local) !== NO_PASID,
          kind: this.kindAt(slot),
          did: this.didAt(slot),
          iova: addressOf(store.hiAt(local), store.loAt(local)),
          level: this.levelAt(slot),
          originLevel: this.originLevelAt(slot),
          pfn: this.pfnAt(slot, store.hiAt(local), store.loAt(local)),
          leaf: this.leafAt(slot),
          rights: this.rightsAt(slot),
        };
      }
    }
  }

  /** The look-up of a cache that loses entries or lets RID entries answer. */
  #lookupSpecially(sourceId: number, iovaHi: number, iovaLo: number, pasid: number): number {
    const slot = this.peek(sourceId, iovaHi, iovaLo, pasid);
    const isLost = slot >= 0 && this.#loss !== null && this.#loss.random.below(this.#loss.oneIn) === 0;
    if (isLost) this.lose(slot);
    if (slot < 0 || isLost) {
      this.#counts[Counter.misses]!++;
      return -1;
    }
    const level = this.levelAt(slot);
    this.#counts[level]!++;
    const { store, base } = this.#sizes[(level - 1) as 0 | 1 | 2];
    store.touch(slot - base);
    return slot;
  }

  #invalidateDomainPages(did: number, hi: number, lo: number, addressMask: number, partial: 'whole' | 'none'): number {
    if (!this.#exact) {
      const compared = (0xff << 12) & (-1 << Math.min(12 + addressMask, 20));
      // A page equal modulo 256, or the large page that holds the address (its number compared in full).
      return this.#invalidateWhere((slot, store, local) => {
        const difference = store.loAt(local) ^ lo;
        if (this.didAt(slot) !== did) return false;
        return (difference & compared) === 0 || ((difference & (-1 << store.shift)) === 0 && store.hiAt(local) === hi);
      });
    }
    let dropped = this.#dropRange(hi, lo, addressMask, partial, (slot) => this.didAt(slot) === did);
    if (this.#holdsFirstStage)
      dropped += this.#dropWhere((slot) => this.didAt(slot) === did && hasFirstStage(this.kindAt(slot)));
    return this.#countInvalidation(dropped);
  }

  #dropRange(hi: number, lo: number, addressMask: number, partial: 'whole' | 'none', matches: Match): number {
    const rangeShift = rangeShiftOf(addressMask);
    let dropped = 0;
    for (const { store, base } of this.#sizes) {
      if (rangeShift < store.shift && partial === 'none') continue;
      store.forEachOverlapping(hi, lo, rangeShift, (local) => {
        if (!matches(local + base, store, local)) return;
        store.drop(local);
        dropped++;
      });
    }
    return dropped;
  }

  #dropWhere(matches: Match): number {
    let dropped = 0;
    for (const { store, base } of this.#sizes) {
      store.forEach((local) => {
        if (!matches(local + base, store, local)) return;
        store.drop(local);
        dropped++;
      });
    }
    return dropped;
  }

  #invalidateWhere(matches: Match): number {
    return this.#countInvalidation(this.#dropWhere(matches));
  }

  #countInvalidation(dropped: number): number {
    this.#counts[Counter.invalidations]!++;
    this.#counts[Counter.dropped]! += dropped;
    return dropped;
  }

  #reset(): void {
    this.#counts[Counter.evictions]! += this.#dropWhere(() => true);
    this.#counts[Counter.resets]!++;
  }
}

type Match = (slot: number, store: SetAssociative, local: number) => boolean;

function isOf(store: SetAssociative, local: number, sourceId: number, pasid: number): boolean {
  if (store.tagAt(local) !== sourceId) return false;
  const own = store.secondAt(local);
  return pasid === ANY_PASID || (pasid === EVERY_PASID ? own !== NO_PASID : own === pasid);
}

function sizedStores(geometry: IotlbGeometry): [SizedStore, SizedStore, SizedStore] {
  const isShared = 'shared' in geometry;
  const [small, medium, large] = (
    isShared
      ? SetAssociative.sharing(
          'IOTLB',
          geometry.shared,
          PAGE_SIZES.map((size) => PAGE_SIZE_SHIFT[size]),
        )
      : PAGE_SIZES.map((size) => SetAssociative.alone(`IOTLB ${size}`, geometry[size], PAGE_SIZE_SHIFT[size]))
  ) as [SetAssociative, SetAssociative, SetAssociative];
  const largeBase = isShared ? 0 : small.slots + medium.slots;
  const third: SizedStore = { level: 3, store: large, base: largeBase, larger: null };
  const second: SizedStore = { level: 2, store: medium, base: isShared ? 0 : small.slots, larger: third };
  return [{ level: 1, store: small, base: 0, larger: second }, second, third];
}
