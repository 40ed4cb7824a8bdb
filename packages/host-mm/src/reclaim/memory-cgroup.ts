/** Limits of a {@link MemoryCgroup}, in bytes of whole 4 KiB pages; left out: no limit. */
export interface MemoryCgroupOptions {
  readonly name: string;
  /** `memory.max`. */
  readonly max?: number;
}

const PAGE_BYTES = 4096;

/**
 * A memory cgroup (version 2): what its address spaces use is charged to it, and reclaimed from it when it is over its limit. Groups
 * are flat: each is a child of the root, which has no limit. Made by `HostMemory.createMemoryCgroup`.
 */
export class MemoryCgroup {
  readonly id: number;
  readonly name: string;
  #maxPages: number;
  /** Pages charged. */
  usedPages = 0;
  /** Pages of its memory that are in swap. */
  swappedPages = 0;
  /** `memory.events`: how often usage was about to go over `max`, and how often nothing could be reclaimed then. */
  readonly events = { max: 0, oom: 0 };

  /** @internal */
  constructor(id: number, options: MemoryCgroupOptions) {
    this.id = id;
    this.name = options.name;
    this.#maxPages = Number.POSITIVE_INFINITY;
    if (options.max !== undefined) this.setMax(options.max);
  }

  get maxPages(): number {
    return this.#maxPages;
  }

  /** `memory.current`, in bytes. */
  get currentBytes(): number {
    return this.usedPages * PAGE_BYTES;
  }

  /** Changes the limit without reclaiming; see `HostMemory.setMemoryMax`. @throws RangeError unless it is a number of bytes */
  setMax(bytes: number): void {
    if (!(bytes >= 0)) throw new RangeError(`max: ${bytes} is not a number of bytes`);
    this.#maxPages = Math.floor(bytes / PAGE_BYTES);
  }
}
