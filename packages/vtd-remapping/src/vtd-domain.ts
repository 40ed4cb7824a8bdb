import { type Agent, ANY_LOCATION, assert, Cost, Location, type Task } from '@faultline/sim';
import {
  type CutResult,
  clearContext,
  cut,
  entryFrame,
  InvalidationGather,
  isLeaf,
  isPresent,
  map,
  type NaiveUnmapReport,
  naiveUnmap,
  type PhysicalWords,
  readRoot,
  SecondStageTable,
  type SecondStageTableOptions,
  TranslationType,
  tableIndex,
  type UnmapRequest,
  unmap,
  writeContext,
} from '@faultline/vtd-pagetable';
import { type Descriptor, Granularity } from './descriptor.ts';
import type { AtsEndpoint, RemappingUnit } from './remapping-unit.ts';

/** Options of a {@link VtdDomain}. */
export interface VtdDomainOptions extends Omit<SecondStageTableOptions, 'memory' | 'capabilities'> {
  readonly unit: RemappingUnit;
  /** DID, 16 bits, the tag of everything the unit caches for this domain. */
  readonly domainId: number;
  /** Host memory by words, for {@link VtdDomain.unmapWithoutSplit}. */
  readonly physical?: PhysicalWords;
  /** Called with unlinked table pages right before they are freed, for checks of I5. */
  readonly onFreeTables?: (tables: readonly number[]) => void;
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
  readonly unit: RemappingUnit;
  readonly domainId: number;
  readonly table: SecondStageTable;
  readonly #physical: PhysicalWords | null;
  readonly #onFreeTables: (tables: readonly number[]) => void;
  readonly #attachments: Attachment[] = [];

  constructor(options: VtdDomainOptions) {
    const { unit, domainId, physical, onFreeTables, ...table } = options;
    this.unit = unit;
    this.domainId = domainId;
    this.#physical = physical ?? null;
    this.#onFreeTables = onFreeTables ?? (() => undefined);
    this.table = new SecondStageTable({ ...table, memory: unit.memory, capabilities: unit.capabilities });
  }

  /** Points a function's context entry here. A function with a device TLB gets TT=01 and its translation requests served. */
  attach(sourceId: number, endpoint: AtsEndpoint | null): void {
    const ok = writeContext(this.unit.memory, this.unit.rootPfn, sourceId, {
      faultProcessingDisabled: false,
      translationType: endpoint ? TranslationType.deviceTlb : TranslationType.untranslatedOnly,
      tablePfn: this.table.rootPfn,
      addressWidth: this.table.levels - 2,
      domainId: this.domainId,
    });
    assert(ok, 'no table page for the context table');
    if (endpoint) this.unit.connect(sourceId, endpoint);
    this.#attachments.push({ sourceId, deviceTlb: endpoint !== null });
  }

  /** Clears the context entry, then context cache (device-selective), IOTLB (domain) and device TLB (all). */
  *detach(agent: Agent, sourceId: number): Task<void> {
    const index = this.#attachments.findIndex((attachment) => attachment.sourceId === sourceId);
    assert(index >= 0, `device 0x${sourceId.toString(16)} is not attached`);
    const { memory, rootPfn } = this.unit;
    const context = readRoot(memory, rootPfn, sourceId >> 8).pfn;
    const location = memory.location(context, (sourceId & 0xff) * 2);
    yield agent.writes('clear context entry', Location.entry, location, Cost.entryWrite);
    const [attachment] = this.#attachments.splice(index, 1);
    clearContext(memory, rootPfn, sourceId);
    const descriptors: Descriptor[] = [
      { type: 'contextCache', granularity: Granularity.selective, domainId: this.domainId, sourceId, functionMask: 0 },
      this.#iotlb(Granularity.domain, 0, 0, false),
    ];
    if (attachment?.deviceTlb) descriptors.push(wholeDeviceTlb(sourceId));
    yield* this.unit.invalidationQueue.submit(agent, descriptors);
    this.unit.disconnect(sourceId);
  }

  /** Maps with the largest leaves that fit; see `map` of vtd-pagetable. @returns 4K pages mapped */
  *map(agent: Agent, request: { page: number; frame: number; pages: number; write: boolean }): Task<number> {
    const gather = new InvalidationGather();
    const rights = request.write ? 3 : 1;
    try {
      return yield* map(agent, this.table, { ...request, rights }, gather);
    } finally {
      // Only a replaced vacant table owes anything: not present to present needs no invalidation at CM=0 (6.5.3.5).
      if (!gather.empty) yield* this.flush(agent, gather);
    }
  }

  /** Unmaps by the rule given; the caches are the caller's to flush with the gather. @returns 4K pages unmapped */
  unmap(agent: Agent, request: UnmapRequest, gather: InvalidationGather): Task<number> {
    return unmap(agent, this.table, request, gather);
  }

  /** Makes the ends of a range leaf boundaries, hitless. */
  cut(agent: Agent, page: number, pages: number, gather: InvalidationGather): Task<CutResult> {
    return cut(agent, this.table, page, pages, gather);
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
    const descriptors: Descriptor[] = [
      sizeLog2 <= this.unit.maximumAddressMask
        ? this.#iotlb(Granularity.selective, page, sizeLog2, gather.leafOnly)
        : this.#iotlb(Granularity.domain, 0, 0, false),
    ];
    for (const { sourceId, deviceTlb } of this.#attachments)
      if (deviceTlb) descriptors.push({ type: 'deviceTlb', sourceId, page, sizeLog2 });
    yield* this.unit.invalidationQueue.submit(agent, descriptors);
    if (gather.freedTables.length === 0) return;
    yield agent.writes('free table pages', Location.entry, ANY_LOCATION, Cost.free);
    this.#onFreeTables(gather.freedTables);
    this.table.freeTables(gather);
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

/** A device-TLB invalidation of the whole 64-bit address space: all size bits set. */
const wholeDeviceTlb = (sourceId: number): Descriptor => ({ type: 'deviceTlb', sourceId, page: 0, sizeLog2: 51 });
