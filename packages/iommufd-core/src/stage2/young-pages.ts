import type { LeafRange } from '../iommu-domain.ts';

/** Pages of a block that is kept as one bitmap. */
const BLOCK = 512;

/**
 * Pages that count as used although their accessed bit is clear. One bit of a large leaf stands for 512 or 262,144 pages, and
 * whoever asks about one of them clears it for all: what it said of the others is kept here until they are asked about. A
 * block of which every page is young needs no bitmap, so that a 1G leaf costs 512 map entries and no more.
 */
export class YoungPages {
  /** Bitmaps by block number; null: the whole block. */
  readonly #blocks = new Map<number, Int32Array | null>();

  /** Pages that are kept. */
  get count(): number {
    let count = 0;
    for (const bits of this.#blocks.values())
      count += bits === null ? BLOCK : bits.reduce((sum, word) => sum + ones(word), 0);
    return count;
  }

  /** The leaf was used: so were all its pages. */
  add({ page, pages }: LeafRange): void {
    for (let at = page; at < page + pages; ) {
      const block = Math.floor(at / BLOCK);
      const end = Math.min(page + pages, (block + 1) * BLOCK);
      if (end - at === BLOCK) this.#blocks.set(block, null);
      else this.#set(block, at, end);
      at = end;
    }
  }

  /** Whether a page of the range is kept. */
  has(page: number, pages: number): boolean {
    for (let at = page; at < page + pages; ) {
      const block = Math.floor(at / BLOCK);
      const end = Math.min(page + pages, (block + 1) * BLOCK);
      const bits = this.#blocks.get(block);
      if (bits === null) return true;
      if (bits) for (; at < end; at++) if (isSet(bits, at)) return true;
      at = end;
    }
    return false;
  }

  /** Takes a range out. @returns whether a page of it was kept */
  take(page: number, pages: number): boolean {
    const found = this.has(page, pages);
    if (!found) return false;
    for (let at = page; at < page + pages; ) {
      const block = Math.floor(at / BLOCK);
      const end = Math.min(page + pages, (block + 1) * BLOCK);
      this.#clear(block, at, end);
      at = end;
    }
    return true;
  }

  #set(block: number, from: number, end: number): void {
    const bits = this.#blocks.get(block);
    if (bits === null) return;
    const own = bits ?? new Int32Array(BLOCK / 32);
    for (let at = from; at < end; at++) own[(at % BLOCK) >> 5] = (own[(at % BLOCK) >> 5] as number) | (1 << (at & 31));
    this.#blocks.set(block, own);
  }

  #clear(block: number, from: number, end: number): void {
    const kept = this.#blocks.get(block);
    if (kept === undefined) return;
    const bits = kept ?? new Int32Array(BLOCK / 32).fill(-1);
    this.#blocks.set(block, bits);
    for (let at = from; at < end; at++)
      bits[(at % BLOCK) >> 5] = (bits[(at % BLOCK) >> 5] as number) & ~(1 << (at & 31));
    if (bits.every((word) => word === 0)) this.#blocks.delete(block);
  }
}

const isSet = (bits: Int32Array, page: number): boolean =>
  ((bits[(page % BLOCK) >> 5] as number) & (1 << (page & 31))) !== 0;

function ones(word: number): number {
  let count = 0;
  for (let rest = word; rest !== 0; rest &= rest - 1) count++;
  return count;
}
