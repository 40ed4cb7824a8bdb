import { type Agent, assert, Condition, Mutex } from '@faultline/sim';
import type { FaultInjection } from './fault-injection.ts';
import { FolioLocks } from './folio/folio-lock.ts';
import { type FolioOrder, framesOf } from './folio/folio-order.ts';
import { FolioFlag, FolioTable } from './folio/folio-table.ts';
import { AnonVma, FileMapping, type KsmPlace } from './folio/mapping.ts';
import type { FrameAllocator } from './frame/frame-allocator.ts';
import type { HugePagePool } from './frame/huge-page-pool.ts';
import type { PhysicalMemory } from './frame/physical-memory.ts';
import type { Zone } from './frame/zone.ts';
import type { HostCounters } from './host-counters.ts';
import type { MmState } from './mm/mm-state.ts';
import type { Vma } from './mm/vma.ts';
import type { LruPolicy } from './reclaim/lru-policy.ts';
import { MemoryCgroup } from './reclaim/memory-cgroup.ts';
import { SwapCache } from './swap/swap-cache.ts';
import type { SwapIo } from './swap/swap-io.ts';
import type { SwapSpace } from './swap/swap-space.ts';

/** Whether splitting a large folio or leaf tells the notifiers. */
export type SplitNotify = 'none' | 'clear';

/** Parts that a host is made of, by its options. */
export interface HostParts {
  readonly allocator: FrameAllocator;
  readonly span: { readonly firstPfn: number; readonly endPfn: number };
  readonly memory: PhysicalMemory;
  readonly zone: Zone;
  readonly hugePages: HugePagePool;
  readonly swap: SwapSpace;
  readonly swapIo: SwapIo;
  readonly counters: HostCounters;
  readonly splitNotify: SplitNotify;
  /** Whether large folios go to swap whole (CONFIG_THP_SWAP). */
  readonly thpSwap: boolean;
  /** log2 of the pages read ahead at a swap-in (`vm.page-cluster`). */
  readonly pageCluster: number;
  readonly injection: FaultInjection;
  readonly lru: (host: HostState) => LruPolicy;
}

/** What a host consists of, and the changes of folio state that several operations make. Each is part of one step. */
export class HostState {
  readonly allocator: FrameAllocator;
  readonly memory: PhysicalMemory;
  readonly zone: Zone;
  readonly hugePages: HugePagePool;
  readonly swap: SwapSpace;
  readonly swapIo: SwapIo;
  readonly splitNotify: SplitNotify;
  readonly thpSwap: boolean;
  readonly pageCluster: number;
  readonly injection: FaultInjection;
  readonly counters: HostCounters;
  readonly folios: FolioTable;
  readonly locks = new FolioLocks();
  readonly swapCache = new SwapCache();
  readonly lru: LruPolicy;
  readonly spaces: MmState[] = [];
  readonly memcgs: MemoryCgroup[] = [new MemoryCgroup(0, { name: 'root' })];
  readonly files: FileMapping[] = [];
  readonly ksm = new Map<number, KsmPlace[]>();
  /** ksmd is one thread (ksm_thread_mutex). */
  readonly ksmLock = new Mutex('ksm_thread_mutex');
  /** Large folios that are mapped in part: split under memory pressure, oldest first. */
  readonly deferredSplit = new Set<number>();
  /** The address space that first pinned each pinned folio. */
  readonly pinners = new Map<number, MmState>();
  /** Folios that reclaimers and others have taken off the LRU. */
  readonly isolated = new Set<number>();
  /** Frames that zram and zswap hold. */
  compressedFrames = 0;
  /** Frames that are broken, in use or not. */
  readonly poisoned = new Set<number>();
  /** How many of them are out of use for good. */
  brokenFrames = 0;
  /** Allocations tried so far, for faults on purpose. */
  allocations = 0;
  /** A frame is free, or nobody at work could free one. Its id is the location of steps on the zone's free lists. */
  readonly frames: Condition;
  /** Its id is the location of steps on the LRU. */
  readonly lruLock: Condition;
  /** Its id is the location of steps on swap slots and the swap cache. */
  readonly swapLock: Condition;
  /** Who waits for some folio's write-back to end. */
  readonly writebackWaits = new Set<Condition>();
  readonly #anonVmas = new Map<number, AnonVma>();
  #lastAnonVma = 0;

  constructor(parts: HostParts) {
    this.allocator = parts.allocator;
    this.memory = parts.memory;
    this.zone = parts.zone;
    this.hugePages = parts.hugePages;
    this.swap = parts.swap;
    this.swapIo = parts.swapIo;
    this.counters = parts.counters;
    this.splitNotify = parts.splitNotify;
    this.thpSwap = parts.thpSwap;
    this.pageCluster = parts.pageCluster;
    this.injection = parts.injection;
    this.folios = new FolioTable(parts.span);
    this.frames = new Condition('free frame', () => this.allocator.freeFrames > 0 || this.isolated.size === 0);
    this.lruLock = new Condition('lru_lock', () => true);
    this.swapLock = new Condition('swap lock', () => true);
    this.lru = parts.lru(this);
  }

  get rootMemcg(): MemoryCgroup {
    return this.memcgs[0]!;
  }

  /** The cgroup that a folio is charged to. */
  memcgOf(folio: number): MemoryCgroup {
    return this.memcgs[this.folios.memcg(folio)]!;
  }

  anonVma(id: number): AnonVma | undefined {
    return this.#anonVmas.get(id);
  }

  /** The anon_vma where a mapping's new folios go; made on the first (`anon_vma_prepare`). */
  anonVmaOf(vma: Vma): AnonVma {
    if (vma.anonVma === null) {
      vma.anonVma = this.newAnonVma();
      vma.join(vma.anonVma);
    }
    return vma.anonVma;
  }

  newAnonVma(): AnonVma {
    const anonVma = new AnonVma(++this.#lastAnonVma);
    this.#anonVmas.set(anonVma.id, anonVma);
    return anonVma;
  }

  /** A new memfd. */
  newFile(name: string, pages: number): FileMapping {
    const file = new FileMapping(this.files.length, name, pages);
    this.files.push(file);
    return file;
  }

  /** A folio of frames just allocated, charged to a cgroup, with one reference: the caller's. */
  newFolio(parts: {
    readonly pfn: number;
    readonly order: FolioOrder;
    readonly flags: number;
    readonly mapping: number;
    readonly index: number;
    readonly memcg: MemoryCgroup;
  }): number {
    parts.memcg.usedPages += framesOf(parts.order);
    return this.folios.create({ ...parts, memcg: parts.memcg.id, flags: parts.flags | FolioFlag.uptodate });
  }

  /** Gives references to a folio back; the last one frees it. @returns whether it was freed */
  put(folio: number, references = 1): boolean {
    if (!this.folios.put(folio, references)) return false;
    this.freeFolio(folio);
    return true;
  }

  /** Frees a folio that nobody refers to. */
  freeFolio(folio: number): void {
    const { folios } = this;
    assert(!folios.has(folio, FolioFlag.swapcache), () => `${folios.name(folio)} is freed from within the swap cache`);
    const pfn = folios.pfn(folio);
    const order = folios.order(folio);
    const hugetlb = folios.has(folio, FolioFlag.hugetlb);
    this.lru.remove(folio);
    this.deferredSplit.delete(folio);
    this.ksm.delete(folio);
    this.memcgOf(folio).usedPages -= framesOf(order);
    folios.destroy(folio);
    this.returnFrames(pfn, order, hugetlb);
  }

  /** Gives frames back to where they came from; a huge page with a broken frame is none any more. */
  returnFrames(pfn: number, order: FolioOrder, hugetlb: boolean): void {
    if (hugetlb && !this.#isPoisoned(pfn, order)) {
      this.hugePages.give(pfn, order);
      return;
    }
    if (hugetlb) this.hugePages.dissolve(order);
    this.freeFrames(pfn, order);
  }

  /** Frees frames, but for those that are broken, and wakes whoever waits for one. */
  freeFrames(pfn: number, order: FolioOrder): void {
    if (!this.#isPoisoned(pfn, order)) {
      this.allocator.free(pfn, order);
    } else {
      for (let frame = pfn; frame < pfn + framesOf(order); frame++)
        if (this.poisoned.has(frame)) this.brokenFrames++;
        else this.allocator.free(frame, 0);
    }
    this.frames.wake();
  }

  #isPoisoned(pfn: number, order: FolioOrder): boolean {
    for (const frame of this.poisoned) if (frame >= pfn && frame < pfn + framesOf(order)) return true;
    return false;
  }

  /**
   * Takes a folio off the LRU for the caller to work on, with a reference (`folio_isolate_lru`).
   * @returns false if it is on no list: somebody else works on it
   */
  isolate(folio: number): boolean {
    if (!this.lru.remove(folio)) return false;
    this.folios.get(folio);
    this.isolated.add(folio);
    return true;
  }

  /** Gives a folio's lock back, and its swap slots if nobody needs them any more. The caller has a reference. */
  unlock(agent: Agent, folio: number): void {
    this.locks.release(agent, folio);
    this.dropIfUnwanted(folio);
  }

  /** A folio that is only in the swap cache any more, where nobody can ask for it, leaves it. */
  dropIfUnwanted(folio: number): void {
    const { folios } = this;
    if (folios.has(folio, FolioFlag.swapcache) && !folios.isMapped(folio) && !this.locks.isLocked(folio))
      this.freeSwap(folio);
  }

  /** Ends the work on a folio: back to its list, or freed if nothing else refers to it. @returns whether it was freed */
  putBack(folio: number, tail = false): boolean {
    this.isolated.delete(folio);
    this.dropIfUnwanted(folio);
    if (this.folios.refs(folio) > 1 && !this.folios.has(folio, FolioFlag.unevictable)) this.lru.add(folio, tail);
    const freed = this.put(folio);
    if (this.isolated.size === 0) this.frames.wake();
    return freed;
  }

  /** Counts a 4K entry, or a leaf of that order, into the folio that it maps. The reference is the caller's to give. */
  countMapped(mm: MmState, folio: number, order: FolioOrder): void {
    const { folios } = this;
    folios.changeMaps(folio, order, 1);
    mm.residentFrames += framesOf(order);
    if (order > 0 && folios.has(folio, FolioFlag.anon)) mm.anonHugeFrames += framesOf(order);
  }

  /**
   * Counts it out again; the reference stays with the caller, to give back when nothing can reach the folio any more.
   * @param mayDefer whether a folio that is mapped in part now is to be split later; false if more of it is going in the same step
   */
  countUnmapped(mm: MmState, folio: number, order: FolioOrder, mayDefer = true): void {
    const { folios } = this;
    folios.changeMaps(folio, order, -1);
    mm.residentFrames -= framesOf(order);
    if (order > 0 && folios.has(folio, FolioFlag.anon)) mm.anonHugeFrames -= framesOf(order);
    if (mayDefer) this.deferIfPartlyMapped(folio);
  }

  /** Queues an anonymous folio to be split if it is mapped, but not all of it. */
  deferIfPartlyMapped(folio: number): void {
    if (this.folios.isPartlyMapped(folio) && this.folios.has(folio, FolioFlag.anon)) this.deferSplit(folio);
  }

  /** Queues a folio that is mapped in part, to be split when memory is short. */
  deferSplit(folio: number): void {
    // In the swap cache, reclaim is at it already (deferred_split_folio looks at the same flag).
    if (this.folios.has(folio, FolioFlag.partiallyMapped | FolioFlag.swapcache)) return;
    this.folios.setFlag(folio, FolioFlag.partiallyMapped, true);
    this.deferredSplit.add(folio);
    this.counters.thp_deferred_split_page++;
  }

  /** Puts a folio into the swap cache at entries that it was given. */
  addToSwapCache(folio: number, entry: number): void {
    const pages = this.folios.frames(folio);
    this.swapCache.add(entry, pages, folio);
    this.swap.setCached(entry, pages, true);
    this.folios.setSwapEntry(folio, entry);
    this.folios.get(folio, pages);
  }

  /** Takes a folio out of the swap cache; slots that no entry names any more are free. The caller has a reference. */
  deleteFromSwapCache(folio: number): void {
    const entry = this.folios.swapEntry(folio);
    const pages = this.folios.frames(folio);
    assert(entry !== 0, () => `${this.folios.name(folio)} is not in the swap cache`);
    this.swapCache.delete(entry, pages);
    this.swap.setCached(entry, pages, false);
    this.folios.setSwapEntry(folio, 0);
    this.put(folio, pages);
  }

  /** Whether some entry still names one of a folio's slots (`folio_swapped`). */
  isSwapped(folio: number): boolean {
    const entry = this.folios.swapEntry(folio);
    if (entry === 0) return false;
    for (let i = 0; i < this.folios.frames(folio); i++) if (this.swap.references(entry + i) > 0) return true;
    return false;
  }

  /**
   * Takes a folio out of the swap cache if nobody needs its slots: not while it is written, not while an entry names one of
   * them (`folio_free_swap`). It is dirty then, having no copy any more. @returns whether it is out
   */
  freeSwap(folio: number): boolean {
    const { folios } = this;
    if (!folios.has(folio, FolioFlag.swapcache) || folios.has(folio, FolioFlag.writeback) || this.isSwapped(folio))
      return false;
    folios.setFlag(folio, FolioFlag.dirty, true);
    folios.get(folio);
    this.deleteFromSwapCache(folio);
    this.put(folio);
    return true;
  }

  /** Drops a swap entry that has been taken out of a table, and what is cached for it if nobody else needs that. */
  dropSwapEntry(mm: MmState, entry: number): void {
    mm.swappedPages--;
    mm.memcg.swappedPages--;
    this.swap.freeReference(entry);
    const folio = this.swapCache.get(entry);
    if (folio !== 0) this.dropIfUnwanted(folio);
  }
}
