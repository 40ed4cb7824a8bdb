import { RwSemaphore } from '@faultline/sim';
import type { UserfaultQueue } from '../fault/userfault.ts';
import { blockStart, FANOUT, FRAMES_PER_1G } from '../folio/folio-order.ts';
import { NotifierSubscriptions } from '../notifier/mmu-notifier.ts';
import type { MemoryCgroup } from '../reclaim/memory-cgroup.ts';
import { EntryTable } from './entry-table.ts';
import { VmaList } from './vma-list.ts';

/** What one pin call holds of one folio. */
export interface PinnedPart {
  readonly folio: number;
  readonly pfn: number;
  readonly startPage: number;
  readonly pages: number;
}

/** One successful pin call. */
export interface PinRecord {
  readonly pages: number;
  readonly parts: readonly PinnedPart[];
}

/** What an address space consists of; shared by the operations of this package and by nobody else. */
export class MmState {
  readonly id: number;
  readonly name: string;
  readonly memcg: MemoryCgroup;
  readonly mmapLock: RwSemaphore;
  readonly table = new EntryTable();
  readonly vmas = new VmaList();
  readonly notifiers: NotifierSubscriptions;
  /** Pins by their first page, newest last. */
  readonly pins = new Map<number, PinRecord[]>();
  /** First frames of the 1G runs of contiguous backings, by 1G block. */
  readonly contiguousRuns = new Map<number, number>();
  /** Frames that entries map (RSS); a frame mapped twice counts twice. */
  residentFrames = 0;
  swappedPages = 0;
  /** 2M and 1G leaves of anonymous memory, in frames (AnonHugePages). */
  anonHugeFrames = 0;
  /** Frames of folios that this address space was the first to pin, mapped or not. */
  pinnedFrames = 0;
  /** Sum of the pages of all pin calls. */
  accountedPinPages = 0;
  userfaults: UserfaultQueue | null = null;
  exited = false;
  /** MMF_UNSTABLE: the OOM reaper has been here, pages are missing that had content. */
  unstable = false;

  constructor(parts: {
    readonly id: number;
    readonly name: string;
    readonly memcg: MemoryCgroup;
    readonly counters: { notifierRanges: number };
  }) {
    this.id = parts.id;
    this.name = parts.name;
    this.memcg = parts.memcg;
    this.mmapLock = new RwSemaphore(`${parts.name} mmap_lock`);
    this.notifiers = new NotifierSubscriptions(parts.name, parts.id, parts.counters);
  }

  /**
   * The location of steps on the page's entry. It names the table whose lock guards the entry in Linux (the last-level
   * table, 2M wide; where 1G leaves may be, the whole 1G, where a split of the leaf is seen by all), so that two
   * steps that touch one leaf name one location, however the leaf is split in between.
   */
  entryLocation(page: number): number {
    const block = this.vmas.mayHave1G(page) ? blockStart(page, FRAMES_PER_1G) : page;
    return this.id * 2 ** 36 + Math.floor(block / FANOUT);
  }
}
