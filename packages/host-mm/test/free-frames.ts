import type { FrameSpanOptions } from '../src/index.ts';

/** What a frame allocator should know, in the simplest form that is fast enough. */
export interface FreeFrames {
  take(pfn: number, frames: number): void;
  give(pfn: number, frames: number): void;
  /** Whether all of them are memory and free. */
  isFree(pfn: number, frames: number): boolean;
  /** Whether all of them are memory and allocated. */
  isAllocated(pfn: number, frames: number): boolean;
  /** A frame number behind `pfn`, none between them being allocated if `pfn` is not. */
  nextChange(pfn: number): number;
  /** Blocks of each order 0..18 that are free, aligned and not part of a larger one that is. */
  freeBlocks(): number[];
}

/** A set of the free frames. */
export class FreeSet implements FreeFrames {
  readonly #memory = new Set<number>();
  readonly #free: Set<number>;

  constructor({ firstPfn, frames }: FrameSpanOptions) {
    for (let i = 0; i < frames; i++) this.#memory.add(firstPfn + i);
    this.#free = new Set(this.#memory);
  }

  take(pfn: number, frames: number): void {
    for (let i = 0; i < frames; i++) this.#free.delete(pfn + i);
  }

  give(pfn: number, frames: number): void {
    for (let i = 0; i < frames; i++) this.#free.add(pfn + i);
  }

  isFree(pfn: number, frames: number): boolean {
    for (let i = 0; i < frames; i++) if (!this.#free.has(pfn + i)) return false;
    return true;
  }

  isAllocated(pfn: number, frames: number): boolean {
    for (let i = 0; i < frames; i++) if (!this.#memory.has(pfn + i) || this.#free.has(pfn + i)) return false;
    return true;
  }

  nextChange(pfn: number): number {
    return pfn + 1;
  }

  freeBlocks(): number[] {
    const counts: number[] = [];
    let blocks = this.#free;
    for (let order = 0; order <= 18; order++) {
      const size = 2 ** order;
      const pairs = new Set<number>();
      if (order < 18) for (const pfn of blocks) if (pfn % (2 * size) === 0 && blocks.has(pfn + size)) pairs.add(pfn);
      counts.push(blocks.size - 2 * pairs.size);
      blocks = pairs;
    }
    return counts;
  }
}

type Run = readonly [from: number, end: number];

/** The free frames as runs that do not touch, in order. */
export class FreeRuns implements FreeFrames {
  readonly #memory: readonly Run[];
  #free: readonly Run[];

  /** The hole is within the span, or begins where it ends. */
  constructor({ firstPfn, frames, hole }: FrameSpanOptions) {
    const end = firstPfn + frames;
    this.#memory =
      hole && firstPfn < hole.firstPfn && end > hole.firstPfn
        ? [
            [firstPfn, hole.firstPfn],
            [hole.firstPfn + hole.frames, end + hole.frames],
          ]
        : [[firstPfn, end]];
    this.#free = this.#memory;
  }

  take(pfn: number, frames: number): void {
    const pieces = this.#free.flatMap(([from, end]): Run[] => [
      [from, Math.min(end, pfn)],
      [Math.max(from, pfn + frames), end],
    ]);
    this.#free = pieces.filter(([from, end]) => from < end);
  }

  give(pfn: number, frames: number): void {
    const runs = [...this.#free, [pfn, pfn + frames] as const].sort((a, b) => a[0] - b[0]);
    const joined: [number, number][] = [];
    for (const [from, end] of runs) {
      const last = joined.at(-1);
      if (last && last[1] === from) last[1] = end;
      else joined.push([from, end]);
    }
    this.#free = joined;
  }

  isFree(pfn: number, frames: number): boolean {
    return this.#free.some(([from, end]) => from <= pfn && pfn + frames <= end);
  }

  isAllocated(pfn: number, frames: number): boolean {
    const isMemory = this.#memory.some(([from, end]) => from <= pfn && pfn + frames <= end);
    return isMemory && !this.#free.some(([from, end]) => from < pfn + frames && pfn < end);
  }

  nextChange(pfn: number): number {
    const edges = [...this.#free, ...this.#memory].flat().filter((edge) => edge > pfn);
    return Math.min(...edges);
  }

  freeBlocks(): number[] {
    const counts = new Array<number>(19).fill(0);
    for (const [from, end] of this.#free)
      for (let pfn = from; pfn < end; ) {
        let order = 18;
        while (pfn % 2 ** order !== 0 || pfn + 2 ** order > end) order--;
        counts[order]!++;
        pfn += 2 ** order;
      }
    return counts;
  }
}
