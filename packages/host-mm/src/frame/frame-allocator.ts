import { hex } from '@faultline/address';
import { assert } from '@faultline/sim';
import { FANOUT, type FolioOrder, FRAMES_PER_1G, framesOf } from '../folio/folio-order.ts';
import { FrameSpan, type FrameSpanOptions } from './frame-span.ts';
import { type Linked, LinkedList } from './linked-list.ts';

const State = { outside: 0, free: 1, allocated: 2, split: 3 } as const;

/** A 2M block of which at least one frame is on its own. */
class Block implements Linked<Block> {
  prev: Block | null = null;
  next: Block | null = null;
  readonly region: Region;
  readonly index: number;
  /** Free frames, the top is handed out first. */
  readonly #stack = new Uint16Array(FANOUT);
  readonly #isFree = new Uint32Array(FANOUT / 32);
  freeFrames = 0;

  constructor(region: Region, index: number) {
    this.region = region;
    this.index = index;
  }

  pop(): number {
    const frame = this.#stack[--this.freeFrames]!;
    this.#isFree[frame >> 5]! &= ~(1 << (frame & 31));
    return frame;
  }

  push(frame: number): void {
    this.#stack[this.freeFrames++] = frame;
    this.#isFree[frame >> 5]! |= 1 << (frame & 31);
  }

  isFree(frame: number): boolean {
    return (this.#isFree[frame >> 5]! & (1 << (frame & 31))) !== 0;
  }
}

/** A 1G region of which at least one 2M block is on its own. */
class Region implements Linked<Region> {
  prev: Region | null = null;
  next: Region | null = null;
  readonly index: number;
  readonly states = new Uint8Array(FANOUT);
  readonly blocks: (Block | null)[] = new Array<Block | null>(FANOUT).fill(null);
  readonly #stack = new Uint16Array(FANOUT);
  freeBlocks = 0;

  constructor(index: number) {
    this.index = index;
  }

  pop(): number {
    return this.#stack[--this.freeBlocks]!;
  }

  push(block: number): void {
    this.states[block] = State.free;
    this.#stack[this.freeBlocks++] = block;
  }
}

/**
 * Hands out naturally aligned runs of 1, 512 and 262,144 frames. Every operation is O(1) amortised: larger blocks are
 * split when a smaller one is needed, small ones are preferred from blocks already split, and a block whose frames have
 * all come back is whole again at once. Memory is used for split blocks only. (Linux's buddy system has orders 0 to 10;
 * 1G comes from hugetlb there.)
 */
export class FrameAllocator {
  readonly #span: FrameSpan;
  #freeFrames = 0;
  /** Index of the first 1G region. */
  readonly #firstRegion: number;
  readonly #states: Uint8Array;
  readonly #regions: (Region | null)[];
  readonly #freeRegions: number[] = [];
  /** Regions with a free 2M block, blocks with a free frame. */
  readonly #withBlocks = new LinkedList<Region>();
  readonly #withFrames = new LinkedList<Block>();

  /** @throws RangeError naming the argument that is not a whole number or leaves 31 bits */
  constructor(options: FrameSpanOptions) {
    const span = new FrameSpan(options);
    this.#span = span;
    this.#firstRegion = span.firstPfn >> 18;
    const end = span.endPfn;
    const regions = ((end - 1) >> 18) - this.#firstRegion + 1;
    this.#states = new Uint8Array(regions);
    this.#regions = new Array<Region | null>(regions).fill(null);
    for (let r = regions - 1; r >= 0; r--)
      if (!span.isHole((r + this.#firstRegion) * FRAMES_PER_1G)) this.#addRegion(r, end);
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

  /** The first frame of a free block of that order, now allocated, or -1 if there is none. */
  allocate(order: FolioOrder): number {
    const pfn = order === 18 ? this.#take1G() : order === 9 ? this.#take2M() : this.#take4K();
    if (pfn >= 0) this.#freeFrames -= framesOf(order);
    return pfn;
  }

  /**
   * Gives back a block, or an aligned piece of a block that was allocated as a larger one.
   * Asserts that all of it is allocated.
   */
  free(pfn: number, order: FolioOrder): void {
    const frames = framesOf(order);
    assert(
      this.#span.contains(pfn) && this.#span.contains(pfn + frames - 1) && pfn % frames === 0,
      `frame ${hex(pfn)} of order ${order} is outside the allocator or not aligned`,
    );
    if (order === 18) this.#free1G(pfn);
    else if (order === 9) this.#free2M(pfn);
    else this.#free4K(pfn);
    this.#freeFrames += frames;
  }

  /** Whether a frame is allocated. False outside the allocator. */
  isAllocated(pfn: number): boolean {
    if (!this.#span.contains(pfn)) return false;
    const r = (pfn >> 18) - this.#firstRegion;
    const region = this.#regions[r];
    if (!region) return this.#states[r] === State.allocated;
    const block = region.blocks[(pfn >> 9) & 511];
    return block ? !block.isFree(pfn & 511) : region.states[(pfn >> 9) & 511] === State.allocated;
  }

  #addRegion(r: number, end: number): void {
    const start = (r + this.#firstRegion) * FRAMES_PER_1G;
    const first = Math.max(start, this.#span.firstPfn);
    const last = Math.min(start + FRAMES_PER_1G, end) - 1;
    this.#freeFrames += last - first + 1;
    if (last - first + 1 === FRAMES_PER_1G) {
      this.#states[r] = State.free;
      this.#freeRegions.push(r);
      return;
    }
    const region = this.#materialise(r, State.outside);
    for (let b = (last - start) >> 9; b >= (first - start) >> 9; b--) {
      const blockFirst = Math.max(first, start + b * FANOUT);
      const blockLast = Math.min(last, start + b * FANOUT + FANOUT - 1);
      if (blockLast - blockFirst + 1 === FANOUT) {
        region.push(b);
      } else {
        const block = this.#splitBlock(region, b);
        for (let pfn = blockLast; pfn >= blockFirst; pfn--) block.push(pfn & 511);
        this.#withFrames.pushFront(block);
      }
    }
    if (region.freeBlocks > 0) this.#withBlocks.pushFront(region);
  }

  /** Gives a region a table of its 2M blocks, all in the same state. */
  #materialise(r: number, state: number): Region {
    const region = new Region(r);
    region.states.fill(state);
    this.#regions[r] = region;
    this.#states[r] = State.split;
    return region;
  }

  #splitBlock(region: Region, index: number): Block {
    const block = new Block(region, index);
    region.blocks[index] = block;
    region.states[index] = State.split;
    return block;
  }

  #take1G(): number {
    const r = this.#freeRegions.pop();
    if (r === undefined) return -1;
    this.#states[r] = State.allocated;
    return (r + this.#firstRegion) * FRAMES_PER_1G;
  }

  #take2M(): number {
    let region = this.#withBlocks.first;
    if (region === null) {
      const r = this.#freeRegions.pop();
      if (r === undefined) return -1;
      region = this.#materialise(r, State.free);
      for (let b = FANOUT - 1; b >= 0; b--) region.push(b);
      this.#withBlocks.pushFront(region);
    }
    const b = region.pop();
    region.states[b] = State.allocated;
    if (region.freeBlocks === 0) this.#withBlocks.remove(region);
    return (region.index + this.#firstRegion) * FRAMES_PER_1G + b * FANOUT;
  }

  #take4K(): number {
    let block = this.#withFrames.first;
    if (block === null) {
      const pfn = this.#take2M();
      if (pfn < 0) return -1;
      block = this.#splitBlock(this.#regionOf(pfn), (pfn >> 9) & 511);
      for (let f = FANOUT - 1; f >= 0; f--) block.push(f);
      this.#withFrames.pushFront(block);
    }
    const frame = block.pop();
    if (block.freeFrames === 0) this.#withFrames.remove(block);
    return (block.region.index + this.#firstRegion) * FRAMES_PER_1G + block.index * FANOUT + frame;
  }

  /** The table of the region that holds a frame, made on the spot if the region was allocated as one. */
  #regionOf(pfn: number): Region {
    const r = (pfn >> 18) - this.#firstRegion;
    const region = this.#regions[r];
    if (region) return region;
    assert(this.#states[r] === State.allocated, () => `double free of frame ${hex(pfn)}`);
    return this.#materialise(r, State.allocated);
  }

  #free1G(pfn: number): void {
    const r = (pfn >> 18) - this.#firstRegion;
    assert(this.#states[r] === State.allocated, () => `1G block ${hex(pfn)} freed, but it is not allocated as one`);
    this.#states[r] = State.free;
    this.#freeRegions.push(r);
  }

  #free2M(pfn: number): void {
    const region = this.#regionOf(pfn);
    const b = (pfn >> 9) & 511;
    assert(region.states[b] === State.allocated, () => `2M block ${hex(pfn)} freed, but it is not allocated as one`);
    this.#blockIsFree(region, b);
  }

  #free4K(pfn: number): void {
    const region = this.#regionOf(pfn);
    const b = (pfn >> 9) & 511;
    let block = region.blocks[b] ?? null;
    if (block === null) {
      assert(region.states[b] === State.allocated, () => `double free of frame ${hex(pfn)}`);
      block = this.#splitBlock(region, b);
    }
    assert(!block.isFree(pfn & 511), () => `double free of frame ${hex(pfn)}`);
    block.push(pfn & 511);
    if (block.freeFrames === 1) this.#withFrames.pushFront(block);
    if (block.freeFrames < FANOUT) return;
    this.#withFrames.remove(block);
    region.blocks[b] = null;
    this.#blockIsFree(region, b);
  }

  #blockIsFree(region: Region, b: number): void {
    region.push(b);
    if (region.freeBlocks === 1) this.#withBlocks.pushFront(region);
    if (region.freeBlocks < FANOUT) return;
    this.#withBlocks.remove(region);
    this.#regions[region.index] = null;
    this.#states[region.index] = State.free;
    this.#freeRegions.push(region.index);
  }
}
