import {
  ContextCache,
  type InvalidationVariant,
  Iotlb,
  type IotlbOptions,
  NO_PASID,
  PagingStructureCache,
  type PagingStructureCacheGeometry,
  PasidCache,
} from '@faultline/iotlb';
import { Agent, CachePart, Cost, Location, runToEnd, type Task, translationCacheLocation } from '@faultline/sim';
import {
  type ReservedMasks,
  reservedMasks,
  type StructureCapabilities,
  type TableMemory,
} from '@faultline/vtd-pagetable';
import type { AtsEndpoint } from './ats-endpoint.ts';
import { structureCapabilities, type UnitCapabilities, unitCapabilities } from './capability.ts';
import type { Descriptor } from './descriptor.ts';
import type { DescriptorRules } from './descriptor-encoding.ts';
import { EventInterrupt, type InterruptSink } from './event-interrupt.ts';
import { FaultRecording } from './fault-recording.ts';
import { InFlightDma } from './in-flight-dma.ts';
import { executeInvalidation, invalidateAll, sendToDevice } from './invalidation.ts';
import { type InvalidationExecutor, InvalidationQueue, type MessageOutcome } from './invalidation-queue.ts';
import type { PageRequest } from './page-request.ts';
import { PageRequestQueue } from './page-request-queue.ts';
import { receivePageRequest } from './page-request-receiver.ts';
import { invalidateContextsByRegister, invalidateIotlbByRegister } from './register-invalidation.ts';
import { RegisterFile, type RegisterTarget } from './registers.ts';
import type { CachedScalableContext, RequesterContext, RequesterTables } from './requester-lookup.ts';
import { checkTranslatedRequest, type TranslatedRequest } from './translated-request.ts';
import { translateDma } from './translation.ts';
import { TranslationMode, type TranslationModeCode } from './translation-mode.ts';
import { type TranslationCompletion, translateForDevice } from './translation-request.ts';
import { type DmaRequest, type TranslationRequest, Walker } from './walker.ts';

/** Options of a {@link RemappingUnit}. */
export interface RemappingUnitOptions {
  /** Memory that holds tables and queues. */
  readonly memory: TableMemory;
  /** Number of this unit, the location of its steps; default 0. */
  readonly id?: number;
  /** What differs from `DEFAULT_CAPABILITIES`; walks snoop as the memory is coherent or not. */
  readonly capabilities?: Partial<UnitCapabilities>;
  readonly iotlb?: IotlbOptions;
  /** Sizes of the paging-structure caches. */
  readonly pagingCache?: PagingStructureCacheGeometry;
  /**
   * How the caches carry out invalidations: `INVALIDATION_VARIANTS` of `@faultline/iotlb`, of which the specification allows all. Options
   * of `iotlb` win. Default as the caches' own: exactly what is asked.
   */
  readonly invalidation?: InvalidationVariant;
  /** Most entries of the page request queue that are used, for tests of overflow; default all. */
  readonly pageRequestLimit?: number;
  /** Receives the unit's message-signaled interrupts. */
  readonly onInterrupt?: InterruptSink;
}

/** {@link RemappingUnit.translate}: not answered by the IOTLB; go on with `translateMiss`. */
export const MISS = -1;

/**
 * One DMA remapping hardware unit. Software drives it by {@link registers} and by what it puts into memory. A DMA calls {@link translate}, a
 * plain function that allocates nothing on an IOTLB hit; a miss goes on as the task {@link translateMiss}: context and PASID cache,
 * paging-structure caches, walk. {@link run} is the hardware behind the invalidation queue.
 */
export class RemappingUnit implements InvalidationExecutor, RegisterTarget, RequesterTables {
  readonly id: number;
  readonly memory: TableMemory;
  readonly capabilities: UnitCapabilities;
  readonly structures: StructureCapabilities;
  readonly masks: ReservedMasks;
  readonly iotlb: Iotlb;
  readonly pagingCache: PagingStructureCache;
  /** Legacy mode's. */
  readonly contextCache: ContextCache<RequesterContext>;
  /** Scalable mode's. */
  readonly scalableContextCache: ContextCache<CachedScalableContext>;
  readonly pasidCache: PasidCache<RequesterContext>;
  readonly faultEvent: EventInterrupt;
  readonly completionEvent: EventInterrupt;
  readonly pageRequestEvent: EventInterrupt;
  readonly faults: FaultRecording;
  readonly invalidationQueue: InvalidationQueue;
  readonly pageRequestQueue: PageRequestQueue;
  readonly registers: RegisterFile;
  readonly inFlight: InFlightDma;
  /** Page requests that the unit has received and not yet queued, answered or dropped (Rev 5.10, 7.7). */
  readonly receivedRequests: InFlightDma;
  /** Endpoints by requester id. */
  readonly endpoints = new Map<number, AtsEndpoint>();
  /** Functions that were connected once: page group responses are routed by requester id, whether or not software still serves the function. */
  readonly responders = new Map<number, AtsEndpoint>();
  /** Memory reads by walks, structures included. */
  walkReads = 0;
  /** Invalidation descriptors executed: everything but waits and page group responses. */
  invalidations = 0;
  /** Hits in the paging-structure caches. */
  pagingCacheHits = 0;
  /** Grows with every executed invalidation: a walk that began before one must not fill a cache after it. */
  epoch = 0;
  /** {@inheritDoc RequesterTables.structureEpoch} */
  structureEpoch = 0;
  /** Whether an IOTLB invalidation since the last wait asked for draining. */
  drainOwed = false;
  #rootPfn = 0;
  #mode: TranslationModeCode = TranslationMode.legacy;
  #enabled = false;
  readonly #spareWalkers: Walker[] = [];

  /** @throws RangeError naming the capability that does not fit */
  constructor(options: RemappingUnitOptions) {
    const { memory, id = 0, onInterrupt = () => undefined } = options;
    this.id = id;
    this.memory = memory;
    this.capabilities = unitCapabilities({
      coherent: memory.coherent,
      pageWalkCoherent: memory.coherent,
      ...options.capabilities,
    });
    if (this.capabilities.coherent !== memory.coherent)
      throw new RangeError(`coherent: ${this.capabilities.coherent} does not go with a memory that is not so`);
    if (this.capabilities.pageWalkCoherent && !memory.coherent)
      throw new RangeError('pageWalkCoherent: true does not go with a memory that hardware does not snoop');
    this.structures = structureCapabilities(this.capabilities);
    this.masks = reservedMasks(this.structures);
    const { invalidation } = options;
    this.iotlb = new Iotlb({ ...invalidation?.iotlb, ...options.iotlb });
    this.pagingCache = new PagingStructureCache(options.pagingCache, invalidation?.pagingStructures);
    this.contextCache = new ContextCache(invalidation?.context);
    this.scalableContextCache = new ContextCache({ ...invalidation?.context, mode: 'scalable' });
    this.pasidCache = new PasidCache(invalidation?.pasid);
    this.faultEvent = new EventInterrupt(onInterrupt);
    this.completionEvent = new EventInterrupt(onInterrupt);
    this.pageRequestEvent = new EventInterrupt(onInterrupt);
    const { faultRegisters, levels } = this.capabilities;
    this.faults = new FaultRecording(faultRegisters, this.faultEvent, 12 + 9 * Math.max(...levels));
    this.invalidationQueue = new InvalidationQueue({
      memory,
      location: id,
      faults: this.faults,
      completion: this.completionEvent,
      mayBeWide: this.capabilities.scalableMode || this.capabilities.abortDmaMode,
    });
    this.pageRequestQueue = new PageRequestQueue(memory, this.pageRequestEvent, options.pageRequestLimit);
    this.inFlight = new InFlightDma(`DRHD ${id}`);
    this.receivedRequests = new InFlightDma(`DRHD ${id}: page requests`);
    this.registers = new RegisterFile(this);
  }

  /** Frame of the root table, as RTADDR was latched by SRTP. */
  get rootPfn(): number {
    return this.#rootPfn;
  }

  /** TTM, as latched. */
  get mode(): TranslationModeCode {
    return this.#mode;
  }

  /** GSTS.TES: whether DMA is remapped. */
  get enabled(): boolean {
    return this.#enabled;
  }

  /** Makes an endpoint known by its requester id, so that invalidations and responses reach it. */
  connect(sourceId: number, endpoint: AtsEndpoint): void {
    this.endpoints.set(sourceId, endpoint);
    this.responders.set(sourceId, endpoint);
  }

  /** Device-TLB invalidations to an endpoint time out from here on; page group responses reach it all the same. */
  disconnect(sourceId: number): void {
    this.endpoints.delete(sourceId);
  }

  /**
   * The hit path. @param access 0 read, 1 write, 2 atomic @returns the 4K frame number, or {@link MISS}: not cached, or cached without
   * the right (hardware then walks again; the walk decides). While translation is off, the address itself
   */
  translate(sourceId: number, iovaHi: number, iovaLo: number, access: number, pasid: number = NO_PASID): number {
    // Compared with false, since V8 tests the truth of a field for every kind of value.
    if (this.#enabled === false) return (iovaHi >>> 0) * 0x10_0000 + (iovaLo >>> 12);
    const iotlb = this.iotlb;
    const slot = iotlb.lookup(sourceId, iovaHi, iovaLo, pasid);
    // Literals here: a bundler makes variables of a module's constants. Read, write and atomic need rights 1, 2 and 3; a zero-length
    // read finds none that serve it, and is left to the walk.
    if (slot < 0) return -1;
    const needed = access + 1;
    if ((iotlb.rightsAt(slot) & needed) !== needed) return -1;
    return iotlb.pfnAt(slot, iovaHi, iovaLo);
  }

  /** The miss path of an untranslated request; a fault is recorded. @returns the frame number, or minus a fault reason */
  translateMiss(agent: Agent, request: DmaRequest): Task<number> {
    return translateDma(agent, this, request);
  }

  /** An ATS translation request; served from the IOTLB if that has what is asked for. */
  translationRequest(agent: Agent, request: TranslationRequest): Task<TranslationCompletion> {
    return translateForDevice(agent, this, request);
  }

  /**
   * A translated request arrives: whether the tables let the function use what it has cached, in the caller's step. A refusal is recorded.
   * @returns 0, or a fault reason
   */
  translatedRequest(request: TranslatedRequest): number {
    return checkTranslatedRequest(this, request);
  }

  /**
   * Hardware side of a page request: queue it, after the implicit invalidation of its page that makes the later retry walk
   * (Rev 5.10, 6.5.3.1). What the tables do not allow is answered Invalid Request; what finds no room is dropped or answered success.
   */
  pageRequest(agent: Agent, request: PageRequest): Task<void> {
    return receivePageRequest(agent, this, request);
  }

  /** One untranslated DMA with nobody in between, hit or miss. @returns the frame number, or minus a fault reason */
  dma(request: DmaRequest): number {
    const { sourceId, iovaHi, iovaLo, access, pasid = NO_PASID } = request;
    const frame = this.translate(sourceId, iovaHi, iovaLo, access, pasid);
    return frame === MISS ? runToEnd(this.translateMiss(PLAIN_DEVICE, request)) : frame;
  }

  /** The hardware behind the invalidation queue, for ever: spawn it as a daemon. */
  run(agent: Agent): Task<void> {
    return this.invalidationQueue.run(agent, this);
  }

  /** Executes what is in the invalidation queue with nobody in between. */
  processQueue(): void {
    runToEnd(this.invalidationQueue.process(PLAIN_HARDWARE, this));
  }

  /** {@inheritDoc InvalidationExecutor.execute} */
  execute(agent: Agent, descriptor: Descriptor): Task<void> {
    return executeInvalidation(agent, this, descriptor);
  }

  /** {@inheritDoc InvalidationExecutor.sendMessage} */
  sendMessage(agent: Agent, descriptor: Descriptor): Task<MessageOutcome> {
    return sendToDevice(agent, this, descriptor);
  }

  /** Waits for untranslated DMA that may have used what was invalidated (DR, DW; hardware of major version 2 always drains). */
  *drain(agent: Agent): Task<void> {
    const isOwed = this.capabilities.majorVersion >= 2 || this.drainOwed;
    this.drainOwed = false;
    if (!isOwed) return;
    yield agent.writes(
      'begin drain',
      Location.translationCache,
      translationCacheLocation(this.id, CachePart.iotlb),
      Cost.free,
    );
    yield* this.inFlight.drain(agent);
  }

  /** {@inheritDoc InvalidationExecutor.drainPageRequests} */
  drainPageRequests(agent: Agent): Task<void> {
    return this.receivedRequests.drain(agent);
  }

  /** {@inheritDoc InvalidationExecutor.descriptorRules} */
  descriptorRules(wide: boolean): DescriptorRules {
    const { scalableMode, abortDmaMode } = this.capabilities;
    const lacks =
      (this.#mode === TranslationMode.scalable && !scalableMode) ||
      (this.#mode === TranslationMode.abort && !abortDmaMode);
    return { ...this.capabilities, wide, mode: lacks ? TranslationMode.reserved : this.#mode };
  }

  /** {@inheritDoc RegisterTarget.setRootTable} */
  setRootTable(address: bigint): void {
    this.#rootPfn = Number(address >> 12n);
    this.#mode = Number((address >> 10n) & 3n) as TranslationModeCode;
    if (this.capabilities.enhancedSetRootTable) invalidateAll(this);
  }

  /** {@inheritDoc RegisterTarget.setTranslation} */
  setTranslation(enabled: boolean): void {
    this.#enabled = enabled;
    if (enabled) return;
    this.faults.restart();
    if (this.capabilities.scalableMode) invalidateAll(this);
  }

  /** {@inheritDoc RegisterTarget.invalidateContexts} */
  invalidateContexts(command: bigint): number {
    return invalidateContextsByRegister(this, command);
  }

  /** {@inheritDoc RegisterTarget.invalidateIotlb} */
  invalidateIotlb(command: bigint, address: bigint): number {
    return invalidateIotlbByRegister(this, command, address);
  }

  /** {@inheritDoc RequesterTables.countRead} */
  countRead(): void {
    this.walkReads++;
  }

  /** A walker for one request; give it back with {@link releaseWalker}. */
  acquireWalker(): Walker {
    return this.#spareWalkers.pop() ?? new Walker();
  }

  /** Takes a walker back. */
  releaseWalker(walker: Walker): void {
    walker.context = null;
    this.#spareWalkers.push(walker);
  }
}

const PLAIN_DEVICE = new Agent('device');
const PLAIN_HARDWARE = new Agent('invalidation queue');
