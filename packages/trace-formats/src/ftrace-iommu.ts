import type { LineAccount } from './line-account.ts';

/** A mapping made: `iommu:map`. */
export interface FtraceMap {
  readonly kind: 'map';
  /** First byte. */
  readonly iova: bigint;
  /** First byte of the memory. */
  readonly paddr: bigint;
  /** In bytes. */
  readonly size: bigint;
}

/** A mapping taken away: `iommu:unmap`. */
export interface FtraceUnmap {
  readonly kind: 'unmap';
  readonly iova: bigint;
  /** Asked for, in bytes. */
  readonly size: bigint;
  /** Done, in bytes. */
  readonly unmappedSize: bigint;
}

/** A mark written by the workload: `tracing_mark_write`. */
export interface FtraceMark {
  readonly kind: 'mark';
  readonly text: string;
}

/** An I/O page fault as the kernel reports it: `iommu:io_page_fault`. */
export interface FtracePageFault {
  readonly kind: 'ioPageFault';
  /** Driver and device. */
  readonly device: string;
  readonly iova: bigint;
  readonly flags: number;
}

/** Events that the kernel's ring buffer lost: the recording has a hole here. */
export interface FtraceLost {
  readonly kind: 'lost';
  /** How many, or null if the kernel does not say. */
  readonly events: number | null;
}

/** An event of the ftrace text that is used here. The iommu events name neither device nor domain. */
export type FtraceEvent = FtraceMap | FtraceUnmap | FtraceMark | FtracePageFault | FtraceLost;

/** `TASK-PID (TGID) [CPU] flags seconds.us: event: text`; TGID and flags depend on the tracer's options. */
const LINE = /^\s*.*-\d+\s+(?:\([\s\d-]+\)\s+)?\[\d+\]\s+(?:\S+\s+)?\d+\.\d+: (\w+): ?(.*)$/;
const LOST = /^CPU:\s*\d+ \[LOST(?: (\d+))? EVENTS\]$/;
const WRITTEN = /^#\s*entries-in-buffer\/entries-written:\s*(\d+)\/(\d+)/;
const MAP = /^IOMMU: iova=(0x[0-9a-f]+) - (0x[0-9a-f]+) paddr=(0x[0-9a-f]+) size=(\d+)$/;
const UNMAP = /^IOMMU: iova=(0x[0-9a-f]+) - (0x[0-9a-f]+) size=(\d+) unmapped_size=(\d+)$/;
const FAULT = /^IOMMU:\s*(.*) iova=(0x[0-9a-f]+) flags=(0x[0-9a-f]+)$/;

/** Whether a line is ftrace text: its header, an event line, or a note of lost events. */
export const isFtraceLine = (line: string): boolean =>
  /^# tracer:/.test(line) || LINE.test(line) || LOST.test(line.trim());

const bigints = (fields: readonly (string | undefined)[]): bigint[] => fields.map((field) => BigInt(field ?? '0'));

/** The text of an `iommu:map` or `iommu:unmap` event; null if it is damaged. */
export function readIommuEvent(name: 'map' | 'unmap', text: string): FtraceMap | FtraceUnmap | null {
  if (name === 'map') {
    const f = MAP.exec(text);
    const [iova = 0n, end = 0n, paddr = 0n, size = 0n] = bigints(f?.slice(1) ?? []);
    return f && end - iova === size && size > 0n ? { kind: 'map', iova, paddr, size } : null;
  }
  const f = UNMAP.exec(text);
  const [iova = 0n, end = 0n, size = 0n, unmappedSize = 0n] = bigints(f?.slice(1) ?? []);
  return f && end - iova === size && size > 0n ? { kind: 'unmap', iova, size, unmappedSize } : null;
}

/** Text of an event with its name to the event; null if it is damaged, undefined if the event is not used here. */
function eventOf(name: string, text: string): FtraceEvent | null | undefined {
  switch (name) {
    case 'map':
    case 'unmap':
      return readIommuEvent(name, text);
    case 'tracing_mark_write':
      return { kind: 'mark', text };
    case 'io_page_fault': {
      const f = FAULT.exec(text);
      if (!f) return null;
      return { kind: 'ioPageFault', device: f[1] ?? '', iova: BigInt(f[2] ?? '0'), flags: Number(f[3]) };
    }
    default:
      return undefined;
  }
}

/**
 * Reads one line and books it in the account.
 * @returns the event, or null for a comment, an event of another subsystem, or a line that was not understood
 */
export function readFtraceLine(line: string, account: LineAccount): FtraceEvent | null {
  account.line++;
  const text = line.trimEnd();
  if (text === '' || text.startsWith('#')) return readComment(text, account);
  const lost = LOST.exec(text.trim());
  if (lost) {
    account.parsed++;
    return { kind: 'lost', events: lost[1] === undefined ? null : Number(lost[1]) };
  }
  const match = LINE.exec(text);
  const event = match ? eventOf(match[1] ?? '', match[2] ?? '') : null;
  if (event === undefined) account.irrelevant++;
  else if (event === null) account.addUnknown(line);
  else account.parsed++;
  return event ?? null;
}

/** The header says how many events were written and how many are left: the difference was overwritten. */
function readComment(text: string, account: LineAccount): FtraceEvent | null {
  const counts = WRITTEN.exec(text);
  const overwritten = counts ? Number(counts[2]) - Number(counts[1]) : 0;
  if (overwritten > 0) {
    account.parsed++;
    return { kind: 'lost', events: overwritten };
  }
  account.comments++;
  return null;
}
