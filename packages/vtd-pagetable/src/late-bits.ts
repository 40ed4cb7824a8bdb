import { entryFrame, isLeaf, isPresent, levelFrames, SS_ACCESSED, SS_DIRTY, tableIndex } from './entry.ts';
import type { InvalidationGather, LateTable } from './invalidation-gather.ts';
import { pageBase } from './leaf-run.ts';
import type { TableState } from './table-state.ts';

const AD = SS_ACCESSED | SS_DIRTY;

/**
 * Collects the A and D bits of tables that were unlinked, after the flush that ended hardware's use of them and before they
 * are freed. Hardware with a stale paging-structure entry sets them in the old table as long as it can reach it (6.2.5).
 *
 * For a collapsed table they go to the leaf that took its place, all of them and not only those set since: a dirty read
 * may have reported and cleared the leaf in between. Where the leaf has gone meanwhile, and for unmapped tables, dirty pages
 * are added to the gather's report.
 */
export function settleLateTables(table: TableState, gather: InvalidationGather): void {
  for (const late of gather.lateTables.splice(0)) {
    for (let index = 0; index < 512; index++) {
      const entry = table.memory.load(late.pfn, index);
      if (!isPresent(entry) || !isLeaf(entry, late.level) || (entry & AD) === 0n) continue;
      const size = levelFrames(late.level);
      const page = late.page + index * size;
      const folded = late.leafLevel > 0 && foldInto(table, late, page, entry);
      if (!folded && (entry & SS_DIRTY) !== 0n) gather.dirtyLeaves.push({ page, pages: size });
    }
  }
}

/** Sets the bits in the leaf that maps the page now. @returns false if that is no leaf of the same frame */
function foldInto(table: TableState, late: LateTable, page: number, bits: bigint): boolean {
  const { memory } = table;
  let pfn = table.rootPfn;
  for (let level = table.levels as number; ; level--) {
    const index = tableIndex(page, level);
    for (let entry = memory.load(pfn, index); ; ) {
      if (!isPresent(entry)) return false;
      if (!isLeaf(entry, level)) break; // at level 1 there is nothing else
      if (entryFrame(entry) + (page % levelFrames(level)) !== entryFrame(bits)) return false;
      // A smaller leaf than the old one cannot stand for all of it.
      if (level < late.level) return false;
      const wanted = entry | (bits & AD);
      if (wanted === entry) return true;
      const seen = memory.compareExchange(pfn, index, entry, wanted);
      if (seen === entry) return true;
      entry = seen;
    }
    const below = entryFrame(memory.load(pfn, index));
    // In a corrupt table the bits are better reported than lost.
    if (!table.places.holds(below, level - 1, pageBase(page, level))) return false;
    pfn = below;
  }
}
