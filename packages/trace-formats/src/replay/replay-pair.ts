import { hex } from '@faultline/address';
import type { FtraceEvent } from '../ftrace-iommu.ts';
import { type OpenTrace, openAs } from '../open-trace.ts';
import type { QemuVtdEvent } from '../qemu-vtd-event.ts';
import type { TraceSource } from '../trace-source.ts';
import { type Alignment, alignUnmaps, type PageInvalidation, type UnmapRange } from './align.ts';
import { LiveMappings } from './live-mappings.ts';
import type { Difference, QemuReplayResult } from './qemu-replay-result.ts';
import { type FtraceReplayResult, replayFtrace } from './replay-ftrace.ts';
import { type QemuReplayOptions, replayQemuLog } from './replay-qemu.ts';

/** Result of replaying a QEMU log and an ftrace of the same run and checking them against each other. */
export interface PairReplayResult {
  readonly schema: 'faultline.replay.pair/1';
  /** Of the QEMU log, as in its own result. */
  readonly translations: number;
  /** Of the model against QEMU, as in the QEMU log's own result. */
  readonly agree: number;
  /** Of the model against QEMU, as in the QEMU log's own result. */
  readonly differ: number;
  readonly qemu: QemuReplayResult;
  readonly ftrace: FtraceReplayResult;
  readonly crossCheck: {
    /**
     * `ordered`: every unmap found its invalidation, so a translation has to go to a mapping that is live at that point.
     * `unordered`: it did not (deferred flushing), so a translation only has to go to some mapping of the ftrace.
     */
    readonly kind: 'ordered' | 'unordered';
    /** Translations to a page mapped during the ftrace, at the address that its map event gives. */
    readonly agree: number;
    /** Translations that contradict the ftrace. */
    readonly differ: number;
    readonly firstDiffering: readonly Difference[];
    /** Translations to mappings made before the ftrace began (unordered: all that no map event shows). */
    readonly earlier: {
      readonly translations: number;
      /** Distinct device, page and frame. */
      readonly mappings: number;
      /** Distinct device and page. */
      readonly pages: number;
    };
    /**
     * The same without order: whether any map event of the ftrace gives this frame for this page. Counts a translation as
     * agreeing that was made before the ftrace began, if the same pair happens to be mapped again later.
     */
    readonly anyOrder: { readonly agree: number; readonly other: number; readonly otherMappings: number };
    readonly unmaps: number;
    /** Unmaps that, in order, find a page-selective invalidation that covers them. */
    readonly unmapsInvalidated: number;
    /** Unmaps for which no other alignment is possible. */
    readonly unmapsAlignedUniquely: number;
    /** Unmaps of a mapping that the ftrace does not show. */
    readonly unmapsOfEarlierMappings: number;
    /** Page-selective invalidations that belong to no unmap of the ftrace. */
    readonly otherPageInvalidations: number;
    /** Domain-selective and global invalidations. */
    readonly wideInvalidations: number;
  };
}

interface Translation {
  readonly line: number;
  readonly sid: number;
  readonly did: number;
  readonly page: number;
  readonly frame: number;
}
type QemuStep = { readonly translation: Translation } | { readonly invalidation: number };
type FtraceStep = { readonly map: UnmapRange & { readonly frame: number } } | { readonly unmap: number };

const KEPT = 10;
const pageOf = (address: bigint): number => Number(address >> 12n);
const pairKey = (page: number, frame: number): string => `${page}:${frame}`;

/** What has to be kept of both recordings, since they are aligned as a whole. */
class PairRecorder {
  readonly qemuSteps: QemuStep[] = [];
  readonly invalidations: PageInvalidation[] = [];
  readonly ftraceSteps: FtraceStep[] = [];
  readonly unmaps: UnmapRange[] = [];
  /** Domains that used a frame through a page. */
  readonly users = new Map<string, Set<number>>();
  wideInvalidations = 0;
  readonly #domainOf = new Map<number, number>();

  onQemu(event: QemuVtdEvent, line: number): void {
    switch (event.kind) {
      case 'pageUpdate':
      case 'pageHit':
        this.#domainOf.set(event.sid, event.did);
        return;
      case 'translate': {
        const did = this.#domainOf.get(event.sid) ?? -1;
        const translation = { line, sid: event.sid, did, page: pageOf(event.iova), frame: pageOf(event.gpa) };
        this.qemuSteps.push({ translation });
        const key = pairKey(translation.page, translation.frame);
        const users = this.users.get(key);
        if (users) users.add(did);
        else this.users.set(key, new Set([did]));
        return;
      }
      case 'invalidatePages':
        this.qemuSteps.push({ invalidation: this.invalidations.length });
        this.invalidations.push({ did: event.did, page: pageOf(event.address), addressMask: event.addressMask });
        return;
      case 'invalidateDomain':
      case 'invalidateGlobal':
        this.wideInvalidations++;
    }
  }

  onFtrace(event: FtraceEvent): void {
    if (event.kind === 'map') {
      const map = { page: pageOf(event.iova), pages: pageOf(event.size), frame: pageOf(event.paddr) };
      this.ftraceSteps.push({ map });
    } else if (event.kind === 'unmap') {
      this.ftraceSteps.push({ unmap: this.unmaps.length });
      this.unmaps.push({ page: pageOf(event.iova), pages: pageOf(event.size) });
    }
  }
}

/** Counts of the cross check as it runs. */
class CrossCheck {
  agree = 0;
  differ = 0;
  earlierTranslations = 0;
  unmapsOfEarlierMappings = 0;
  readonly firstDiffering: Difference[] = [];
  readonly earlierMappings = new Set<string>();
  readonly earlierPages = new Set<string>();
  readonly #file: string;

  constructor(file: string) {
    this.#file = file;
  }

  addEarlier(translation: Translation): void {
    this.earlierTranslations++;
    this.earlierPages.add(`${translation.sid}:${translation.page}`);
    this.earlierMappings.add(`${translation.sid}:${pairKey(translation.page, translation.frame)}`);
  }

  addDiffering(translation: Translation): void {
    this.differ++;
    if (this.firstDiffering.length >= KEPT) return;
    const { line, sid, did, page, frame } = translation;
    this.firstDiffering.push({
      file: this.#file,
      line,
      text: `sid ${hex(sid)} domain ${hex(did)} iova ${hex(BigInt(page) << 12n)}`,
      recorded: `page ${hex(BigInt(frame) << 12n)}`,
      model: 'no live mapping of the ftrace gives this address',
    });
  }
}

/**
 * The QEMU log sets the pace: at the invalidation of unmap k its mapping ends. Maps that the ftrace shows before unmap k+1
 * may be used before its invalidation, so they are let in one unmap ahead.
 */
function checkOrdered(recorder: PairRecorder, alignment: Alignment, check: CrossCheck): void {
  const live = new LiveMappings((page, frame) => recorder.users.get(pairKey(page, frame)));
  const unmapOf = new Map(alignment.invalidationOf.map((invalidation, unmap) => [invalidation, unmap]));
  let next = 0;
  const letIn = (lastUnmap: number): void => {
    for (; next < recorder.ftraceSteps.length; next++) {
      const step = recorder.ftraceSteps[next] as FtraceStep;
      if ('map' in step) live.add(step.map.page, step.map.pages, step.map.frame);
      else if (step.unmap >= lastUnmap) return;
    }
  };
  letIn(0);
  for (const step of recorder.qemuSteps) {
    if ('translation' in step) {
      const { translation } = step;
      const finding = live.check(translation.did, translation.page, translation.frame);
      if (finding === 'agrees') check.agree++;
      else if (finding === 'earlier') check.addEarlier(translation);
      else check.addDiffering(translation);
      continue;
    }
    const unmap = unmapOf.get(step.invalidation);
    if (unmap === undefined) continue;
    const { did } = recorder.invalidations[step.invalidation] as PageInvalidation;
    const range = recorder.unmaps[unmap] as UnmapRange;
    if (!live.remove(did, range.page, range.pages)) check.unmapsOfEarlierMappings++;
    letIn(unmap + 1);
  }
}

/** Whether any map event gives the frame of a translation for its page. */
function checkAnyOrder(recorder: PairRecorder, check: CrossCheck): void {
  const mapped = new Set<string>();
  for (const step of recorder.ftraceSteps) {
    if (!('map' in step)) continue;
    const { page, pages, frame } = step.map;
    for (let offset = 0; offset < pages; offset++) mapped.add(pairKey(page + offset, frame + offset));
  }
  for (const step of recorder.qemuSteps) {
    if (!('translation' in step)) continue;
    const { translation } = step;
    if (mapped.has(pairKey(translation.page, translation.frame))) check.agree++;
    else check.addEarlier(translation);
  }
}

/**
 * Replays both recordings of one run by themselves, aligns them by order (their clocks are not tied) and checks every
 * translation of the QEMU log against the mappings of the ftrace. Keeps a few numbers for each event of both.
 * @throws TraceFormatError if an input is empty, damaged gzip, or of another format
 */
export async function replayPair(
  qemu: TraceSource | OpenTrace,
  ftrace: TraceSource | OpenTrace,
  options: Omit<QemuReplayOptions, 'onEvent'> = {},
): Promise<PairReplayResult> {
  const recorder = new PairRecorder();
  const openFtrace = await openAs(ftrace, 'ftrace');
  const ftraceResult = await replayFtrace(openFtrace, { onEvent: (event) => recorder.onFtrace(event) });
  const qemuResult = await replayQemuLog(qemu, {
    ...options,
    onEvent: (event, line) => recorder.onQemu(event, line),
  });
  const alignment = alignUnmaps(recorder.unmaps, recorder.invalidations);
  const ordered = alignment.matched === recorder.unmaps.length;
  const anyOrder = new CrossCheck(qemuResult.file);
  checkAnyOrder(recorder, anyOrder);
  const check = ordered ? new CrossCheck(qemuResult.file) : anyOrder;
  if (ordered) checkOrdered(recorder, alignment, check);
  const { translations, agree, differ } = qemuResult;
  return {
    schema: 'faultline.replay.pair/1',
    translations,
    agree,
    differ,
    qemu: qemuResult,
    ftrace: ftraceResult,
    crossCheck: {
      kind: ordered ? 'ordered' : 'unordered',
      agree: check.agree,
      differ: check.differ,
      firstDiffering: check.firstDiffering,
      earlier: {
        translations: check.earlierTranslations,
        mappings: check.earlierMappings.size,
        pages: check.earlierPages.size,
      },
      anyOrder: {
        agree: anyOrder.agree,
        other: anyOrder.earlierTranslations,
        otherMappings: anyOrder.earlierMappings.size,
      },
      unmaps: recorder.unmaps.length,
      unmapsInvalidated: alignment.matched,
      unmapsAlignedUniquely: alignment.unique,
      unmapsOfEarlierMappings: check.unmapsOfEarlierMappings,
      otherPageInvalidations: recorder.invalidations.length - alignment.matched,
      wideInvalidations: recorder.wideInvalidations,
    },
  };
}
