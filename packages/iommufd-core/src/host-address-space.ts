import type { Agent, Task } from '@faultline/sim';

/** A run of pages that are present and physically contiguous. */
export interface ContiguousRun {
  startPage: number;
  pages: number;
  /** Frame of the first page; -1 if the page asked for is not present. */
  pfn: number;
}

/** An open file as MAP_FILE takes it: a memfd, or something that cannot be pinned and so fails only when it would be. */
export interface MappableFile {
  readonly name: string;
  /** Pins pages by their index in the file (memfd_pin_folios); without it every pin is EINVAL. Errors have a `code`. */
  pinPages?(agent: Agent, startIndex: number, pages: number): Task<readonly ContiguousRun[]>;
  unpinPages?(agent: Agent, runs: readonly ContiguousRun[]): Task<void>;
}

/** A range of pages whose host mapping changes. */
export interface HostRange {
  readonly startPage: number;
  readonly pages: number;
  /** mmu notifier event, Linux's numbering. */
  readonly event: number;
  readonly blockable: boolean;
}

/** Linux's `enum mmu_notifier_event`, as far as it tells how much of a mapping goes. */
export const HostEvent = { PROTECTION_PAGE: 3, SOFT_DIRTY: 4 } as const;

/** What a host address space calls when its mappings change. */
export interface HostNotifier {
  /** @returns false (EAGAIN) for a range that is not blockable, if it would have to sleep. Such a notifier hears no end */
  invalidateRangeStart(agent: Agent, range: HostRange): Task<boolean>;
  /** Whether devices used the pages since they were last asked about; it counts from now on. Does not sleep. */
  clearFlushYoung?(agent: Agent, startPage: number, pages: number): Task<boolean>;
  /** The same with no flush, as part of the caller's step. */
  clearYoung?(agent: Agent, startPage: number, pages: number): boolean;
  /** Whether a device used the page, as part of the caller's step. */
  testYoung?(agent: Agent, page: number): boolean;
  /** The address space goes away; nothing is told of its ranges afterwards. */
  release?(agent: Agent): Task<void>;
}

/**
 * What iommufd asks of the address space that owns the memory (an mm). Pages are host-virtual >> 12. `AddressSpace` of
 * `@faultline/host-mm` fits.
 */
export interface HostAddressSpace {
  readonly mmapLock: {
    acquireRead(agent: Agent): Task<void>;
    releaseRead(agent: Agent): void;
  };
  /**
   * @returns VM_FAULT bits; the caller holds mmapLock for read. With `allowRetry` it may have been given back meanwhile: RETRY, COMPLETED
   */
  handleMmFault(
    agent: Agent,
    page: number,
    access: { readonly write: boolean; readonly allowRetry?: boolean },
  ): Task<number>;
  /** The frame of a present page, or -1. */
  lookup(page: number): number;
  /** Whether the page is present and may be read without a fault. */
  isReadable(page: number): boolean;
  /** Whether the page is present and may be written to without a fault. */
  isWriteable(page: number): boolean;
  /** Fills `out` with the contiguous run around a page within first .. last; with `write`, of writeable pages only. */
  contiguousRun(page: number, firstPage: number, lastPage: number, out: ContiguousRun, write?: boolean): void;
  /** Says that a device may write to the pages from now on, so that their copies in swap are old. Part of the caller's step. */
  markDirty(startPage: number, pages: number): void;
  pin(agent: Agent, startPage: number, pages: number): Task<void>;
  /** The frames that the last {@link pin} of exactly this range holds, which is not always what a look-up finds. */
  pinnedRuns(startPage: number, pages: number): readonly ContiguousRun[];
  unpin(agent: Agent, startPage: number, pages: number): Task<void>;
  /** Pins for a caller who keeps the frames. @returns one run for each CPU leaf, in order */
  pinUserPages(agent: Agent, startPage: number, pages: number, write: boolean): Task<readonly ContiguousRun[]>;
  /** Gives pins back by frame; each run lies within one that {@link pinUserPages} returned. */
  unpinUserPages(agent: Agent, runs: readonly ContiguousRun[]): Task<void>;
  registerNotifier(notifier: HostNotifier): void;
  unregisterNotifier(notifier: HostNotifier): void;
  /** Location of a page's entry within `Location.cpuEntry`, for steps that look it up. */
  entryLocation(page: number): number;
  /** Location of the notifier sequence within `Location.notifierSequence`, for steps that read it. */
  readonly notifierLocation: number;
  /** Waits while an invalidation that overlaps the pages is in progress. @returns a sequence number */
  notifierReadBegin(agent: Agent, page: number, pages?: number): Task<number>;
  /** Whether an invalidation of the pages is in progress, or any has ended since. */
  notifierReadRetry(page: number, sequence: number, pages?: number): boolean;
}

/** VM_FAULT bits that end a fault (VM_FAULT_ERROR), and those that tell how. Linux's numbering. */
export const VM_FAULT_OOM = 0x1;
/** mmap_lock was given back: take it and try again. */
export const VM_FAULT_RETRY = 0x400;
/** Done, and mmap_lock was given back. */
export const VM_FAULT_COMPLETED = 0x4000;
/** OOM, SIGBUS, HWPOISON, HWPOISON_LARGE, SIGSEGV, FALLBACK. */
export const VM_FAULT_ERROR = 0x1 | 0x2 | 0x10 | 0x20 | 0x40 | 0x800;
