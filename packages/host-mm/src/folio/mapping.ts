import { EntryTable } from '../mm/entry-table.ts';
import type { MmState } from '../mm/mm-state.ts';
import type { Vma } from '../mm/vma.ts';
import type { MemoryCgroup } from '../reclaim/memory-cgroup.ts';

/** Finds the mappings of anonymous folios: the VMAs that may have them, by the folio's offset (Linux's anon_vma). */
export class AnonVma {
  readonly id: number;
  readonly vmas = new Set<Vma>();

  constructor(id: number) {
    this.id = id;
  }
}

/** Memory that several address spaces may map shared: a memfd with its page cache (Linux's address_space on shmem). */
export class FileMapping {
  readonly id: number;
  readonly name: string;
  /** Size in pages. */
  pages: number;
  /** By offset: present (a frame), or swapped (a swap entry). */
  readonly cache = new EntryTable();
  readonly vmas = new Set<Vma>();
  /** Pages in the cache, and pages in swap. */
  cached = 0;
  swapped = 0;
  /** Ids of the cgroups to which its swapped pages are charged, by offset. */
  readonly #swapMemcgs = new Map<number, number>();

  constructor(id: number, name: string, pages: number) {
    this.id = id;
    this.name = name;
    this.pages = pages;
  }

  /** Counts a page into swap, charged to that cgroup. */
  enterSwap(index: number, memcg: MemoryCgroup): void {
    this.swapped++;
    memcg.swappedPages++;
    this.#swapMemcgs.set(index, memcg.id);
  }

  /** Counts it out again, whoever brings it back. */
  leaveSwap(index: number, memcgs: readonly MemoryCgroup[]): void {
    this.swapped--;
    memcgs[this.#swapMemcgs.get(index) ?? 0]!.swappedPages--;
    this.#swapMemcgs.delete(index);
  }
}

/** Where a KSM page is mapped: anywhere. */
export interface KsmPlace {
  readonly mm: MmState;
  readonly page: number;
}
