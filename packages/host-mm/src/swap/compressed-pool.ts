import { assert, Condition } from '@faultline/sim';
import { PAGE_BYTES } from './compression-model.ts';

/** Where a pool of compressed pages gets its frames. */
export interface FrameSource {
  /** A frame, now the pool's, or -1 if none can be had. Must not sleep. */
  take(): number;
  give(pfn: number): void;
}

/**
 * Memory for compressed pages, zsmalloc without its size classes: packing is perfect, so that n bytes take n / 4096 frames,
 * rounded up; zsmalloc loses some per cent to its classes and to holes.
 */
export class CompressedPool {
  /** The number of the lock that steps name which change the pool. */
  readonly id: number;
  /** Bytes stored. */
  bytes = 0;
  readonly #source: FrameSource;
  readonly #frames: number[] = [];

  constructor(name: string, source: FrameSource) {
    this.#source = source;
    this.id = new Condition(`${name} pool`, () => true).id;
  }

  /** Frames that the pool holds. */
  get frames(): number {
    return this.#frames.length;
  }

  /** Room for an object of 0..4096 bytes (zs_malloc). @returns false if a frame is needed and none can be had */
  allocate(bytes: number): boolean {
    if (this.bytes + bytes > this.#frames.length * PAGE_BYTES) {
      const pfn = this.#source.take();
      if (pfn < 0) return false;
      this.#frames.push(pfn);
    }
    this.bytes += bytes;
    return true;
  }

  /** Gives an object's room back, and the frames that nothing is left for. */
  free(bytes: number): void {
    assert(bytes <= this.bytes, 'a compressed pool gives back more than it holds');
    this.bytes -= bytes;
    while ((this.#frames.length - 1) * PAGE_BYTES >= this.bytes) {
      const pfn = this.#frames.pop();
      if (pfn === undefined) return;
      this.#source.give(pfn);
    }
  }
}
