import { FANOUT, type FolioOrder, framesOf, PMD_ORDER, PUD_ORDER } from './folio-order.ts';

class Region {
  /** The folio of each 2M block; 0 for none, or where {@link frames} says it. */
  readonly blocks = new Int32Array(FANOUT);
  readonly frames: (Int32Array | null)[] = new Array<Int32Array | null>(FANOUT).fill(null);
}

/**
 * Which folio a frame belongs to, as Linux's `page_folio`. One number for a 1G folio, 512 for its 2M pieces, 512 more for
 * each 2M that is in pieces: memory follows what is split.
 */
export class FrameOwners {
  readonly #whole: Int32Array;
  readonly #regions: (Region | null)[];
  readonly #firstRegion: number;

  constructor(span: { readonly firstPfn: number; readonly endPfn: number }) {
    this.#firstRegion = span.firstPfn >> 18;
    const regions = ((span.endPfn - 1) >> 18) - this.#firstRegion + 1;
    this.#whole = new Int32Array(regions);
    this.#regions = new Array<Region | null>(regions).fill(null);
  }

  /** The folio that holds a frame; 0 if none does. */
  folioAt(pfn: number): number {
    const r = (pfn >> 18) - this.#firstRegion;
    const region = this.#regions[r];
    if (!region) return this.#whole[r] ?? 0;
    const block = (pfn >> 9) & 511;
    const frames = region.frames[block];
    return frames ? frames[pfn & 511]! : region.blocks[block]!;
  }

  /** Says that a folio (or none, 0) holds the aligned frames of that order. */
  set(pfn: number, order: FolioOrder, folio: number): void {
    const r = (pfn >> 18) - this.#firstRegion;
    if (order === PUD_ORDER) {
      this.#whole[r] = folio;
      this.#regions[r] = null;
      return;
    }
    const region = this.#region(r);
    const block = (pfn >> 9) & 511;
    if (order >= PMD_ORDER) {
      const blocks = framesOf(order - PMD_ORDER);
      region.blocks.fill(folio, block, block + blocks);
      region.frames.fill(null, block, block + blocks);
      return;
    }
    let frames = region.frames[block];
    if (!frames) {
      frames = new Int32Array(FANOUT).fill(region.blocks[block]!);
      region.frames[block] = frames;
      region.blocks[block] = 0;
    }
    frames.fill(folio, pfn & 511, (pfn & 511) + framesOf(order));
  }

  /** The first frame from `pfn` on, below `endPfn`, that some folio holds; `endPfn` if there is none. */
  nextUsed(pfn: number, endPfn: number): number {
    let at = pfn;
    while (at < endPfn && this.folioAt(at) === 0) {
      const region = this.#regions[(at >> 18) - this.#firstRegion];
      const unit = !region ? 2 ** PUD_ORDER : region.frames[(at >> 9) & 511] ? 1 : FANOUT;
      at = (Math.floor(at / unit) + 1) * unit;
    }
    return Math.min(at, endPfn);
  }

  #region(r: number): Region {
    let region = this.#regions[r];
    if (!region) {
      region = new Region();
      region.blocks.fill(this.#whole[r]!);
      this.#regions[r] = region;
      this.#whole[r] = 0;
    }
    return region;
  }
}
