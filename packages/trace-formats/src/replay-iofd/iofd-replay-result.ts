import type { LineCounts } from '../line-account.ts';
import type { IofdKernel } from './iofd-recording.ts';

/** Something that the model does otherwise. */
export interface IofdDifference {
  /** 1-based: of the call, or of the line below it that says something else. */
  readonly line: number;
  /** The call, in the log's words. */
  readonly call: string;
  /** What is compared: `result`, an out-field, `map events`, `leaves`, … */
  readonly what: string;
  readonly expected: string;
  readonly got: string;
}

/** What {@link replayIofd} found. */
export interface IofdReplayResult {
  readonly schema: 'faultline.replay.iofd/1';
  readonly file: string;
  readonly lines: LineCounts;
  /** Whose behaviour the log shows, and the model was given. */
  readonly kernel: IofdKernel;
  /** Calls of the log, and what its program saw the device do; each agrees with all that stands below it, or differs. */
  readonly calls: number;
  readonly agree: number;
  readonly differ: number;
  /** Every one of them. */
  readonly differences: readonly IofdDifference[];
  /** How many of each were compared. */
  readonly compared: {
    readonly results: number;
    readonly outFields: number;
    readonly mapEvents: number;
    readonly unmapEvents: number;
    readonly attachEvents: number;
    readonly eventTotals: number;
    readonly tableRows: number;
    readonly leafCounts: number;
    readonly pagemaps: number;
  };
  /** What is in the log and was not compared. */
  readonly notCompared: {
    /** Events of other devices. */
    readonly foreignEvents: number;
    /** Totals of events among which are such. */
    readonly eventTotals: number;
    /** Calls made as a user, who cannot read the tracer. */
    readonly callsWithoutEvents: number;
  };
}
