import { hex } from '@faultline/address';
import { assert } from '@faultline/sim';
import { checkInteger } from '../argument.ts';
import { FANOUT, FRAMES_PER_1G } from '../folio/folio-order.ts';
import { ARENA_ORDER, BuddyArena } from './buddy-arena.ts';
import { FrameSpan, type FrameSpanOptions } from './frame-span.ts';
import { type Linked, LinkedList } from './linked-list.ts';

/** Order of the largest block, 1G. */
const LARGEST_ORDER = 2 * ARENA_ORDER;

/** An aligned 1G of frame numbers: free or allocated as one, or in pieces. */
class Region implements Linked<Region> {
  prev: Region | null = null;
  next: Region | null = null;
  readonly firstPfn: number;
  isFree = false;
  /** Its 2M blocks, `null` while it is free or allocated as one. */
  arena: BuddyArena | null = null;
  /** The frames of each 2M block that is in pieces, which counts as allocated in `arena`. */
  blocks: (BuddyArena | null)[] = [];

  constructor(firstPfn: number) {
    this.firstPfn = firstPfn;
  }
}

/**
 * A buddy system: hands out naturally aligned runs of 1, 2, 4, ... 262,144 frames (orders 0 to 18). Buddies that are both
 * free are one block again at once, up to 1G. A block comes from where the largest free block is smallest, and there
 * from the smallest that suffices, at the lowest address; so small allocations prefer what is in pieces already. An
 * operation is O(1): at most 9 splits or merges among the 512 frames of a 2M block, and as many among the 512 blocks of
 * 1G, of which `free` looks at those that it gets. Memory is used for blocks in pieces only: some 500 bytes for each 2M,
 * 5 KiB for each 1G. (Linux's buddy system ends at order 10; its larger blocks are `alloc_contig_range`'s and hugetlb's.)
 */
export class FrameAllocator {
  readonly #span: FrameSpan;
  #freeFrames = 0;
  /** Index of the first 1G region. */
  readonly #firstRegion: number;
  /** `null` is a hole. */
  readonly #regions: (Region | null)[] = [];
  readonly #freeRegions = new LinkedList<Region>();
  /** By the order of their largest free block: arenas of frames (0 to 8), then arenas of 2M blocks (9 to 17). */
  readonly #arenas: readonly LinkedList<BuddyArena>[];
  /** Bit `order` tells whether that list, or for 18 the one of free regions, has members. */
  #listed = 0;

  /** @throws RangeError naming the argument that is not a whole number or leaves 31 bits */
  constructor(options: FrameSpanOptions) {
    const span = new FrameSpan(options);
    this.#span = span;
    this.#arenas = Array.from({ length: LARGEST_ORDER }, () => new LinkedList<BuddyArena>());
    this.#firstRegion = span.firstPfn >> 18;
    for (let pfn = this.#firstRegion * FRAMES_PER_1G; pfn < span.endPfn; pfn += FRAMES_PER_1G)
      this.#regions.push(span.isHole(pfn) ? null : new Region(pfn));
    // From the last to the first, because a list gives what it got last.
    for (const region of this.#regions.toReversed()) if (region) this.#addRegion(region);
  }

  /** First frame number. */
  get firstPfn(): number {
    return this.#span.firstPfn;
  }

  /** Frames in all. */
  get frames(): number {
    return this.#span.frames;
  }

  /** Frames that can be allocated as 4K. */
  get freeFrames(): number {
    return this.#freeFrames;
  }

  get allocatedFrames(): number {
    return this.frames - this.#freeFrames;
  }

  /** The largest order that can be allocated, -1 if nothing is free. */
  get largestFreeOrder(): number {
    return 31 - Math.clz32(this.#listed);
  }

  /**
   * The first frame of a free block of that order, now allocated, or -1 if there is none.
   * @throws RangeError for an order outside 0..18
   */
  allocate(order: number): number {
    checkOrder(order);
    const pfn = order < ARENA_ORDER ? this.#takeFrames(order) : this.#takeBlocks(order);
    if (pfn >= 0) this.#freeFrames -= 1 << order;
    return pfn;
  }

  /**
   * Takes exactly the block at `pfn` if all of it is free, also out of a larger free block.
   * @returns whether it did; false too if part of the block is outside the allocator
   * @throws RangeError for an order outside 0..18, or a frame number that is not aligned to it
   */
  allocateAt(pfn: number, order: number): boolean {
    checkOrder(order);
    if (pfn % (1 << order) !== 0) throw new RangeError(`pfn: ${hex(pfn)} is not aligned to order ${order}`);
    if (!this.#holds(pfn, order) || !this.#takeAt(this.#regionOf(pfn), pfn, order)) return false;
    this.#freeFrames -= 1 << order;
    return true;
  }

  /**
   * Takes a block of order 0 to 8 out of the 2M that holds `pfn`, at the lowest address, if those are in pieces.
   * @returns its first frame, or -1: all of the 2M is in use, or free as one
   * @throws RangeError for an order outside 0..8
   */
  allocateWithin(pfn: number, order: number): number {
    checkInteger('order', order, 0, ARENA_ORDER - 1);
    const block = this.#span.contains(pfn) ? this.#regionOf(pfn).blocks[(pfn >> 9) & 511] : null;
    const at = block ? block.allocate(order) : -1;
    if (!block || at < 0) return -1;
    this.#freeFrames -= 1 << order;
    this.#relist(block, 0);
    return block.firstPfn + at;
  }

  /**
   * Gives back a block, an aligned piece of a block that was allocated as a larger one, or several that make up one.
   * Asserts that all of it is allocated.
   * @throws RangeError for an order outside 0..18
   */
  free(pfn: number, order: number): void {
    checkOrder(order);
    if (!this.#holds(pfn, order) || pfn % (1 << order) !== 0)
      assert(false, () => `frame ${hex(pfn)} of order ${order} is outside the allocator or not aligned`);
    const region = this.#regionOf(pfn);
    if (!this.#isAllAllocated(region, pfn, order))
      assert(false, () => `double free of frame ${hex(pfn)} of order ${order}: not all of it is allocated`);
    this.#freeFrames += 1 << order;
    this.#release(region, pfn, order);
  }

  /** Whether a frame is allocated. False outside the allocator. */
  isAllocated(pfn: number): boolean {
    return this.#span.contains(pfn) && this.#isAllAllocated(this.#regionOf(pfn), pfn, 0);
  }

  /**
   * Number of free blocks of each order 0..18, buddies merged, as a line of `/proc/buddyinfo`. Takes time for each
   * block in pieces.
   */
  buddyInfo(): number[] {
    const counts = new Array<number>(LARGEST_ORDER + 1).fill(0);
    for (let region = this.#freeRegions.first; region; region = region.next) counts[LARGEST_ORDER]!++;
    for (const [order, list] of this.#arenas.entries())
      for (let arena = list.first; arena; arena = arena.next)
        arena.addFreeBlocks(counts, order < ARENA_ORDER ? 0 : ARENA_ORDER);
    return counts;
  }

  #addRegion(region: Region): void {
    const end = Math.min(region.firstPfn + FRAMES_PER_1G, this.#span.endPfn);
    let pfn = Math.max(region.firstPfn, this.#span.firstPfn);
    this.#freeFrames += end - pfn;
    // Frames outside stay allocated for good. What is inside comes in the largest aligned blocks.
    while (pfn < end) {
      const aligned = pfn === 0 ? LARGEST_ORDER : 31 - Math.clz32(pfn & -pfn);
      const order = Math.min(LARGEST_ORDER, aligned, 31 - Math.clz32(end - pfn));
      this.#release(region, pfn, order);
      pfn += 1 << order;
    }
  }

  /** Whether all of a block is within the allocator. Holes are whole regions, so its ends tell. */
  #holds(pfn: number, order: number): boolean {
    return this.#span.contains(pfn) && this.#span.contains(pfn + (1 << order) - 1);
  }

  #regionOf(pfn: number): Region {
    return this.#regions[(pfn >> 18) - this.#firstRegion] as Region;
  }

  /** Takes a block of order 0 to 8. */
  #takeFrames(order: number): number {
    const listed = this.#listed & (FANOUT - 1) & (-1 << order);
    let block: BuddyArena;
    if (listed !== 0) {
      block = this.#firstListed(listed);
    } else {
      const pfn = this.#takeBlocks(ARENA_ORDER);
      if (pfn < 0) return -1;
      block = splitBlock(this.#regionOf(pfn), (pfn >> 9) & 511, true);
    }
    const pfn = block.firstPfn + block.allocate(order);
    this.#relist(block, 0);
    return pfn;
  }

  /** Takes a block of order 9 to 18. */
  #takeBlocks(order: number): number {
    const listed = this.#listed & (-1 << order);
    if (listed === 0) return -1;
    let arena: BuddyArena;
    if (listed === 1 << LARGEST_ORDER) {
      const region = this.#freeRegions.first as Region;
      this.#unlistRegion(region);
      if (order === LARGEST_ORDER) return region.firstPfn;
      arena = splitRegion(region, true);
    } else {
      arena = this.#firstListed(listed);
    }
    const pfn = arena.firstPfn + arena.allocate(order - ARENA_ORDER) * FANOUT;
    this.#relist(arena, ARENA_ORDER);
    return pfn;
  }

  #takeAt(region: Region, pfn: number, order: number): boolean {
    const unit = (pfn >> 9) & 511;
    if (region.isFree) {
      this.#unlistRegion(region);
      if (order === LARGEST_ORDER) return true;
      splitRegion(region, true);
    }
    if (region.arena === null || order === LARGEST_ORDER) return false;
    if (order >= ARENA_ORDER) {
      const taken = region.arena.allocateAt(order - ARENA_ORDER, unit);
      this.#relist(region.arena, ARENA_ORDER);
      return taken;
    }
    let block = region.blocks[unit];
    if (!block) {
      if (!this.#takeAt(region, pfn, ARENA_ORDER)) return false;
      block = splitBlock(region, unit, true);
    }
    const taken = block.allocateAt(order, pfn & 511);
    this.#relist(block, 0);
    return taken;
  }

  #isAllAllocated(region: Region, pfn: number, order: number): boolean {
    const arena = region.arena;
    if (arena === null) return !region.isFree;
    const unit = (pfn >> 9) & 511;
    if (order < ARENA_ORDER) {
      const block = region.blocks[unit];
      return block ? !block.hasFree(order, pfn & 511) : !arena.hasFree(0, unit);
    }
    if (arena.hasFree(order - ARENA_ORDER, unit)) return false;
    for (let u = unit; u < unit + (1 << (order - ARENA_ORDER)); u++)
      if (region.blocks[u]?.hasFree(ARENA_ORDER, 0)) return false;
    return true;
  }

  /** Makes a block free of which all is allocated. */
  #release(region: Region, pfn: number, order: number): void {
    const unit = (pfn >> 9) & 511;
    if (order === LARGEST_ORDER) {
      this.#regionIsFree(region);
    } else if (order >= ARENA_ORDER) {
      this.#releaseBlocks(region, unit, order - ARENA_ORDER);
    } else {
      if (region.arena === null) splitRegion(region, false);
      const block = region.blocks[unit] ?? splitBlock(region, unit, false);
      block.free(order, pfn & 511);
      if (block.isWhole) this.#releaseBlocks(region, unit, 0);
      else this.#relist(block, 0);
    }
  }

  /** Makes 2^`order` 2M blocks free, each allocated as one or all of it in pieces, or the last piece of which came back. */
  #releaseBlocks(region: Region, unit: number, order: number): void {
    const arena = region.arena ?? splitRegion(region, false);
    for (let u = unit; u < unit + (1 << order); u++) {
      const block = region.blocks[u];
      if (!block) continue;
      this.#list(block, -1);
      region.blocks[u] = null;
    }
    arena.free(order, unit);
    if (arena.isWhole) this.#regionIsFree(region);
    else this.#relist(arena, ARENA_ORDER);
  }

  #regionIsFree(region: Region): void {
    if (region.arena !== null) this.#list(region.arena, -1);
    region.arena = null;
    region.blocks = [];
    region.isFree = true;
    this.#freeRegions.pushFront(region);
    this.#listed |= 1 << LARGEST_ORDER;
  }

  #unlistRegion(region: Region): void {
    region.isFree = false;
    this.#freeRegions.remove(region);
    if (this.#freeRegions.first === null) this.#listed &= ~(1 << LARGEST_ORDER);
  }

  /** The first arena of the smallest order in `listed`, bits of `#listed`. */
  #firstListed(listed: number): BuddyArena {
    return this.#arenas[31 - Math.clz32(listed & -listed)]!.first as BuddyArena;
  }

  /** Moves an arena, the units of which have an order of `unitOrder`, to the list that it belongs to now. */
  #relist(arena: BuddyArena, unitOrder: number): void {
    const largest = arena.largestOrder;
    const order = largest < 0 ? -1 : unitOrder + largest;
    if (order !== arena.listedOrder) this.#list(arena, order);
  }

  /** Moves an arena to the list of an order, or out of all lists for -1. */
  #list(arena: BuddyArena, order: number): void {
    const from = arena.listedOrder;
    if (from >= 0) {
      const list = this.#arenas[from] as LinkedList<BuddyArena>;
      list.remove(arena);
      if (list.first === null) this.#listed &= ~(1 << from);
    }
    arena.listedOrder = order;
    if (order < 0) return;
    (this.#arenas[order] as LinkedList<BuddyArena>).pushFront(arena);
    this.#listed |= 1 << order;
  }
}

const checkOrder = (order: number): void => checkInteger('order', order, 0, LARGEST_ORDER);

/** Gives a region that is in no list its 2M blocks, all of them free or all allocated. */
function splitRegion(region: Region, free: boolean): BuddyArena {
  region.arena = new BuddyArena(region.firstPfn, free);
  region.blocks = new Array<BuddyArena | null>(FANOUT).fill(null);
  return region.arena;
}

/** Gives a 2M block that is allocated in its region's arena its frames, all of them free or all allocated. */
function splitBlock(region: Region, unit: number, free: boolean): BuddyArena {
  const block = new BuddyArena(region.firstPfn + unit * FANOUT, free);
  region.blocks[unit] = block;
  return block;
}
