import { assert, Condition, type RandomStream } from '@faultline/sim';
import { FANOUT, type FolioOrder, framesOf, smallerOrder } from './folio/folio-order.ts';
import { FolioTable } from './folio/folio-table.ts';
import type { FrameAllocator } from './frame/frame-allocator.ts';
import type { PhysicalMemory } from './frame/physical-memory.ts';
import { type CpuEntry, slotOf } from './mm/cpu-page-table.ts';
import type { MmState } from './mm/mm-state.ts';
import { Lru } from './reclaim/lru.ts';
import type { SwapDevice } from './swap/swap-device.ts';

/** What the host has done so far. All in pages, folios or calls; they only grow. */
export interface HostCounters {
  /** Pages whose frame was freed after their content went to swap. */
  swapOut: number;
  /** Pages read from swap. */
  swapIn: number;
  /** Faults without I/O. */
  minorFaults: number;
  /** Faults that read swap. */
  majorFaults: number;
  /** Notifier ranges started. */
  notifierRanges: number;
  /** CPU leaves split, by level. */
  readonly folioSplits: { '1G->2M': number; '2M->4K': number };
  /** Folios looked at by the reclaim scan. */
  reclaimScanned: number;
  /** Faults that found the page's frame still in the swap cache. */
  swapCacheHits: number;
}

/** Whether splitting a CPU leaf tells the notifiers. */
export type SplitNotify = 'none' | 'clear';

/** What a host consists of, and the changes of folio state that several operations make. Each is part of one step. */
export class HostState {
  readonly allocator: FrameAllocator;
  readonly memory: PhysicalMemory;
  readonly swap: SwapDevice;
  readonly random: RandomStream;
  readonly splitNotify: SplitNotify;
  readonly folios = new FolioTable();
  readonly lru = new Lru();
  /** Folios whose page has a swap entry but whose content is on its way to the slot, by slot. */
  readonly swapCache = new Map<number, number>();
  readonly spaces: MmState[] = [];
  readonly counters: HostCounters = {
    swapOut: 0,
    swapIn: 0,
    minorFaults: 0,
    majorFaults: 0,
    notifierRanges: 0,
    folioSplits: { '1G->2M': 0, '2M->4K': 0 },
    reclaimScanned: 0,
    swapCacheHits: 0,
  };
  /** Folios that reclaimers are working on. */
  isolated = 0;
  /** A frame is free, or no reclaimer at work could free one. Its id is the location of steps on the zone's free lists. */
  readonly frames: Condition;
  /** Its id is the location of steps on the LRU. */
  readonly lruLock: Condition;

  constructor(parts: Pick<HostState, 'allocator' | 'memory' | 'swap' | 'random' | 'splitNotify'>) {
    this.allocator = parts.allocator;
    this.memory = parts.memory;
    this.swap = parts.swap;
    this.random = parts.random;
    this.splitNotify = parts.splitNotify;
    this.frames = new Condition('free frame', () => this.allocator.freeFrames > 0 || this.isolated === 0);
    this.lruLock = new Condition('lru_lock', () => true);
  }

  /** The address space that a folio belongs to. */
  mmOf(folio: number): MmState {
    const mm = this.spaces[this.folios.mm(folio)];
    assert(mm !== undefined, () => `folio ${folio} belongs to no address space`);
    return mm;
  }

  /** Maps a new folio, young, at the head of the LRU. */
  mapNew(mm: MmState, at: { startPage: number; pfn: number; order: FolioOrder }): number {
    const folio = this.folios.create({ ...at, mm: mm.id });
    mm.table.set(at.startPage, at.order, folio);
    this.folios.setMapped(folio, true);
    this.folios.setYoung(folio, true);
    mm.residentFrames += framesOf(at.order);
    this.lru.addHead(folio);
    return folio;
  }

  /**
   * Takes a present folio's leaf away.
   * @returns whether the caller has to free the folio: not if a reclaimer works on it or it is pinned
   */
  unmap(folio: number): boolean {
    const { folios } = this;
    const mm = this.mmOf(folio);
    mm.table.clear(folios.startPage(folio), folios.order(folio));
    this.setUnmapped(mm, folio);
    if (folios.isIsolated(folio)) return false;
    this.lru.remove(folio);
    return folios.pins(folio) === 0;
  }

  /** Counts a folio out whose entry has been replaced or cleared. */
  setUnmapped(mm: MmState, folio: number): void {
    this.folios.setMapped(folio, false);
    mm.residentFrames -= this.folios.frames(folio);
  }

  /** Drops a swap entry that has been taken out of the table; the slot of a page still being written stays with its writer. */
  dropSwapEntry(mm: MmState, entry: CpuEntry): void {
    mm.swappedPages--;
    if (!this.swapCache.has(slotOf(entry))) this.swap.free(slotOf(entry));
  }

  /** Frees a folio that nothing refers to. */
  freeFolio(folio: number): void {
    const { folios } = this;
    const pfn = folios.pfn(folio);
    const order = folios.order(folio);
    folios.destroy(folio);
    this.freeFrames(pfn, order);
  }

  /** Frees frames and wakes whoever waits for one. */
  freeFrames(pfn: number, order: FolioOrder): void {
    this.allocator.free(pfn, order);
    this.frames.wake();
  }

  /** Takes a folio for the caller to work on: nobody else reclaims it, and it outlives its mapping. */
  isolate(folio: number): void {
    assert(!this.folios.isIsolated(folio), () => `folio ${folio} is isolated twice`);
    if (this.lru.has(folio)) this.lru.remove(folio);
    this.folios.setIsolated(folio, true);
    this.isolated++;
  }

  /**
   * Ends the work on a folio: back to the head of the LRU if it is mapped, freed if nothing refers to it.
   * @returns whether its frames were freed
   */
  putBack(folio: number): boolean {
    const { folios } = this;
    folios.setIsolated(folio, false);
    this.isolated--;
    let freed = false;
    if (folios.isHusk(folio)) {
      this.dropHusk(folio);
    } else if (folios.isMapped(folio)) {
      this.lru.addHead(folio);
    } else if (folios.pins(folio) === 0) {
      this.freeFolio(folio);
      freed = true;
    }
    if (this.isolated === 0) this.frames.wake();
    return freed;
  }

  /** Forgets a husk once neither an isolator nor a pin holds its id. */
  dropHusk(folio: number): void {
    if (!this.folios.isIsolated(folio) && this.folios.pins(folio) === 0) this.folios.destroy(folio);
  }

  /**
   * Splits a mapped large folio and its leaf into 512, which inherit its accessed bit and its pins. No data moves. The
   * pieces take the folio's place in the LRU in address order (lowest oldest), or the head if it is isolated.
   */
  split(folio: number): Int32Array {
    const { folios, lru } = this;
    const order = folios.order(folio);
    assert(folios.isMapped(folio) && order !== 0, () => `folio ${folio} cannot be split`);
    const mm = this.mmOf(folio);
    const pieceOrder = smallerOrder(order);
    const pieceFrames = framesOf(pieceOrder);
    const pieces = new Int32Array(FANOUT);
    const pins = folios.pins(folio);
    for (let i = 0; i < FANOUT; i++) {
      const piece = folios.create({
        pfn: folios.pfn(folio) + i * pieceFrames,
        order: pieceOrder,
        mm: mm.id,
        startPage: folios.startPage(folio) + i * pieceFrames,
      });
      folios.setMapped(piece, true);
      folios.setYoung(piece, folios.isYoung(folio));
      if (pins > 0) folios.changePins(piece, pins);
      pieces[i] = piece;
      if (folios.isIsolated(folio)) lru.addHead(piece);
      else lru.addYounger(piece, i === 0 ? folio : pieces[i - 1]!);
    }
    mm.table.split(folios.startPage(folio), order, pieces);
    this.counters.folioSplits[order === 18 ? '1G->2M' : '2M->4K']++;
    if (!folios.isIsolated(folio)) lru.remove(folio);
    folios.makeHusk(folio, pieces);
    this.dropHusk(folio);
    return pieces;
  }
}
