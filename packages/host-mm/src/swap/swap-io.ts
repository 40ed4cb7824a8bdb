import { hex } from '@faultline/address';
import { type Agent, ANY_LOCATION, assert, Condition, Cost, Location, type Task } from '@faultline/sim';
import { checkInteger } from '../argument.ts';
import type { PageContent } from '../frame/page-content.ts';
import type { PhysicalMemory } from '../frame/physical-memory.ts';
import type { SwapArea } from './swap-area.ts';
import { SLOTS_PER_CLUSTER } from './swap-cluster.ts';
import { newSwapCounters, type SwapCounters } from './swap-counters.ts';
import { SwapQueue } from './swap-queue.ts';
import type { SwapRequest } from './swap-request.ts';
import type { SwapSpace } from './swap-space.ts';
import { Zswap, type ZswapOptions } from './zswap.ts';

/** What a {@link SwapIo} works on. */
export interface SwapIoOptions {
  readonly space: SwapSpace;
  readonly memory: PhysicalMemory;
  /** Puts zswap in front of all areas. */
  readonly zswap?: ZswapOptions;
}

/** A folio, or pages that are read together: as many frames as entries, both contiguous, in one area. */
export interface SwapRun {
  readonly entry: number;
  readonly pfn: number;
  readonly pages: number;
}

/** A read. */
export interface SwapRead extends SwapRun {
  /** The frames, where they are not in a row from `pfn`, which is the first of them. */
  readonly pfns?: readonly number[];
  /**
   * Called for each page that came out of zswap into the swap cache: zswap gives it up, no device has it, so the page is dirty.
   * Left out by a read that bypasses the swap cache: zswap then keeps the page until the entry is freed.
   */
  readonly markDirty?: (index: number) => void;
}

/** Write-backs in a row that may fail before the shrinker gives up, MAX_RECLAIM_RETRIES in Linux. */
const SHRINK_RETRIES = 16;
/** The frame of a page of a read. */
const frameOf = ({ pfn, pfns }: SwapRead, index: number): number => pfns?.[index] ?? pfn + index;
const nothing = (): void => undefined;
const always = (): boolean => true;

/**
 * Swap-out and swap-in of contents, as Linux's page_io.c orders it: a folio of zeros is noted and not written, else zswap takes it, else the
 * device. Whoever calls keeps the entries in the swap cache until the I/O has ended, and reads none that is being written.
 */
export class SwapIo {
  readonly counters: SwapCounters = newSwapCounters();
  readonly zswap: Zswap | null;
  readonly #space: SwapSpace;
  readonly #memory: PhysicalMemory;
  readonly #queues = new Map<SwapArea, SwapQueue>();
  /** Commands that have ended, and who waits for the next. */
  #ended = 0;
  readonly #waits = new Set<Condition>();
  #shrinkers = 0;
  #shrinkWanted = false;
  #shrinking = false;
  readonly #shrinkWork = new Condition('zswap shrink', () => this.#shrinkWanted);

  /** @throws TypeError if the space has its I/O already @throws RangeError naming the option of zswap that does not fit */
  constructor({ space, memory, zswap }: SwapIoOptions) {
    if (space.freed) throw new TypeError('space: something else does its I/O');
    this.#space = space;
    this.#memory = memory;
    this.zswap = zswap ? new Zswap(zswap) : null;
    space.freed = (entry) => this.zswap?.drop(entry);
  }

  /** Device commands that wait or are being performed. */
  get inFlight(): number {
    let commands = 0;
    for (const queue of this.#queues.values()) commands += queue.inFlight;
    return commands;
  }

  /** Waits until a command that is in flight now has ended; returns at once if there is none. */
  *waitForOne(agent: Agent): Task<void> {
    const before = this.#ended;
    const ended = new Condition('swap I/O', () => this.#ended !== before || this.inFlight === 0);
    this.#waits.add(ended);
    try {
      while (!ended.ready()) yield agent.waits('wait for swap I/O to end', ended);
    } finally {
      this.#waits.delete(ended);
    }
  }

  /** Those of one area. */
  inFlightOf(area: SwapArea): number {
    return this.#queues.get(area)?.inFlight ?? 0;
  }

  /**
   * A daemon that serves one area's queue; as many may run as the queue is deep. Without one, whoever swaps performs the I/O.
   * @throws TypeError for zram @throws RangeError beyond the queue's depth
   */
  worker(agent: Agent, area: SwapArea): Task<void> {
    return this.#queueOf(area).worker(agent);
  }

  /**
   * The daemon that writes zswap's oldest pages back while the pool is above its threshold, Linux's zswap-shrink. Without it, the
   * writer that was refused does so after its own write.
   */
  shrinkWorker(agent: Agent): Task<void> {
    if (!this.zswap) throw new TypeError('zswap: there is none to shrink');
    this.#shrinkers++;
    return this.#shrinkLoop(agent, this.zswap);
  }

  /**
   * Writes a folio out. `onEnd` is called in the step that completes it; after a failure the folio is the only copy, and what
   * the entries hold is undefined. @returns `queued` if a worker ends it, which may have happened by then
   * @throws RangeError for a run that does not fit into one area
   */
  *writeFolio(agent: Agent, run: SwapRun, onEnd: (failed: boolean) => void): Task<'done' | 'queued'> {
    const { entry, pfn, pages } = run;
    const { area, slot } = this.#locate(run);
    const look = agent.reads('look for zeros', Location.frame, pages === 1 ? pfn : ANY_LOCATION, Cost.free);
    yield agent.alsoWrites(look, Location.folio, pfn);
    const zero = this.#isZero(pfn, pages);
    for (let i = 0; i < pages; i++) area.setZero(slot + i, zero);
    if (zero) {
      for (let i = 0; i < pages; i++) this.zswap?.drop(entry + i);
      this.counters.swpout_zero += pages;
      onEnd(false);
      return 'done';
    }
    if (this.zswap && (yield* this.#storeInZswap(agent, this.zswap, run))) {
      this.counters.zswpout += pages;
      onEnd(false);
      return 'done';
    }
    this.counters.pswpout += pages;
    if (pages === SLOTS_PER_CLUSTER) this.counters.thp_swpout++;
    const end = yield* this.#queueOf(area).submit(agent, {
      ...{ area, slot, pages, pfn, onEnd, write: true, lockId: 0 },
      ...{ load: (index) => this.#memory.readContent(pfn + index), save: nothing, valid: always },
    });
    if (this.zswap?.reachedFull) yield* this.#wantShrink(agent, this.zswap);
    return end;
  }

  /**
   * Reads pages and waits for them: zeros and what zswap holds page by page, the rest in commands as long as possible.
   * @returns false after a read error; then some of the frames have not been filled, and all pages are where they were
   * @throws RangeError for a run that does not fit into one area
   */
  *readPages(agent: Agent, read: SwapRead): Task<boolean> {
    const { area, slot } = this.#locate(read);
    const { entry, pages } = read;
    const loaded: number[] = [];
    for (let i = 0; i < pages; ) {
      if (area.isZero(slot + i)) {
        yield agent.writes('fill page with zeros', Location.frame, frameOf(read, i), Cost.pageCopy);
        this.#memory.zeroFrame(frameOf(read, i));
        this.counters.swpin_zero++;
        i++;
      } else if (this.zswap?.has(entry + i)) {
        if (yield* this.#loadFromZswap(agent, this.zswap, read, i)) loaded.push(i++);
      } else {
        const from = i++;
        while (i < pages && !area.isZero(slot + i) && !this.zswap?.has(entry + i)) i++;
        const failed = yield* this.#readDevice(agent, area, read, { slot: slot + from, from, pages: i - from });
        if (failed) return false;
      }
    }
    if (this.zswap && loaded.length > 0) yield* this.#giveUp(agent, this.zswap, read, loaded);
    return true;
  }

  /** What an entry stands for, wherever it is stored: for checks. */
  readContent(entry: number): PageContent {
    return this.zswap?.has(entry) ? this.zswap.read(entry) : this.#space.readContent(entry);
  }

  *#storeInZswap(agent: Agent, zswap: Zswap, { entry, pfn, pages }: SwapRun): Task<boolean> {
    yield agent.writes('check the limits of zswap', Location.lock, zswap.lockId, Cost.free);
    let stored = zswap.accepts();
    for (let i = 0; i < pages && stored; i++) {
      yield agent.reads('compress page for zswap', Location.frame, pfn + i, Cost.compressPage);
      const content = this.#memory.readContent(pfn + i);
      const store = agent.writes('store page in zswap', Location.lock, zswap.lockId, Cost.free);
      yield agent.alsoWrites(store, Location.folio, pfn);
      stored = zswap.store(entry + i, content);
    }
    // A folio is there as a whole or not at all, and an older content must not come back after the device has the new one.
    if (!stored) for (let i = 0; i < pages; i++) zswap.drop(entry + i);
    return stored;
  }

  *#loadFromZswap(agent: Agent, zswap: Zswap, read: SwapRead, index: number): Task<boolean> {
    const { entry } = read;
    const pfn = frameOf(read, index);
    const cost = zswap.isIncompressible(entry + index) ? Cost.pageCopy : Cost.decompressPage;
    const step = agent.writes('decompress page from zswap', Location.frame, pfn, cost);
    yield agent.alsoWrites(step, Location.lock, zswap.lockId);
    // Meanwhile it may have been written back.
    if (!zswap.has(entry + index)) return false;
    this.#memory.writeContent(pfn, zswap.read(entry + index));
    this.counters.zswpin++;
    return true;
  }

  /** Leaves pages that were loaded to the swap cache; not before the read has succeeded, so that a failed one loses nothing. */
  *#giveUp(agent: Agent, zswap: Zswap, { entry, markDirty }: SwapRead, loaded: readonly number[]): Task<void> {
    if (!markDirty) return;
    yield agent.writes('take pages from zswap', Location.lock, zswap.lockId, Cost.free);
    for (const index of loaded) {
      // What was written back meanwhile is on the device, and clean.
      if (!zswap.has(entry + index)) continue;
      zswap.drop(entry + index);
      markDirty(index);
    }
  }

  *#readDevice(
    agent: Agent,
    area: SwapArea,
    read: SwapRead,
    part: { readonly slot: number; readonly from: number; readonly pages: number },
  ): Task<boolean> {
    const { slot, from, pages } = part;
    this.counters.pswpin += pages;
    return yield* this.#submitAndWait(agent, {
      ...{ area, slot, pages, pfn: frameOf(read, from), write: false, lockId: 0 },
      ...{ load: () => area.content.read(slot), valid: always },
      save: (index, content) => this.#memory.writeContent(frameOf(read, from + index), content),
      onEnd: nothing,
    });
  }

  *#submitAndWait(agent: Agent, request: SwapRequest): Task<boolean> {
    let ended = false;
    let failed = false;
    const end = new Condition(`I/O of ${request.area.name}`, () => ended);
    yield* this.#queueOf(request.area).submit(agent, {
      ...request,
      onEnd: (result) => {
        request.onEnd(result);
        ended = true;
        failed = result;
        end.wake();
      },
    });
    while (!ended) yield agent.waits('wait for swap I/O to end', end);
    return failed;
  }

  *#shrinkLoop(agent: Agent, zswap: Zswap): Task<void> {
    try {
      for (;;) {
        do yield agent.waits('wait for a full zswap', this.#shrinkWork);
        while (!this.#shrinkWanted);
        this.#shrinkWanted = false;
        yield* this.#shrink(agent, zswap);
      }
    } finally {
      this.#shrinkers--;
    }
  }

  *#wantShrink(agent: Agent, zswap: Zswap): Task<void> {
    if (this.#shrinkers > 0) {
      yield agent.writes('wake zswap-shrink', Location.lock, this.#shrinkWork.id, Cost.free);
      this.#shrinkWanted = true;
      this.#shrinkWork.wake();
    } else if (!this.#shrinking) {
      yield* this.#shrink(agent, zswap);
    }
  }

  /** Linux's shrink_worker, with entries in the order in which they were stored. */
  *#shrink(agent: Agent, zswap: Zswap): Task<void> {
    this.#shrinking = true;
    for (let failures = 0; failures < SHRINK_RETRIES && zswap.frames > zswap.acceptFrames; ) {
      yield agent.writes('decompress page for write-back', Location.lock, zswap.lockId, Cost.decompressPage);
      const entry = zswap.rotate();
      if (entry < 0) break;
      if (yield* this.#writeBack(agent, zswap, entry)) failures++;
    }
    this.#shrinking = false;
  }

  /** Moves one page to its slot on the device; on failure it stays. @returns whether it failed */
  *#writeBack(agent: Agent, zswap: Zswap, entry: number): Task<boolean> {
    const serial = zswap.serial(entry);
    const valid = (): boolean => zswap.serial(entry) === serial;
    this.counters.pswpout++;
    return yield* this.#submitAndWait(agent, {
      ...{ area: this.#space.areaOf(entry), slot: this.#space.slotOf(entry), pages: 1, pfn: -1, write: true },
      ...{ lockId: zswap.lockId, load: () => zswap.read(entry), save: nothing, valid },
      onEnd: (failed) => {
        if (failed) zswap.reject_reclaim_fail++;
        if (failed || !valid()) return;
        zswap.drop(entry);
        zswap.written_back_pages++;
        this.counters.zswpwb++;
      },
    });
  }

  #isZero(pfn: number, pages: number): boolean {
    for (let i = 0; i < pages; i++) if ((this.#memory.tagLo(pfn + i) | this.#memory.tagHi(pfn + i)) !== 0) return false;
    return true;
  }

  #locate({ entry, pages }: SwapRun): { area: SwapArea; slot: number } {
    const area = this.#space.areaOf(entry);
    const slot = this.#space.slotOf(entry);
    checkInteger('pages', pages, 1, area.slots - slot);
    for (let i = 0; i < pages; i++)
      if (!area.isUsed(slot + i)) assert(false, () => `swap entry ${hex(entry + i)} is not in use`);
    return { area, slot };
  }

  #noteEnd(): void {
    this.#ended++;
    for (const wait of this.#waits) wait.wake();
  }

  #queueOf(area: SwapArea): SwapQueue {
    let queue = this.#queues.get(area);
    if (!queue) {
      queue = new SwapQueue(area, () => this.#noteEnd());
      this.#queues.set(area, queue);
    }
    return queue;
  }
}
