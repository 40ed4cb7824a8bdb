import type { InvalidationGather, SecondStageTable } from '../src/index.ts';

const ADDRESS = 0x000f_ffff_ffff_f000n;
const AD = 0x300n;

interface CachedLeaf {
  readonly page: number;
  readonly pages: number;
  readonly frame: number;
  readonly dirty: boolean;
}

/**
 * Hardware at its most stubborn: it keeps every translation and every paging-structure entry until an invalidation takes it,
 * prefers the oldest, and sets A and D as VT-d Rev 5.10, 3.7.2 says: D only on a write through a translation that was cached
 * without it, in the leaf that the walk then finds.
 */
export class StaleDevice {
  readonly #table: SecondStageTable;
  #leaves: CachedLeaf[] = [];
  /** Tables by level and block of pages. */
  readonly #tables = new Map<string, number>();
  /** Pages written since they were last processed. */
  readonly unsaved = new Set<number>();
  faults = 0;

  constructor(table: SecondStageTable) {
    this.#table = table;
  }

  /** A DMA to one page. @returns the frame, or -1 for a fault */
  access(page: number, write: boolean): number {
    const cached = this.#leaves.find((leaf) => page >= leaf.page && page < leaf.page + leaf.pages);
    const leaf = cached !== undefined && (cached.dirty || !write) ? cached : this.#walk(page, write);
    if (leaf === null) {
      this.faults++;
      return -1;
    }
    if (write) this.unsaved.add(page);
    return leaf.frame + page - leaf.page;
  }

  #walk(page: number, write: boolean): CachedLeaf | null {
    const { memory, levels, rootPfn } = this.#table;
    const block = (level: number) => `${level} ${Math.floor(page / 512 ** level)}`;
    let level: number = levels;
    for (let cachedLevel = 1; cachedLevel < levels; cachedLevel++)
      if (this.#tables.has(block(cachedLevel))) {
        level = cachedLevel;
        break;
      }
    let pfn = this.#tables.get(block(level)) ?? rootPfn;
    for (;;) {
      const size = 512 ** (level - 1);
      const index = Math.floor(page / size) % 512;
      const entry = memory.hardwareLoad(pfn, index);
      if ((entry & (write ? 2n : 1n)) === 0n) return null;
      if (level > 1 && (entry & 0x80n) === 0n) {
        pfn = Number((entry & ADDRESS) >> 12n);
        level--;
        this.#tables.set(block(level), pfn);
        continue;
      }
      const wanted = entry | (write ? AD : 0x100n);
      if (memory.compareExchange(pfn, index, entry, wanted) !== entry) continue;
      const first = Math.floor(page / size) * size;
      const frame = Number((entry & ADDRESS) >> 12n);
      const leaf = { page: first, pages: size, frame, dirty: (wanted & 0x200n) !== 0n };
      this.#leaves.push(leaf);
      return leaf;
    }
  }

  /** The invalidations that a gather asks for, wait included. */
  flush(gather: InvalidationGather): void {
    if (gather.empty) return;
    this.#leaves = this.#leaves.filter(
      (leaf) => leaf.page > gather.lastPage || leaf.page + leaf.pages <= gather.firstPage,
    );
    if (gather.leafOnly) return;
    for (const key of [...this.#tables.keys()]) {
      const [level, block] = key.split(' ').map(Number) as [number, number];
      const first = block * 512 ** level;
      if (first <= gather.lastPage && first + 512 ** level > gather.firstPage) this.#tables.delete(key);
    }
  }

  /** The host saves what was reported: writes after this have to be reported again. */
  save(ranges: readonly { readonly page: number; readonly pages: number }[]): void {
    for (const { page, pages } of ranges)
      for (const written of [...this.unsaved])
        if (written >= page && written < page + pages) this.unsaved.delete(written);
  }
}
