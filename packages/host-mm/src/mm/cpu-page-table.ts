import { assert } from '@faultline/sim';
import { FANOUT, type FolioOrder, FRAMES_PER_1G, framesOf } from '../folio/folio-order.ts';

/**
 * An entry: 0 none, above 0 present (a folio's id), below 0 swapped out (the complement of the slot).
 * Swap entries exist for 4K only.
 */
export type CpuEntry = number;

/** The swap entry of a slot. */
export const swapEntry = (slot: number): CpuEntry => ~slot;
/** The slot of a swap entry. */
export const slotOf = (entry: CpuEntry): number => ~entry;

class PteTable {
  readonly entries = new Int32Array(FANOUT);
  used = 0;
}

class PmdTable {
  readonly leaves = new Int32Array(FANOUT);
  readonly tables: (PteTable | null)[] = new Array<PteTable | null>(FANOUT).fill(null);
  used = 0;
}

interface Pud {
  leaf: number;
  table: PmdTable | null;
}

/**
 * The CPU's page table of one address space, from the PUD (1G) level down: leaves of 1G, 2M and 4K. Tables exist where a
 * large leaf was split or a small one installed, and go when their last entry does. Page numbers up to 2^45.
 */
export class CpuPageTable {
  readonly #puds = new Map<number, Pud>();
  /** The last PUD looked up: walks come in runs. */
  #lastIndex = -1;
  #last: Pud | null = null;

  /** The entry that maps the page, whatever its level. */
  entry(page: number): CpuEntry {
    const pud = this.#pud(page);
    if (pud === null) return 0;
    if (pud.table === null) return pud.leaf;
    const at = page - Math.floor(page / FRAMES_PER_1G) * FRAMES_PER_1G;
    const table = pud.table.tables[at >> 9];
    return table ? table.entries[at & 511]! : pud.table.leaves[at >> 9]!;
  }

  /** The order of the smallest table entry on the way to the page: 18 or 9 for a large leaf or a hole of that size. */
  levelAt(page: number): FolioOrder {
    const table = this.#pud(page)?.table;
    if (!table) return 18;
    const at = page - Math.floor(page / FRAMES_PER_1G) * FRAMES_PER_1G;
    return table.tables[at >> 9] ? 0 : 9;
  }

  /** Whether nothing, not even a swap entry, is in the aligned block of that order. O(1). */
  isEmpty(startPage: number, order: FolioOrder): boolean {
    const pud = this.#pud(startPage);
    if (pud === null) return true;
    if (order === 18) return false;
    if (order === 9 && pud.table !== null) {
      const at = startPage - Math.floor(startPage / FRAMES_PER_1G) * FRAMES_PER_1G;
      return pud.table.leaves[at >> 9] === 0 && pud.table.tables[at >> 9] === null;
    }
    return this.entry(startPage) === 0;
  }

  /** Installs an entry of that order where there is none, or replaces a 4K entry by another. */
  set(page: number, order: FolioOrder, entry: CpuEntry): void {
    assert(entry !== 0 && (order === 0 || entry > 0), 'an entry to install is present, or a 4K swap entry');
    const index = Math.floor(page / FRAMES_PER_1G);
    const at = page - index * FRAMES_PER_1G;
    let pud = this.#pud(page);
    if (pud === null) {
      pud = { leaf: 0, table: null };
      this.#puds.set(index, pud);
      this.#last = pud;
    }
    if (order === 18) {
      assert(pud.leaf === 0 && pud.table === null, 'a 1G leaf is installed over something');
      pud.leaf = entry;
      return;
    }
    assert(pud.leaf === 0, 'a small leaf is installed below a 1G leaf');
    pud.table ??= new PmdTable();
    if (order === 9) setPmd(pud.table, at >> 9, entry);
    else setPte(pud.table, at, entry);
  }

  /** Removes the entry of that order at `page`, and tables that are empty then. Asserts that it is there. */
  clear(page: number, order: FolioOrder): void {
    const index = Math.floor(page / FRAMES_PER_1G);
    const pud = this.#pud(page);
    assert(pud !== null && this.entry(page) !== 0, 'an entry that is not there is cleared');
    const table = pud.table;
    if (order === 18) {
      assert(table === null, 'a 1G leaf is cleared, but a table is there');
      this.#drop(index);
      return;
    }
    assert(table !== null, 'a small leaf is cleared below a 1G leaf');
    const at = page - index * FRAMES_PER_1G;
    if (order === 9) {
      table.leaves[at >> 9] = 0;
      table.used--;
    } else {
      clearPte(table, at);
    }
    if (table.used === 0) this.#drop(index);
  }

  /** Replaces a 1G or 2M leaf by a table of the next level that holds `pieces`. Asserts that the leaf is there. */
  split(startPage: number, order: FolioOrder, pieces: Int32Array): void {
    const pud = this.#pud(startPage);
    assert(pud !== null && order !== 0 && pieces.length === FANOUT, 'only a large leaf can be split, into 512');
    if (order === 18) {
      assert(pud.leaf > 0, 'there is no 1G leaf to split');
      const table = new PmdTable();
      table.leaves.set(pieces);
      table.used = FANOUT;
      pud.leaf = 0;
      pud.table = table;
      return;
    }
    const table = pud.table;
    const at = (startPage - Math.floor(startPage / FRAMES_PER_1G) * FRAMES_PER_1G) >> 9;
    assert(table !== null && table.leaves[at]! > 0, 'there is no 2M leaf to split');
    const ptes = new PteTable();
    ptes.entries.set(pieces);
    ptes.used = FANOUT;
    table.leaves[at] = 0;
    table.tables[at] = ptes;
  }

  /** The first page from `page` on, below `endPage`, at which the table is not empty; `endPage` if there is none. */
  nextUsed(page: number, endPage: number): number {
    let at = page;
    while (at < endPage && this.entry(at) === 0) {
      const frames = framesOf(this.levelAt(at));
      at = (Math.floor(at / frames) + 1) * frames;
    }
    return Math.min(at, endPage);
  }

  #pud(page: number): Pud | null {
    const index = Math.floor(page / FRAMES_PER_1G);
    if (index !== this.#lastIndex) {
      this.#lastIndex = index;
      this.#last = this.#puds.get(index) ?? null;
    }
    return this.#last;
  }

  #drop(index: number): void {
    this.#puds.delete(index);
    this.#lastIndex = -1;
    this.#last = null;
  }
}

function setPmd(table: PmdTable, at: number, entry: CpuEntry): void {
  assert(table.leaves[at] === 0 && table.tables[at] === null, 'a 2M leaf is installed over something');
  table.leaves[at] = entry;
  table.used++;
}

function setPte(table: PmdTable, at: number, entry: CpuEntry): void {
  assert(table.leaves[at >> 9] === 0, 'a 4K leaf is installed below a 2M leaf');
  let ptes = table.tables[at >> 9];
  if (!ptes) {
    ptes = new PteTable();
    table.tables[at >> 9] = ptes;
    table.used++;
  }
  if (ptes.entries[at & 511] === 0) ptes.used++;
  ptes.entries[at & 511] = entry;
}

function clearPte(table: PmdTable, at: number): void {
  const ptes = table.tables[at >> 9];
  assert(ptes !== null && ptes !== undefined, 'a 4K leaf is cleared where there is no table');
  ptes.entries[at & 511] = 0;
  ptes.used--;
  if (ptes.used > 0) return;
  table.tables[at >> 9] = null;
  table.used--;
}
