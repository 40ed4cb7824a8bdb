import { Location, RwSemaphore } from '@faultline/sim';
import { blockStart, FANOUT, FRAMES_PER_1G } from '../folio/folio-order.ts';
import { type LockPlace, PageLockTable } from '../folio/page-lock.ts';
import { NotifierSubscriptions } from '../notifier/mmu-notifier.ts';
import { CpuPageTable } from './cpu-page-table.ts';
import { VmaList } from './vma-list.ts';

/** One successful pin call. */
export interface PinRecord {
  readonly startPage: number;
  readonly pages: number;
  /** The folios pinned once each by it. */
  readonly folios: number[];
}

/** What an address space consists of; shared by the operations of this package and by nobody else. */
export class MmState {
  readonly id: number;
  readonly name: string;
  readonly mmapLock: RwSemaphore;
  readonly table = new CpuPageTable();
  readonly vmas = new VmaList();
  readonly notifiers: NotifierSubscriptions;
  readonly locks: PageLockTable;
  /** Pins by their first page, newest last. */
  readonly pins = new Map<number, PinRecord[]>();
  residentFrames = 0;
  swappedPages = 0;
  /** Frames of folios with at least one pin, mapped or not. */
  pinnedFrames = 0;
  /** Sum of the pages of all pin calls. */
  accountedPinPages = 0;
  exited = false;

  constructor(id: number, name: string, counters: { notifierRanges: number }) {
    this.id = id;
    this.name = name;
    this.mmapLock = new RwSemaphore(`${name} mmap_lock`);
    this.notifiers = new NotifierSubscriptions(name, id, counters);
    this.locks = new PageLockTable(`${name} page lock`);
  }

  /**
   * The location of steps on the page's entry. It names the table whose lock guards the entry in Linux (the last-level
   * table, 2M wide; with 1G backing the whole 1G, where a split of the leaf is seen by all), so that two
   * steps that touch one leaf name one location, however the leaf is split in between.
   */
  entryLocation(page: number): number {
    const block = this.vmas.orderAt(page) === 18 ? blockStart(page, FRAMES_PER_1G) : page;
    return this.id * 2 ** 36 + Math.floor(block / FANOUT);
  }

  /** Kind and location of steps on the page's entry. */
  place(page: number): LockPlace {
    return { kind: Location.cpuEntry, location: this.entryLocation(page) };
  }
}
