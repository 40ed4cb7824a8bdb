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

/*
 * Words of one entry, together in one array so that a hit stays in one line of the machine's own cache:
 * 0 first 4K frame, or -1 if its number takes more than 31 bits, 1 mask of the offset in the entry's page (lower 32 bits),
 * 2 rights, 3 and 4 lower and upper half of the leaf, 5 level in bits 1:0, level of the leaf that it came from in 3:2 and kind
 * above, 6 domain-id, 7 the request's PASID, or RID_PASID for a request without one. Literal numbers below, since
 * bundlers make variables of a module's constants, which cost a hit 4 of 18 ns.
 */
const WORDS = 8;

/** Mask of the offset in a page, lower 32 bits. */
const offsetMask = (level: LeafLevel): number => (level === 1 ? 0xfff : level === 2 ? 0x1f_ffff : 0x3fff_ffff);
const SNP = 1 << 11;
const SECOND_STAGE_DIRTY = 1 << 9;
const FIRST_STAGE_DIRTY = 1 << 6;

/** What an IOTLB's entries say, by slot: the part of an {@link Iotlb} that is no look-up tag. */
export class TranslationEntries {
  readonly #words: Int32Array = new Int32Array(0);

  /** @param slots of all sizes together */
  constructor(slots: number) {
    this.#words = new Int32Array(slots * WORDS);
  }

  /** The 4K frame that the entry gives for an address inside its page: below 2^40, an int32 below 2^31. */
  pfnAt(slot: number, _iovaHi: number, iovaLo: number): number {
    const words = this.#words;
    const at = slot << 3;
    const pfn = words[at]!;
    return pfn >= 0 ? pfn | ((iovaLo & words[at | 1]!) >>> 12) : this.#largePfnAt(at, iovaLo);
  }

  /** Bit 0 read, bit 1 write. */
  rightsAt(slot: number): number {
    return this.#words[(slot << 3) | 2]!;
  }

  /** Size of the entry: 1 = 4K, 2 = 2M, 3 = 1G. */
  levelAt(slot: number): LeafLevel {
    return (this.#words[(slot << 3) + 5]! & 3) as LeafLevel;
  }

  /** Level of the leaf that the entry came from: above {@link levelAt} if the entry is a fraction of it. */
  originLevelAt(slot: number): LeafLevel {
    return ((this.#words[(slot << 3) + 5]! >> 2) & 3) as LeafLevel;
  }

  /** Domain-id of the entry. */
  didAt(slot: number): number {
    return this.#words[(slot << 3) + 6]!;
  }

  /** PASID that the entry is tagged with: the request's, or RID_PASID. */
  pasidAt(slot: number): number {
    return this.#words[(slot << 3) + 7]!;
  }

  /** How the mapping was made. */
  kindAt(slot: number): TranslationKind {
    return (this.#words[(slot << 3) + 5]! >> 4) as TranslationKind;
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
    return this.#words[(slot << 3) + 4]!;
  }

  /** Lower half of the leaf as it was when cached; in a fraction, with the fraction's own address. */
  leafLoAt(slot: number): number {
    return this.#words[(slot << 3) + 3]!;
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
    const at = slot << 3;
    const mask = offsetMask(level);
    const narrowed = offsetMask(originLevel) & ~mask;
    const lo = (leafLo & ~narrowed) | (iovaLo & narrowed);
    const high = leafHi & 0xfffff;
    words[at] = high < 0x800 ? (high << 20) | ((lo & ~mask) >>> 12) : -1;
    words[at + 1] = mask;
    words[at + 2] = rights;
    words[at + 3] = lo;
    words[at + 4] = leafHi;
    words[at + 5] = level | (originLevel << 2) | (kind << 4);
    words[at + 6] = did;
    words[at + 7] = pasidTag;
  }

  /** The frame of an entry at 8 TiB or above: no int32. */
  #largePfnAt(at: number, iovaLo: number): number {
    const words = this.#words;
    const mask = words[at + 1]!;
    const low = ((words[at + 3]! & ~mask) | (iovaLo & mask)) >>> 12;
    return (words[at + 4]! & 0xfffff) * 0x100000 + low;
  }
}
