import { hex } from '@faultline/address';
import { type FolioOrder, PMD_ORDER, PUD_ORDER } from '../folio/folio-order.ts';
import type { AnonVma, FileMapping } from '../folio/mapping.ts';
import type { MmState } from './mm-state.ts';

/**
 * What backs a mapping:
 * - `4K`: small anonymous folios; `thp-2M`: transparent huge pages where they fit.
 * - `hugetlb-2M`, `hugetlb-1G`: from the huge page pool; never swapped, never split, not on the LRU.
 * - `contiguous`, `contiguous-4K`: anonymous folios of 2M or 4K whose frames are contiguous over 1G, so that an I/O page
 *   table may have 1G leaves; reclaimed like other folios.
 * - `pud-thp`: **hypothetical** 1G anonymous folios that can be split and swapped. Linux 7.3 has none.
 */
export const BACKINGS = ['4K', 'thp-2M', 'hugetlb-2M', 'hugetlb-1G', 'contiguous', 'contiguous-4K', 'pud-thp'] as const;
/** A backing by name; see {@link BACKINGS}. */
export type Backing = (typeof BACKINGS)[number];

interface BackingShape {
  /** Order of the largest folio that a fault installs. */
  readonly order: FolioOrder;
  /** Order to which mappings are aligned. */
  readonly alignment: FolioOrder;
  readonly hugetlb: boolean;
  /** Folios of 1G of addresses come at once, from contiguous frames. */
  readonly contiguous: boolean;
}

const shape = (order: FolioOrder, alignment: FolioOrder, kind: 'hugetlb' | 'contiguous' | 'plain'): BackingShape => ({
  order,
  alignment,
  hugetlb: kind === 'hugetlb',
  contiguous: kind === 'contiguous',
});

/** What each backing means for faults. */
export const BACKING_SHAPES: Readonly<Record<Backing, BackingShape>> = {
  '4K': shape(0, 0, 'plain'),
  'thp-2M': shape(PMD_ORDER, PMD_ORDER, 'plain'),
  'hugetlb-2M': shape(PMD_ORDER, PMD_ORDER, 'hugetlb'),
  'hugetlb-1G': shape(PUD_ORDER, PUD_ORDER, 'hugetlb'),
  contiguous: shape(PMD_ORDER, PMD_ORDER, 'contiguous'),
  'contiguous-4K': shape(0, 0, 'contiguous'),
  'pud-thp': shape(PUD_ORDER, PUD_ORDER, 'plain'),
};

/** What a mapping is, as its owner sees it. */
export interface VmaView {
  /** First page (Hva >> 12). */
  readonly startPage: number;
  readonly pages: number;
  readonly backing: Backing;
  readonly readable: boolean;
  readonly writeable: boolean;
  /** MAP_SHARED, or private to the process. */
  readonly shared: boolean;
}

/** A mapping (vm_area_struct). */
export class Vma {
  readonly mm: MmState;
  startPage: number;
  endPage: number;
  readonly backing: Backing;
  readable: boolean;
  writeable: boolean;
  readonly shared: boolean;
  /** Offset of its first page in its file, or in its anon_vmas. */
  pgoff: number;
  readonly file: FileMapping | null;
  /** Where folios go that this mapping creates. */
  anonVma: AnonVma | null;
  /** All anon_vmas whose folios it may map: its own, and its parents' from before a fork. */
  readonly anonChain: AnonVma[] = [];
  /** Missing pages, or writes to pages marked so, are reported to a userfaultfd. */
  userfaultMissing = false;
  userfaultWp = false;
  /** Of hugetlb: the pool has promised it a page for each that it has not got (HPAGE_RESV_OWNER). */
  reserved = true;
  /** VM_SOFTDIRTY. */
  softDirty = true;
  /** Swap read-ahead: the page of the last fault on swap, the last window in pages, and how many of them were asked for since. */
  readAhead = { page: 0, window: 0, hits: 4 };

  constructor(
    mm: MmState,
    parts: Pick<
      Vma,
      'startPage' | 'endPage' | 'backing' | 'readable' | 'writeable' | 'shared' | 'pgoff' | 'file' | 'anonVma'
    >,
  ) {
    this.mm = mm;
    this.startPage = parts.startPage;
    this.endPage = parts.endPage;
    this.backing = parts.backing;
    this.readable = parts.readable;
    this.writeable = parts.writeable;
    this.shared = parts.shared;
    this.pgoff = parts.pgoff;
    this.file = parts.file;
    this.anonVma = parts.anonVma;
  }

  get shape(): BackingShape {
    return BACKING_SHAPES[this.backing];
  }

  get pages(): number {
    return this.endPage - this.startPage;
  }

  /** Whether a write to it may have to copy (`is_cow_mapping`): private. */
  get isCow(): boolean {
    return !this.shared;
  }

  /** The offset of a page in its file or anon_vma. */
  indexOf(page: number): number {
    return page - this.startPage + this.pgoff;
  }

  /** Where an offset lies; may be outside the mapping. */
  pageOf(index: number): number {
    return index - this.pgoff + this.startPage;
  }

  /** A mapping of part of it, or of the same in another address space, with the same file and anon_vmas. */
  copy(mm: MmState, startPage: number, endPage: number): Vma {
    const copy = new Vma(mm, { ...this.#parts(), startPage, endPage, pgoff: this.indexOf(startPage) });
    copy.userfaultMissing = this.userfaultMissing;
    copy.userfaultWp = this.userfaultWp;
    copy.reserved = this.reserved;
    copy.softDirty = this.softDirty;
    for (const anonVma of this.anonChain) copy.join(anonVma);
    this.file?.vmas.add(copy);
    return copy;
  }

  #parts() {
    const { startPage, endPage, backing, readable, writeable, shared, pgoff, file, anonVma } = this;
    return { startPage, endPage, backing, readable, writeable, shared, pgoff, file, anonVma };
  }

  /** It may map folios of that anon_vma. */
  join(anonVma: AnonVma): void {
    this.anonChain.push(anonVma);
    anonVma.vmas.add(this);
  }

  /** Nobody finds its pages by rmap any more. */
  unlink(): void {
    for (const anonVma of this.anonChain) anonVma.vmas.delete(this);
    this.anonChain.length = 0;
    this.file?.vmas.delete(this);
  }

  view(): VmaView {
    const { startPage, pages, backing, readable, writeable, shared } = this;
    return { startPage, pages, backing, readable, writeable, shared };
  }

  /** For messages. */
  get name(): string {
    return `${this.mm.name} ${hex(this.startPage)}..${hex(this.endPage)}`;
  }
}
