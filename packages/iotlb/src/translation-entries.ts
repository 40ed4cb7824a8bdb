import { addressOf } from './invalidation-range.ts';
import { hasFirstStage, TranslationKind } from './translation-kind.ts';

/** Level of the leaf's table: 1 = SS-PTE (4K), 2 = SS-PDE (2M), 3 = SS-PDPTE (1G). */
export type LeafLevel = 1 | 2 | 3;

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
  /** Level of the leaf that it came from: above {@link level} if it is a fraction. */
  readonly originLevel: LeafLevel;
  /** First 4K frame of the page. */
  readonly pfn: number;
  /** The 64-bit leaf as it was when cached; in a fraction, with the fraction's own address. */
  readonly leaf: bigint;
  /** Bit 0 read, bit 1 write: the AND over the walk. */
  readonly rights: number;
}

// Words of one entry, together in one array so that a hit stays in one line of the machine's own cache.
const ENTRY_SHIFT = 3;
/** First 4K frame, or -1 if its number takes more than 31 bits. */
const PFN = 0;
/** Mask of the offset in the entry's page, lower 32 bits. */
const OFFSET = 1;
const RIGHTS = 2;
const LEAF_LO = 3;
const LEAF_HI = 4;
/** Level in bits 1:0, level of the leaf that it came from in 3:2, kind above. */
const SHAPE = 5;
const DID = 6;
/** The request's PASID, or RID_PASID for a request without one. */
const PASID_TAG = 7;

const PFN_HI_MASK = 0xfffff;
const OFFSET_MASK = { 1: 0xfff, 2: 0x1f_ffff, 3: 0x3fff_ffff } as const;
const SNP = 1 << 11;
const SECOND_STAGE_DIRTY = 1 << 9;
const FIRST_STAGE_DIRTY = 1 << 6;

/** What an IOTLB's entries say, by slot: the part of an {@link Iotlb} that is no look-up tag. */
export class TranslationEntries {
  readonly #words: Int32Array;

  /** @param slots of all sizes together */
  constructor(slots: number) {
    this.#words = new Int32Array(slots << ENTRY_SHIFT);
  }

  /** The 4K frame that the entry gives for an address inside its page: below 2^40, an int32 below 2^31. */
  pfnAt(slot: number, _iovaHi: number, iovaLo: number): number {
    // Words by literal numbers, see at their names: bundlers make variables of a module's constants, and this is hot.
    const words = this.#words;
    const at = slot << 3;
    const pfn = words[at]!;
    return pfn >= 0 ? pfn | ((iovaLo & words[at + 1]!) >>> 12) : this.#largePfnAt(at, iovaLo);
  }

  /** Bit 0 read, bit 1 write. */
  rightsAt(slot: number): number {
    return this.#words[(slot << 3) + 2]!;
  }

  /** Size of the entry: 1 = 4K, 2 = 2M, 3 = 1G. */
  levelAt(slot: number): LeafLevel {
    return (this.#words[(slot << ENTRY_SHIFT) + SHAPE]! & 3) as LeafLevel;
  }

  /** Level of the leaf that the entry came from: above {@link levelAt} if the entry is a fraction of it. */
  originLevelAt(slot: number): LeafLevel {
    return ((this.#words[(slot << ENTRY_SHIFT) + SHAPE]! >> 2) & 3) as LeafLevel;
  }

  /** Domain-id of the entry. */
  didAt(slot: number): number {
    return this.#words[(slot << ENTRY_SHIFT) + DID]!;
  }

  /** PASID that the entry is tagged with: the request's, or RID_PASID. */
  pasidAt(slot: number): number {
    return this.#words[(slot << ENTRY_SHIFT) + PASID_TAG]!;
  }

  /** How the mapping was made. */
  kindAt(slot: number): TranslationKind {
    return (this.#words[(slot << ENTRY_SHIFT) + SHAPE]! >> 4) as TranslationKind;
  }

  /** SNP of a second-stage leaf (bit 11); false for other kinds, whose leaves have none. */
  snoopAt(slot: number): boolean {
    return this.kindAt(slot) === TranslationKind.secondStage && (this.leafLoAt(slot) & SNP) !== 0;
  }

  /** D of the leaf as it was when cached: bit 9 of a second-stage leaf, bit 6 of a first-stage one. */
  dirtyAt(slot: number): boolean {
    const kind = this.kindAt(slot);
    if (kind === TranslationKind.passThrough) return false;
    return (this.leafLoAt(slot) & (hasFirstStage(kind) ? FIRST_STAGE_DIRTY : SECOND_STAGE_DIRTY)) !== 0;
  }

  /** The 64-bit leaf as it was when cached. Allocates: for reports. */
  leafAt(slot: number): bigint {
    return addressOf(this.leafHiAt(slot), this.leafLoAt(slot));
  }

  /** Upper half of the leaf as it was when cached. */
  leafHiAt(slot: number): number {
    return this.#words[(slot << ENTRY_SHIFT) + LEAF_HI]!;
  }

  /** Lower half of the leaf as it was when cached; in a fraction, with the fraction's own address. */
  leafLoAt(slot: number): number {
    return this.#words[(slot << ENTRY_SHIFT) + LEAF_LO]!;
  }

  /** Writes the entry of one slot, for a leaf of `originLevel` cached as a page of `level` that holds the iova. */
  protected write(
    slot: number,
    iovaLo: number,
    level: LeafLevel,
    originLevel: LeafLevel,
    leafLo: number,
    leafHi: number,
    rights: number,
    did: number,
    pasidTag: number,
    kind: TranslationKind,
  ): void {
    const words = this.#words;
    const at = slot << ENTRY_SHIFT;
    const narrowed = OFFSET_MASK[originLevel] & ~OFFSET_MASK[level];
    const lo = (leafLo & ~narrowed) | (iovaLo & narrowed);
    const high = leafHi & PFN_HI_MASK;
    words[at + PFN] = high < 0x800 ? (high << 20) | ((lo & ~OFFSET_MASK[level]) >>> 12) : -1;
    words[at + OFFSET] = OFFSET_MASK[level];
    words[at + RIGHTS] = rights;
    words[at + LEAF_LO] = lo;
    words[at + LEAF_HI] = leafHi;
    words[at + SHAPE] = level | (originLevel << 2) | (kind << 4);
    words[at + DID] = did;
    words[at + PASID_TAG] = pasidTag;
  }

  /** The frame of an entry at 8 TiB or above: no int32. */
  #largePfnAt(at: number, iovaLo: number): number {
    const words = this.#words;
    const offsetMask = words[at + OFFSET]!;
    const low = ((words[at + LEAF_LO]! & ~offsetMask) | (iovaLo & offsetMask)) >>> 12;
    return (words[at + LEAF_HI]! & PFN_HI_MASK) * 0x100000 + low;
  }
}
