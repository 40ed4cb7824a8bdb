import { PAGE_SIZE_SHIFT, PAGE_SIZES, type PageSize } from '@faultline/address';
import { Counter, counterArray, IotlbCounters } from './counters.ts';
import { addressOf, checkAddressMask, rangeShiftOf } from './invalidation-range.ts';
import { checkPasid, checkSourceId, NO_PASID } from './pasid.ts';
import { SetAssociative, type SetAssociativeGeometry } from './set-associative.ts';

/** Sets and ways of an IOTLB for each page size. Sizes do not share entries. */
export type IotlbGeometry = Readonly<Record<PageSize, SetAssociativeGeometry>>;

/**
 * 64 entries of 4K, the size measured on Sandy Bridge to Broadwell in "Understanding PCIe performance" (SIGCOMM 2018).
 * No source gives associativity or the entries for large pages: 4 ways, 32 of 2M and 4 of 1G are an assumption.
 */
export const DEFAULT_IOTLB_GEOMETRY: IotlbGeometry = {
  '4K': { sets: 16, ways: 4 },
  '2M': { sets: 8, ways: 4 },
  '1G': { sets: 1, ways: 4 },
};

/** The capacity of QEMU's IOTLB (a hash table of 1024 entries in all); use it with {@link QEMU_IOTLB_OPTIONS}. */
export const QEMU_IOTLB_GEOMETRY: IotlbGeometry = {
  '4K': { sets: 1, ways: 1024 },
  '2M': { sets: 1, ways: 1024 },
  '1G': { sets: 1, ways: 1024 },
};

/**
 * What a page-selective invalidation does to a cached large page that it does not cover as a whole.
 * - `none`: nothing. All that software may rely on: the address mask has to match the page (VT-d Rev 5.10, 6.5.2.3 and
 *   6.5.3.3), since hardware may hold a large page fractured.
 * - `whole`: drops it. What QEMU does.
 */
export type PartialInvalidation = 'whole' | 'none';

/** Options of an {@link Iotlb}. */
export interface IotlbOptions {
  /** Default {@link DEFAULT_IOTLB_GEOMETRY}. */
  readonly geometry?: IotlbGeometry;
  /** Default `none`. */
  readonly partialInvalidation?: PartialInvalidation;
  /**
   * QEMU 7.2 (10.0.2 no longer) keeps the page mask of an invalidation in 8 bits, so that it compares only the lower 8 bits of page
   * numbers and drops every page of the domain that is equal modulo 256. Over-invalidation is legal for hardware.
   * 8 for that; default 64, exact.
   */
  readonly comparedPageBits?: 8 | 64;
  /** QEMU's replacement: a fill that finds this many entries, of all sizes together, first empties the cache. */
  readonly resetAtEntries?: number;
}

/** An IOTLB that keeps and drops what that of QEMU 10 and later does: 1024 entries, all emptied when full. */
export const QEMU_IOTLB_OPTIONS: Required<IotlbOptions> = {
  geometry: QEMU_IOTLB_GEOMETRY,
  partialInvalidation: 'whole',
  comparedPageBits: 64,
  resetAtEntries: 1024,
};

/** The same for QEMU 7.2, which drops too much. Checked: equal to a recording of it in each of 90,439 look-ups. */
export const QEMU_7_2_IOTLB_OPTIONS: Required<IotlbOptions> = { ...QEMU_IOTLB_OPTIONS, comparedPageBits: 8 };

/** Level of the leaf's table: 1 = SS-PTE (4K), 2 = SS-PDE (2M), 3 = SS-PDPTE (1G). */
export type LeafLevel = 1 | 2 | 3;

/** How a cached mapping was made: the PGTT field of the PASID-table entry. Legacy mode has second-stage ones only. */
export const TranslationKind = { firstStage: 1, secondStage: 2, nested: 3, passThrough: 4 } as const;
/** A PGTT field that translates. */
export type TranslationKind = (typeof TranslationKind)[keyof typeof TranslationKind];

/** One cached translation, for reports and checks. */
export interface IotlbEntry {
  readonly slot: number;
  /** Source-id (bus, device, function) that it answers. */
  readonly sourceId: number;
  /** PASID that it is tagged with: the request's, or RID_PASID. */
  readonly pasid: number;
  /** True if it answers requests with that PASID, false if those without one. */
  readonly withPasid: boolean;
  readonly kind: TranslationKind;
  /** Domain-id, by which invalidations find it. */
  readonly did: number;
  /** First byte of the page, in bytes. */
  readonly iova: bigint;
  readonly level: LeafLevel;
  /** First 4K frame of the page. */
  readonly pfn: number;
  /** The 64-bit leaf as it was when cached. */
  readonly leaf: bigint;
  /** Bit 0 read, bit 1 write: the AND over the walk. */
  readonly rights: number;
}

const PFN_HI_MASK = 0xfffff;
/** In a tag, beside the 16 bits of the source-id: made by a request with PASID. */
const WITH_PASID = 0x10000;

/**
 * An IOTLB with entries of 4K, 2M and 1G. Look-up is by source-id and address, invalidation by domain-id and address
 * (VT-d Rev 5.10, 6.2.1 Table 17), so two devices of one domain have entries of their own and one invalidation drops
 * both. If two sizes hold the address (legal between a split and its invalidation), the smaller one answers.
 *
 * Addresses are two signed 32-bit halves. `lookup`, `pfnAt` and `rightsAt` allocate nothing. Slots stay valid until the
 * next fill or invalidation. A device TLB is an Iotlb with the device's geometry, filled by ATS completions and emptied
 * with {@link invalidateSource} and {@link invalidateSourcePages}; `did` is then whatever the owner wants to find it by.
 */
export class Iotlb {
  /** Live counts. */
  readonly counters: IotlbCounters;
  readonly #counts = counterArray();
  readonly #partial: PartialInvalidation;
  readonly #exact: boolean;
  readonly #resetAtEntries: number;
  readonly #small: SetAssociative;
  readonly #medium: SetAssociative;
  readonly #large: SetAssociative;
  readonly #arrays: readonly { readonly store: SetAssociative; readonly base: number }[];
  /** First slot of the 2M and of the 1G entries. */
  readonly #mediumBase: number;
  readonly #largeBase: number;
  readonly #leafLo: Int32Array;
  readonly #leafHi: Int32Array;
  readonly #did: Int32Array;
  readonly #rights: Int32Array;
  readonly #pasid: Int32Array;
  readonly #kind: Uint8Array;

  /** @throws RangeError for a geometry with sets that are no power of two, or a resetAtEntries below 1. */
  constructor(options: IotlbOptions = {}) {
    const geometry = options.geometry ?? DEFAULT_IOTLB_GEOMETRY;
    this.#partial = options.partialInvalidation ?? 'none';
    this.#exact = (options.comparedPageBits ?? 64) === 64;
    this.#resetAtEntries = options.resetAtEntries ?? Number.POSITIVE_INFINITY;
    if (!(this.#resetAtEntries >= 1)) throw new RangeError(`resetAtEntries: ${this.#resetAtEntries} is below 1`);
    const [small, medium, large] = PAGE_SIZES;
    this.#small = new SetAssociative(`IOTLB ${small}`, geometry[small], PAGE_SIZE_SHIFT[small]);
    this.#medium = new SetAssociative(`IOTLB ${medium}`, geometry[medium], PAGE_SIZE_SHIFT[medium]);
    this.#large = new SetAssociative(`IOTLB ${large}`, geometry[large], PAGE_SIZE_SHIFT[large]);
    this.#mediumBase = this.#small.slots;
    this.#largeBase = this.#mediumBase + this.#medium.slots;
    this.#arrays = [
      { store: this.#small, base: 0 },
      { store: this.#medium, base: this.#mediumBase },
      { store: this.#large, base: this.#largeBase },
    ];
    const slots = this.#largeBase + this.#large.slots;
    this.#leafLo = new Int32Array(slots);
    this.#leafHi = new Int32Array(slots);
    this.#did = new Int32Array(slots);
    this.#rights = new Int32Array(slots);
    this.#pasid = new Int32Array(slots);
    this.#kind = new Uint8Array(slots);
    this.counters = new IotlbCounters(this.#counts);
  }

  /** Entries held now, of all sizes. */
  get size(): number {
    return this.#small.count + this.#medium.count + this.#large.count;
  }

  /**
   * The slot that answers (source-id, address, and PASID for a request with one), or -1. Counts, and makes the entry
   * the most recently used. A request with PASID is not answered by an entry of one without, nor the other way round.
   */
  lookup(sourceId: number, iovaHi: number, iovaLo: number, pasid: number = NO_PASID): number {
    const counts = this.#counts;
    counts[Counter.lookups]!++;
    if (pasid !== NO_PASID) return this.#lookupPasid(sourceId, iovaHi, iovaLo, pasid);
    let slot = this.#small.find(sourceId, iovaHi, iovaLo);
    if (slot >= 0) {
      counts[Counter.hits4K]!++;
      this.#small.touch(slot);
      return slot;
    }
    slot = this.#medium.find(sourceId, iovaHi, iovaLo);
    if (slot >= 0) {
      counts[Counter.hits2M]!++;
      this.#medium.touch(slot);
      return slot + this.#mediumBase;
    }
    slot = this.#large.find(sourceId, iovaHi, iovaLo);
    if (slot < 0) return -1;
    counts[Counter.hits1G]!++;
    this.#large.touch(slot);
    return slot + this.#largeBase;
  }

  /** Like {@link lookup}, with no effect on counters or replacement. */
  peek(sourceId: number, iovaHi: number, iovaLo: number, pasid: number = NO_PASID): number {
    if (pasid !== NO_PASID) return this.#peekPasid(sourceId, iovaHi, iovaLo, pasid);
    let slot = this.#small.find(sourceId, iovaHi, iovaLo);
    if (slot >= 0) return slot;
    slot = this.#medium.find(sourceId, iovaHi, iovaLo);
    if (slot >= 0) return slot + this.#mediumBase;
    slot = this.#large.find(sourceId, iovaHi, iovaLo);
    return slot < 0 ? -1 : slot + this.#largeBase;
  }

  /**
   * Caches a translation. Replaces the entry of the same source-id, page and size; else takes the least recently used
   * slot of its set. Flat numbers, since a miss in a storm takes this way too.
   * @param leafLo lower half of the 64-bit leaf entry; the frame is its bits 51:12
   * @param rights bit 0 read, bit 1 write: the AND over all levels of the walk
   * @param pasid of the request; {@link NO_PASID} for one without
   * @param ridPasid of a request without PASID in scalable mode: the tag by which PASID-selective invalidations find it
   * @returns the slot, or -1 if the geometry has no entries of this size
   * @throws RangeError for a source-id above 16 bits or a PASID above 20
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
    const pasidTag = pasid === NO_PASID ? ridPasid : pasid;
    checkPasid(pasidTag);
    const store = level === 1 ? this.#small : level === 2 ? this.#medium : this.#large;
    if (store.slots === 0) return -1;
    const base = level === 1 ? 0 : level === 2 ? this.#mediumBase : this.#largeBase;
    this.#counts[Counter.fills]!++;
    if (this.size >= this.#resetAtEntries) this.#reset();
    const tag = pasid === NO_PASID ? sourceId : sourceId | WITH_PASID;
    let local =
      pasid === NO_PASID
        ? store.find(tag, iovaHi, iovaLo)
        : store.findTagged(tag, iovaHi, iovaLo, pasid, this.#pasid, base);
    if (local >= 0) store.touch(local);
    else {
      if (store.tags[store.victim(iovaHi, iovaLo)]! >= 0) this.#counts[Counter.evictions]!++;
      local = store.insert(tag, iovaHi, iovaLo);
    }
    const slot = local + base;
    this.#pasid[slot] = pasidTag;
    this.#kind[slot] = kind;
    this.#did[slot] = did;
    this.#leafLo[slot] = leafLo;
    this.#leafHi[slot] = leafHi;
    this.#rights[slot] = rights;
    return slot;
  }

  /** The 4K frame that the entry gives for an address inside its page: below 2^40, an int32 below 2^31. */
  pfnAt(slot: number, _iovaHi: number, iovaLo: number): number {
    const offsetMask = slot < this.#mediumBase ? 0 : slot < this.#largeBase ? 0x1fffff : 0x3fffffff;
    const low = ((this.#leafLo[slot]! & ~offsetMask) | (iovaLo & offsetMask)) >>> 12;
    const high = this.#leafHi[slot]! & PFN_HI_MASK;
    return high < 0x800 ? (high << 20) | low : high * 0x100000 + low;
  }

  /** Bit 0 read, bit 1 write. */
  rightsAt(slot: number): number {
    return this.#rights[slot]!;
  }

  /** 1 = 4K, 2 = 2M, 3 = 1G. */
  levelAt(slot: number): LeafLevel {
    return slot < this.#mediumBase ? 1 : slot < this.#largeBase ? 2 : 3;
  }

  /** Domain-id of the entry. */
  didAt(slot: number): number {
    return this.#did[slot]!;
  }

  /** PASID that the entry is tagged with: the request's, or RID_PASID. */
  pasidAt(slot: number): number {
    return this.#pasid[slot]!;
  }

  /** How the mapping was made. */
  kindAt(slot: number): TranslationKind {
    return this.#kind[slot]! as TranslationKind;
  }

  /** The 64-bit leaf as it was when cached. Allocates: for reports. */
  leafAt(slot: number): bigint {
    return addressOf(this.#leafHi[slot]!, this.#leafLo[slot]!);
  }

  /** Upper half of the leaf as it was when cached. */
  leafHiAt(slot: number): number {
    return this.#leafHi[slot]!;
  }

  /** Lower half of the leaf as it was when cached. */
  leafLoAt(slot: number): number {
    return this.#leafLo[slot]!;
  }

  /**
   * Page-selective within a domain: drops the domain's entries whose page lies in the aligned range of 2^addressMask
   * 4K pages around the address (low address bits are ignored). Entries larger than the range: `partialInvalidation`.
   * @returns entries dropped @throws RangeError if the mask is outside 0..63
   */
  invalidatePages(did: number, iovaHi: number, iovaLo: number, addressMask: number): number {
    checkAddressMask(addressMask);
    if (this.#exact) return this.#invalidateRange(this.#did, did, iovaHi, iovaLo, rangeShiftOf(addressMask));
    const compared = (0xff << 12) & (addressMask < 8 ? -1 << (12 + addressMask) : 0);
    // A page equal modulo 256, or the large page that holds the address (its number compared in full).
    return this.#invalidateWhere(
      (slot, _tag, lo, hi, mask) =>
        this.#did[slot]! === did &&
        (((lo ^ iovaLo) & compared) === 0 || (((lo ^ iovaLo) & mask) === 0 && hi === iovaHi)),
    );
  }

  /**
   * PASID-selective: drops the entries of (domain-id, PASID), second-stage and pass-through ones too, and those that
   * requests without PASID made under this RID_PASID (VT-d Rev 5.10, 6.5.2.4 Table 24). @returns entries dropped
   */
  invalidatePasid(did: number, pasid: number): number {
    return this.#invalidateWhere((slot) => this.#did[slot]! === did && this.#pasid[slot]! === pasid);
  }

  /** Domain-selective. @returns entries dropped */
  invalidateDomain(did: number): number {
    return this.#invalidateWhere((slot) => this.#did[slot]! === did);
  }

  /** Global. @returns entries dropped */
  invalidateGlobal(): number {
    return this.#invalidateWhere(() => true);
  }

  /** Everything of one source-id: for a device TLB that is shared between functions, or a device that went away. */
  invalidateSource(sourceId: number): number {
    return this.#invalidateWhere((_slot, tag) => (tag & 0xffff) === sourceId);
  }

  /**
   * Everything of one source-id in the aligned range of 2^addressMask 4K pages: the device-TLB invalidation, whose S
   * bit and address encode the mask (VT-d Rev 5.10, 6.5.2.5). Entries larger than the range: `partialInvalidation`.
   * @returns entries dropped @throws RangeError if the mask is outside 0..63
   */
  invalidateSourcePages(sourceId: number, iovaHi: number, iovaLo: number, addressMask: number): number {
    checkAddressMask(addressMask);
    return this.#invalidateRange(null, sourceId, iovaHi, iovaLo, rangeShiftOf(addressMask));
  }

  /** All entries, smallest pages first, then in slot order. For reports and for checks of I1. */
  *entries(): IterableIterator<IotlbEntry> {
    for (const { store, base } of this.#arrays) {
      for (let local = 0; local < store.slots; local++) {
        const tag = store.tags[local]!;
        if (tag < 0) continue;
        const slot = base + local;
        yield {
          slot,
          sourceId: tag & 0xffff,
          pasid: this.pasidAt(slot),
          withPasid: (tag & WITH_PASID) !== 0,
          kind: this.kindAt(slot),
          did: this.didAt(slot),
          iova: addressOf(store.addressHi[local]!, store.addressLo[local]!),
          level: this.levelAt(slot),
          pfn: this.pfnAt(slot, store.addressHi[local]!, store.addressLo[local]!),
          leaf: this.leafAt(slot),
          rights: this.rightsAt(slot),
        };
      }
    }
  }

  #lookupPasid(sourceId: number, iovaHi: number, iovaLo: number, pasid: number): number {
    const slot = this.#peekPasid(sourceId, iovaHi, iovaLo, pasid);
    if (slot < 0) return -1;
    const level = this.levelAt(slot);
    this.#counts[level === 1 ? Counter.hits4K : level === 2 ? Counter.hits2M : Counter.hits1G]!++;
    if (level === 1) this.#small.touch(slot);
    else if (level === 2) this.#medium.touch(slot - this.#mediumBase);
    else this.#large.touch(slot - this.#largeBase);
    return slot;
  }

  #peekPasid(sourceId: number, iovaHi: number, iovaLo: number, pasid: number): number {
    for (const { store, base } of this.#arrays) {
      const local = store.findTagged(sourceId | WITH_PASID, iovaHi, iovaLo, pasid, this.#pasid, base);
      if (local >= 0) return local + base;
    }
    return -1;
  }

  /** @param dids the domain-id by slot, or null to match the source-id instead */
  #invalidateRange(dids: Int32Array | null, id: number, hi: number, lo: number, rangeShift: number): number {
    let dropped = 0;
    for (const { store, base } of this.#arrays) {
      if (store.count === 0 || (rangeShift < store.shift && this.#partial === 'none')) continue;
      store.forEachOverlapping(hi, lo, rangeShift, (local) => {
        if ((dids === null ? store.tags[local]! & 0xffff : dids[local + base]!) !== id) return;
        store.drop(local);
        dropped++;
      });
    }
    return this.#countInvalidation(dropped);
  }

  #invalidateWhere(matches: (slot: number, tag: number, lo: number, hi: number, maskLo: number) => boolean): number {
    let dropped = 0;
    for (const { store, base } of this.#arrays) {
      const mask = -1 << store.shift;
      store.forEach((local) => {
        if (!matches(local + base, store.tags[local]!, store.addressLo[local]!, store.addressHi[local]!, mask)) return;
        store.drop(local);
        dropped++;
      });
    }
    return this.#countInvalidation(dropped);
  }

  #countInvalidation(dropped: number): number {
    this.#counts[Counter.invalidations]!++;
    this.#counts[Counter.dropped]! += dropped;
    return dropped;
  }

  #reset(): void {
    this.#counts[Counter.evictions]! += this.size;
    this.#counts[Counter.resets]!++;
    for (const { store } of this.#arrays) {
      store.forEach((local) => {
        store.drop(local);
      });
    }
  }
}
