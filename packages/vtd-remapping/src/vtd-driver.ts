import { hex } from '@faultline/address';
import { PasidCacheGranularity } from '@faultline/iotlb';
import { Agent, assert, Cost, Location, runToEnd, type Task } from '@faultline/sim';
import {
  clearContext,
  clearPasidEntry,
  clearPasidPresent,
  clearScalableContext,
  PasidTranslationType,
  setPasidAccessedDirty,
  type TableMemory,
  TranslationType,
  writeContext,
  writePasidEntry,
  writeScalableContext,
} from '@faultline/vtd-pagetable';
import type { AtsEndpoint } from './ats-endpoint.ts';
import { checkWidth } from './bit-field.ts';
import { type Descriptor, Granularity, type IotlbDescriptor, WHOLE_ADDRESS_SPACE } from './descriptor.ts';
import { PageRequestPort } from './page-request-port.ts';
import { InvalidationError, QueuedInvalidation } from './queued-invalidation.ts';
import { GlobalCommand, Register } from './register-offset.ts';
import type { RemappingUnit } from './remapping-unit.ts';
import { submitToDevices } from './submit-to-devices.ts';

/** Options of a {@link VtdDriver}. */
export interface VtdDriverOptions {
  readonly unit: RemappingUnit;
  /** Default: scalable if the unit has it. */
  readonly mode?: 'legacy' | 'scalable';
  /** Entries of the invalidation queue; default 256. */
  readonly queueEntries?: number;
  /** Entries of the page request queue, 128 to 16384; default 2048. */
  readonly pageRequestEntries?: number;
}

/** What a function is attached to. */
export interface AttachTarget {
  readonly domainId: number;
  /** Root of the second-stage table. */
  readonly tablePfn: number;
  readonly levels: number;
  /** The function, if it has a device TLB: its translation requests and page requests are served. */
  readonly endpoint: AtsEndpoint | null;
  /** SSADE: hardware sets A and D. Default false. */
  readonly accessedDirty?: boolean;
}

interface Attachment {
  readonly domainId: number;
  readonly tablePfn: number;
  readonly endpoint: AtsEndpoint | null;
  /** Scalable mode: the function's PASID directory. */
  readonly directoryPfn: number;
}

/** PASID that stands for requests without one, as Linux chooses it. */
const RID_PASID = 0;

/**
 * The driver of one unit, as Linux's intel_iommu sets it up: root table, invalidation queue, page request queue, then SRTP, QIE and TE;
 * and what attaches a function to a domain. Everything goes through registers and memory.
 */
export class VtdDriver {
  readonly unit: RemappingUnit;
  readonly memory: TableMemory;
  readonly mode: 'legacy' | 'scalable';
  /** Frame of the root table. */
  readonly rootPfn: number;
  readonly invalidations: QueuedInvalidation;
  /** Null in legacy mode, and if the unit has no page requests. */
  readonly pageRequests: PageRequestPort | null;
  readonly #attachments = new Map<number, Attachment>();
  readonly #domainIds = new Set<number>();
  /** Functions that did not answer; in `complete` ones nothing needs to be invalidated any more. */
  readonly #isolated = new Map<number, 'under way' | 'complete'>();
  readonly #devices = {
    isGone: (sourceId: number): boolean => this.isRemoved(sourceId) || this.#isolated.get(sourceId) === 'complete',
    isolate: (agent: Agent, sourceId: number): Task<void> => this.#isolate(agent, sourceId),
  };

  /** @throws RangeError if there are no pages for tables and queues, or the unit has no scalable mode */
  constructor(options: VtdDriverOptions) {
    const { unit } = options;
    const { registers, memory, capabilities } = unit;
    this.unit = unit;
    this.memory = memory;
    this.mode = options.mode ?? (capabilities.scalableMode ? 'scalable' : 'legacy');
    if (this.mode !== 'legacy' && this.mode !== 'scalable')
      throw new RangeError(`mode: ${this.mode as string} is not one of legacy, scalable`);
    if (this.mode === 'scalable' && !capabilities.scalableMode)
      throw new RangeError('mode: the unit has no scalable mode (ECAP.SMTS)');
    // A queue and tables that somebody else has set up are not ours, as Linux finds them after kexec.
    registers.write32(Register.GCMD, 0);
    this.rootPfn = memory.allocate();
    if (this.rootPfn < 0) throw new RangeError('memory: no page for the root table');
    memory.flush(this.rootPfn, 0, 512);
    const common = { memory, registers, location: unit.id };
    this.invalidations = new QueuedInvalidation({
      ...common,
      wide: this.mode === 'scalable',
      observe: (observer) => unit.invalidationQueue.observe(observer),
      ...(options.queueEntries === undefined ? {} : { entries: options.queueEntries }),
    });
    const hasPageRequests = this.mode === 'scalable' && capabilities.pageRequests;
    this.pageRequests = hasPageRequests
      ? new PageRequestPort({
          ...common,
          queue: unit.pageRequestQueue,
          invalidations: this.invalidations,
          ...(options.pageRequestEntries === undefined ? {} : { entries: options.pageRequestEntries }),
        })
      : null;
    const mode = this.mode === 'scalable' ? 1n << 10n : 0n;
    registers.write64(Register.RTADDR, (BigInt(this.rootPfn) << 12n) | mode);
    registers.write32(Register.GCMD, GlobalCommand.setRootTable);
    registers.write32(Register.GCMD, GlobalCommand.queuedInvalidationEnable);
    if (!capabilities.enhancedSetRootTable) this.#invalidateAll();
    const enable = GlobalCommand.queuedInvalidationEnable | GlobalCommand.translationEnable;
    registers.write32(Register.GCMD, enable);
    const status = registers.read32(Register.GSTS) | 0;
    assert((status & enable) === enable, () => `the unit is not enabled: GSTS ${hex(status >>> 0)}`);
  }

  /** What SRTP leaves to software without ESRTPS (Rev 5.10, 6.6), in the order of Linux's iommu_set_root_entry. */
  #invalidateAll(): void {
    const all: Descriptor[] = [
      { type: 'contextCache', granularity: Granularity.global, domainId: 0, sourceId: 0, functionMask: 0 },
    ];
    if (this.mode === 'scalable')
      all.push({ type: 'pasidCache', granularity: PasidCacheGranularity.global, domainId: 0, pasid: 0 });
    all.push({ ...iotlbOf(0), granularity: Granularity.global });
    runToEnd(this.invalidations.submit(new Agent('driver'), all), () => this.unit.processQueue());
  }

  /** Whether a function is attached. */
  isAttached(sourceId: number): boolean {
    return this.#attachments.has(sourceId);
  }

  /**
   * Points a function's structures to a table.
   * @throws RangeError if it is attached already, a page for a structure is missing, the unit does not walk tables of so many levels, or
   * an id has too many bits: a source-id more than 16, a domain-id more than CAP.ND says; or if the domain-id stands for another
   * table already, whose cached entries would answer (6.2.1)
   */
  attach(sourceId: number, target: AttachTarget): void {
    checkWidth('sourceId', sourceId, 16);
    checkWidth('domainId', target.domainId, this.unit.capabilities.domainIdBits);
    if (!this.unit.capabilities.levels.some((levels) => levels === target.levels))
      throw new RangeError(`levels: the unit walks no tables of ${target.levels} levels (CAP.SAGAW)`);
    if (this.#attachments.has(sourceId))
      throw new RangeError(`sourceId: device ${hex(sourceId)} is attached already; detach it first`);
    if (this.#isolated.has(sourceId))
      throw new RangeError(
        `sourceId: device ${hex(sourceId)} is isolated, since it did not answer an invalidation; reset it first`,
      );
    const { endpoint, domainId, tablePfn } = target;
    for (const other of this.#attachments.values())
      if (other.domainId === domainId && other.tablePfn !== tablePfn)
        throw new RangeError(
          `domainId: ${hex(domainId)} is the domain of the table at ${hex(other.tablePfn * 4096)} already, not ${hex(tablePfn * 4096)}`,
        );
    const directoryPfn = this.mode === 'scalable' ? this.#attachScalable(sourceId, target) : -1;
    if (this.mode === 'legacy') this.#attachLegacy(sourceId, target);
    if (endpoint) this.unit.connect(sourceId, endpoint);
    this.#attachments.set(sourceId, { domainId, tablePfn, endpoint, directoryPfn });
  }

  #attachLegacy(sourceId: number, target: AttachTarget): void {
    const written = writeContext(this.memory, this.rootPfn, sourceId, {
      faultProcessingDisabled: false,
      translationType: target.endpoint ? TranslationType.deviceTlb : TranslationType.untranslatedOnly,
      tablePfn: target.tablePfn,
      addressWidth: target.levels - 2,
      domainId: target.domainId,
    });
    if (!written) throw new RangeError('memory: no page for the context table');
  }

  /** A PASID directory of one page with the entry of RID_PASID, then the context entry. @returns the directory's frame */
  #attachScalable(sourceId: number, target: AttachTarget): number {
    const { memory } = this;
    const { capabilities } = this.unit;
    const directoryPfn = memory.allocate();
    if (directoryPfn < 0) throw new RangeError('memory: no page for the PASID directory');
    memory.flush(directoryPfn, 0, 512);
    const written =
      writePasidEntry(memory, directoryPfn, RID_PASID, {
        faultProcessingDisabled: false,
        addressWidth: target.levels - 2,
        translationType: PasidTranslationType.secondStage,
        secondStageAccessedDirty: target.accessedDirty ?? false,
        secondStagePfn: target.tablePfn,
        domainId: target.domainId,
        pageWalkSnoop: capabilities.pageWalkCoherent,
        pageSnoop: false,
      }) &&
      writeScalableContext(memory, this.rootPfn, sourceId, {
        faultProcessingDisabled: false,
        deviceTlbEnable: target.endpoint !== null,
        pasidEnable: false,
        pageRequestEnable: target.endpoint !== null && capabilities.pageRequests,
        pasidDirectorySize: 2, // 512 entries: the page
        pasidDirectoryPfn: directoryPfn,
        ridPasid: RID_PASID,
        ridPrivilege: false,
      });
    if (!written) {
      this.#freeDirectory(directoryPfn);
      throw new RangeError('memory: no page for a PASID or context table');
    }
    return directoryPfn;
  }

  /**
   * Clears a function's structures, then their caches, the domain's IOTLB entries and the device TLB (Rev 5.10, table 28), drains its
   * page requests, as Linux's intel_pasid_tear_down_entry does, and forgets the endpoint. Whoever reads the page request queue goes on
   * meanwhile, and answers what it has taken.
   */
  *detach(agent: Agent, sourceId: number): Task<void> {
    const attachment = this.#attachments.get(sourceId);
    assert(attachment !== undefined, () => `device ${hex(sourceId)} is not attached`);
    this.#attachments.delete(sourceId);
    const { domainId, endpoint, directoryPfn } = attachment;
    const isScalable = this.mode === 'scalable';
    yield agent.writes('clear context entry', Location.entry, this.#contextLocation(sourceId), Cost.entryWrite);
    this.#clearEntries(sourceId, attachment);
    yield* this.submit(agent, [
      { type: 'contextCache', granularity: Granularity.selective, domainId, sourceId, functionMask: 0 },
      ...(isScalable ? [pasidCacheOf(domainId)] : []),
      iotlbOf(domainId),
      ...(endpoint ? [{ type: 'deviceTlb', sourceId, ...WHOLE_ADDRESS_SPACE } as const] : []),
    ]);
    if (endpoint && this.pageRequests && this.unit.capabilities.pageRequestDrain)
      yield* this.pageRequests.drain(agent, { sourceId, domainId, ...this.#devices });
    if (endpoint) this.unit.disconnect(sourceId);
    if (isScalable) this.#freeDirectory(directoryPfn);
  }

  /**
   * Turns A and D bits on or off for an attached function (intel_pasid_setup_dirty_tracking): SSADE in its PASID entry, then the caches, so that
   * when this returns every translation that is used follows it.
   */
  *setAccessedDirty(agent: Agent, sourceId: number, enabled: boolean): Task<void> {
    const attachment = this.#attachments.get(sourceId);
    assert(attachment !== undefined && this.mode === 'scalable', () => `device ${hex(sourceId)} has no PASID entry`);
    const { domainId, endpoint, directoryPfn } = attachment;
    yield agent.writes('set SSADE', Location.entry, this.#contextLocation(sourceId), Cost.entryWrite);
    setPasidAccessedDirty(this.memory, directoryPfn, RID_PASID, enabled);
    yield* this.submit(agent, [
      pasidCacheOf(domainId),
      iotlbOf(domainId),
      ...(endpoint ? [{ type: 'deviceTlb', sourceId, ...WHOLE_ADDRESS_SPACE } as const] : []),
    ]);
  }

  /** A domain-id that no domain of {@link VtdFunction}s has, from 1 on, until it is given back. @throws RangeError if none is left */
  takeDomainId(): number {
    let id = 1; // 0 is the unit's own where entries that are not present are cached
    while (this.#domainIds.has(id)) id++;
    checkWidth('domainId', id, this.unit.capabilities.domainIdBits);
    this.#domainIds.add(id);
    return id;
  }

  /** Gives a domain-id of {@link takeDomainId} back; nothing is cached under it any more. */
  returnDomainId(domainId: number): void {
    this.#domainIds.delete(domainId);
  }

  /** Whether a function that was attached has been removed from its slot. */
  isRemoved(sourceId: number): boolean {
    return this.unit.responders.get(sourceId)?.isRemoved ?? false;
  }

  /** Submits invalidations, without those to functions that have been removed or isolated; see `submitToDevices`. */
  submit(agent: Agent, descriptors: readonly Descriptor[]): Task<void> {
    return submitToDevices(agent, this.invalidations, { descriptors, ...this.#devices });
  }

  /** Whether a function is isolated, or is being isolated, for not answering device-TLB invalidations. */
  isIsolated(sourceId: number): boolean {
    return this.#isolated.has(sourceId);
  }

  /** A function was reset, and its device TLB is empty: it may be attached again. */
  deviceWasReset(sourceId: number): void {
    this.#isolated.delete(sourceId);
  }

  /**
   * What is done with a function that does not answer, so that what it may have cached cannot be used: its context entry is cleared
   * and the caches above it invalidated, whereupon the unit refuses its translated requests as all others (SCT.2, SCT.5). No descriptor of this
   * needs the device; a time-out of another one aborts it, and it is made again. Two submitters may isolate one function at a time.
   */
  *#isolate(agent: Agent, sourceId: number): Task<void> {
    this.#isolated.set(sourceId, 'under way');
    const attachment = this.#attachments.get(sourceId);
    if (attachment) {
      yield agent.writes('clear context entry', Location.entry, this.#contextLocation(sourceId), Cost.entryWrite);
      // Not so if it was detached in this moment: then its entry is clear, and the caches are what is left.
      if (this.#attachments.get(sourceId) === attachment) this.#clearEntries(sourceId, attachment);
    }
    const { domainId } = attachment ?? { domainId: 0 };
    const all: Descriptor[] = [
      { type: 'contextCache', granularity: Granularity.global, domainId: 0, sourceId: 0, functionMask: 0 },
      ...(this.mode === 'scalable'
        ? [{ type: 'pasidCache', granularity: PasidCacheGranularity.global, domainId: 0, pasid: 0 } as const]
        : []),
      iotlbOf(domainId),
    ];
    for (let isDone = false; !isDone; ) {
      try {
        yield* this.invalidations.submit(agent, all);
        isDone = true;
      } catch (error) {
        if (!(error instanceof InvalidationError) || error.silent === null) throw error;
      }
    }
    this.#isolated.set(sourceId, 'complete');
  }

  #clearEntries(sourceId: number, { directoryPfn }: Attachment): void {
    if (this.mode === 'scalable') {
      clearPasidPresent(this.memory, directoryPfn, RID_PASID);
      clearScalableContext(this.memory, this.rootPfn, sourceId);
    } else clearContext(this.memory, this.rootPfn, sourceId);
  }

  #freeDirectory(directoryPfn: number): void {
    const entry = this.memory.load(directoryPfn, 0);
    if ((entry & 1n) !== 0n) {
      clearPasidEntry(this.memory, directoryPfn, RID_PASID);
      this.memory.free(Number((entry >> 12n) & 0xff_ffff_ffffn));
    }
    this.memory.free(directoryPfn);
  }

  /** Location of the first word of a function's context entry, for steps. */
  #contextLocation(sourceId: number): number {
    const isScalable = this.mode === 'scalable';
    const half = isScalable && (sourceId & 0x80) !== 0 ? 1 : 0;
    const root = this.memory.load(this.rootPfn, (sourceId >> 8) * 2 + half);
    const contextPfn = Number((root >> 12n) & 0xff_ffff_ffffn);
    return this.memory.location(contextPfn, isScalable ? (sourceId & 0x7f) * 4 : (sourceId & 0xff) * 2);
  }
}

const pasidCacheOf = (domainId: number): Descriptor => ({
  type: 'pasidCache',
  granularity: PasidCacheGranularity.domain,
  domainId,
  pasid: 0,
});

const iotlbOf = (domainId: number): IotlbDescriptor => ({
  type: 'iotlb',
  granularity: Granularity.domain,
  domainId,
  page: 0,
  addressMask: 0,
  leafOnly: false,
  drainReads: true,
  drainWrites: true,
});
