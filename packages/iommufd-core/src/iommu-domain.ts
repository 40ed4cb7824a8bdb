import type { Agent, Task } from '@faultline/sim';

/** What changes of a domain owe its caches; made by {@link IommuDomain.gather}, spent by {@link IommuDomain.flush}. */
export interface DomainGather {
  readonly empty: boolean;
  /** Adds a range of IOVA pages by hand. */
  add(page: number, pages: number): void;
}

/** What a sub-range unmap without a split did; see the strategy `naive`. */
export interface UnsplitUnmapReport {
  readonly mistaken: readonly MistakenEntry[];
  readonly corrupted: readonly MistakenEntry[];
  readonly freed: readonly number[];
  readonly badAddress: MistakenEntry | null;
}

/** A word of memory that was taken for a page-table entry. */
export interface MistakenEntry {
  readonly level: number;
  readonly pfn: number;
  readonly index: number;
  readonly word: bigint;
}

/** Which defects of the posted patch are on; see the strategy `patch-2023`. */
export interface Patch2023Defects {
  /** The new table is not written back from the CPU's cache before it is published. */
  readonly D1: boolean;
  /** The result of the recursive call is dropped. */
  readonly D3: boolean;
  /** A leaf is split only if the range is smaller than the leaf. */
  readonly D4: boolean;
  /** An entry that changed under the compare-and-swap ends the unmap. */
  readonly D5: boolean;
  /** Table pages are allocated at that moment, and nowhere else. */
  readonly D6: boolean;
  /** A and D are inherited by all children. */
  readonly D7: boolean;
  /** Only the low 12 bits of attributes are copied. */
  readonly D8: boolean;
  /** Only the range is flushed, whatever the size of the leaf that was split. */
  readonly D9: boolean;
}

/** How an unmap by the posted patch ended. */
export interface Patch2023Report {
  /** Why nothing is unmapped at all or any further; null if it reports success. */
  readonly failed: 'ENOMEM' | 'EBUSY' | null;
  /** Not null where it took a leaf for a table (D4). */
  readonly unsplit: UnsplitUnmapReport | null;
}

/** The pages that one leaf maps. */
export interface LeafRange {
  readonly page: number;
  readonly pages: number;
}

/** A leaf of a domain's table. */
export interface DomainLeaf {
  /** 1 = 4K, 2 = 2M, 3 = 1G. */
  readonly level: number;
  /** First page that it maps. */
  readonly page: number;
  /** Frame of its first page. */
  readonly frame: number;
  /** R in bit 0, W in bit 1. */
  readonly rights: number;
}

/** Large leaves that a collapse has put back, and what stood in the way of others. */
export interface CollapseReport {
  readonly leaves: { readonly '2M': number; readonly '1G': number };
  readonly obstacles: {
    readonly hole: number;
    readonly frames: number;
    readonly attributes: number;
    readonly changed: number;
  };
}

/**
 * What iommufd asks of an IOMMU driver's paging domain. Pages are IOVA >> 12, frames host-physical >> 12. `VtdDomain` of
 * `@faultline/vtd-remapping` fits; so does any other that keeps its promises: `cut` is hitless or does nothing, `unmap` cannot
 * fail, `flush` returns once no translation of what was gathered can be used.
 */
export interface IommuDomain<Gather extends DomainGather = DomainGather> {
  gather(): Gather;
  /** @param request `read` left out means true; `largest` is the level of the largest leaf to make (1: 4K, 2: 2M, 3: 1G) */
  map(
    agent: Agent,
    request: {
      page: number;
      frame: number;
      pages: number;
      write: boolean;
      read?: boolean;
      largest?: 1 | 2 | 3;
    },
  ): Task<number>;
  cut(agent: Agent, page: number, pages: number, gather: Gather): Task<{ readonly ok: boolean }>;
  unmap(
    agent: Agent,
    request: { page: number; pages: number; partialLeaf: 'linux-7.3' | 'whole-leaf'; holes: 'stop' | 'skip' },
    gather: Gather,
  ): Task<number>;
  unmapWithoutSplit(agent: Agent, page: number, pages: number): Task<UnsplitUnmapReport>;
  unmapByPatch2023(
    agent: Agent,
    request: { page: number; pages: number; defects: Patch2023Defects },
    gather: Gather,
  ): Task<Patch2023Report>;
  flush(agent: Agent, gather: Gather): Task<void>;
  /** Gives whole leaves of a range other rights (R in bit 0, W in bit 1); an end inside a leaf is EINVAL. @returns 4K pages */
  protect(
    agent: Agent,
    request: { page: number; pages: number; rights: number; holes: 'stop' | 'skip' },
    gather: Gather,
  ): Task<number>;
  /** Puts large leaves back in a range where that changes no translation, and flushes. The caller keeps others off the range. */
  collapse(agent: Agent, page: number, pages: number): Task<CollapseReport>;
  /** Whether hardware sets accessed bits in this domain. */
  readonly accessedDirty: boolean;
  /** The leaves of a range that devices have used since they were last asked about, whole; flushed, so that a use after it counts. */
  readAndClearAccessed(agent: Agent, page: number, pages: number): Task<readonly LeafRange[]>;
  /** The same at once, as part of the caller's step, and without a flush. */
  accessedNow(page: number, pages: number, clear: boolean): readonly LeafRange[];
  refillReserve(agent: Agent): Task<void>;
  /** The frame a page maps to, or -1. */
  frameAt(page: number): number;
  /** Level (1 = 4K, 2 = 2M, 3 = 1G, …) of the vacant block around a page; 0 if the page is mapped. */
  vacantLevel(page: number): number;
  /** The leaf that maps a page, or null. */
  leafAt(page: number): DomainLeaf | null;
}
