import { hex } from '@faultline/address';
import {
  DEFAULT_IOTLB_GEOMETRY,
  type IotlbOptions,
  type LeafLevel,
  QEMU_7_2_IOTLB_OPTIONS,
  QEMU_IOTLB_OPTIONS,
} from '@faultline/iotlb';
import { faultReasonText } from '@faultline/vtd-pagetable';
import { LineAccount } from '../line-account.ts';
import { type OpenTrace, openAs } from '../open-trace.ts';
import type { QemuPageLookup, QemuTranslate, QemuVtdEvent } from '../qemu-vtd-event.ts';
import { readQemuVtdLine } from '../qemu-vtd-log.ts';
import type { TraceSource } from '../trace-source.ts';
import { ComparedIotlb } from './iotlb-comparison.ts';
import type { Difference, QemuReplayResult } from './qemu-replay-result.ts';
import { type ModelAnswer, RecordedMemory } from './recorded-memory.ts';
import { RecordingStart } from './recording-start.ts';

/** Options of {@link replayQemuLog}. */
export interface QemuReplayOptions {
  /**
   * The model's IOTLB. Default: `DEFAULT_IOTLB_GEOMETRY`, and `partialInvalidation: 'whole'`, since QEMU drops a large
   * page when any part of it is invalidated.
   */
  readonly iotlb?: IotlbOptions;
  /** How many differing answers to keep; default 10. */
  readonly keepDiffering?: number;
  /** Called with every event and its line number, in order: for tools that look at the same stream. */
  readonly onEvent?: (event: QemuVtdEvent, line: number) => void;
}

/** A look-up whose answer has not come yet. */
interface PendingLookup {
  readonly lookup: QemuPageLookup;
  /** Null while the page size is not known. */
  readonly answer: ModelAnswer | null;
}

const SIZE_BIT = 0x80n;
/** PS, A and D do not matter for whether two leaves are the same. */
const LEAF_COMPARED = ~0x380n & 0xffff_ffff_ffff_ffffn;
const LEVEL_OF_MASK: ReadonlyMap<bigint, LeafLevel> = new Map([
  [0xfffn, 1],
  [0x1f_ffffn, 2],
  [0x3fff_ffffn, 3],
]);

const high = (address: bigint): number => Number(BigInt.asIntN(32, address >> 32n));
const low = (address: bigint): number => Number(BigInt.asIntN(32, address));

/** The replay's state; one event at a time. */
class QemuReplay {
  readonly account: LineAccount;
  readonly memory: RecordedMemory;
  readonly #options: IotlbOptions;
  readonly #start = new RecordingStart();
  readonly #chosen: ComparedIotlb;
  readonly #like10 = new ComparedIotlb(QEMU_IOTLB_OPTIONS);
  readonly #like72 = new ComparedIotlb(QEMU_7_2_IOTLB_OPTIONS);
  readonly #pending = new Map<number, PendingLookup>();
  readonly #differing: Difference[] = [];
  readonly #keepDiffering: number;
  readonly #checks = { translations: 0, agree: 0, differ: 0, beforeRecording: 0 };
  readonly #invalidations = { pages: 0, domain: 0, global: 0, pasid: 0, context: 0 };
  readonly #recorded = { hits: 0, walks: 0, faults: 0, iotlbResets: 0, waits: 0 };
  readonly #oddities = {
    leafChangedWithoutInvalidation: 0,
    otherDomain: 0,
    translationsWithoutLookup: 0,
    lookupsWithoutTranslation: 0,
    unusableLeaves: 0,
    sizeFromAnswer: 0,
  };

  constructor(file: string, options: QemuReplayOptions) {
    this.account = new LineAccount(file);
    this.#options = { geometry: DEFAULT_IOTLB_GEOMETRY, partialInvalidation: 'whole', ...options.iotlb };
    this.memory = new RecordedMemory(this.#options);
    this.#chosen = new ComparedIotlb(this.#options);
    this.#keepDiffering = options.keepDiffering ?? 10;
  }

  apply(event: QemuVtdEvent, text: string): void {
    switch (event.kind) {
      case 'pageUpdate':
      case 'pageHit':
        this.#lookup(event);
        return;
      case 'translate':
        this.#translate(event, text);
        return;
      case 'contextUpdate':
        this.#setContext(event.sid, event.high, event.low);
        return;
      case 'fault':
        this.#recorded.faults++;
        return;
      case 'waitStatus':
        this.#recorded.waits++;
        return;
      case 'iotlbReset':
        this.#recorded.iotlbResets++;
        return;
      default:
        this.#invalidate(event);
    }
  }

  #setContext(sid: number, highQuadword: bigint, lowQuadword: bigint): void {
    const did = Number((highQuadword >> 8n) & 0xffffn);
    this.memory.setContext(sid, did, Number(highQuadword & 7n), Number((lowQuadword >> 2n) & 3n));
  }

  /** A hit tells nothing to the model; a walk changes its memory, never its caches. Then the model is asked. */
  #lookup(lookup: QemuPageLookup): void {
    if (this.#pending.has(lookup.sid)) this.#oddities.lookupsWithoutTranslation++;
    if (lookup.kind === 'pageHit') this.#recorded.hits++;
    else this.#recorded.walks++;
    const known = this.memory.domainOf(lookup.sid);
    if (known !== lookup.did) {
      if (known >= 0) this.#oddities.otherDomain++;
      // Not every read of a context entry is traced: the look-up itself shows what the entry says now.
      this.memory.invalidateContextsOfDevices(lookup.sid, 0xffff);
      this.memory.setContext(lookup.sid, lookup.did, lookup.iova >> 48n === 0n ? 2 : 3, 0);
    }
    if ((lookup.slpte & SIZE_BIT) !== 0n) {
      this.#pending.set(lookup.sid, { lookup, answer: null });
      return;
    }
    this.#pending.set(lookup.sid, { lookup, answer: this.#ask(lookup, 1) });
  }

  #ask(lookup: QemuPageLookup, level: LeafLevel): ModelAnswer {
    const { sid, did, iova, slpte } = lookup;
    if (lookup.kind === 'pageUpdate') {
      const outcome = this.memory.setLeaf(did, iova, level, slpte);
      if (outcome === 'changed') this.#oddities.leafChangedWithoutInvalidation++;
      if (outcome === 'unusable') this.#oddities.unusableLeaves++;
    }
    const compared = { sid, did, hi: high(iova), lo: low(iova), level, recordedHit: lookup.kind === 'pageHit' };
    for (const cache of [this.#chosen, this.#like10, this.#like72]) cache.lookup(compared);
    // The log does not say what the DMA wanted: ask for a right that the recorded leaf has.
    return this.memory.translate(sid, iova, (slpte & 1n) === 0n);
  }

  #translate(event: QemuTranslate, text: string): void {
    this.#checks.translations++;
    const pending = this.#pending.get(event.sid);
    const paired = pending !== undefined && (pending.lookup.iova & ~event.mask) === event.iova;
    if (paired) this.#pending.delete(event.sid);
    else this.#oddities.translationsWithoutLookup++;
    let answer = paired ? pending.answer : this.memory.translate(event.sid, event.iova, false);
    if (answer === null && paired) {
      this.#oddities.sizeFromAnswer++;
      answer = this.#ask(pending.lookup, LEVEL_OF_MASK.get(event.mask) ?? 1);
    }
    const lookup = paired ? pending.lookup : null;
    if (answer !== null && this.#agrees(event, answer, lookup)) this.#checks.agree++;
    else this.#disagree(event, text, answer, lookup);
    if (lookup !== null) this.#start.knowPages(lookup.did, lookup.iova, 0);
  }

  #agrees(event: QemuTranslate, answer: ModelAnswer, lookup: QemuPageLookup | null): boolean {
    if (answer.faultReason !== 0) return false;
    if (BigInt(answer.frame) << 12n !== event.gpa || LEVEL_OF_MASK.get(event.mask) !== answer.level) return false;
    return lookup === null || ((lookup.slpte ^ answer.leaf) & LEAF_COMPARED) === 0n;
  }

  #disagree(event: QemuTranslate, text: string, answer: ModelAnswer | null, lookup: QemuPageLookup | null): void {
    const did = lookup?.did ?? this.memory.domainOf(event.sid);
    const faulted = answer === null || answer.faultReason !== 0;
    if (faulted && lookup?.kind !== 'pageUpdate' && this.#start.mayPredate(did, event.iova)) {
      this.#checks.beforeRecording++;
      return;
    }
    this.#checks.differ++;
    if (this.#differing.length >= this.#keepDiffering) return;
    const { file, line } = this.account;
    const model =
      answer === null || faulted
        ? `fault: ${faultReasonText(answer?.faultReason ?? 0)}`
        : `page ${hex(BigInt(answer.frame) << 12n)} level ${answer.level} leaf ${hex(answer.leaf)}`;
    const leaf = lookup === null ? '' : ` leaf ${hex(lookup.slpte)}`;
    const recorded = `page ${hex(event.gpa)} mask ${hex(event.mask)}${leaf}`;
    this.#differing.push({ file, line, text: text.slice(0, 200), recorded, model });
  }

  #invalidate(event: QemuVtdEvent): void {
    const caches = [this.#chosen.iotlb, this.#like10.iotlb, this.#like72.iotlb];
    switch (event.kind) {
      case 'invalidatePages': {
        this.#invalidations.pages++;
        const { did, address, addressMask } = event;
        this.memory.invalidatePages(did, address, addressMask);
        for (const cache of caches) cache.invalidatePages(did, high(address), low(address), addressMask);
        this.#start.knowPages(did, address, addressMask);
        return;
      }
      case 'invalidateDomain':
        this.#invalidations.domain++;
        this.memory.invalidateDomain(event.did);
        for (const cache of caches) cache.invalidateDomain(event.did);
        this.#start.knowDomain(event.did);
        return;
      case 'invalidateGlobal':
      case 'dmarEnable':
        if (event.kind === 'invalidateGlobal') this.#invalidations.global++;
        this.memory.invalidateGlobal();
        for (const cache of caches) cache.invalidateGlobal();
        this.#start.knowAll();
        return;
      case 'invalidatePasid':
      case 'invalidatePasidPages':
        this.#invalidations.pasid++;
        return;
      default:
        this.#invalidateContext(event);
    }
  }

  #invalidateContext(event: QemuVtdEvent): void {
    if (event.kind === 'contextReset') {
      this.memory.invalidateContexts();
      return;
    }
    this.#invalidations.context++;
    if (event.kind === 'contextInvalidateDomain') this.memory.invalidateContextsOfDomain(event.did);
    else if (event.kind === 'contextInvalidateDevice') this.memory.invalidateContextsOfDevices(event.sid, 0xffff);
    else if (event.kind === 'contextInvalidateDevices')
      this.memory.invalidateContextsOfDevices(event.sid, event.compared);
    else this.memory.invalidateContexts();
  }

  result(): QemuReplayResult {
    const { unit, memory, domains } = this.memory;
    this.#oddities.lookupsWithoutTranslation += this.#pending.size;
    this.#pending.clear();
    const { hits, walks } = this.#recorded;
    return {
      schema: 'faultline.replay.qemu/1',
      file: this.account.file,
      lines: this.account.snapshot(),
      ...this.#checks,
      firstDiffering: [...this.#differing],
      recorded: { ...this.#recorded, invalidations: { ...this.#invalidations } },
      oddities: { ...this.#oddities },
      model: {
        iotlb: unit.iotlb.counters.snapshot(),
        iotlbOptions: this.#options,
        walkReads: unit.walkReads,
        pagingStructureCacheHits: unit.pagingCacheHits,
        domains: domains.size,
        tablePagesPeak: memory.peak,
      },
      iotlb: {
        qemu: { lookups: hits + walks, hits },
        chosen: this.#chosen.snapshot(),
        likeQemu10: this.#like10.snapshot(),
        likeQemu72: this.#like72.snapshot(),
      },
    };
  }
}

/**
 * Feeds the recorded leaves and invalidations of a QEMU `vtd_*` log to the model and asks it for every recorded
 * translation; see {@link RecordedMemory} for what the model is told and what it has to find out.
 * @throws TraceFormatError if the input is empty, damaged gzip, or of another format
 */
export async function replayQemuLog(
  trace: TraceSource | OpenTrace,
  options: QemuReplayOptions = {},
): Promise<QemuReplayResult> {
  const open = await openAs(trace, 'qemu-vtd-log');
  const replay = new QemuReplay(open.name, options);
  for await (const batch of open.batches) {
    for (const line of batch) {
      const event = readQemuVtdLine(line, replay.account);
      if (event === null) continue;
      options.onEvent?.(event, replay.account.line);
      replay.apply(event, line);
    }
  }
  return replay.result();
}
