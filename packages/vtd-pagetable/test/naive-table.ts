import type { EntryCapabilities, PartialLeafRule, SecondStageTable, TableMemory } from '../src/index.ts';

const G = 262_144;
export const ADDRESS = 0x000f_ffff_ffff_f000n;

/** A leaf of the model: `pages` is 1, 512 or 262,144. */
export interface NaiveLeaf {
  readonly page: number;
  readonly pages: number;
  readonly frame: number;
  /** R, W and attributes: the entry without address and PS. */
  readonly bits: bigint;
}

/** What a page table does, as a map from first page to leaf: no entries, no tables, no steps. */
export class NaiveTable {
  readonly leaves = new Map<number, NaiveLeaf>();

  leafOf(page: number): NaiveLeaf | undefined {
    for (const pages of [1, 512, G]) {
      const leaf = this.leaves.get(page - (page % pages));
      if (leaf && page < leaf.page + leaf.pages) return leaf;
    }
    return undefined;
  }

  frameOf(page: number): number {
    const leaf = this.leafOf(page);
    return leaf ? leaf.frame + page - leaf.page : -1;
  }

  /** Leaves in address order, as whole entries. */
  list(): [page: number, entry: bigint][] {
    return [...this.leaves.values()]
      .sort((a, b) => a.page - b.page)
      .map(({ page, pages, frame, bits }) => [page, (BigInt(frame) << 12n) | bits | (pages > 1 ? 0x80n : 0n)]);
  }

  /** @returns pages mapped; fewer than asked for means EADDRINUSE at the next */
  map(page: number, frame: number, pages: number, bits: bigint): number {
    for (let done = 0; done < pages; ) {
      const size = [G, 512].find((s) => (page + done) % s === 0 && (frame + done) % s === 0 && pages - done >= s) ?? 1;
      if (this.#overlaps(page + done, size)) return done;
      this.leaves.set(page + done, { page: page + done, pages: size, frame: frame + done, bits });
      done += size;
    }
    return pages;
  }

  unmap(
    page: number,
    pages: number,
    rule: PartialLeafRule,
    holes: 'stop' | 'skip',
  ): { pages: number; stopped: boolean } {
    let unmapped = 0;
    for (let at = page; at < page + pages; ) {
      const leaf = this.leafOf(at);
      if (!leaf && holes === 'stop') return { pages: unmapped, stopped: true };
      if (!leaf) {
        at = Math.min(...[...this.leaves.keys()].filter((first) => first > at), page + pages);
        continue;
      }
      if (leaf.page < page && rule === 'linux-7.3') return { pages: unmapped, stopped: true };
      this.leaves.delete(leaf.page);
      unmapped += leaf.pages;
      at = leaf.page + leaf.pages;
    }
    return { pages: unmapped, stopped: false };
  }

  /** Replaces a leaf that crosses an end by separate maps of its parts left of, in and right of the range. */
  cut(page: number, pages: number): NaiveLeaf[] {
    const ends = [page, page + pages];
    const crossed = new Set(
      ends.flatMap((end) => {
        const leaf = this.leafOf(end);
        return leaf && leaf.page < end ? [leaf] : [];
      }),
    );
    for (const leaf of crossed) {
      this.leaves.delete(leaf.page);
      const last = leaf.page + leaf.pages;
      const parts = [leaf.page, ...ends.filter((end) => end > leaf.page && end < last), last];
      for (let i = 0; i + 1 < parts.length; i++) {
        const from = parts[i] as number;
        this.map(from, leaf.frame + from - leaf.page, (parts[i + 1] as number) - from, leaf.bits);
      }
    }
    return [...crossed];
  }

  set(page: number, bits: bigint): void {
    const leaf = this.leafOf(page);
    if (leaf) this.leaves.set(leaf.page, { ...leaf, bits: leaf.bits | bits });
  }

  #overlaps(page: number, pages: number): boolean {
    if (this.leafOf(page)) return true;
    if (pages === 1) return false;
    for (const first of this.leaves.keys()) if (first >= page && first < page + pages) return true;
    return false;
  }
}

/** A table page that the root leads to. */
export interface ReachedTable {
  readonly level: number;
  readonly page: number;
  /** 4K pages that it covers. */
  readonly pages: number;
}

/** Every table page that the root leads to, read without the package's own decoding. */
export function reachedTables(table: SecondStageTable): Map<number, ReachedTable> {
  const reached = new Map<number, ReachedTable>();
  const visit = (pfn: number, level: number, page: number): void => {
    if (reached.has(pfn)) throw new Error(`table page ${pfn} is reached twice`);
    const each = 512 ** (level - 1);
    reached.set(pfn, { level, page, pages: each * 512 });
    for (let index = 0; index < 512; index++) {
      const entry = table.memory.load(pfn, index);
      if ((entry & 3n) === 0n || level === 1 || (level <= 3 && (entry & 0x80n) !== 0n)) continue;
      visit(Number((entry & ADDRESS) >> 12n), level - 1, page + index * each);
    }
  };
  visit(table.rootPfn, table.levels, 0);
  return reached;
}

/** Where the entry of the leaf that maps a page is. */
export function slotOf(table: SecondStageTable, page: number): { pfn: number; index: number } | null {
  let pfn = table.rootPfn;
  for (let level: number = table.levels; level >= 1; level--) {
    const index = Math.floor(page / 512 ** (level - 1)) % 512;
    const entry = table.memory.load(pfn, index);
    if ((entry & 3n) === 0n) return null;
    if (level === 1 || (level <= 3 && (entry & 0x80n) !== 0n)) return { pfn, index };
    pfn = Number((entry & ADDRESS) >> 12n);
  }
  return null;
}

/** Reserved bits by the text of Rev 5.10, 3.7 and tables 43-47; bit numbers. */
export function isReserved(bit: number, level: number, leaf: boolean, unit: EntryCapabilities): boolean {
  if (bit >= unit.hostAddressWidth && bit <= 51) return true;
  if (bit === 62) return !(leaf && unit.specRevision === '3.x' && unit.deviceTlb);
  if (bit === 11) return !(leaf && unit.snoopControl);
  if (bit === 7) return level >= 4 || (level === 3 && !unit.page1G) || (level === 2 && !unit.page2M);
  if (leaf && level === 2) return bit >= 12 && bit <= 20;
  return leaf && level === 3 && bit >= 12 && bit <= 29;
}

/** The answer of a walk. */
export interface WalkAnswer {
  readonly reason: number;
  readonly frame: number;
  readonly rights: number;
  readonly reads: number;
  readonly level: number;
}

interface WalkQuery {
  readonly memory: TableMemory;
  readonly unit: EntryCapabilities;
  readonly rootPfn: number;
  readonly levels: number;
  readonly iova: bigint;
  readonly write: boolean;
}

/** A walk in bigints, one rule after the other. */
export function naiveWalk(query: WalkQuery): WalkAnswer {
  const { memory, unit, iova, write } = query;
  let pfn = BigInt(query.rootPfn);
  let rights = 3n;
  let reads = 0;
  for (let level = query.levels; ; level--) {
    const fault = (reason: number): WalkAnswer => ({ reason, frame: -1, rights: Number(rights), reads, level });
    if (pfn < BigInt(memory.basePfn) || pfn >= BigInt(memory.basePfn + memory.pages)) return fault(7);
    const shift = BigInt(12 + 9 * (level - 1));
    const entry = memory.load(Number(pfn), Number((iova >> shift) & 511n));
    reads++;
    rights &= entry;
    if ((rights & (write ? 2n : 1n)) === 0n) return fault(write ? 5 : 6);
    const leaf = level === 1 || (level <= 3 && ((entry >> 7n) & 1n) === 1n);
    for (let bit = 0; bit < 64; bit++)
      if (((entry >> BigInt(bit)) & 1n) === 1n && isReserved(bit, level, leaf, unit))
        if (bit !== 7 || level > 1) return fault(12);
    if (leaf) {
      const address = (entry & ADDRESS) + (iova & ((1n << shift) - 1n));
      return { reason: 0, frame: Number(address >> 12n), rights: Number(rights), reads, level };
    }
    pfn = (entry & ADDRESS) >> 12n;
  }
}
