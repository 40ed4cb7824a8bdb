import { hex, type PageSize } from '@faultline/address';
import { type Agent, assert, Cost, Location, type RwSemaphore, type Task } from '@faultline/sim';
import { checkPageRange } from '../argument.ts';
import { faultIn, prefault } from '../fault/fault.ts';
import { faultError, pinnedRuns, pinRange, unpinRange } from '../fault/pin.ts';
import { VM_FAULT_ERROR } from '../fault/vm-fault.ts';
import { framesOf } from '../folio/folio-order.ts';
import type { PageContent } from '../frame/page-content.ts';
import type { HostState } from '../host-state.ts';
import { type MmuNotifier, NotifierEvent, type NotifierRange } from '../notifier/mmu-notifier.ts';
import { shrinkFolio } from '../reclaim/reclaim.ts';
import { contiguousRun, type PageBounds, type PageRun } from './contiguous-run.ts';
import { slotOf } from './cpu-page-table.ts';
import type { MmState } from './mm-state.ts';
import type { Vma } from './vma-list.ts';
import { zapRange } from './zap.ts';

const BYTES_PER_FRAME = 4096;
const ZERO_PAGE: PageContent = { tagLo: 0, tagHi: 0, words: null };

/**
 * An address space of the host: one process's mappings of anonymous memory, its CPU page table, its pins and its
 * notifiers. Made by `HostMemory.createAddressSpace`. Pages are numbers (Hva >> 12, below 2^45), frames are numbers below
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

  get name(): string {
    return this.#mm.name;
  }

  /** Guards the mappings. Tasks of this class take it themselves, except {@link handleMmFault}. */
  get mmapLock(): RwSemaphore {
    return this.#mm.mmapLock;
  }

  /** The mappings, sorted by page. */
  get vmas(): readonly Vma[] {
    return this.#mm.vmas.all;
  }

  /** Bytes of frames that the CPU page table maps (RSS). O(1). */
  get residentBytes(): number {
    return this.#mm.residentFrames * BYTES_PER_FRAME;
  }

  /** Bytes of pages that have a swap entry. O(1). */
  get swappedBytes(): number {
    return this.#mm.swappedPages * BYTES_PER_FRAME;
  }

  /** Bytes of folios with at least one pin, which reclaim cannot take: a pinned page of a 1G folio counts 1G. O(1). */
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
   * Maps anonymous memory; nothing is resident yet.
   * @throws RangeError naming the argument that is not aligned to the backing, overlaps a mapping or leaves 57 bits
   */
  mmap(vma: { readonly startPage: number; readonly pages: number; readonly backing: PageSize }): void {
    this.#checkAlive();
    this.#mm.vmas.add(vma);
  }

  /**
   * Faults a range in with the largest folios of its backing that fit, one step a folio, like MAP_POPULATE before the
   * run proper: zeroing is not charged.
   * @throws HostMemoryError ENOMEM when frames run out and reclaim frees none; RangeError outside the mappings
   */
  *populate(agent: Agent, startPage: number, pages: number): Task<void> {
    this.#checkMapped(startPage, pages);
    yield* this.mmapLock.acquireRead(agent);
    try {
      const end = startPage + pages;
      for (let page = startPage; page < end; ) {
        const bits = yield* prefault(this.#host, this.#mm, agent, page);
        if ((bits & VM_FAULT_ERROR) !== 0) throw faultError(bits, page, 'populate');
        page = this.#leafEnd(page);
      }
    } finally {
      this.mmapLock.releaseRead(agent);
    }
  }

  /**
   * Makes a page present. The caller holds `mmapLock` for reading throughout (asserted: held by somebody), looks
   * the page up again afterwards and guards that with {@link notifierReadRetry}, as in Linux.
   * `write` changes nothing: memory is anonymous, private and never shared, so there is no copy on write.
   * @returns {@link VmFault} bits: 0 minor, MAJOR after swap I/O, OOM, or SIGSEGV outside all mappings
   */
  handleMmFault(agent: Agent, page: number, _access: { readonly write: boolean }): Task<number> {
    checkPageRange({ startPage: page, pages: 1 });
    assert(this.mmapLock.held, `${agent.name} handles a fault without ${this.mmapLock.name}`);
    return faultIn(this.#host, this.#mm, agent, page);
  }

  /** The frame that the CPU page table maps at the page, or -1. Allocates nothing. */
  lookup(page: number): number {
    const { folios } = this.#host;
    const folio = this.#mm.table.entry(page);
    return folio > 0 ? folios.pfn(folio) + (page - folios.startPage(folio)) : -1;
  }

  /** Pages of the CPU leaf that maps the page: 1, 512 or 262,144; 0 if it is not present. */
  leafPages(page: number): number {
    const folio = this.#mm.table.entry(page);
    return folio > 0 ? this.#host.folios.frames(folio) : 0;
  }

  /** Whether the page has a swap entry. */
  isSwapped(page: number): boolean {
    return this.#mm.table.entry(page) < 0;
  }

  /**
   * Fills `out` with the longest run of present, physically contiguous pages around `page` within
   * `firstPage`..`lastPage` (inclusive) and within its aligned 1G block: what a secondary MMU may map in one go. Costs
   * O(leaves visited), at most one 1G table.
   * @returns whether the page is present; if not, `out` has 0 pages and pfn -1
   */
  contiguousRun(page: number, firstPage: number, lastPage: number, out: PageRun): boolean {
    const bounds: PageBounds = { firstPage, lastPage };
    return contiguousRun({ table: this.#mm.table, folios: this.#host.folios }, page, bounds, out);
  }

  /**
   * Long-term pins (FOLL_PIN|FOLL_LONGTERM) a range, one step a folio; missing pages are faulted in.
   * Pinned folios are never reclaimed. @throws HostMemoryError ENOMEM or EFAULT, with nothing pinned
   */
  *pin(agent: Agent, startPage: number, pages: number): Task<void> {
    checkPageRange({ startPage, pages });
    yield* this.mmapLock.acquireRead(agent);
    try {
      yield* pinRange(this.#host, this.#mm, agent, { startPage, pages });
    } finally {
      this.mmapLock.releaseRead(agent);
    }
  }

  /**
   * The frames that the last {@link pin} of exactly this range holds, as one run for each folio: what a pinner maps,
   * since a {@link lookup} finds another frame after MADV_DONTNEED and a new fault. @throws RangeError if there is none
   */
  pinnedRuns(startPage: number, pages: number): PageRun[] {
    return pinnedRuns(this.#host, this.#mm, { startPage, pages });
  }

  /**
   * Undoes one {@link pin} of exactly this range, the newest: two pins of one range are told apart by nothing.
   * Also works after {@link exit}. @throws RangeError if there is none
   */
  unpin(agent: Agent, startPage: number, pages: number): Task<void> {
    return unpinRange(this.#host, this.#mm, agent, { startPage, pages });
  }

  /**
   * The guest's CPU touches a page: faults if it must (under `mmapLock`), sets the accessed bit and, for a write, the
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
      const pfn = this.lookup(page);
      if (pfn >= 0) {
        this.markYoung(page);
        if (access.write) this.#host.memory.writeTag(pfn, access.tagLo, access.tagHi);
        return bits;
      }
      yield* this.mmapLock.acquireRead(agent);
      try {
        bits |= yield* faultIn(this.#host, this.#mm, agent, page);
      } finally {
        this.mmapLock.releaseRead(agent);
      }
      if ((bits & VM_FAULT_ERROR) !== 0) return bits;
    }
  }

  /** A page's content wherever it is: frame, swap cache or slot; zeros where nothing is. For checks: touches nothing. */
  cpuRead(page: number): PageContent {
    const { memory, swap, swapCache, folios } = this.#host;
    const entry = this.#mm.table.entry(page);
    if (entry === 0) return ZERO_PAGE;
    if (entry > 0) return memory.readContent(this.lookup(page));
    const cached = swapCache.get(slotOf(entry));
    return cached === undefined ? swap.readSlot(slotOf(entry)) : memory.readContent(folios.pfn(cached));
  }

  /** Sets the accessed bit of the leaf that maps the page, if there is one. */
  markYoung(page: number): void {
    const folio = this.#mm.table.entry(page);
    if (folio > 0) this.#host.folios.setYoung(folio, true);
  }

  /**
   * MADV_DONTNEED: in one CLEAR range, splits the CPU leaves at the edges, frees frames and swap slots; the pages
   * read as zeros afterwards. The frames of pinned folios live until they are unpinned.
   */
  *madviseDontNeed(agent: Agent, startPage: number, pages: number): Task<void> {
    checkPageRange({ startPage, pages });
    const range: NotifierRange = { startPage, pages, event: NotifierEvent.CLEAR, blockable: true };
    yield* this.mmapLock.acquireRead(agent);
    try {
      yield* this.#mm.notifiers.start(agent, range);
      yield* zapRange(this.#host, this.#mm, agent, { startPage, endPage: startPage + pages });
      yield* this.#mm.notifiers.end(agent, range);
    } finally {
      this.mmapLock.releaseRead(agent);
    }
  }

  /**
   * MADV_PAGEOUT of one page: splits its folio down to the page and swaps that out, young or not.
   * @returns whether its frame was freed; false if it is not present, pinned, already being reclaimed, or swap is full
   */
  *pageOut(agent: Agent, page: number): Task<boolean> {
    checkPageRange({ startPage: page, pages: 1 });
    yield* this.mmapLock.acquireRead(agent);
    try {
      yield agent.writes('isolate folio', Location.lock, this.#host.lruLock.id, Cost.lock);
      const folio = this.#mm.table.entry(page);
      const { folios, swap } = this.#host;
      if (folio <= 0 || folios.isIsolated(folio) || folios.pins(folio) > 0 || swap.freeSlots === 0) return false;
      this.#host.isolate(folio);
      return yield* shrinkFolio(this.#host, agent, folio, page);
    } finally {
      this.mmapLock.releaseRead(agent);
    }
  }

  /** Subscribes to invalidations, from the next range on. @throws RangeError if it is subscribed, or after exit */
  registerNotifier(notifier: MmuNotifier): void {
    this.#checkAlive();
    this.#mm.notifiers.register(notifier);
  }

  /** Ends a subscription; ends of ranges whose start it heard still come. @throws RangeError if there is none */
  unregisterNotifier(notifier: MmuNotifier): void {
    this.#mm.notifiers.unregister(notifier);
  }

  /** Opens a notifier range: what a change of mappings made outside this package must do first. Cannot fail. */
  invalidateRangeStart(agent: Agent, range: NotifierRange): Task<void> {
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

  /** The end of the process: releases the notifiers, unmaps and frees everything. Pinned frames live until unpinned. */
  *exit(agent: Agent): Task<void> {
    this.#checkAlive();
    this.#mm.exited = true;
    yield* this.#mm.notifiers.release(agent);
    yield* this.mmapLock.acquireWrite(agent);
    try {
      for (const { startPage, pages } of this.#mm.vmas.all) {
        const range: NotifierRange = { startPage, pages, event: NotifierEvent.UNMAP, blockable: true };
        yield* this.#mm.notifiers.start(agent, range);
        yield* zapRange(this.#host, this.#mm, agent, { startPage, endPage: startPage + pages });
        yield* this.#mm.notifiers.end(agent, range);
      }
      this.#mm.vmas.clear();
    } finally {
      this.mmapLock.releaseWrite(agent);
    }
  }

  #leafEnd(page: number): number {
    const { folios } = this.#host;
    const folio = this.#mm.table.entry(page);
    assert(folio > 0, `page ${hex(page)} is not present right after its fault`);
    return folios.startPage(folio) + framesOf(folios.order(folio));
  }

  #checkMapped(startPage: number, pages: number): void {
    checkPageRange({ startPage, pages });
    const hole = this.#mm.vmas.firstHole(startPage, pages);
    if (hole >= 0) throw new RangeError(`startPage: page ${hex(hole)} of the range is not mapped`);
  }

  #checkAlive(): void {
    if (this.#mm.exited) throw new RangeError(`${this.name}: the address space has exited`);
  }
}
