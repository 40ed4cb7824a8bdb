import { DeviceTlb, type IotlbGeometry } from '@faultline/iotlb';
import {
  type Agent,
  assert,
  CachePart,
  Condition,
  Cost,
  Location,
  type Task,
  translationCacheLocation,
} from '@faultline/sim';
import { FaultReason } from '@faultline/vtd-pagetable';
import {
  type AtsEndpoint,
  CompletionStatus,
  type DeviceTlbScope,
  InFlightDma,
  type MessageOutcome,
  MISS,
  type RemappingUnit,
  ResponseCode,
  translationCompletion,
} from '@faultline/vtd-remapping';
import type { DmaFaultReport, DmaPath } from './dma-path.ts';
import { PageRequestCredits } from './page-request-credits.ts';

/** Where DMA ends: memory, and whoever checks that it was right. */
export interface DmaTarget {
  /** A DMA reaches a frame. For a write the two halves are the page's new content tag. Called in the step of the access. */
  access(
    endpoint: Endpoint,
    page: number,
    frame: number,
    write: boolean,
    tagLo: number,
    tagHi: number,
    path: DmaPath,
  ): void;
  /** A DMA met a missing page. Called in the step in which the device learns of it. */
  missing(endpoint: Endpoint, agent: Agent, path: DmaPath, page: number, reason: number): void;
  /** The page request that followed has its answer. */
  answered(endpoint: Endpoint, agent: Agent, page: number, responseCode: number): void;
}

/** How one page's DMA ended. */
export const DmaStatus = { completed: 0, dropped: 1, aborted: 2 } as const;
/** 0 completed, 1 dropped, 2 aborted. */
export type DmaStatusCode = (typeof DmaStatus)[keyof typeof DmaStatus];

/** Options of an {@link Endpoint}. */
export interface EndpointOptions {
  readonly name: string;
  /** Requester id: bus << 8 | device << 3 | function. */
  readonly sourceId: number;
  readonly unit: RemappingUnit;
  readonly target: DmaTarget;
  readonly faults: DmaFaultReport;
  /** Sizes of the device TLB (ATS); absent: no ATS and no PRI. */
  readonly deviceTlb?: IotlbGeometry;
  /** Outstanding page request allocation; default 32, at most 512. */
  readonly pageRequestCredits?: number;
  /**
   * The physical function, if this is a virtual one: a VF has no PRI of its own and shares its PF's, with its outstanding page request
   * allocation.
   */
  readonly physicalFunction?: Endpoint;
  /** How device-TLB invalidations end once it was unplugged: nobody answers them (default), or a hot-plug port completes them. */
  readonly invalidationsAfterRemoval?: 'timed-out' | 'completed';
  /**
   * Asked at each device-TLB invalidation: 0 if the device answers it, else after how many ns the unit gives it up. What is not answered is
   * not done either. Absent: it answers all.
   */
  readonly unansweredNs?: () => number;
}

/** A small device TLB: 64 x 4K, 32 x 2M, 8 x 1G entries. An assumption; devices publish no sizes. */
export const DEFAULT_DEVICE_TLB: IotlbGeometry = {
  '4K': { sets: 16, ways: 4 },
  '2M': { sets: 8, ways: 4 },
  '1G': { sets: 1, ways: 8 },
};

/** Counters of one endpoint. */
export interface EndpointCounters {
  /** Pages of DMA that reached memory. */
  completed: number;
  /** Pages that met a missing page at least once. */
  faulted: number;
  dropped: number;
  aborted: number;
  pageRequests: number;
  responses: { success: number; invalid: number; failure: number };
  /** Answers for a group that was not outstanding: never right (I9). */
  unexpectedResponses: number;
  /** Groups that had no answer when the device was unplugged. */
  abandonedGroups: number;
  /** Answers that came after the unplug. */
  ignoredResponses: number;
}

/**
 * A PCI function behind a remapping unit: makes DMA by 4K pages on its paths, keeps a device TLB if it has ATS, and asks
 * for missing pages by PRI where the path can wait.
 */
export class Endpoint implements AtsEndpoint {
  readonly name: string;
  readonly sourceId: number;
  readonly unit: RemappingUnit;
  readonly faults: DmaFaultReport;
  /** The device TLB, or null without ATS. */
  readonly deviceTlb: DeviceTlb | null;
  readonly counters: EndpointCounters = {
    completed: 0,
    faulted: 0,
    dropped: 0,
    aborted: 0,
    pageRequests: 0,
    responses: { success: 0, invalid: 0, failure: 0 },
    unexpectedResponses: 0,
    abandonedGroups: 0,
    ignoredResponses: 0,
  };
  readonly #target: DmaTarget;
  readonly #translated: InFlightDma;
  readonly #groups = new Map<number, OutstandingGroup>();
  readonly #pri: PageRequestCredits;
  readonly #removalOutcome: MessageOutcome;
  readonly #unansweredNs: () => number;
  readonly #masters: Condition;
  readonly #quiet: Condition;
  #isBusMaster = true;
  /** DMAs that have begun and not ended; those that wait for a page do not count. */
  #underWay = 0;
  #isRemoved = false;
  #nextGroup = 0;
  #tlbEpoch = 0;
  /** Up to which invalidation of the unit's structure caches translated requests are known to be let through. */
  #structureEpoch = 0;
  #dead = false;

  /** @throws RangeError for a path that stalls on a device with no ATS, credits outside 1..512, or credits of a virtual function */
  constructor(options: EndpointOptions) {
    this.name = options.name;
    this.sourceId = options.sourceId;
    this.unit = options.unit;
    this.faults = options.faults;
    this.#target = options.target;
    this.#translated = new InFlightDma(`${options.name}: translated requests`);
    this.deviceTlb = options.deviceTlb ? new DeviceTlb({ geometry: options.deviceTlb }) : null;
    this.#masters = new Condition(`${options.name}: bus master enable`, () => this.#isBusMaster || this.#isRemoved);
    this.#quiet = new Condition(`${options.name}: DMA under way`, () => this.#underWay === 0);
    this.#removalOutcome = options.invalidationsAfterRemoval ?? 'timed-out';
    this.#unansweredNs = options.unansweredNs ?? (() => 0);
    const { physicalFunction, pageRequestCredits } = options;
    if (physicalFunction && pageRequestCredits !== undefined)
      throw new RangeError(
        `pageRequestCredits: ${options.name} is a virtual function, and uses those of ${physicalFunction.name}`,
      );
    this.#pri = physicalFunction
      ? physicalFunction.#pri
      : new PageRequestCredits(options.name, options.sourceId, pageRequestCredits);
    const stalls = (['descriptor', 'read', 'write', 'completion'] as const).filter(
      (path) => options.faults[path].whenMissing === 'stall',
    );
    if (!this.deviceTlb && stalls.length > 0)
      throw new RangeError(`faults: ${stalls.join(', ')} stall on a missing page, which needs ATS and PRI (deviceTlb)`);
  }

  /** Groups without an answer. */
  get outstandingGroups(): number {
    return this.#groups.size;
  }

  /** A fatal path met a missing page, or the device was unplugged: it does nothing any more. */
  get dead(): boolean {
    return this.#dead;
  }

  /** {@inheritDoc AtsEndpoint.isRemoved} */
  get isRemoved(): boolean {
    return this.#isRemoved;
  }

  /**
   * Clears Bus Master Enable: no DMA begins until {@link enableBusMaster}. Returns when those under way have ended; DMA that waits for a page
   * goes on waiting, and its answer comes through.
   */
  *disableBusMaster(agent: Agent): Task<void> {
    yield agent.writes('clear bus master enable', Location.device, this.sourceId, Cost.lock);
    this.#isBusMaster = false;
    while (!this.#quiet.ready()) yield agent.waits('DMA under way', this.#quiet);
  }

  /** Sets Bus Master Enable again. Part of the caller's step. */
  enableBusMaster(): void {
    this.#isBusMaster = true;
    this.#masters.wake();
  }

  /**
   * Surprise removal: from here on no DMA of it reaches memory, those that wait for a page or a credit end as aborted, its page
   * groups are abandoned and answers to them are ignored.
   */
  unplug(): void {
    if (this.#isRemoved) return;
    this.#isRemoved = true;
    this.#dead = true;
    this.counters.abandonedGroups += this.#groups.size;
    for (const group of this.#groups.values()) group.answer(REMOVED);
    for (let left = this.#groups.size; left > 0; left--) this.#pri.put();
    this.#groups.clear();
    this.#pri.free.wake();
    this.#masters.wake();
  }

  /**
   * DMA of one 4K page on a path. On a hit in the device TLB or IOTLB no task runs below this one.
   * @param page IOVA >> 12 @returns a {@link DmaStatus}
   */
  *dmaPage(
    agent: Agent,
    path: DmaPath,
    page: number,
    write: boolean,
    tagLo: number,
    tagHi: number,
  ): Task<DmaStatusCode> {
    const iovaHi = Math.floor(page / 0x10_0000);
    const iovaLo = (page << 12) | 0;
    const access = write ? 1 : 0;
    let faulted = false;
    yield agent.reads('translate', Location.translationCache, this.#cacheLocation, Cost.dmaBase);
    while (!this.#dead) {
      while (!this.#masters.ready()) yield agent.waits('bus master enable', this.#masters);
      if (this.#dead) break;
      this.#underWay++;
      const inFlight = this.deviceTlb === null ? this.unit.inFlight : this.#translated;
      let frame = this.#lookup(iovaHi, iovaLo, access);
      if (frame === MISS)
        frame =
          this.deviceTlb === null
            ? yield* this.#translateUntranslated(agent, iovaHi, iovaLo, access)
            : yield* this.#translationRequest(agent, iovaHi, iovaLo, access);
      if (frame >= 0) {
        const token = inFlight.begin();
        if (write) yield agent.writes('write memory', Location.frame, frame, Cost.dmaPayload);
        else yield agent.reads('read memory', Location.frame, frame, Cost.dmaPayload);
        if (this.#isRemoved || (this.deviceTlb !== null && this.#isBlocked(frame, write))) {
          inFlight.end(token);
          this.#ended();
          break;
        }
        this.#target.access(this, page, frame, write, tagLo, tagHi, path);
        inFlight.end(token);
        this.#ended();
        this.counters.completed++;
        return DmaStatus.completed;
      }
      this.#ended();
      if (this.#isRemoved) break; // what the unit says of a function that is not there concerns nobody
      if (!faulted) this.counters.faulted++;
      faulted = true;
      this.#target.missing(this, agent, path, page, -frame);
      // UR and CA are not for a page request to mend: the function may not ask, or the tables are broken.
      const isRecoverable = this.deviceTlb === null || translationCompletion(-frame) === CompletionStatus.success;
      const action = isRecoverable ? this.faults[path].whenMissing : 'fatal';
      if (action !== 'stall' || !(yield* this.#askForPage(agent, page, write))) return this.#giveUp(action);
      yield agent.reads('translate again', Location.translationCache, this.#cacheLocation, Cost.free);
    }
    return this.#giveUp('fatal');
  }

  /** Whether the unit refuses translated requests of this function: it looks again only after an invalidation of what it has cached. */
  #isBlocked(frame: number, write: boolean): boolean {
    const { unit } = this;
    if (unit.structureEpoch === this.#structureEpoch) return false;
    if (unit.translatedRequest({ sourceId: this.sourceId, page: frame, write }) !== 0) return true;
    this.#structureEpoch = unit.structureEpoch;
    return false;
  }

  #ended(): void {
    if (--this.#underWay === 0) this.#quiet.wake();
  }

  #giveUp(action: 'stall' | 'drop' | 'fatal'): DmaStatusCode {
    if (action === 'drop') {
      this.counters.dropped++;
      return DmaStatus.dropped;
    }
    if (action === 'fatal') this.#dead = true;
    this.counters.aborted++;
    return DmaStatus.aborted;
  }

  /** The plain hit path: device TLB with ATS, else the unit's IOTLB. */
  #lookup(iovaHi: number, iovaLo: number, access: number): number {
    const tlb = this.deviceTlb;
    if (tlb === null) return this.unit.translate(this.sourceId, iovaHi, iovaLo, access);
    const slot = tlb.lookup(iovaHi, iovaLo);
    if (slot < 0 || (tlb.rightsAt(slot) & (access + 1)) === 0) return MISS;
    return tlb.pfnAt(slot, iovaHi, iovaLo);
  }

  /** Its device TLB lets all entries go of its own, as it may at any moment (PCIe ATS); nothing without ATS. */
  *loseTranslations(agent: Agent): Task<void> {
    if (this.deviceTlb === null) return;
    yield agent.writes('lose all entries', Location.translationCache, this.#cacheLocation, Cost.free);
    this.deviceTlb.clear();
  }

  get #cacheLocation(): number {
    return this.deviceTlb === null ? iotlbLocation(this.unit) : deviceTlbLocation(this.sourceId);
  }

  #translateUntranslated(agent: Agent, iovaHi: number, iovaLo: number, access: number): Task<number> {
    const { sourceId } = this;
    return this.unit.translateMiss(agent, { sourceId, iovaHi, iovaLo, access });
  }

  /**
   * An ATS translation request, with NW for a read. What arrives after a device-TLB invalidation began is asked for again (PCIe
   * ATS, 10.3.8). @returns a frame, or minus the reason: of a success without the right asked for, or of UR and CA
   */
  *#translationRequest(agent: Agent, iovaHi: number, iovaLo: number, access: number): Task<number> {
    const { sourceId, unit, deviceTlb } = this;
    assert(deviceTlb !== null, 'a translation request needs ATS');
    const wanted = access + 1;
    for (;;) {
      const epoch = this.#tlbEpoch;
      yield agent.reads('translation request', Location.translationCache, iotlbLocation(unit), Cost.translationRequest);
      const request = { sourceId, iovaHi, iovaLo, noWrite: access === 0 };
      const { status, frame, level, rights, reason } = yield* unit.translationRequest(agent, request);
      if (status !== CompletionStatus.success || rights === 0) return -(reason || lackOf(access));
      yield agent.writes('fill device TLB', Location.translationCache, deviceTlbLocation(sourceId), Cost.free);
      if (epoch !== this.#tlbEpoch) continue;
      const address = sizedAddress(frame, 9 * (level - 1));
      deviceTlb.fill(iovaHi, iovaLo, address.hi, address.lo, level > 1, rights);
      return (rights & wanted) === wanted ? frame : -lackOf(access);
    }
  }

  /** One page request as a group of its own, and the wait for the answer. @returns whether to try again */
  *#askForPage(agent: Agent, page: number, write: boolean): Task<boolean> {
    const { sourceId } = this;
    const pri = this.#pri;
    do {
      while (!pri.free.ready() && !this.#isRemoved) yield agent.waits('page request credit', pri.free);
      yield agent.writes('open page group', Location.device, pri.location, Cost.free);
      if (this.#isRemoved) return false;
    } while (!pri.free.ready());
    pri.take();
    const groupIndex = this.#freeGroupIndex();
    const group = new OutstandingGroup(`${this.name}: page group ${groupIndex}`);
    this.#groups.set(groupIndex, group);
    this.counters.pageRequests++;
    yield* this.unit.pageRequest(agent, { sourceId, page, read: true, write, last: true, groupIndex });
    while (!group.answered.ready()) yield agent.waits('page group response', group.answered);
    if (group.code === REMOVED) return false;
    this.#target.answered(this, agent, page, group.code);
    return group.code === ResponseCode.success;
  }

  #freeGroupIndex(): number {
    while (this.#groups.has(this.#nextGroup)) this.#nextGroup = (this.#nextGroup + 1) & 511;
    const index = this.#nextGroup;
    this.#nextGroup = (index + 1) & 511;
    return index;
  }

  /** {@inheritDoc AtsEndpoint.pageGroupResponse} */
  pageGroupResponse(groupIndex: number, responseCode: number): void {
    if (this.#isRemoved) {
      this.counters.ignoredResponses++;
      return;
    }
    const group = this.#groups.get(groupIndex);
    if (!group) {
      this.counters.unexpectedResponses++;
      return;
    }
    this.#groups.delete(groupIndex);
    const { responses } = this.counters;
    if (responseCode === ResponseCode.success) responses.success++;
    else if (responseCode === ResponseCode.invalid) responses.invalid++;
    else responses.failure++;
    group.answer(responseCode);
    this.#pri.put();
  }

  /** {@inheritDoc AtsEndpoint.invalidateDeviceTlb} */
  *invalidateDeviceTlb(agent: Agent, page: number, sizeLog2: number, scope: DeviceTlbScope): Task<MessageOutcome> {
    const location = deviceTlbLocation(this.sourceId);
    yield agent.writes('invalidate device TLB', Location.translationCache, location, Cost.deviceTlbInvalidate);
    if (this.#isRemoved) return this.#removalOutcome;
    const unansweredNs = this.#unansweredNs();
    if (unansweredNs > 0) {
      yield agent.spends('no answer', Cost.nanosecond, unansweredNs);
      return this.#isRemoved ? this.#removalOutcome : 'timed-out';
    }
    this.#tlbEpoch++;
    const { hi, lo } = sizedAddress(page, sizeLog2);
    this.deviceTlb?.invalidate(hi, lo, sizeLog2 > 0, scope.pasid, scope.global);
    yield* this.#translated.drain(agent);
    return 'completed';
  }
}

/** An address as ATS messages carry it with S: the lowest zero bit from bit 12 on says the size, 2^sizeLog2 pages. */
function sizedAddress(page: number, sizeLog2: number): { readonly hi: number; readonly lo: number } {
  const first = page - (page % 2 ** sizeLog2);
  const address = sizeLog2 === 0 ? first : first + 2 ** (sizeLog2 - 1) - 1;
  return { hi: Math.floor(address / 0x10_0000) | 0, lo: ((address % 0x10_0000) << 12) | 0 };
}

/** Why a device whose translation lacks the right asked for cannot go on, in the unit's words for untranslated requests. */
const lackOf = (access: number): number =>
  access === 0 ? FaultReason.scalableReadNotAllowed : FaultReason.scalableWriteNotAllowed;

/** Instead of a response code: the device is gone. */
const REMOVED = -2;

class OutstandingGroup {
  readonly answered: Condition;
  code = -1;

  constructor(name: string) {
    this.answered = new Condition(name, () => this.code !== -1);
  }

  answer(code: number): void {
    this.code = code;
    this.answered.wake();
  }
}

/** Location number of a device TLB, apart from the units' numbers. */
const iotlbLocation = ({ id }: RemappingUnit): number => translationCacheLocation(id, CachePart.iotlb);
const deviceTlbLocation = (sourceId: number): number => translationCacheLocation(0x1_0000 + sourceId, CachePart.all);
