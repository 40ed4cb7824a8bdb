import { type Agent, assert, Cost, Location, type Task } from '@faultline/sim';
import type { HostState } from '../host-state.ts';
import { Entry } from '../mm/entry-table.ts';
import type { MmState } from '../mm/mm-state.ts';
import { missingAnonymousPage } from './anonymous.ts';
import { writeProtectedPage } from './copy-on-write.ts';
import { AGAIN, entryStep, type FaultContext } from './fault-context.ts';
import { missingHugePage } from './hugetlb.ts';
import { missingFilePage, sharedFileWrite } from './shmem.ts';
import { swapIn } from './swap-in.ts';
import { waitForUserfault } from './userfault.ts';
import { VmFault } from './vm-fault.ts';

/** A fault to be handled. */
export interface FaultRequest {
  readonly page: number;
  readonly write: boolean;
  /** FAULT_FLAG_UNSHARE: a private page that others share is copied although it is only read. */
  readonly unshare?: boolean;
  /** FAULT_FLAG_ALLOW_RETRY; false if left out: RETRY and COMPLETED do not happen then. */
  readonly allowRetry?: boolean;
}

/**
 * Makes a page present with the rights that are asked for; the caller holds `mmap_lock`. In the order of Linux: no VMA or no right; nothing there
 * (userfaultfd, huge page pool, file, anonymous); swapped; on the move; poisoned; NUMA hint; write-protected.
 * @returns VM_FAULT bits; with RETRY or COMPLETED, `mmap_lock` was given back
 */
export function* handleMmFault(host: HostState, mm: MmState, agent: Agent, request: FaultRequest): Task<number> {
  const { page, write, unshare = false, allowRetry = false } = request;
  assert(mm.mmapLock.held, () => `${agent.name} handles a fault without ${mm.mmapLock.name}`);
  yield agent.reads('fault: read entry', Location.cpuEntry, mm.entryLocation(page), Cost.minorFault);
  const io = { isMajor: false };
  for (;;) {
    const vma = mm.vmas.find(page);
    if (vma === null || !vma.readable || (write && !vma.writeable)) return VmFault.SIGSEGV;
    const bits = yield* handleEntry({ host, mm, agent, vma, page, write, unshare, allowRetry, io });
    if (bits !== AGAIN) {
      // A fault that is to be tried again is counted when it is over; one without a right never comes so far (mm_account_fault).
      if ((bits & VmFault.RETRY) === 0) host.counters.pgfault++;
      if (io.isMajor) host.counters.pgmajfault++;
      return io.isMajor ? bits | VmFault.MAJOR : bits;
    }
    yield agent.reads('fault: read entry again', Location.cpuEntry, mm.entryLocation(page), Cost.entryRead);
  }
}

/** Looks at the entry as it is in this step. */
function* handleEntry(fault: FaultContext): Task<number> {
  const { mm, page, vma, write, unshare } = fault;
  const flags = mm.table.flags(page);
  if (flags === 0) return yield* missingPage(fault);
  if ((flags & Entry.SWAP) !== 0) return yield* swapIn(fault);
  if ((flags & Entry.MIGRATION) !== 0) return yield* migrationWait(fault);
  if ((flags & Entry.POISON) !== 0) return vma.shape.hugetlb ? VmFault.HWPOISON_LARGE : VmFault.HWPOISON;
  if ((flags & Entry.PROT_NONE) !== 0) return yield* numaHint(fault, flags);
  const needsOwn = unshare && !vma.shared && (flags & Entry.EXCLUSIVE) === 0;
  if (needsOwn || (write && (flags & Entry.WRITE) === 0))
    return vma.shared ? yield* sharedFileWrite(fault) : yield* writeProtectedPage(fault);
  mm.table.setFlags(page, flags | Entry.YOUNG | (write ? Entry.DIRTY | Entry.SOFT_DIRTY : 0));
  return 0;
}

/** The first access to a page that NUMA balancing has marked (do_numa_page): the entry is as before, and is looked at again. */
function* numaHint(fault: FaultContext, flags: number): Task<number> {
  const { host, mm, page } = fault;
  yield entryStep(fault, 'fault: NUMA hint');
  if (mm.table.flags(page) !== flags) return AGAIN;
  mm.table.setFlags(page, (flags & ~Entry.PROT_NONE) | Entry.YOUNG);
  host.counters.numa_hint_faults++;
  return AGAIN;
}

function* missingPage(fault: FaultContext): Task<number> {
  const { mm, vma } = fault;
  // What the OOM reaper has taken does not come back as zeros (check_stable_address_space).
  if (mm.unstable && !vma.shared) return VmFault.SIGBUS;
  if (vma.userfaultMissing) return yield* waitForUserfault(fault, false);
  if (vma.shape.hugetlb) return yield* missingHugePage(fault);
  return vma.file ? yield* missingFilePage(fault) : yield* missingAnonymousPage(fault);
}

/** Waits until the folio that is on the move is unlocked (migration_entry_wait); without a reference, which would keep it where it is. */
function* migrationWait({ host, mm, agent, page }: FaultContext): Task<number> {
  const pfn = mm.table.value(page);
  const folio = host.folios.at(pfn);
  if (folio !== 0) yield* host.locks.waitUnlocked(agent, folio, pfn);
  return AGAIN;
}
