import type { IotlbCounters, IotlbOptions } from '@faultline/iotlb';
import type { LineCounts } from '../line-account.ts';
import type { IotlbComparison } from './iotlb-comparison.ts';

/** A recorded answer that the model does not give. Addresses as hexadecimal strings. */
export interface Difference {
  readonly file: string;
  /** 1-based line of the answer. */
  readonly line: number;
  readonly text: string;
  /** What was recorded: page address and page size - 1. */
  readonly recorded: string;
  /** What the model answered, or the fault that it raised. */
  readonly model: string;
}

/** Result of replaying a QEMU `vtd_*` log. All counts are of events. */
export interface QemuReplayResult {
  readonly schema: 'faultline.replay.qemu/1';
  readonly file: string;
  readonly lines: LineCounts;
  /** `vtd_dmar_translate` events: agree + differ + beforeRecording. */
  readonly translations: number;
  /** Same page address and size, and the same leaf where the log shows it. */
  readonly agree: number;
  readonly differ: number;
  /** Answered by QEMU from an entry older than the log's first line: cannot be checked. */
  readonly beforeRecording: number;
  /** The first that differ. */
  readonly firstDiffering: readonly Difference[];
  readonly recorded: {
    /** Look-ups that QEMU's IOTLB answered. */
    readonly hits: number;
    /** Look-ups that QEMU walked. */
    readonly walks: number;
    readonly faults: number;
    readonly invalidations: {
      readonly pages: number;
      readonly domain: number;
      readonly global: number;
      /** PASID-selective: counted, not modelled. */
      readonly pasid: number;
      readonly context: number;
    };
    /** Times that QEMU emptied its full IOTLB. */
    readonly iotlbResets: number;
    readonly waits: number;
  };
  /** Statements of the log about itself; each is 0 in a log of a correct guest and a correct QEMU. */
  readonly oddities: {
    /** A walk found another leaf than the last one, with no invalidation between. */
    readonly leafChangedWithoutInvalidation: number;
    /** A look-up names another domain than the device's context entry. */
    readonly otherDomain: number;
    /** Answers with no look-up before them. */
    readonly translationsWithoutLookup: number;
    /** Look-ups with no answer after them: the access was denied, or the log ended. */
    readonly lookupsWithoutTranslation: number;
    /** Leaves that cannot be mapped. */
    readonly unusableLeaves: number;
    /** Large leaves: a walk does not tell 2M from 1G, so the size came from the answer; address and leaf are checked. */
    readonly sizeFromAnswer: number;
  };
  readonly model: {
    readonly iotlb: ReturnType<IotlbCounters['snapshot']>;
    readonly iotlbOptions: IotlbOptions;
    readonly walkReads: number;
    readonly pagingStructureCacheHits: number;
    readonly domains: number;
    readonly tablePagesPeak: number;
  };
  /** The chosen geometry and QEMU's own rules against what QEMU did, look-up by look-up. */
  readonly iotlb: {
    readonly qemu: { readonly lookups: number; readonly hits: number };
    readonly chosen: IotlbComparison;
    /** 1024 entries, emptied when full, exact invalidation (QEMU 10 and later). */
    readonly likeQemu10: IotlbComparison;
    /** The same with 7.2's page mask of 8 bits. */
    readonly likeQemu72: IotlbComparison;
  };
}
