import { CompressedPool, type FrameSource } from './compressed-pool.ts';
import {
  type CompressionModel,
  checkCompression,
  compressedBytes,
  DEFAULT_COMPRESSION,
  PAGE_BYTES,
} from './compression-model.ts';
import { SlotTable } from './slot-table.ts';

/** What a zram device needs. */
export interface ZramOptions {
  readonly frames: FrameSource;
  readonly compression?: CompressionModel;
}

// A slot's entry: nothing was written, zeros, or the size plus 1.
const ABSENT = 0;
const SAME = 1;

/** A zram device: which slots it holds and how much memory they take; the contents are the area's. Counters as in mm_stat. */
export class Zram {
  /** Pages of one repeated word that are stored; they take no memory. Here only zeros are such pages. */
  same_pages = 0;
  /** Pages that are stored as they are. */
  huge_pages = 0;
  /** Bytes after compression. */
  compr_data_size = 0;
  /** Writes that found no memory. */
  failed_writes = 0;
  readonly compression: CompressionModel;
  readonly #pool: CompressedPool;
  readonly #sizes = new SlotTable();
  #pages = 0;

  constructor(name: string, { frames, compression = DEFAULT_COMPRESSION }: ZramOptions) {
    this.compression = checkCompression(compression);
    this.#pool = new CompressedPool(name, frames);
  }

  /** The lock that steps name which change the device's memory. */
  get lockId(): number {
    return this.#pool.id;
  }

  /** Bytes stored, before compression. */
  get orig_data_size(): number {
    return this.#pages * PAGE_BYTES;
  }

  /** Bytes of the frames that the device takes. */
  get mem_used_total(): number {
    return this.#pool.frames * PAGE_BYTES;
  }

  /** Bytes of a slot after compression: 0 if nothing or zeros are there, 4096 if the page is stored as it is. */
  storedBytes(slot: number): number {
    return Math.max(0, this.#sizes.get(slot) - 1);
  }

  /** Takes in a slot's page; what was there before is dropped first. @returns false if no memory is left (-ENOMEM) */
  store(slot: number, tagLo: number, tagHi: number): boolean {
    this.forget(slot);
    const bytes = compressedBytes(this.compression, tagLo, tagHi);
    if (!this.#pool.allocate(bytes)) {
      this.failed_writes++;
      return false;
    }
    this.#sizes.set(slot, bytes + 1);
    this.#count(bytes, 1);
    return true;
  }

  /** Drops a slot's page, if there is one (the block layer's swap_slot_free_notify). */
  forget(slot: number): void {
    const entry = this.#sizes.get(slot);
    if (entry === ABSENT) return;
    this.#sizes.set(slot, ABSENT);
    this.#pool.free(entry - 1);
    this.#count(entry - 1, -1);
  }

  #count(bytes: number, sign: 1 | -1): void {
    this.#pages += sign;
    this.compr_data_size += sign * bytes;
    if (bytes + 1 === SAME) this.same_pages += sign;
    if (bytes === PAGE_BYTES) this.huge_pages += sign;
  }
}
