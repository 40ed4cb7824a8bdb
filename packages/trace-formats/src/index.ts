export type {
  FtraceEvent,
  FtraceLost,
  FtraceMap,
  FtraceMark,
  FtracePageFault,
  FtraceUnmap,
} from './ftrace-iommu.ts';
export { readFtraceLine } from './ftrace-iommu.ts';
export type {
  IofdAttachEvent,
  IofdCall,
  IofdDetail,
  IofdEventTotals,
  IofdLeafCounts,
  IofdLine,
  IofdObservation,
  IofdOpen,
  IofdPagemap,
  IofdRange,
  IofdSection,
  IofdTableRow,
} from './iofd-log.ts';
export { readIofdLine } from './iofd-log.ts';
export type { LineCounts, UnknownLine } from './line-account.ts';
export { LineAccount } from './line-account.ts';
export type { OpenTrace, TraceFormat } from './open-trace.ts';
export { detectFormat, openTrace } from './open-trace.ts';
export type { ParquetOptions } from './parquet.ts';
export { writeParquet } from './parquet.ts';
export type { PerfettoOptions } from './perfetto.ts';
export { writePerfetto } from './perfetto.ts';
export type {
  QemuContextUpdate,
  QemuFault,
  QemuInvalidatePages,
  QemuPageLookup,
  QemuSimpleEvent,
  QemuTranslate,
  QemuVtdEvent,
} from './qemu-vtd-event.ts';
export { knownQemuVtdEvents, readQemuVtdLine } from './qemu-vtd-log.ts';
export type { IotlbComparison } from './replay/iotlb-comparison.ts';
export type { Difference, QemuReplayResult } from './replay/qemu-replay-result.ts';
export type { FtracePhase, FtraceReplayOptions, FtraceReplayResult, SizeCount } from './replay/replay-ftrace.ts';
export { replayFtrace } from './replay/replay-ftrace.ts';
export type { PairReplayResult } from './replay/replay-pair.ts';
export { replayPair } from './replay/replay-pair.ts';
export type { QemuReplayOptions } from './replay/replay-qemu.ts';
export { replayQemuLog } from './replay/replay-qemu.ts';
export type { IofdKernel } from './replay-iofd/iofd-recording.ts';
export type { IofdDifference, IofdReplayResult } from './replay-iofd/iofd-replay-result.ts';
export { replayIofd } from './replay-iofd/replay-iofd.ts';
export type { TraceFormatErrorCode } from './trace-format-error.ts';
export { TraceFormatError } from './trace-format-error.ts';
export type { TraceSource } from './trace-source.ts';
export { lineBatches } from './trace-source.ts';
