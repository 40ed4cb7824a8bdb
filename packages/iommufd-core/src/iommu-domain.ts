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

/**
 * What iommufd asks of an IOMMU driver's paging domain. Pages are IOVA >> 12, frames host-physical >> 12. `VtdDomain` of
 * `@faultline/vtd-remapping` fits; so does any other that keeps its promises: `cut` is hitless or does nothing, `unmap` cannot
 * fail, `flush` returns once no translation of what was gathered can be used.
 */
export interface IommuDomain<Gather extends DomainGather = DomainGather> {
  gather(): Gather;
  /** @param request `read` left out means true */
  map(
    agent: Agent,
    request: { page: number; frame: number; pages: number; write: boolean; read?: boolean },
  ): Task<number>;
  cut(agent: Agent, page: number, pages: number, gather: Gather): Task<{ readonly ok: boolean }>;
  unmap(
    agent: Agent,
    request: { page: number; pages: number; partialLeaf: 'linux-7.3' | 'whole-leaf'; holes: 'stop' | 'skip' },
    gather: Gather,
  ): Task<number>;
  unmapWithoutSplit(agent: Agent, page: number, pages: number): Task<UnsplitUnmapReport>;
  flush(agent: Agent, gather: Gather): Task<void>;
  refillReserve(agent: Agent): Task<void>;
  /** The frame a page maps to, or -1. */
  frameAt(page: number): number;
  /** Level (1 = 4K, 2 = 2M, 3 = 1G, …) of the vacant block around a page; 0 if the page is mapped. */
  vacantLevel(page: number): number;
}
