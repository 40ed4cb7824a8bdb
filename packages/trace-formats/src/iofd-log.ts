import { type FtraceMap, type FtraceUnmap, readIommuEvent } from './ftrace-iommu.ts';
import type { LineAccount } from './line-account.ts';

/** Inclusive range of IOVAs. */
export interface IofdRange {
  readonly start: bigint;
  readonly last: bigint;
}

/** `open iommu=3 vfio cdev=4 errno=0`: the program has its descriptors. */
export interface IofdOpen {
  readonly kind: 'open';
  readonly iommuFd: number;
  readonly deviceFd: number;
}

/** `## text`: a part of the program begins. */
export interface IofdSection {
  readonly kind: 'section';
  readonly text: string;
}

/** `CALL arguments -> result out-fields`: a system call. */
export interface IofdCall {
  readonly kind: 'call';
  /** What stands before the arguments: the call's name, and what the program says of it. */
  readonly text: string;
  /** Of MAP and UNMAP, by the log's names: `va%2M`, `len`, `iova`, `fl`. */
  readonly arguments: Readonly<Record<string, bigint>>;
  /** `0`, or an errno's name. */
  readonly result: string;
  /** The out-fields as they are written: `num`, `iova_out`, `length_out`, `pt_id_out`, … */
  readonly out: Readonly<Record<string, string>>;
  /** Ranges of an IOVA_RANGES. */
  readonly ranges: readonly IofdRange[];
}

/** `edu copied: 1122334455667788`: what the program saw the device do. */
export interface IofdObservation {
  readonly kind: 'observation';
  readonly text: string;
  readonly value: bigint;
}

/** `ftraceIOMMU: device=…`: a domain was attached to the device. */
export interface IofdAttachEvent {
  readonly kind: 'attachEvent';
  readonly device: string;
}

/** `ftrace ... total map=12 unmap=2`: more events than were written down; all of them are counted. */
export interface IofdEventTotals {
  readonly kind: 'eventTotals';
  readonly maps: number;
  readonly unmaps: number;
}

/** `pt IOVA_PFN=… PML4E=… PDPE=… PDE=… PTE=…`: a row of the kernel's dump of the page table; 0 where the walk ended before. */
export interface IofdTableRow {
  readonly kind: 'tableRow';
  readonly page: number;
  /** From PML4E to PTE. */
  readonly entries: readonly bigint[];
}

/** `pt leaves in [a,b]: 4K=1 2M=1 1G=0`. */
export interface IofdLeafCounts {
  readonly kind: 'leafCounts';
  readonly start: bigint;
  readonly last: bigint;
  readonly leaves: Readonly<Record<'4K' | '2M' | '1G', number>>;
}

/** `pagemap pinned: present=512 swapped=0 of 512`. */
export interface IofdPagemap {
  readonly kind: 'pagemap';
  readonly text: string;
  readonly present: number;
  readonly swapped: number;
  readonly pages: number;
}

/** What a call or observation is followed by. */
export type IofdDetail =
  | FtraceMap
  | FtraceUnmap
  | IofdAttachEvent
  | IofdEventTotals
  | IofdTableRow
  | IofdLeafCounts
  | IofdPagemap;

/** One line of the log of a program that makes iommufd calls and prints what each did. */
export type IofdLine = IofdOpen | IofdSection | IofdCall | IofdObservation | IofdDetail;

const CALL_NAMES =
  'VFIO (?:ATTACH|BIND|DETACH)|IOAS_ALLOC|IOVA_RANGES|GET_HW_INFO|MAP|UNMAP|COPY|DESTROY|OPTION|HWPT_ALLOC|FAULT_QUEUE_ALLOC|ALLOW_IOVAS|MADV_[A-Z]+|munmap|unknown command';
const KNOWN_CALL = new RegExp(`^(?:${CALL_NAMES})\\b.* -> (?:0|E[A-Z0-9]+)\\b`);
const OPEN = /^open iommu=(\d+) vfio cdev=(\d+) errno=0$/;
const CALL = /^(\S.*?)\s*-> (0|E[A-Z0-9]+)(?:,? (.*))?$/;
const ARGUMENT = /\s(va%2M|len|iova|fl)=([0-9a-f]+)(?=\s|$)/g;
const OUT_FIELD = /(?:^|\s)([a-z_]+)=(\S+)/g;
const READS = /^now reads ([0-9a-f]+)/;
const RANGE = /\[([0-9a-f]+)-([0-9a-f]+)\]/g;
const OBSERVATION = /^(edu ident|edu copied:|.+ landed:) ([0-9a-f]+)(?: \(.*\))?$/;
const TOTALS = /^ftrace \.\.\. total map=(\d+) unmap=(\d+)$/;
const ATTACHED = /^ftraceIOMMU: device=(\S+)$/;
const EVENT = /^ftrace (map|unmap): (.*)$/;
const ROW = /^pt IOVA_PFN=0x([0-9a-f]+) PML4E=([0-9a-f]+) PDPE=([0-9a-f]+) PDE=([0-9a-f]+) PTE=([0-9a-f]+)$/;
const LEAVES = /^pt leaves in \[([0-9a-f]+),([0-9a-f]+)\]: 4K=(\d+) 2M=(\d+) 1G=(\d+)$/;
const PAGEMAP = /^pagemap (.+): present=(\d+) swapped=(\d+) of (\d+)$/;

/** Whether a line is of such a log: its first line, or a call that is known by name. */
export const isIofdLine = (line: string): boolean => OPEN.test(line) || KNOWN_CALL.test(line);

const U64_MAX = (1n << 64n) - 1n;
const BYTES_2M = 1n << 21n;

const hexadecimal = (text: string | undefined): bigint => BigInt(`0x${text ?? '0'}`);

function readCall(text: string): IofdCall | null {
  const found = CALL.exec(text);
  if (!found) return null;
  const [, before = '', result = '', after = ''] = found;
  const call: Record<string, bigint> = {};
  for (const [, name = '', value] of before.matchAll(ARGUMENT)) call[name] = hexadecimal(value);
  if (Object.values(call).some((value) => value > U64_MAX) || (call['va%2M'] ?? 0n) >= BYTES_2M) return null;
  const out: Record<string, string> = {};
  for (const [, name = '', value = ''] of after.matchAll(OUT_FIELD)) out[name] = value;
  const reads = READS.exec(after);
  if (reads) out.reads = reads[1] ?? '';
  const ranges = [...after.matchAll(RANGE)].map(([, start, last]) => ({
    start: hexadecimal(start),
    last: hexadecimal(last),
  }));
  return { kind: 'call', text: before.replaceAll(ARGUMENT, '').trim(), arguments: call, result, out, ranges };
}

/** An indented line: what followed from the call above it. */
function readDetail(text: string): IofdDetail | null {
  const event = EVENT.exec(text);
  if (event) return readIommuEvent(event[1] === 'map' ? 'map' : 'unmap', event[2] ?? '');
  const attached = ATTACHED.exec(text);
  if (attached) return { kind: 'attachEvent', device: attached[1] ?? '' };
  const totals = TOTALS.exec(text);
  if (totals) return { kind: 'eventTotals', maps: Number(totals[1]), unmaps: Number(totals[2]) };
  const row = ROW.exec(text);
  if (row) return { kind: 'tableRow', page: Number(hexadecimal(row[1])), entries: row.slice(2).map(hexadecimal) };
  const counted = LEAVES.exec(text);
  if (counted) {
    const leaves = { '4K': Number(counted[3]), '2M': Number(counted[4]), '1G': Number(counted[5]) };
    return { kind: 'leafCounts', start: hexadecimal(counted[1]), last: hexadecimal(counted[2]), leaves };
  }
  const pages = PAGEMAP.exec(text);
  if (!pages) return null;
  const [present, swapped, all] = [Number(pages[2]), Number(pages[3]), Number(pages[4])];
  return { kind: 'pagemap', text: pages[1] ?? '', present, swapped, pages: all };
}

function readTop(text: string): IofdLine | null {
  const section = /^## (.*)$/.exec(text);
  if (section) return { kind: 'section', text: section[1] ?? '' };
  const open = OPEN.exec(text);
  if (open) return { kind: 'open', iommuFd: Number(open[1]), deviceFd: Number(open[2]) };
  const observation = OBSERVATION.exec(text);
  if (observation)
    return { kind: 'observation', text: (observation[1] ?? '').replace(/:$/, ''), value: hexadecimal(observation[2]) };
  return readCall(text);
}

/** Reads one line and books it in the account. @returns null for a blank line, or one that was not understood */
export function readIofdLine(line: string, account: LineAccount): IofdLine | null {
  account.line++;
  const text = line.trimEnd();
  if (text === '') {
    account.comments++;
    return null;
  }
  const read = /^\s/.test(text) ? readDetail(text.trimStart()) : readTop(text);
  if (read === null) account.addUnknown(line);
  else account.parsed++;
  return read;
}
