import { type Agent, ANY_LOCATION, assert, Cost, Location, type Task } from '@faultline/sim';
import {
  accessedNow,
  type CollapseResult,
  type CutOptions,
  type CutResult,
  collapse,
  cut,
  type DirtyRange,
  entryFrame,
  InvalidationGather,
  isLeaf,
  isPresent,
  type LeafView,
  map,
  type NaiveUnmapReport,
  naiveUnmap,
  type Patch2023Request,
  type Patch2023Result,
  type PhysicalWords,
  type ProtectRequest,
  protect,
  readAndClearAccessed,
  readAndClearDirty,
  SecondStageTable,
  type SecondStageTableOptions,
  type TableLevel,
  tableIndex,
  type UnmapRequest,
  unmap,
  unmapByPatch2023,
} from '@faultline/vtd-pagetable';
import type { AtsEndpoint } from './ats-endpoint.ts';
import { type Descriptor, Granularity } from './descriptor.ts';
import type { RemappingUnit } from './remapping-unit.ts';
import type { VtdDriver } from './vtd-driver.ts';

/** Options of a {@link VtdDomain}. */
export interface VtdDomainOptions extends Omit<SecondStageTableOptions, 'memory' | 'capabilities' | 'accessedDirty'> {
  readonly driver: VtdDriver;
  /** DID, 16 bits, the tag of everything the unit caches for this domain. */
  readonly domainId: number;
  /** SSADE for whoever is attached: hardware sets A and D. Default false; needs scalable mode and ECAP.SSADS. */
  readonly accessedDirty?: boolean;
  /** With `accessedDirty`: leave SSADE off until {@link VtdDomain.setDirtyTracking}. Default false. */
  readonly trackingOff?: boolean;
  /** Leaves that are mapped writeable only get R too, as Linux 6.12's driver maps them. Default false: as asked, Linux 7.3. */
  readonly writeImpliesRead?: boolean;
  /** Host memory by words, for {@link VtdDomain.unmapWithoutSplit}. */
  readonly physical?: PhysicalWords;
  /** Called with unlinked table pages right before they are freed, for checks of I5. */
  readonly onFreeTables?: (tables: readonly number[]) => void;
  /** Called after a flush with ranges that devices wrote and no leaf reports any more: unmapped, or cut with `clear-after-harvest`. */
  readonly onDirty?: (ranges: readonly DirtyRange[]) => void;
}

/** A function attached to a domain. */
interface Attachment {
  readonly sourceId: number;
  readonly deviceTlb: boolean;
}

/**
 * The driver's side of a domain: a second-stage table, the devices that use it, and the invalidations that a change of
 * it owes. Page numbers are IOVA >> 12.
 */
export class VtdDomain {
  readonly driver: VtdDriver;
  readonly domainId: number;
  readonly table: SecondStageTable;
  readonly #writeImpliesRead: boolean;
  /** SSADE of the functions attached. */
  #accessedDirty: boolean;
  readonly #physical: PhysicalWords | null;
  readonly #onFreeTables: (tables: readonly number[]) => void;
  readonly #onDirty: (ranges: readonly DirtyRange[]) => void;
  readonly #attachments: Attachment[] = [];

  /** @throws RangeError for A and D on a unit or in a mode that has none */
  constructor(options: VtdDomainOptions) {
    const { driver, domainId, accessedDirty = false, trackingOff = false, writeImpliesRead = false } = options;
    const { physical, onFreeTables, onDirty, ...table } = options;
    this.driver = driver;
    this.domainId = domainId;
    this.#accessedDirty = accessedDirty && !trackingOff;
    this.#writeImpliesRead = writeImpliesRead;
    if (accessedDirty && (driver.mode === 'legacy' || !this.unit.capabilities.accessedDirty))
      throw new RangeError('accessedDirty: needs scalable mode and A and D bits in the second stage (ECAP.SSADS)');
    this.#physical = physical ?? null;
    this.#onFreeTables = onFreeTables ?? (() => undefined);
    this.#onDirty = onDirty ?? (() => undefined);
    const { memory, structures } = this.unit;
    this.table = new SecondStageTable({ ...table, memory, capabilities: structures, accessedDirty });
  }

  /** The unit that walks the table. */
  get unit(): RemappingUnit {
    return this.driver.unit;
  }

  /** Points a function's structures here. A function with a device TLB gets its translation and page requests served. */
  attach(sourceId: number, endpoint: AtsEndpoint | null): void {
    const { rootPfn: tablePfn, levels } = this.table;
    const { domainId } = this;
    this.driver.attach(sourceId, { domainId, tablePfn, levels, endpoint, accessedDirty: this.#accessedDirty });
    this.#attachments.push({ sourceId, deviceTlb: endpoint !== null });
  }

  /** Takes a function off; see `VtdDriver.detach`. */
  *detach(agent: Agent, sourceId: number): Task<void> {
    const index = this.#attachments.findIndex((attachment) => attachment.sourceId === sourceId);
    assert(index >= 0, `device 0x${sourceId.toString(16)} is not attached`);
    this.#attachments.splice(index, 1);
    yield* this.driver.detach(agent, sourceId);
  }

  /**
   * Maps with the largest leaves that fit; see `map` of vtd-pagetable. With CAP.CM what was mapped is flushed, since hardware may
   * have cached that it was not there. @returns 4K pages mapped
   */
  *map(
    agent: Agent,
    request: {
      page: number;
      frame: number;
      pages: number;
      write: boolean;
      read?: boolean;
      largest?: TableLevel;
    },
  ): Task<number> {
    const gather = new InvalidationGather();
    const read = (request.read ?? true) || this.#writeImpliesRead;
    const rights = (request.write ? 2 : 0) | (read ? 1 : 0);
    try {
      if (this.unit.capabilities.cachingMode) gather.add(request.page, request.pages);
      const { page, frame, pages, largest } = request;
      const limit = largest === undefined ? {} : { largest };
      return yield* map(agent, this.table, { page, frame, pages, rights, ...limit }, gather);
    } finally {
      // At CM=0 only a replaced vacant table owes anything: not present to present needs no invalidation (6.5.3.5).
      if (!gather.empty) yield* this.flush(agent, gather);
    }
  }

  /** Unmaps by the rule given; the caches are the caller's to flush with the gather. @returns 4K pages unmapped */
  unmap(agent: Agent, request: UnmapRequest, gather: InvalidationGather): Task<number> {
    return unmap(agent, this.table, request, gather);
  }

  /** Makes the ends of a range leaf boundaries, hitless. */
  cut(
    agent: Agent,
    page: number,
    pages: number,
    gather: InvalidationGather,
    options: CutOptions = {},
  ): Task<CutResult> {
    return cut(agent, this.table, page, pages, gather, options);
  }

  /** Puts large leaves back where a range allows it, and flushes; see `collapse`. */
  *collapse(agent: Agent, page: number, pages: number): Task<CollapseResult> {
    const gather = new InvalidationGather();
    const result = yield* collapse(agent, this.table, page, pages, gather);
    yield* this.flush(agent, gather);
    return result;
  }

  /** Gives whole leaves of a range other rights; the caches are the caller's to flush with the gather. @returns 4K pages */
  protect(agent: Agent, request: ProtectRequest, gather: InvalidationGather): Task<number> {
    return protect(agent, this.table, request, gather);
  }

  /**
   * The leaves of a range that devices have written, whole; D is cleared if asked to, and the caches flushed before the answer is
   * given, so that a page that is processed now and written later is dirty again (I6).
   * @throws PageTableError EOPNOTSUPP without `accessedDirty`
   */
  *readAndClearDirty(agent: Agent, page: number, pages: number, clear: boolean): Task<DirtyRange[]> {
    const gather = new InvalidationGather();
    const dirty: DirtyRange[] = [];
    const report = (first: number, count: number): void => {
      dirty.push({ page: first, pages: count });
    };
    yield* readAndClearDirty(agent, this.table, { page, pages, clear }, gather, report);
    yield* this.flush(agent, gather);
    return dirty;
  }

  /** Whether hardware sets A and D in this domain. */
  get accessedDirty(): boolean {
    return this.#accessedDirty;
  }

  /**
   * The leaves of a range that a device has used since A was cleared, whole; A is cleared and the caches are flushed, so that
   * whoever uses them from now on sets it again. Takes no lock. @throws PageTableError EOPNOTSUPP without `accessedDirty`
   */
  *readAndClearAccessed(agent: Agent, page: number, pages: number): Task<DirtyRange[]> {
    const gather = new InvalidationGather();
    const young: DirtyRange[] = [];
    const report = (first: number, count: number): void => {
      young.push({ page: first, pages: count });
    };
    yield* readAndClearAccessed(agent, this.table, { page, pages, clear: true }, gather, report);
    yield* this.flush(agent, gather);
    return young;
  }

  /** The same at once, as part of the caller's step, with no flush: what stays cached is used without setting A. */
  accessedNow(page: number, pages: number, clear: boolean): DirtyRange[] {
    const young: DirtyRange[] = [];
    const report = (first: number, count: number): void => {
      young.push({ page: first, pages: count });
    };
    accessedNow(this.table, { page, pages, clear }, new InvalidationGather(), report);
    return young;
  }

  /** Turns A and D bits on or off for the functions attached, and for those to come. @throws RangeError for a table without `accessedDirty` */
  *setDirtyTracking(agent: Agent, enabled: boolean): Task<void> {
    if (!this.table.accessedDirty) throw new RangeError('enabled: the domain was made without accessedDirty');
    this.#accessedDirty = enabled;
    for (const { sourceId } of [...this.#attachments]) yield* this.driver.setAccessedDirty(agent, sourceId, enabled);
  }

  /** Fills the table reserve up after a cut under memory shortage. */
  refillReserve(agent: Agent): Task<void> {
    return this.table.reserve.refill(agent);
  }

  /** The bug of the 2023 thread, for the strategy `naive`. */
  unmapWithoutSplit(agent: Agent, page: number, pages: number): Task<NaiveUnmapReport> {
    assert(this.#physical !== null, 'unmapWithoutSplit needs `physical`: it reads memory that is no page table');
    return naiveUnmap(agent, this.table, page, pages, this.#physical);
  }

  /** Unmap as the posted patch of 2023 does it, for the strategy `patch-2023`; the caches are the caller's to flush with the gather. */
  unmapByPatch2023(agent: Agent, request: Patch2023Request, gather: InvalidationGather): Task<Patch2023Result> {
    assert(this.#physical !== null, 'unmapByPatch2023 needs `physical`: with D4 it reads memory that is no page table');
    return unmapByPatch2023(agent, this.table, request, gather, this.#physical);
  }

  /** What changes of the table owe the caches, collected for one {@link flush}. */
  gather(): InvalidationGather {
    return new InvalidationGather();
  }

  /**
   * IOTLB first, then device TLBs, since a device may refill from a stale IOTLB (Rev 5.10, 6.5.2.5), then a wait; then the
   * unlinked table pages are freed (I5). The range is covered by one aligned power of two; a larger one than CAP.MAMV
   * allows takes the whole domain, as Linux does.
   */
  *flush(agent: Agent, gather: InvalidationGather): Task<void> {
    if (gather.empty) return;
    const sizeLog2 = coverLog2(gather.firstPage, gather.lastPage);
    const page = Math.floor(gather.firstPage / 2 ** sizeLog2) * 2 ** sizeLog2;
    const { pageSelective, maximumAddressMask, cachingMode } = this.unit.capabilities;
    // With CAP.CM an entry that was not present may be in the paging-structure caches too (6.2.5), so that IH does not apply.
    const leafOnly = gather.leafOnly && !cachingMode;
    const descriptors: Descriptor[] = [
      pageSelective && sizeLog2 <= maximumAddressMask
        ? this.#iotlb(Granularity.selective, page, sizeLog2, leafOnly)
        : this.#iotlb(Granularity.domain, 0, 0, false),
    ];
    for (const { sourceId, deviceTlb } of this.#attachments)
      if (deviceTlb) descriptors.push({ type: 'deviceTlb', sourceId, page, sizeLog2 });
    yield* this.driver.submit(agent, descriptors);
    if (gather.freedTables.length > 0) {
      yield agent.writes('free table pages', Location.entry, ANY_LOCATION, Cost.free);
      this.#onFreeTables(gather.freedTables);
    }
    const dirty = this.table.settle(gather);
    if (dirty.length > 0) this.#onDirty(dirty);
  }

  /** The frame that a page maps to, or -1. */
  frameAt(page: number): number {
    return this.table.frameAt(page);
  }

  /** The level of the not-present entry on the way to a page: its whole block is vacant. 0 if the page is mapped. */
  vacantLevel(page: number): number {
    const { memory } = this.table;
    let pfn = this.table.rootPfn;
    for (let level = this.table.levels as number; level >= 1; level--) {
      const entry = memory.load(pfn, tableIndex(page, level));
      if (!isPresent(entry)) return level;
      if (isLeaf(entry, level)) return 0;
      pfn = entryFrame(entry);
    }
    return 0;
  }

  /** The leaf that maps a page, or null. */
  leafAt(page: number): LeafView | null {
    return this.table.leafAt(page);
  }

  /** Frees the table. All devices are detached. */
  destroy(): void {
    assert(this.#attachments.length === 0, 'domain destroyed with a device attached');
    this.table.destroy();
  }

  #iotlb(granularity: 1 | 2 | 3, page: number, addressMask: number, leafOnly: boolean): Descriptor {
    const { domainId } = this;
    return { type: 'iotlb', granularity, domainId, page, addressMask, leafOnly, drainReads: true, drainWrites: true };
  }
}

/** log2 of the smallest aligned power of two of pages that covers first .. last. */
export function coverLog2(firstPage: number, lastPage: number): number {
  let log2 = 0;
  while (Math.floor(firstPage / 2 ** log2) !== Math.floor(lastPage / 2 ** log2)) log2++;
  return log2;
}
