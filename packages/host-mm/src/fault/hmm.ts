import { type Agent, assert, Cost, Location, type Task } from '@faultline/sim';
import { HostMemoryError } from '../host-memory-error.ts';
import type { HostState } from '../host-state.ts';
import { Entry } from '../mm/entry-table.ts';
import type { MmState } from '../mm/mm-state.ts';
import type { MmuIntervalNotifier } from '../notifier/interval-notifier.ts';
import { handleMmFault } from './handle-mm-fault.ts';
import { faultError } from './pin.ts';
import { VM_FAULT_ERROR, VmFault } from './vm-fault.ts';

/** What is asked of, and answered for, each page: Linux's HMM_PFN bits, without the frame number in the same word. */
export const HmmPfn = {
  /** The page is present. */
  VALID: 0x1,
  /** It may be written to. */
  WRITE: 0x2,
  /** It cannot be had. */
  ERROR: 0x4,
  /** Asked for: make it present. */
  REQ_FAULT: 0x1,
  /** Asked for: make it writeable. */
  REQ_WRITE: 0x2,
} as const;

const BROKEN = VmFault.HWPOISON | VmFault.HWPOISON_LARGE;

/** A look-up of a range of pages under way (struct hmm_range). */
export interface HmmRange {
  readonly startPage: number;
  readonly pages: number;
  /** Whose sequence guards it: an interval that holds the range. */
  readonly notifier: MmuIntervalNotifier;
  /** From `intervalReadBegin`. */
  readonly sequence: number;
  /** `HmmPfn.REQ_` bits that hold for every page; 0 looks only. */
  readonly defaultFlags: number;
  /** Filled: the frame of each page, or -1. At least `pages` long. */
  readonly pfns: Int32Array;
  /** Filled: `HmmPfn` bits of each page. */
  readonly flags: Uint8Array;
  /** Filled: log2 of the pages of the CPU leaf that maps each page. */
  readonly orders: Uint8Array;
}

/**
 * Fills a range with what the CPU page table maps, faulting as asked (hmm_range_fault). The caller holds `mmap_lock` and checks the
 * interval's sequence afterwards under its own lock. @throws HostMemoryError EBUSY when the interval is invalidated meanwhile (start
 * over), EFAULT outside mappings or when backing fails, EPERM for a write to memory that is read-only, ENOMEM
 */
export function* hmmRangeFault(host: HostState, mm: MmState, agent: Agent, range: HmmRange): Task<void> {
  assert(mm.mmapLock.held, () => `${agent.name} looks pages up without ${mm.mmapLock.name}`);
  const { intervals } = mm.notifiers;
  for (let i = 0; i < range.pages; ) {
    const page = range.startPage + i;
    yield agent.reads('hmm: read entry', Location.cpuEntry, mm.entryLocation(page), Cost.entryRead);
    if (intervals.readRetry(range.notifier, range.sequence))
      throw new HostMemoryError('EBUSY', page, 'hmm_range_fault: the range was invalidated meanwhile');
    const vma = mm.vmas.find(page);
    const wantsWrite = (range.defaultFlags & HmmPfn.REQ_WRITE) !== 0;
    const wants = range.defaultFlags !== 0;
    if (vma === null || !vma.readable) {
      if (wants) throw faultError(VmFault.SIGSEGV, page, 'hmm_range_fault');
      fill(range, i++, -1, HmmPfn.ERROR, 0);
      continue;
    }
    if (wantsWrite && !vma.writeable)
      throw new HostMemoryError('EPERM', page, 'hmm_range_fault: the memory is read-only');
    const flags = mm.table.flags(page);
    const isUsable = (flags & Entry.PRESENT) !== 0 && (flags & Entry.PROT_NONE) === 0;
    const mayWrite = (flags & Entry.WRITE) !== 0;
    if (wants && (!isUsable || (wantsWrite && !mayWrite))) {
      const bits = yield* handleMmFault(host, mm, agent, { page, write: wantsWrite });
      // Broken memory is EFAULT here, as anything but OOM.
      if ((bits & VM_FAULT_ERROR) !== 0)
        throw faultError((bits & BROKEN) !== 0 ? VmFault.SIGBUS : bits, page, 'hmm_range_fault');
      continue;
    }
    i = fillLeaf(range, i, mm, { isUsable, mayWrite });
  }
}

/** Fills what one leaf, or one hole, covers of the range. @returns the index after it */
function fillLeaf(range: HmmRange, from: number, mm: MmState, is: { isUsable: boolean; mayWrite: boolean }): number {
  const { table } = mm;
  const page = range.startPage + from;
  const order = table.level(page);
  const end = Math.min(range.pages, from + (table.end(page) - page), from + (mm.vmas.find(page)?.endPage ?? 0) - page);
  const pfn = is.isUsable ? table.pfn(page) : -1;
  const flags = is.isUsable ? HmmPfn.VALID | (is.mayWrite ? HmmPfn.WRITE : 0) : 0;
  for (let i = from; i < end; i++) fill(range, i, pfn < 0 ? -1 : pfn + (i - from), flags, is.isUsable ? order : 0);
  return end;
}

function fill(range: HmmRange, i: number, pfn: number, flags: number, order: number): void {
  range.pfns[i] = pfn;
  range.flags[i] = flags;
  range.orders[i] = order;
}
