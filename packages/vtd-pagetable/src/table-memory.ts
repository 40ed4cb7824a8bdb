import { hex } from '@faultline/address';
import { assert } from '@faultline/sim';

/** Where table pages are in host-physical memory, and how many there may be. */
export interface TableMemoryOptions {
  /** First frame of the region. The region must end below frame 2^31 (8 TiB), so that walks stay in 32-bit integers. */
  readonly basePfn?: number;
  /** Most table pages that can exist at once, up to 2^21. Memory is committed as pages are used. */
  readonly pages: number;
  /**
   * Whether hardware snoops the CPU's caches when it reads tables: ECAP.C in legacy mode, ECAP.SMPWC in scalable mode.
   * Default true. If false, a CPU write reaches hardware only with {@link TableMemory.flush} of its cache line.
   */
  readonly coherent?: boolean;
  /** Whether other threads change tables while this one walks them: a walk then guards against torn reads. Default false. */
  readonly concurrent?: boolean;
}

/** Entries in a cache line of 64 bytes. */
const LINE_ENTRIES = 8;

/** 8 GiB of tables: the index of a 32-bit half stays below 2^31, as the walker computes it. */
const MAX_PAGES = 2 ** 21;

/** Written over a freed page: R and W set, every reserved bit set, so that a walk that still gets here faults. */
const POISON = 0x7fff_ffff_ffff_ffffn;

/**
 * The page-table pages of a host, and what else a remapping unit reads and writes in memory (root, context and PASID tables, queues):
 * one region of physical memory in a SharedArrayBuffer, so that walkers in other threads read it while the mapper changes
 * it. Every published entry changes by one 64-bit atomic operation.
 *
 * Without coherency there are two copies: the CPU's, which `load`, `store` and `compareExchange` work on, and memory, which
 * hardware walks (`halves`). `flush` copies the lines that it is given, as CLFLUSH does, and a cache may write a line back by itself at
 * any time (`flush` again, called by whoever plays the cache).
 */
export class TableMemory {
  // What a walk reads has a first value of its kind: a field that was undefined once is checked by V8 at every use.
  readonly basePfn: number = 0;
  readonly pages: number = 0;
  /** Whether hardware sees CPU writes without a flush. */
  readonly coherent: boolean;
  /** Whether other threads may write what this one reads. */
  readonly concurrent: boolean = false;
  /** The memory itself, as hardware sees it; hand it to {@link TableMemory.attach} in another thread. */
  readonly buffer: SharedArrayBuffer;
  /**
   * Memory as hardware sees it, in 32-bit halves, low half first (x86 is little-endian, and so is every platform Node 20 and
   * browsers run on).
   */
  readonly halves: Int32Array = new Int32Array(0);
  /** Memory as the CPU sees it, for filling private pages; the same as {@link halves} if coherent. */
  readonly cpuHalves: Int32Array;
  /** The same as doubles, for filling private pages a whole entry at a time. */
  readonly cpuDoubles: Float64Array;
  /** The CPU's view, whole entries. */
  readonly #entries: BigUint64Array;
  /** Hardware's view, whole entries; the same array if coherent. */
  readonly #memory: BigUint64Array;
  readonly #allocated: Uint8Array;
  #fresh = 0;
  readonly #freed: number[] = [];
  #used = 0;
  #peak = 0;

  /** @throws RangeError naming the option that does not fit */
  constructor(options: TableMemoryOptions, buffer?: SharedArrayBuffer) {
    const { basePfn = 0x1000, pages, coherent = true, concurrent = false } = options;
    if (!Number.isInteger(pages) || pages <= 0 || pages > MAX_PAGES)
      throw new RangeError(`pages: ${pages} is not an integer in 1..2^21`);
    if (!Number.isInteger(basePfn) || basePfn < 0 || basePfn + pages > 0x7fff_ffff)
      throw new RangeError(`basePfn: ${basePfn} must not be negative, and the region must end below frame 2^31`);
    this.basePfn = basePfn;
    this.pages = pages;
    this.coherent = coherent;
    this.concurrent = concurrent;
    this.buffer = buffer ?? new SharedArrayBuffer(pages * 4096);
    // Beyond the buffer a walk would read nothing, and take it for an entry that is not present.
    if (this.buffer.byteLength < pages * 4096)
      throw new RangeError(`pages: ${pages} do not fit in a buffer of ${hex(this.buffer.byteLength)} bytes`);
    this.halves = new Int32Array(this.buffer);
    this.#memory = new BigUint64Array(this.buffer);
    this.#entries = coherent ? this.#memory : new BigUint64Array(new SharedArrayBuffer(pages * 4096));
    this.cpuHalves = coherent ? this.halves : new Int32Array(this.#entries.buffer);
    this.cpuDoubles = new Float64Array(this.#entries.buffer);
    this.#allocated = new Uint8Array(pages);
  }

  /** A view for walking in another thread: same memory, no allocation. */
  static attach(options: TableMemoryOptions, buffer: SharedArrayBuffer): TableMemory {
    return new TableMemory({ concurrent: true, ...options }, buffer);
  }

  /** Table pages in use. */
  get used(): number {
    return this.#used;
  }

  /** Most table pages that were in use at once. */
  get peak(): number {
    return this.#peak;
  }

  /**
   * A table page, or -1 when the region is full.
   * @param zeroed false if the caller writes all 512 entries before anybody sees them
   */
  allocate(zeroed = true): number {
    let index = this.#freed.pop();
    if (index === undefined) {
      if (this.#fresh === this.pages) return -1;
      index = this.#fresh++;
    } else if (zeroed) {
      this.#entries.fill(0n, index * 512, index * 512 + 512);
    }
    this.#allocated[index] = 1;
    this.#used++;
    if (this.#used > this.#peak) this.#peak = this.#used;
    // An int32, as V8 sees it too: a frame that is a double, though whole, makes one of the walk's registers, for good.
    return (this.basePfn + index) | 0;
  }

  /**
   * Zeroed pages in a row, for a queue or a table larger than a page. From memory never used so far.
   * @returns the first frame, or -1 if there are not as many
   */
  allocateContiguous(count: number): number {
    if (!Number.isInteger(count) || count < 1)
      throw new RangeError(`count: ${count} is not a positive number of pages`);
    if (this.#fresh + count > this.pages) return -1;
    const first = this.#fresh;
    this.#fresh = (first + count) | 0;
    this.#allocated.fill(1, first, first + count);
    this.#used += count;
    if (this.#used > this.#peak) this.#peak = this.#used;
    return (this.basePfn + first) | 0;
  }

  /** Zeroes a page that nobody else can reach. */
  clear(pfn: number): void {
    const first = this.#slot(pfn, 0);
    this.#entries.fill(0n, first, first + 512);
  }

  /** Gives a table page back and poisons it. The caller has completed the invalidation that covers it (I5). */
  free(pfn: number): void {
    const index = pfn - this.basePfn;
    assert(this.isAllocated(pfn), () => `table page ${pfn.toString(16)} freed twice or never allocated`);
    this.#allocated[index] = 0;
    this.#entries.fill(POISON, index * 512, index * 512 + 512);
    this.#freed.push(index);
    this.#used--;
  }

  /** Whether the frame belongs to this region, allocated or not. */
  contains(pfn: number): boolean {
    return pfn >= this.basePfn && pfn < this.basePfn + this.pages;
  }

  /** Whether the frame is a table page in use. */
  isAllocated(pfn: number): boolean {
    return this.contains(pfn) && this.#allocated[pfn - this.basePfn] === 1;
  }

  /** Atomic 64-bit load. @throws if the frame is outside the region */
  load(pfn: number, index: number): bigint {
    return Atomics.load(this.#entries, this.#slot(pfn, index));
  }

  /** Atomic 64-bit store. */
  store(pfn: number, index: number, entry: bigint): void {
    Atomics.store(this.#entries, this.#slot(pfn, index), entry);
  }

  /** Atomic 64-bit compare-and-swap. @returns the entry that was there: equal to `expected` if it succeeded */
  compareExchange(pfn: number, index: number, expected: bigint, replacement: bigint): bigint {
    return Atomics.compareExchange(this.#entries, this.#slot(pfn, index), expected, replacement);
  }

  /**
   * Writes the cache lines of `count` entries from `index` on back to memory; nothing to do if coherent. A page just allocated has to be
   * flushed before it is published, like every entry written after that.
   */
  flush(pfn: number, index: number, count = 1): void {
    if (this.coherent) return;
    const first = this.#slot(pfn, index - (index % LINE_ENTRIES));
    const end = this.#slot(pfn, 0) + Math.ceil((index + count) / LINE_ENTRIES) * LINE_ENTRIES;
    for (let slot = first; slot < end; slot++) Atomics.store(this.#memory, slot, this.#entries[slot] as bigint);
  }

  /** Whether the line of an entry holds a CPU write that memory does not have yet. */
  isUnflushed(pfn: number, index: number): boolean {
    if (this.coherent) return false;
    const first = this.#slot(pfn, index - (index % LINE_ENTRIES));
    for (let slot = first; slot < first + LINE_ENTRIES; slot++)
      if (this.#entries[slot] !== this.#memory[slot]) return true;
    return false;
  }

  /** An entry as hardware reads it. @throws if the frame is outside the region */
  hardwareLoad(pfn: number, index: number): bigint {
    return Atomics.load(this.#memory, this.#slot(pfn, index));
  }

  /** Hardware writes a word, such as a page request or a wait's status: it snoops, so the CPU sees it at once. */
  hardwareStore(pfn: number, index: number, word: bigint): void {
    const slot = this.#slot(pfn, index);
    Atomics.store(this.#memory, slot, word);
    if (!this.coherent) Atomics.store(this.#entries, slot, word);
  }

  /** The location number of an entry for steps: its physical address divided by 8. */
  location(pfn: number, index: number): number {
    return pfn * 512 + index;
  }

  /** Whether all 512 entries are zero. */
  isEmpty(pfn: number): boolean {
    const first = this.#slot(pfn, 0) * 2;
    for (let half = first; half < first + 1024; half++) if (this.halves[half] !== 0) return false;
    return true;
  }

  #slot(pfn: number, index: number): number {
    assert(this.contains(pfn), () => `frame 0x${pfn.toString(16)} is not in table memory`);
    return (pfn - this.basePfn) * 512 + index;
  }
}
