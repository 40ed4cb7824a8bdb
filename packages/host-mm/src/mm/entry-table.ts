import { assert } from '@faultline/sim';
import { FANOUT, type FolioOrder, FRAMES_PER_1G, framesOf, PMD_ORDER, PUD_ORDER } from '../folio/folio-order.ts';

/**
 * Bits of an entry. What an entry means: PRESENT, its value is the leaf's first frame; SWAP, a swap entry; MIGRATION, the
 * frame that is on the move; POISON, the frame that is lost; none of them, nothing is there.
 */
export const Entry = {
  PRESENT: 0x1,
  WRITE: 0x2,
  YOUNG: 0x4,
  DIRTY: 0x8,
  SOFT_DIRTY: 0x10,
  /** Present, but every access faults: NUMA hinting, or a VMA without rights. */
  PROT_NONE: 0x20,
  SWAP: 0x40,
  MIGRATION: 0x80,
  POISON: 0x100,
  UFFD_WP: 0x200,
  /** No other address space maps the anonymous page (Linux's PageAnonExclusive, kept in swap entries too). */
  EXCLUSIVE: 0x400,
} as const;

class PteTable {
  readonly values = new Int32Array(FANOUT);
  readonly flags = new Uint16Array(FANOUT);
  used = 0;
}

class PmdTable {
  readonly values = new Int32Array(FANOUT);
  readonly flags = new Uint16Array(FANOUT);
  readonly tables: (PteTable | null)[] = new Array<PteTable | null>(FANOUT).fill(null);
  used = 0;
}

/** A 1G entry: a leaf, or a table. */
class Pud {
  readonly values = new Int32Array(1);
  readonly flags = new Uint16Array(1);
  table: PmdTable | null = null;
}

/**
 * A radix table from the PUD (1G) level down, with leaves of 1G, 2M and 4K: the CPU's page table of an address space, and
 * the page cache of a file. Each entry has a 32-bit value and {@link Entry} bits. Tables exist where a large leaf was
 * split or a small one installed, and go when their last entry does. Page numbers up to 2^45.
 */
export class EntryTable {
  readonly #puds = new Map<number, Pud>();
  /** The last PUD looked up: walks come in runs. */
  #lastIndex = -1;
  #last: Pud | null = null;
  // Where the last walk ended.
  #values: Int32Array = EMPTY.values;
  #flags: Uint16Array = EMPTY.flags;
  #at = 0;
  #order: FolioOrder = PUD_ORDER;

  /** The entry's bits; 0 if nothing is there. */
  flags(page: number): number {
    this.#walk(page);
    return this.#flags[this.#at]!;
  }

  /** The entry's value as it was installed: for a large leaf, the first frame's number. */
  value(page: number): number {
    this.#walk(page);
    return this.#values[this.#at]!;
  }

  /** The frame of exactly this page, or -1 unless it is present. */
  pfn(page: number): number {
    this.#walk(page);
    if ((this.#flags[this.#at]! & Entry.PRESENT) === 0) return -1;
    return this.#values[this.#at]! + (this.#order === 0 ? 0 : page % framesOf(this.#order));
  }

  /** The order of the smallest entry on the way to the page: 18 or 9 for a large leaf or a hole of that size. */
  level(page: number): FolioOrder {
    this.#walk(page);
    return this.#order;
  }

  /** The page after the entry, or hole, that holds `page`. */
  end(page: number): number {
    this.#walk(page);
    const frames = framesOf(this.#order);
    return (Math.floor(page / frames) + 1) * frames;
  }

  /** Whether nothing, not even a swap entry, is in the aligned block of that order. O(1) for leaf orders, else O(pages). */
  isEmpty(startPage: number, order: FolioOrder): boolean {
    for (let page = startPage; page < startPage + framesOf(order); page = this.end(page))
      if (
        this.flags(page) !== 0 ||
        (this.#order === 0 && order >= PMD_ORDER) ||
        (this.#order === PMD_ORDER && order === PUD_ORDER)
      )
        return false;
    return true;
  }

  /** Installs an entry of that leaf order where nothing is, or over an entry of the same order. */
  set(page: number, order: FolioOrder, value: number, flags: number): void {
    assert(flags !== 0, 'an entry that is installed says what it is');
    const pud = this.#pud(page) ?? this.#newPud(page);
    if (order === PUD_ORDER) {
      assert(pud.table === null, 'a 1G leaf is installed over a table');
      pud.values[0] = value;
      pud.flags[0] = flags;
      return;
    }
    assert(pud.flags[0] === 0, 'a small leaf is installed below a 1G leaf');
    pud.table ??= new PmdTable();
    const at = indexIn1G(page);
    if (order === PMD_ORDER) setPmd(pud.table, at >> 9, value, flags);
    else setPte(pud.table, at, value, flags);
  }

  /** Changes the bits of the entry at the page, of whatever size. Asserts that there is one, and that one is left. */
  setFlags(page: number, flags: number): void {
    this.#walk(page);
    assert(this.#flags[this.#at] !== 0 && flags !== 0, 'the bits of an entry that is not there are changed');
    this.#flags[this.#at] = flags;
  }

  /** Removes the entry of that order at `page`, and tables that are empty then. Asserts that it is there. */
  clear(page: number, order: FolioOrder): void {
    assert(this.flags(page) !== 0 && this.#order === order, 'an entry that is not there is cleared');
    const pud = this.#pud(page);
    const table = pud?.table;
    if (!table) {
      this.#drop(page);
      return;
    }
    const at = indexIn1G(page);
    if (order === PMD_ORDER) {
      table.flags[at >> 9] = 0;
      table.used--;
    } else {
      clearPte(table, at);
    }
    if (table.used === 0) this.#drop(page);
  }

  /** Replaces a 1G or 2M leaf by a table of 512 entries of the next size, with the same bits. Asserts that the leaf is there. */
  split(startPage: number): void {
    const pud = this.#pud(startPage);
    assert(pud !== null, 'there is no large leaf to split');
    if (pud.table === null) {
      assert(pud.flags[0] !== 0, 'there is no 1G leaf to split');
      const table = new PmdTable();
      table.flags.fill(pud.flags[0]!);
      for (let i = 0; i < FANOUT; i++) table.values[i] = pud.values[0]! + i * FANOUT;
      table.used = FANOUT;
      pud.flags[0] = 0;
      pud.table = table;
      return;
    }
    const at = indexIn1G(startPage) >> 9;
    const { table } = pud;
    assert(table.flags[at] !== 0 && table.tables[at] === null, 'there is no 2M leaf to split');
    const ptes = new PteTable();
    ptes.flags.fill(table.flags[at]!);
    for (let i = 0; i < FANOUT; i++) ptes.values[i] = table.values[at]! + i;
    ptes.used = FANOUT;
    table.flags[at] = 0;
    table.tables[at] = ptes;
  }

  /** Removes everything in an aligned 2M or 1G block, tables and all; what they held is the caller's. */
  clearBlock(startPage: number, order: FolioOrder): void {
    const pud = this.#pud(startPage);
    if (pud === null) return;
    if (order === PUD_ORDER || pud.table === null) {
      assert(order === PUD_ORDER || pud.flags[0] === 0, 'a 2M block is cleared below a 1G leaf');
      this.#drop(startPage);
      return;
    }
    const at = indexIn1G(startPage) >> 9;
    const { table } = pud;
    if (table.flags[at] !== 0 || table.tables[at]) table.used--;
    table.flags[at] = 0;
    table.tables[at] = null;
    if (table.used === 0) this.#drop(startPage);
  }

  /** The first page from `page` on, below `endPage`, at which the table is not empty; `endPage` if there is none. */
  nextUsed(page: number, endPage: number): number {
    let at = page;
    while (at < endPage && this.flags(at) === 0) at = this.end(at);
    return Math.min(at, endPage);
  }

  /** Finds the entry or the hole that holds the page. */
  #walk(page: number): void {
    const pud = this.#pud(page);
    if (pud === null || pud.table === null) {
      this.#stop(pud ?? EMPTY, 0, PUD_ORDER);
      return;
    }
    const at = indexIn1G(page);
    const ptes = pud.table.tables[at >> 9];
    if (ptes) this.#stop(ptes, at & 511, 0);
    else this.#stop(pud.table, at >> 9, PMD_ORDER);
  }

  #stop(table: { readonly values: Int32Array; readonly flags: Uint16Array }, at: number, order: FolioOrder): void {
    this.#values = table.values;
    this.#flags = table.flags;
    this.#at = at;
    this.#order = order;
  }

  #pud(page: number): Pud | null {
    const index = Math.floor(page / FRAMES_PER_1G);
    if (index !== this.#lastIndex) {
      this.#lastIndex = index;
      this.#last = this.#puds.get(index) ?? null;
    }
    return this.#last;
  }

  #newPud(page: number): Pud {
    const pud = new Pud();
    this.#puds.set(Math.floor(page / FRAMES_PER_1G), pud);
    this.#last = pud;
    return pud;
  }

  #drop(page: number): void {
    this.#puds.delete(Math.floor(page / FRAMES_PER_1G));
    this.#lastIndex = -1;
    this.#last = null;
  }
}

const EMPTY = new Pud();

const indexIn1G = (page: number): number => page - Math.floor(page / FRAMES_PER_1G) * FRAMES_PER_1G;

function setPmd(table: PmdTable, at: number, value: number, flags: number): void {
  assert(table.tables[at] === null, 'a 2M leaf is installed over a table');
  if (table.flags[at] === 0) table.used++;
  table.values[at] = value;
  table.flags[at] = flags;
}

function setPte(table: PmdTable, at: number, value: number, flags: number): void {
  assert(table.flags[at >> 9] === 0, 'a 4K leaf is installed below a 2M leaf');
  let ptes = table.tables[at >> 9];
  if (!ptes) {
    ptes = new PteTable();
    table.tables[at >> 9] = ptes;
    table.used++;
  }
  if (ptes.flags[at & 511] === 0) ptes.used++;
  ptes.values[at & 511] = value;
  ptes.flags[at & 511] = flags;
}

function clearPte(table: PmdTable, at: number): void {
  const ptes = table.tables[at >> 9];
  assert(ptes !== null && ptes !== undefined, 'a 4K leaf is cleared where there is no table');
  ptes.flags[at & 511] = 0;
  ptes.used--;
  if (ptes.used > 0) return;
  table.tables[at >> 9] = null;
  table.used--;
}
