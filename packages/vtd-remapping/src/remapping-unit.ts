import {
  ContextCache,
  Iotlb,
  type IotlbOptions,
  PagingStructureCache,
  type PagingStructureCacheGeometry,
} from '@faultline/iotlb';
import { type Agent, Cost, Location, type Task } from '@faultline/sim';
import {
  DEFAULT_ENTRY_CAPABILITIES,
  type EntryCapabilities,
  FaultReason,
  type ReservedMasks,
  readContext,
  readRoot,
  reservedMasks,
  type TableMemory,
  TranslationType,
  WalkAccess,
  WalkState,
  WalkStatus,
  walkLevel,
  walkReadLabel,
} from '@faultline/vtd-pagetable';
import { type Descriptor, Granularity, ResponseCode } from './descriptor.ts';
import { FaultRecording } from './fault-recording.ts';
import { InFlightDma } from './in-flight-dma.ts';
import { type InvalidationExecutor, InvalidationQueue } from './invalidation-queue.ts';
import { type PageRequest, PageRequestQueue } from './page-request-queue.ts';

/** What the unit needs from an endpoint behind it that has a device TLB or sends page requests. */
export interface AtsEndpoint {
  /** Drops device-TLB entries and waits for translated DMA that used them. */
  invalidateDeviceTlb(agent: Agent, page: number, sizeLog2: number): Task<void>;
  /** Delivers a page group response. */
  pageGroupResponse(groupIndex: number, responseCode: number): void;
}

/** Options of a {@link RemappingUnit}. */
export interface RemappingUnitOptions {
  readonly memory: TableMemory;
  /** Number of this unit, the location of its steps; default 0. */
  readonly id?: number;
  readonly capabilities?: EntryCapabilities;
  /** Levels that CAP.SAGAW allows; default 4 only. */
  readonly levels?: readonly number[];
  readonly iotlb?: IotlbOptions;
  /** Sizes of the paging-structure caches. */
  readonly pagingCache?: PagingStructureCacheGeometry;
  /** Entries of the page request queue; default 2048, as Linux sets it up. */
  readonly pageRequestEntries?: number;
  /** CAP.NFR + 1; default 8. */
  readonly faultRegisters?: number;
}

/** {@link RemappingUnit.translate}: not answered by the IOTLB; go on with `translateMiss`. */
export const MISS = -1;

/**
 * One DMA remapping hardware unit in legacy mode. A DMA calls {@link translate}, a plain function that allocates nothing on
 * an IOTLB hit; a miss goes on as the task {@link translateMiss}: context cache, paging-structure caches, walk.
 */
export class RemappingUnit implements InvalidationExecutor {
  readonly id: number;
  readonly memory: TableMemory;
  readonly capabilities: EntryCapabilities;
  readonly masks: ReservedMasks;
  readonly iotlb: Iotlb;
  readonly pagingCache: PagingStructureCache;
  readonly contextCache = new ContextCache();
  readonly faults: FaultRecording;
  readonly invalidationQueue: InvalidationQueue;
  readonly pageRequestQueue: PageRequestQueue;
  readonly inFlight: InFlightDma;
  /** CAP.MAMV: largest address mask of a page-selective invalidation. */
  readonly maximumAddressMask = 18;
  /** Root table of legacy mode, one page. */
  readonly rootPfn: number;
  /** Memory reads by walks, context look-ups included. */
  walkReads = 0;
  /** Invalidation descriptors executed: context cache, IOTLB and device TLB. */
  invalidations = 0;
  /** Hits in the paging-structure caches. */
  pagingCacheHits = 0;
  readonly #levels: ReadonlySet<number>;
  readonly #endpoints = new Map<number, AtsEndpoint>();
  readonly #spareWalkers: WalkState[] = [];
  /** Grows with every executed invalidation: a walk that began before one must not fill a cache after it. */
  #epoch = 0;

  /** @throws RangeError if there is no table page for the root table */
  constructor(options: RemappingUnitOptions) {
    this.id = options.id ?? 0;
    this.memory = options.memory;
    this.capabilities = options.capabilities ?? DEFAULT_ENTRY_CAPABILITIES;
    this.masks = reservedMasks(this.capabilities);
    this.iotlb = new Iotlb(options.iotlb);
    this.pagingCache = new PagingStructureCache(options.pagingCache);
    this.faults = new FaultRecording(options.faultRegisters);
    this.invalidationQueue = new InvalidationQueue(this.id);
    this.pageRequestQueue = new PageRequestQueue(options.pageRequestEntries ?? 2048, this.id);
    this.inFlight = new InFlightDma(`DRHD ${this.id}`);
    this.#levels = new Set(options.levels ?? [4]);
    this.rootPfn = this.memory.allocate();
    if (this.rootPfn < 0) throw new RangeError('memory: no table page for the root table');
  }

  /** Makes an endpoint known by its requester id, so that invalidations and responses reach it. */
  connect(sourceId: number, endpoint: AtsEndpoint): void {
    this.#endpoints.set(sourceId, endpoint);
  }

  /** Forgets an endpoint. */
  disconnect(sourceId: number): void {
    this.#endpoints.delete(sourceId);
  }

  /**
   * The hit path. @param access 0 read, 1 write @returns the 4K frame number, or {@link MISS}: not cached, or cached without the
   * right (hardware then walks again; the walk decides)
   */
  translate(sourceId: number, iovaHi: number, iovaLo: number, access: number): number {
    const iotlb = this.iotlb;
    const slot = iotlb.lookup(sourceId, iovaHi, iovaLo);
    if (slot < 0) return MISS;
    const needed = access === WalkAccess.write ? 2 : 1;
    if ((iotlb.rightsAt(slot) & needed) === 0) return MISS;
    return iotlb.pfnAt(slot, iovaHi, iovaLo);
  }

  /**
   * The miss path, of an untranslated request (a fault is recorded) or of a translation request (it is not).
   * @returns the frame number, or minus a fault reason
   */
  *translateMiss(
    agent: Agent,
    request: {
      readonly sourceId: number;
      readonly iovaHi: number;
      readonly iovaLo: number;
      readonly access: number;
      readonly translationRequest: boolean;
    },
  ): Task<number> {
    const state = this.#spareWalkers.pop() ?? new WalkState();
    try {
      for (;;) {
        const result = yield* this.#attempt(agent, request, state);
        if (result === RESTART) continue;
        if (result < 0 && !request.translationRequest) this.#recordFault(request, -result);
        return result;
      }
    } finally {
      this.#spareWalkers.push(state);
    }
  }

  *#attempt(
    agent: Agent,
    request: { sourceId: number; iovaHi: number; iovaLo: number; access: number; translationRequest: boolean },
    state: WalkState,
  ): Task<number> {
    const { sourceId, iovaHi, iovaLo, access } = request;
    const epoch = this.#epoch;
    const slot = yield* this.#context(agent, sourceId);
    if (slot < 0) return slot;
    const context = this.contextCache.valueAt(slot);
    const domainId = this.contextCache.didAt(slot);
    if (request.translationRequest && context.translationType !== TranslationType.deviceTlb)
      return -FaultReason.translationTypeBlocked;
    if (context.translationType === TranslationType.passThrough) return framePassThrough(iovaHi, iovaLo);
    const levels = context.addressWidth + 2;
    if (iovaHi >>> (9 * levels - 20) !== 0) return -FaultReason.addressBeyondWidth;

    yield agent.reads('look up paging-structure caches', Location.translationCache, this.id, Cost.cacheLookup);
    if (epoch !== this.#epoch) return RESTART;
    const cached = this.pagingCache.lookup(domainId, iovaHi, iovaLo);
    if (cached >= 0) {
      this.pagingCacheHits++;
      const rights = this.pagingCache.rightsAt(cached);
      state.begin(
        this.pagingCache.tablePfnAt(cached),
        this.pagingCache.levelAt(cached),
        iovaHi,
        iovaLo,
        access,
        rights,
      );
    } else state.begin(context.tablePfn, levels, iovaHi, iovaLo, access);

    let status: number = WalkStatus.walking;
    while (status === WalkStatus.walking) {
      const location = this.memory.location(state.tablePfn, state.index);
      const step = agent.reads(walkReadLabel(state.level), Location.entry, location, Cost.walkRead);
      // What was read goes into the paging-structure caches at once.
      yield agent.alsoWrites(step, Location.translationCache, this.id);
      status = walkLevel(this.memory, this.masks, state);
      this.walkReads++;
      if (epoch !== this.#epoch) return RESTART;
      if (status === WalkStatus.walking)
        this.pagingCache.fill(domainId, iovaHi, iovaLo, state.level as 1 | 2 | 3 | 4, state.tablePfn, state.rights);
    }
    if (status === WalkStatus.faulted) return -state.faultReason;
    yield agent.writes('fill IOTLB', Location.translationCache, this.id, Cost.free);
    if (epoch !== this.#epoch) return RESTART;
    const level = state.level as 1 | 2 | 3;
    this.iotlb.fill(sourceId, domainId, iovaHi, iovaLo, level, state.entryLo, state.entryHi, state.rights);
    return state.framePfn;
  }

  /** Context cache, else root and context entry from memory. @returns a context-cache slot, or minus a fault reason */
  *#context(agent: Agent, sourceId: number): Task<number> {
    const cached = this.contextCache.lookup(sourceId);
    if (cached >= 0) return cached;
    for (;;) {
      const epoch = this.#epoch;
      const bus = sourceId >> 8;
      yield agent.reads('read root entry', Location.entry, this.memory.location(this.rootPfn, bus * 2), Cost.walkRead);
      const root = readRoot(this.memory, this.rootPfn, bus);
      this.walkReads++;
      if (root.reason !== 0) return -root.reason;
      const devfn = sourceId & 0xff;
      const location = this.memory.location(root.pfn, devfn * 2);
      const step = agent.reads('read context entry', Location.entry, location, Cost.walkRead);
      yield agent.alsoWrites(step, Location.translationCache, this.id);
      const found = readContext(this.memory, root.pfn, devfn, this.#levels);
      this.walkReads++;
      if (!found.ok) return -found.reason;
      if (epoch !== this.#epoch) continue;
      const { context } = found;
      return this.contextCache.fill(sourceId, context.domainId, {
        tablePfn: context.tablePfn,
        addressWidth: context.addressWidth,
        translationType: context.translationType,
        faultDisable: context.faultProcessingDisabled,
      });
    }
  }

  #recordFault(request: { sourceId: number; iovaHi: number; iovaLo: number; access: number }, reason: number): void {
    if (this.#faultProcessingDisabled(request.sourceId, reason)) return;
    this.faults.record({
      sourceId: request.sourceId,
      page: pageOf(request.iovaHi, request.iovaLo),
      reason,
      write: request.access === WalkAccess.write,
    });
  }

  /**
   * FPD of the context entry. It also holds for an entry that is not present or invalid, and so is not cached: that
   * one was read in this same step.
   */
  #faultProcessingDisabled(sourceId: number, reason: number): boolean {
    if (reason === FaultReason.contextNotPresent || reason === FaultReason.contextInvalid) {
      const { pfn } = readRoot(this.memory, this.rootPfn, sourceId >> 8);
      return pfn >= 0 && (this.memory.load(pfn, (sourceId & 0xff) * 2) & 2n) !== 0n;
    }
    const slot = this.contextCache.lookup(sourceId);
    return slot >= 0 && this.contextCache.valueAt(slot).faultDisable;
  }

  /**
   * Hardware side of a page request: queue it, after the implicit invalidation of its page that makes the later retry walk
   * (Rev 5.10, 6.5.3.1). A request that finds no room is dropped or answered by the unit itself.
   */
  *pageRequest(agent: Agent, request: PageRequest): Task<void> {
    const step = agent.writes('send page request', Location.pageRequestQueue, this.id, Cost.pageRequest);
    yield agent.alsoWrites(step, Location.translationCache, this.id);
    const outcome = this.pageRequestQueue.write(request);
    if (outcome === 'answered-success') {
      this.#endpoints.get(request.sourceId)?.pageGroupResponse(request.groupIndex, ResponseCode.success);
      return;
    }
    if (outcome === 'dropped') return;
    const slot = this.contextCache.lookup(request.sourceId);
    if (slot >= 0) this.#invalidateIotlbPages(this.contextCache.didAt(slot), request.page, 0, false);
  }

  /** Executes one descriptor of the invalidation queue. */
  *execute(agent: Agent, descriptor: Descriptor): Task<void> {
    if (descriptor.type !== 'pageGroupResponse' && descriptor.type !== 'wait') this.invalidations++;
    switch (descriptor.type) {
      case 'iotlb':
        yield agent.writes('invalidate IOTLB', Location.translationCache, this.id, Cost.invalidationExecute);
        this.#invalidateIotlb(descriptor);
        return;
      case 'contextCache':
        yield agent.writes('invalidate context cache', Location.translationCache, this.id, Cost.invalidationExecute);
        this.#epoch++;
        if (descriptor.granularity === Granularity.global) this.contextCache.invalidateGlobal();
        else if (descriptor.granularity === Granularity.domain) this.contextCache.invalidateDomain(descriptor.domainId);
        else this.contextCache.invalidateDevice(descriptor.domainId, descriptor.sourceId, descriptor.functionMask);
        return;
      case 'deviceTlb': {
        const endpoint = this.#endpoints.get(descriptor.sourceId);
        if (endpoint) yield* endpoint.invalidateDeviceTlb(agent, descriptor.page, descriptor.sizeLog2);
        return;
      }
      case 'pageGroupResponse': {
        yield agent.writes('page group response', Location.device, descriptor.sourceId, Cost.pageResponse);
        this.#endpoints.get(descriptor.sourceId)?.pageGroupResponse(descriptor.groupIndex, descriptor.responseCode);
        return;
      }
      case 'wait':
        return;
    }
  }

  /** Waits for untranslated DMA that may have used what was invalidated (DR, DW; hardware of major version 2 always drains). */
  *drain(agent: Agent): Task<void> {
    yield agent.writes('begin drain', Location.translationCache, this.id, Cost.free);
    yield* this.inFlight.drain(agent);
  }

  #invalidateIotlb(descriptor: Extract<Descriptor, { type: 'iotlb' }>): void {
    const { granularity, domainId } = descriptor;
    if (granularity === Granularity.selective) {
      this.#invalidateIotlbPages(domainId, descriptor.page, descriptor.addressMask, descriptor.leafOnly);
      return;
    }
    this.#epoch++;
    if (granularity === Granularity.global) {
      this.iotlb.invalidateGlobal();
      this.pagingCache.invalidateGlobal();
    } else {
      this.iotlb.invalidateDomain(domainId);
      this.pagingCache.invalidateDomain(domainId);
    }
  }

  #invalidateIotlbPages(domainId: number, page: number, addressMask: number, leafOnly: boolean): void {
    this.#epoch++;
    const hi = Math.floor(page / 2 ** 20);
    const lo = (page << 12) | 0;
    this.iotlb.invalidatePages(domainId, hi, lo, addressMask);
    this.pagingCache.invalidatePages(domainId, hi, lo, addressMask, leafOnly ? 1 : 0);
  }
}

/** An invalidation came in between: walk again. No fault reason has this value. */
const RESTART = -0x10000;

const pageOf = (iovaHi: number, iovaLo: number): number => (iovaHi >>> 0) * 0x10_0000 + (iovaLo >>> 12);
const framePassThrough = (iovaHi: number, iovaLo: number): number => pageOf(iovaHi, iovaLo);
