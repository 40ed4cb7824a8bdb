import type {
  FtraceReplayResult,
  IofdReplayResult,
  LineCounts,
  PairReplayResult,
  QemuReplayResult,
} from '@faultline/trace-formats';

/** What a replay found, of any of its kinds. */
export type ReplayResult = QemuReplayResult | FtraceReplayResult | PairReplayResult | IofdReplayResult;

/** The line counts of each file. */
export function lineCountsOf(result: ReplayResult): LineCounts[] {
  return 'crossCheck' in result ? [result.qemu.lines, result.ftrace.lines] : [result.lines];
}

/** Whether the model does all that was recorded. */
export function agrees(result: ReplayResult): boolean {
  if ('crossCheck' in result) return result.crossCheck.differ === 0 && agrees(result.qemu) && agrees(result.ftrace);
  if ('matches' in result) return result.matches && result.unmappedSizeDiffers === 0 && result.mapsRefused === 0;
  return result.differ === 0;
}
