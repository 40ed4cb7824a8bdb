import { type Agent, assert, Cost, Location, type RwSemaphore, type Task } from '@faultline/sim';
import { type CollapseLimits, type CollapseOutcome, collapseRange } from '../action/collapse.ts';
import { forkSpace } from '../action/fork.ts';
import { scanForHugePages } from '../action/khugepaged.ts';
import { advise, type MadviseAdvice, pageOutPage } from '../action/madvise.ts';
import { type MmapRequest, mapMemory } from '../action/mmap.ts';
import { type Protection, protectMemory } from '../action/mprotect.ts';
import { exitSpace, moveMapping, unmapMemory } from '../action/munmap.ts';
import { changeProtNuma } from '../action/numa-hint.ts';
import { oomReap } from '../action/oom-reap.ts';
import { populate } from '../action/populate.ts';
import { clearSoftDirty, isSoftDirty } from '../action/soft-dirty.ts';
import { Userfaultfd } from '../action/userfaultfd.ts';
import { checkPageRange } from '../argument.ts';
import { handleMmFault } from '../fault/handle-mm-fault.ts';
import { type HmmRange, hmmRangeFault } from '../fault/hmm.ts';
import { pinnedRuns, pinRange, pinUserPages, unpinRange, unpinUserPages } from '../fault/pin.ts';
import { VM_FAULT_ERROR, VmFault } from '../fault/vm-fault.ts';
import { FolioFlag } from '../folio/folio-table.ts';
import type { PageContent } from '../frame/page-content.ts';
import type { HostState } from '../host-state.ts';
import type { MmuNotifier, NotifierRange } from '../notifier/mmu-notifier.ts';
import type { MemoryCgroup } from '../reclaim/memory-cgroup.ts';
import { contentAt } from './content-at.ts';
import { contiguousRun, type PageBounds, type PageRun } from './contiguous-run.ts';
import { Entry } from './entry-table.ts';
import type { MmState } from './mm-state.ts';
import type { VmaView } from './vma.ts';

const BYTES_PER_FRAME = 4096;

/**
 * An address space of the host: one process's mappings, its CPU page table, its pins and its notifiers. Made by
 * `HostMemory.createAddressSpace`. Pages are numbers (Hva >> 12, below 2^45), frames are numbers below
 * 2^31; plain methods read or change state at once and belong to the caller's step.
 */
export class AddressSpace {
  readonly #host: HostState;
  readonly #mm: MmState;

  /** @internal */
  constructor(host: HostState, mm: MmState) {
    this.#host = host;
    this.#mm = mm;
  }

  /** What the actions of the host work on. @internal */
  get state(): MmState {
    return this.#mm;
  }

  get name(): string {
    return this.#mm.name;
  }

  /** The cgroup that its memory is charged to. */
  get memcg(): MemoryCgroup {
    return this.#mm.memcg;
  }

  /** Guards the mappings. Tasks of this class take it themselves, except {@link handleMmFault} and {@link hmmRangeFault}. */
  get mmapLock(): RwSemaphore {
    return this.#mm.mmapLock;
  }

  /** The mappings, sorted by page. */
  get vmas(): readonly VmaView[] {
    return this.#mm.vmas.all.map((vma) => vma.view());
  }

  /** Bytes of frames that the CPU page table maps (RSS). O(1). */
  get residentBytes(): number {
    return this.#mm.residentFrames * BYTES_PER_FRAME;
  }

  /** Bytes of anonymous memory that large leaves map (AnonHugePages). O(1). */
  get anonHugeBytes(): number {
    return this.#mm.anonHugeFrames * BYTES_PER_FRAME;
  }

  /** Bytes of pages that have a swap entry. O(1). */
  get swappedBytes(): number {
    return this.#mm.swappedPages * BYTES_PER_FRAME;
  }

  /** Bytes of folios that it has pinned, which reclaim cannot take: a pinned page of a 1G folio counts 1G. O(1). */
  get pinnedBytes(): number {
    return this.#mm.pinnedFrames * BYTES_PER_FRAME;
  }

  /** Bytes that pin calls asked for, each call on its own, as `RLIMIT_MEMLOCK` accounting sees them. O(1). */
  get accountedPinBytes(): number {
    return this.#mm.accountedPinPages * BYTES_PER_FRAME;
  }

  /** Notifier ranges between start and end. */
  get invalidationsInProgress(): number {
    return this.#mm.notifiers.inProgress;
  }

  /** Where steps of this address space's notifier sequence are, within `Location.notifierSequence`. */
  get notifierLocation(): number {
    return this.#mm.id;
  }

  /**
   * Where a step that looks a page up (or changes its entry) is, within `Location.cpuEntry`. Callers that announce a
   * {@link lookup} or {@link contiguousRun} name this location, so that a scheduler sees the conflict with reclaim.
   */
  entryLocation(page: number): number {
    return this.#mm.entryLocation(page);
  }

  /**
   * Maps memory; nothing is resident yet.
   * @throws RangeError naming the argument that is not aligned to the backing, overlaps a mapping or leaves 57 bits;
   * HostMemoryError ENOMEM when the huge page pool has too few pages
   */
  mmap(request: MmapRequest): void {
    mapMemory(this.#host, this.#mm, request);
  }

  /** Unmaps a range, whatever is mapped there: fires UNMAP over each mapping's part. Frames that are pinned live on. */
  munmap(agent: Agent, startPage: number, pages: number): Task<void> {
    checkPageRange({ startPage, pages });
    return unmapMemory(this.#host, this.#mm, agent, { startPage, pages });
  }

  /** Moves a whole mapping to other addresses (mremap with MREMAP_MAYMOVE): fires UNMAP over the old ones. */
  mremap(agent: Agent, startPage: number, toPage: number): Task<void> {
    return moveMapping(this.#host, this.#mm, agent, startPage, toPage);
  }

  /** mprotect; fires PROTECTION_VMA over each mapping's part in which anything is. @throws HostMemoryError ENOMEM at a hole */
  mprotect(agent: Agent, startPage: number, pages: number, protection: Protection): Task<void> {
    checkPageRange({ startPage, pages });
    return protectMemory(this.#host, this.#mm, agent, { startPage, pages }, protection);
  }

  /** A child that shares all memory until one writes: fires PROTECTION_PAGE (hugetlb: CLEAR) over each private mapping. @throws HostMemoryError ENOMEM */
  *fork(agent: Agent, name: string): Task<AddressSpace> {
    assert(!this.#mm.exited, () => `${this.name}: the address space forks after its exit`);
    return new AddressSpace(this.#host, yield* forkSpace(this.#host, this.#mm, agent, name));
  }

  /** NUMA balancing: has the next access to each page fault once; fires as {@link mprotect}. @returns pages marked */
  changeProtNuma(agent: Agent, startPage: number, pages: number): Task<number> {
    checkPageRange({ startPage, pages });
    return changeProtNuma(this.#host, this.#mm, agent, { startPage, pages });
  }

  /** Forgets which pages were written to (4 to clear_refs), write-protecting them: fires SOFT_DIRTY over the whole address space. */
  clearSoftDirty(agent: Agent): Task<void> {
    return clearSoftDirty(this.#host, this.#mm, agent);
  }

  /** Whether the page was written to since {@link clearSoftDirty}, or mapped. */
  softDirty(page: number): boolean {
    return isSoftDirty(this.#mm, page);
  }

  /** Its userfaultfd, on which faults are handled by somebody else; one for each address space. */
  userfaultfd(): Userfaultfd {
    return new Userfaultfd(this.#host, this.#mm);
  }

  /** Gives advice about a range (madvise); what each does and fires is said at {@link MadviseAdvice}. */
  madvise(agent: Agent, startPage: number, pages: number, advice: MadviseAdvice): Task<void> {
    checkPageRange({ startPage, pages });
    return advise(this.#host, this.#mm, agent, { startPage, pages }, advice);
  }

  /** MADV_DONTNEED: drops the content of a range. */
  madviseDontNeed(agent: Agent, startPage: number, pages: number): Task<void> {
    return this.madvise(agent, startPage, pages, 'DONTNEED');
  }

  /** MADV_COLLAPSE of the 2M that hold the page, whatever limits khugepaged has. Fires CLEAR over the 2M if it comes that far. */
  collapse(agent: Agent, page: number): Task<CollapseOutcome> {
    checkPageRange({ startPage: page, pages: 1 });
    return collapseRange(this.#host, this.#mm, agent, page, null);
  }

  /** One pass of khugepaged over the address space. @returns 2M ranges collapsed @throws RangeError for a limit outside 0..511 */
  khugepaged(agent: Agent, limits: CollapseLimits = {}): Task<number> {
    return scanForHugePages(this.#host, this.#mm, agent, limits);
  }

  /** The OOM reaper: frees private memory in ranges that are not blockable. @returns false if a notifier's EAGAIN left some */
  oomReap(agent: Agent): Task<boolean> {
    return oomReap(this.#host, this.#mm, agent);
  }

  /**
   * MADV_PAGEOUT of one page, young or not: splits its folio down to the page and swaps that out.
   * @returns whether its frame was freed; false if it is not present, pinned, already being reclaimed, or swap is full
   */
  pageOut(agent: Agent, page: number): Task<boolean> {
    checkPageRange({ startPage: page, pages: 1 });
    return pageOutPage(this.#host, this.#mm, agent, page);
  }

  /**
   * Faults a range in with the largest folios of its backing that fit, one step a folio, like MAP_POPULATE before the
   * run proper: zeroing of anonymous folios is not charged.
   * @throws HostMemoryError ENOMEM when frames run out and reclaim frees none; RangeError outside the mappings
   */
  populate(agent: Agent, startPage: number, pages: number): Task<void> {
    checkPageRange({ startPage, pages });
    return populate(this.#host, this.#mm, agent, { startPage, pages });
  }

  /**
   * Makes a page present with the right asked for. The caller holds `mmapLock` for reading (asserted: held by somebody), looks the page
   * up again afterwards and guards that with {@link notifierReadRetry}, as in Linux.
   * @param access `allowRetry`: the handler may give `mmapLock` back instead of waiting with it, and says so by RETRY (try again) or
   * COMPLETED (done)
   * @returns {@link VmFault} bits: 0 minor, MAJOR after swap I/O, RETRY, COMPLETED, or an error
   */
  handleMmFault(
    agent: Agent,
    page: number,
    access: { readonly write: boolean; readonly allowRetry?: boolean },
  ): Task<number> {
    checkPageRange({ startPage: page, pages: 1 });
    return handleMmFault(this.#host, this.#mm, agent, { page, ...access });
  }

  /** Fills a range of pages with what is mapped there, faulting as asked (hmm_range_fault); see {@link HmmRange} for errors. */
  hmmRangeFault(agent: Agent, range: HmmRange): Task<void> {
    checkPageRange(range);
    return hmmRangeFault(this.#host, this.#mm, agent, range);
  }

  /** The frame that the CPU page table maps at the page, or -1. Allocates nothing. */
  lookup(page: number): number {
    return this.#mm.table.pfn(page);
  }

  /** Whether the page is present and the CPU may read it without a fault: not so after mprotect(PROT_NONE) or a NUMA hint. */
  isReadable(page: number): boolean {
    return (this.#mm.table.flags(page) & (Entry.PRESENT | Entry.PROT_NONE)) === Entry.PRESENT;
  }

  /** Whether the page is present and the CPU may write to it without a fault. */
  isWriteable(page: number): boolean {
    const wanted = Entry.PRESENT | Entry.WRITE;
    return (this.#mm.table.flags(page) & (wanted | Entry.PROT_NONE)) === wanted;
  }

  /** Pages of the CPU leaf that maps the page: 1, 512 or 262,144; 0 if it is not present. */
  leafPages(page: number): number {
    return this.lookup(page) < 0 ? 0 : 1 << this.#mm.table.level(page);
  }

  /** Whether the page has a swap entry. */
  isSwapped(page: number): boolean {
    return (this.#mm.table.flags(page) & Entry.SWAP) !== 0;
  }

  /**
   * Fills `out` with the longest run of present, physically contiguous pages around `page` within
   * `firstPage`..`lastPage` (inclusive) and within its aligned 1G block: what a secondary MMU may map in one go. Costs
   * O(entries visited), at most one 1G table.
   * @param write only pages that may be written to without a fault, as whoever maps them writeable needs
   * @returns whether the page is present; if not, `out` has 0 pages and pfn -1
   */
  contiguousRun(page: number, firstPage: number, lastPage: number, out: PageRun, write = false): boolean {
    const bounds: PageBounds = { firstPage, lastPage, write };
    return contiguousRun(this.#mm.table, page, bounds, out);
  }

  /**
   * Says that a secondary MMU now may write to the pages: reclaim takes their copies in swap for old (as KVM does, which marks a page
   * dirty when it maps it writeable). Part of the caller's step.
   */
  markDirty(startPage: number, pages: number): void {
    const { table } = this.#mm;
    const { folios } = this.#host;
    for (let page = startPage; page < startPage + pages; page = table.end(page)) {
      const pfn = table.pfn(page);
      if (pfn >= 0) folios.setFlag(folios.at(pfn), FolioFlag.dirty, true);
    }
  }

  /**
   * Long-term pins (FOLL_PIN|FOLL_LONGTERM) a range, one step a leaf; missing pages are faulted in, shared private ones copied.
   * Pinned folios are never reclaimed. @param write FOLL_WRITE, true if left out; false for memory that is only read
   * @throws HostMemoryError ENOMEM, EFAULT or EHWPOISON, with nothing pinned
   */
  *pin(agent: Agent, startPage: number, pages: number, write = true): Task<void> {
    checkPageRange({ startPage, pages });
    yield* this.mmapLock.acquireRead(agent);
    try {
      yield* pinRange(this.#host, this.#mm, agent, { startPage, pages, write });
    } finally {
      this.mmapLock.releaseRead(agent);
    }
  }

  /**
   * The frames that the last {@link pin} of exactly this range holds, as one run for each leaf: what a pinner maps,
   * since a {@link lookup} finds another frame after MADV_DONTNEED and a new fault. @throws RangeError if there is none
   */
  pinnedRuns(startPage: number, pages: number): PageRun[] {
    return pinnedRuns(this.#mm, { startPage, pages });
  }

  /**
   * Undoes one {@link pin} of exactly this range, the newest: two pins of one range are told apart by nothing.
   * Also works after {@link exit}. @throws RangeError if there is none
   */
  unpin(agent: Agent, startPage: number, pages: number): Task<void> {
    return unpinRange(this.#host, this.#mm, agent, { startPage, pages });
  }

  /**
   * Pins as {@link pin} does, for a caller who keeps the frames himself and gives them back by {@link unpinUserPages}, all or in part.
   * @returns the frames, one run for each leaf, in order
   * @throws HostMemoryError ENOMEM, EFAULT or EHWPOISON, with nothing pinned
   */
  *pinUserPages(agent: Agent, startPage: number, pages: number, write: boolean): Task<PageRun[]> {
    checkPageRange({ startPage, pages });
    yield* this.mmapLock.acquireRead(agent);
    try {
      return yield* pinUserPages(this.#host, this.#mm, agent, { startPage, pages, write });
    } finally {
      this.mmapLock.releaseRead(agent);
    }
  }

  /** Gives frames of {@link pinUserPages} back, each run within one that it returned. Also works after {@link exit}. */
  unpinUserPages(agent: Agent, runs: readonly PageRun[]): Task<void> {
    return unpinUserPages(this.#host, this.#mm, agent, runs);
  }

  /**
   * The process's CPU touches a page: faults if it must (under `mmapLock`), sets the accessed and dirty bits and, for a write, the
   * content's tag; the access itself is atomic with the look-up, as a TLB shootdown makes it in hardware.
   * @param access the tag's int32 halves are ignored for a read
   * @returns the {@link VmFault} bits of its faults; 0 if there was none. With an error bit nothing was written.
   */
  *cpuAccess(
    agent: Agent,
    page: number,
    access: { readonly write: boolean; readonly tagLo: number; readonly tagHi: number },
  ): Task<number> {
    checkPageRange({ startPage: page, pages: 1 });
    let bits = 0;
    for (;;) {
      const mode = access.write ? 'CPU write' : 'CPU read';
      yield agent.reads(mode, Location.cpuEntry, this.entryLocation(page), Cost.entryRead);
      const flags = this.#mm.table.flags(page);
      const needs = Entry.PRESENT | (access.write ? Entry.WRITE : 0);
      if ((flags & (needs | Entry.PROT_NONE)) === needs) {
        this.#mm.table.setFlags(page, flags | Entry.YOUNG | (access.write ? Entry.DIRTY | Entry.SOFT_DIRTY : 0));
        if (access.write) this.#host.memory.writeTag(this.lookup(page), access.tagLo, access.tagHi);
        return bits;
      }
      bits |= yield* this.#cpuFault(agent, page, access.write);
      if ((bits & VM_FAULT_ERROR) !== 0) return bits & ~(VmFault.RETRY | VmFault.COMPLETED);
      bits &= ~(VmFault.RETRY | VmFault.COMPLETED);
    }
  }

  *#cpuFault(agent: Agent, page: number, write: boolean): Task<number> {
    yield* this.mmapLock.acquireRead(agent);
    let bits: number = VmFault.RETRY;
    try {
      bits = 0;
      bits = yield* handleMmFault(this.#host, this.#mm, agent, { page, write, allowRetry: true });
    } finally {
      if ((bits & (VmFault.RETRY | VmFault.COMPLETED)) === 0) this.mmapLock.releaseRead(agent);
    }
    return bits;
  }

  /** A page's content wherever it is: frame, swap cache or slot; zeros where nothing is. For checks: touches nothing. */
  cpuRead(page: number): PageContent {
    return contentAt(this.#host, this.#mm, page);
  }

  /** Sets the accessed bit of the entry that maps the page, if it is present. Part of the caller's step. */
  markYoung(page: number): void {
    const flags = this.#mm.table.flags(page);
    if ((flags & Entry.PRESENT) !== 0) this.#mm.table.setFlags(page, flags | Entry.YOUNG);
  }

  /** Subscribes to invalidations, from the next range on. @throws RangeError if it is subscribed, or after exit */
  registerNotifier(notifier: MmuNotifier): void {
    if (this.#mm.exited) throw new RangeError(`${this.name}: the address space has exited`);
    this.#mm.notifiers.register(notifier);
  }

  /** Ends a subscription; ends of ranges whose start it heard still come. @throws RangeError if there is none */
  unregisterNotifier(notifier: MmuNotifier): void {
    this.#mm.notifiers.unregister(notifier);
  }

  /** Opens a notifier range: what a change of mappings made outside this package must do first. @returns false for EAGAIN */
  invalidateRangeStart(agent: Agent, range: NotifierRange): Task<boolean> {
    checkPageRange(range);
    return this.#mm.notifiers.start(agent, range);
  }

  /** Closes the range opened with the same object. */
  invalidateRangeEnd(agent: Agent, range: NotifierRange): Task<void> {
    return this.#mm.notifiers.end(agent, range);
  }

  /** Before a look-up of `pages` pages: waits while a range that overlaps them is in progress. @returns the sequence to check with */
  notifierReadBegin(agent: Agent, page: number, pages = 1): Task<number> {
    return this.#mm.notifiers.readBegin(agent, page, pages);
  }

  /**
   * After the look-up, under the lock that the notifier takes too: whether what was found for these pages may be stale, so
   * start over. Everything that is going to be mapped must be within the pages asked for. The caller announces the read of
   * {@link notifierLocation}.
   */
  notifierReadRetry(page: number, sequence: number, pages = 1): boolean {
    return this.#mm.notifiers.readRetry(page, pages, sequence);
  }

  /** Notifiers of parts of the address space, with their sequence (mmu_interval_notifier_insert, _read_begin, _read_retry, _set_seq). */
  get intervals(): Pick<
    MmState['notifiers']['intervals'],
    'insert' | 'remove' | 'readBegin' | 'readRetry' | 'setSequence' | 'sequence'
  > {
    return this.#mm.notifiers.intervals;
  }

  /** The end of the process: releases the notifiers, unmaps and frees everything. Pinned frames live until unpinned. */
  exit(agent: Agent): Task<void> {
    assert(!this.#mm.exited, () => `${this.name}: the address space exits twice`);
    return exitSpace(this.#host, this.#mm, agent);
  }
}
