import type { IotlbOptions } from '@faultline/iotlb';
import { Agent, runToEnd } from '@faultline/sim';
import {
  type EntryCapabilities,
  InvalidationGather,
  leafAttributes,
  levelFrames,
  PageTableError,
  SecondStageTable,
  type TableLevel,
  TableMemory,
  unmap,
  writeContext,
} from '@faultline/vtd-pagetable';
import {
  type Descriptor,
  Granularity,
  RemappingUnit,
  type UnitCapabilities,
  VtdDriver,
} from '@faultline/vtd-remapping';

/** QEMU checks its own reserved bits; what it walked is accepted as it is: 52-bit addresses, SNP and TM allowed. */
const CAPABILITIES: Partial<UnitCapabilities> & EntryCapabilities = {
  levels: [3, 4, 5],
  hostAddressWidth: 52,
  page2M: true,
  page1G: true,
  snoopControl: true,
  specRevision: '3.x',
  deviceTlb: true,
};
const TABLE_PAGES = 1 << 14;

interface Domain {
  readonly table: SecondStageTable;
  /** Table pages unlinked with no invalidation in between; freed with the next one of the whole domain. */
  readonly unlinked: InvalidationGather;
}

/** What the model answered: a page, or a fault. */
export interface ModelAnswer {
  /** First frame of the page, or -1. */
  readonly frame: number;
  /** 1 = 4K, 2 = 2M, 3 = 1G; 0 with a fault. */
  readonly level: number;
  /** The leaf that gave it, cached or walked. */
  readonly leaf: bigint;
  /** 0, or the reason of the fault. */
  readonly faultReason: number;
}

const high = (address: bigint): number => Number(BigInt.asIntN(32, address >> 32n));
const low = (address: bigint): number => Number(BigInt.asIntN(32, address));

/**
 * The model under test, a remapping unit with its caches, and the memory in front of it as far as a log tells it.
 *
 * Memory holds exactly the leaves that recorded walks have shown, from the walk until the next invalidation that covers
 * the page: an invalidation says that software changed something there, so the page counts as unmapped until a walk
 * shows it again. The unit is never told of a walk; it finds out by walking itself. A look-up that QEMU answered from an
 * entry that should be gone therefore faults here.
 */
export class RecordedMemory {
  readonly unit: RemappingUnit;
  readonly memory: TableMemory;
  readonly #rootPfn: number;
  readonly #agent = new Agent('replay');
  readonly #domains = new Map<number, Domain>();
  readonly #contexts = new Map<number, number>();

  constructor(iotlb: IotlbOptions) {
    this.memory = new TableMemory({ pages: TABLE_PAGES });
    this.unit = new RemappingUnit({ memory: this.memory, capabilities: CAPABILITIES, iotlb });
    this.#rootPfn = new VtdDriver({ unit: this.unit, mode: 'legacy' }).rootPfn;
  }

  /** Domain-id of a source-id, or -1 while the log has not shown it. */
  domainOf(sid: number): number {
    return this.#contexts.get(sid) ?? -1;
  }

  /** Domains shown so far, by domain-id. */
  get domains(): ReadonlyMap<number, { readonly table: SecondStageTable }> {
    return this.#domains;
  }

  /** Writes a context entry into memory. The unit may still hold the old one in its context cache. */
  setContext(sid: number, did: number, addressWidth: number, translationType: number): void {
    const levels = addressWidth === 1 ? 3 : addressWidth === 3 ? 5 : 4;
    const { table } = this.#domain(did, levels);
    this.#contexts.set(sid, did);
    const written = writeContext(this.memory, this.#rootPfn, sid, {
      faultProcessingDisabled: false,
      translationType,
      tablePfn: table.rootPfn,
      addressWidth: table.levels - 2,
      domainId: did,
    });
    if (!written) throw new PageTableError('ENOMEM', 'no table page for a context table');
  }

  /**
   * Writes a leaf into the domain's table.
   * @returns `new`, `same` as before, `changed` with no covering invalidation since the last walk, or `unusable` if no
   *   leaf like this can be mapped (no rights, beyond the address width)
   */
  setLeaf(did: number, iova: bigint, level: TableLevel, leaf: bigint): 'new' | 'same' | 'changed' | 'unusable' {
    const domain = this.#domain(did, 4);
    const page = Number(iova >> 12n);
    if (page >= domain.table.inputPages || (leaf & 3n) === 0n) return 'unusable';
    const present = domain.table.leafAt(page);
    if (present !== null && present.level === level && present.entry === leaf) return 'same';
    const frames = levelFrames(level);
    const first = page - (page % frames);
    if (present !== null || level > 1) this.#clear(domain.table, first, frames, domain.unlinked);
    const frame = Number((leaf >> 12n) & 0xff_ffff_ffffn);
    domain.table.map({
      page: first,
      frame: frame - (frame % frames),
      pages: frames,
      rights: { read: (leaf & 1n) !== 0n, write: (leaf & 2n) !== 0n },
      attributes: leafAttributes(leaf),
    });
    return present === null ? 'new' : 'changed';
  }

  /** One DMA through the unit. @param write asks for W instead of R */
  translate(sid: number, iova: bigint, write: boolean): ModelAnswer {
    const request = { sourceId: sid, iovaHi: high(iova), iovaLo: low(iova), access: write ? 1 : 0 };
    const { unit } = this;
    const pfn = unit.dma(request);
    if (pfn < 0) return { frame: -1, level: 0, leaf: 0n, faultReason: -pfn };
    const slot = unit.iotlb.peek(sid, request.iovaHi, request.iovaLo);
    const view = slot >= 0 ? null : (this.#domains.get(this.domainOf(sid))?.table.leafAt(Number(iova >> 12n)) ?? null);
    const level = slot >= 0 ? unit.iotlb.levelAt(slot) : (view?.level ?? 1);
    const leaf = slot >= 0 ? unit.iotlb.leafAt(slot) : (view?.entry ?? 0n);
    return { frame: pfn - (pfn % levelFrames(level)), level, leaf, faultReason: 0 };
  }

  /** Page-selective invalidation: the range is unknown from here on, then the unit executes the descriptor. */
  invalidatePages(did: number, address: bigint, addressMask: number): void {
    const domain = this.#domains.get(did);
    const pages = 2 ** addressMask;
    const asked = Number(address >> 12n);
    const page = asked - (asked % pages);
    const gather = new InvalidationGather();
    if (domain && page < domain.table.inputPages)
      this.#clear(domain.table, page, Math.min(pages, domain.table.inputPages - page), gather);
    this.#execute({ ...IOTLB_DESCRIPTOR, granularity: Granularity.selective, domainId: did, page: asked, addressMask });
    domain?.table.freeTables(gather);
  }

  /** Domain-selective invalidation. */
  invalidateDomain(did: number): void {
    const domain = this.#domains.get(did);
    if (domain) this.#clear(domain.table, 0, domain.table.inputPages, domain.unlinked);
    this.#execute({ ...IOTLB_DESCRIPTOR, granularity: Granularity.domain, domainId: did });
    domain?.table.freeTables(domain.unlinked);
  }

  /** Global invalidation; also what turning translation on or off amounts to. */
  invalidateGlobal(): void {
    for (const { table, unlinked } of this.#domains.values()) this.#clear(table, 0, table.inputPages, unlinked);
    this.#execute({ ...IOTLB_DESCRIPTOR, granularity: Granularity.global });
    for (const { table, unlinked } of this.#domains.values()) table.freeTables(unlinked);
  }

  /** Global context-cache invalidation. */
  invalidateContexts(): void {
    this.#execute({ ...CONTEXT_DESCRIPTOR, granularity: Granularity.global });
  }

  /** Context-cache invalidation of a domain. */
  invalidateContextsOfDomain(did: number): void {
    this.#execute({ ...CONTEXT_DESCRIPTOR, granularity: Granularity.domain, domainId: did });
  }

  /** Context-cache invalidation of the source-ids that equal `sid` in the bits of `compared`. */
  invalidateContextsOfDevices(sid: number, compared: number): void {
    for (const [sourceId, domainId] of this.#contexts) {
      if (((sourceId ^ sid) & compared) !== 0) continue;
      this.#execute({ ...CONTEXT_DESCRIPTOR, granularity: Granularity.selective, sourceId, domainId });
    }
  }

  #execute(descriptor: Descriptor): void {
    runToEnd(this.unit.execute(this.#agent, descriptor));
  }

  #clear(table: SecondStageTable, page: number, pages: number, gather: InvalidationGather): void {
    runToEnd(unmap(this.#agent, table, { page, pages, partialLeaf: 'whole-leaf', holes: 'skip' }, gather));
  }

  #domain(did: number, levels: 3 | 4 | 5): Domain {
    const known = this.#domains.get(did);
    if (known !== undefined) return known;
    const table = new SecondStageTable({ memory: this.memory, levels, capabilities: CAPABILITIES, reservePages: 0 });
    const domain = { table, unlinked: new InvalidationGather() };
    this.#domains.set(did, domain);
    return domain;
  }
}

const IOTLB_DESCRIPTOR = {
  type: 'iotlb',
  granularity: Granularity.global,
  domainId: 0,
  page: 0,
  addressMask: 0,
  leafOnly: false,
  drainReads: false,
  drainWrites: false,
} as const;

const CONTEXT_DESCRIPTOR = {
  type: 'contextCache',
  granularity: Granularity.global,
  domainId: 0,
  sourceId: 0,
  functionMask: 0,
} as const;
