import { checkInteger } from '../argument.ts';
import type { PageContent } from '../frame/page-content.ts';
import { PageStore } from '../frame/page-store.ts';
import { CompressedPool, type FrameSource } from './compressed-pool.ts';
import {
  type CompressionModel,
  checkCompression,
  compressedBytes,
  DEFAULT_COMPRESSION,
  PAGE_BYTES,
} from './compression-model.ts';
import { SlotTable } from './slot-table.ts';

/** What zswap needs; the names are those of its module parameters. */
export interface ZswapOptions {
  readonly frames: FrameSource;
  /** Frames of the host (totalram_pages), of which the pool gets a share. */
  readonly totalFrames: number;
  /** max_pool_percent, 0..100; 20 if not given. */
  readonly maxPoolPercent?: number;
  /** accept_threshold_percent, 0..100; 90 if not given. A full pool accepts again at that share of its limit. */
  readonly acceptThresholdPercent?: number;
  readonly compression?: CompressionModel;
}

const DEFAULT_MAX_POOL_PERCENT = 20;
const DEFAULT_ACCEPT_THRESHOLD_PERCENT = 90;

/** The compressed pool in front of the swap devices: pages by swap entry, oldest first. Counters as zswap's in debugfs. */
export class Zswap {
  /** Stores that met a full pool. */
  pool_limit_hit = 0;
  /** Stores that found no frame. */
  reject_alloc_fail = 0;
  /** Write-backs that the device failed. */
  reject_reclaim_fail = 0;
  written_back_pages = 0;
  stored_pages = 0;
  /** Of them, those kept as they are. */
  stored_incompressible_pages = 0;
  /** The pool's limit in frames. */
  readonly maxFrames: number;
  /** Frames at which a pool that was full accepts again. */
  readonly acceptFrames: number;
  readonly #compression: CompressionModel;
  readonly #pool: CompressedPool;
  readonly #content = new PageStore();
  #reachedFull = false;
  #serial = 0;
  /** By entry: bytes plus 1, 0 if it is not here. */
  readonly #sizes = new SlotTable();
  readonly #serials = new SlotTable();
  readonly #older = new SlotTable();
  readonly #newer = new SlotTable();
  /** Entry 0 is never used and stands for none. */
  #oldest = 0;
  #newest = 0;

  /** @throws RangeError naming the option that does not fit */
  constructor(options: ZswapOptions) {
    const { maxPoolPercent = DEFAULT_MAX_POOL_PERCENT, compression = DEFAULT_COMPRESSION } = options;
    const { acceptThresholdPercent = DEFAULT_ACCEPT_THRESHOLD_PERCENT } = options;
    checkInteger('totalFrames', options.totalFrames, 1, 2 ** 31 - 1);
    checkInteger('maxPoolPercent', maxPoolPercent, 0, 100);
    checkInteger('acceptThresholdPercent', acceptThresholdPercent, 0, 100);
    this.maxFrames = Math.floor((options.totalFrames * maxPoolPercent) / 100);
    this.acceptFrames = Math.floor((this.maxFrames * acceptThresholdPercent) / 100);
    this.#compression = checkCompression(compression);
    this.#pool = new CompressedPool('zswap', options.frames);
  }

  /** The lock that steps name which change the pool. */
  get lockId(): number {
    return this.#pool.id;
  }

  /** Frames that the pool holds. */
  get frames(): number {
    return this.#pool.frames;
  }

  /** Bytes of the pool's frames (pool_total_size). */
  get pool_total_size(): number {
    return this.#pool.frames * PAGE_BYTES;
  }

  /** Bytes stored, after compression. */
  get storedBytes(): number {
    return this.#pool.bytes;
  }

  /** Whether the pool met its limit and has not come down to the threshold since: it then refuses pages and shrinks. */
  get reachedFull(): boolean {
    return this.#reachedFull;
  }

  /** Whether the pool takes another folio (zswap_check_limits, negated). Asked once for a folio, so that one may overshoot. */
  accepts(): boolean {
    if (this.frames >= this.maxFrames) {
      this.pool_limit_hit++;
      this.#reachedFull = true;
    } else if (this.frames <= this.acceptFrames) {
      this.#reachedFull = false;
    }
    return !this.#reachedFull;
  }

  has(entry: number): boolean {
    return this.#sizes.get(entry) !== 0;
  }

  /** A number that is another for each page stored; 0 if the entry is not here. */
  serial(entry: number): number {
    return this.#serials.get(entry);
  }

  /** Whether the entry's page is kept as it is. */
  isIncompressible(entry: number): boolean {
    return this.#sizes.get(entry) === PAGE_BYTES + 1;
  }

  /** The entry's page; zeros if it is not here. */
  read(entry: number): PageContent {
    return this.#content.read(entry);
  }

  /** Takes in a page as the newest, in place of what was there. @returns false, with nothing there, if no frame can be had */
  store(entry: number, content: PageContent): boolean {
    this.drop(entry);
    const bytes = compressedBytes(this.#compression, content.tagLo, content.tagHi);
    if (!this.#pool.allocate(bytes)) {
      this.reject_alloc_fail++;
      return false;
    }
    this.#sizes.set(entry, bytes + 1);
    this.#serial = (this.#serial + 1) & 0x7fffffff || 1;
    this.#serials.set(entry, this.#serial);
    this.#content.write(entry, content);
    this.#append(entry);
    this.stored_pages++;
    if (bytes === PAGE_BYTES) this.stored_incompressible_pages++;
    return true;
  }

  /** Forgets an entry, if it is here (zswap_invalidate). */
  drop(entry: number): void {
    const size = this.#sizes.get(entry);
    if (size === 0) return;
    this.#sizes.set(entry, 0);
    this.#serials.set(entry, 0);
    this.#content.setTag(entry, 0, 0);
    this.#unlink(entry);
    this.#pool.free(size - 1);
    this.stored_pages--;
    if (size - 1 === PAGE_BYTES) this.stored_incompressible_pages--;
  }

  /** The oldest entry, which becomes the newest; -1 if there is none. So a write-back that fails is not tried again at once. */
  rotate(): number {
    const entry = this.#oldest;
    if (entry === 0) return -1;
    this.#unlink(entry);
    this.#append(entry);
    return entry;
  }

  #append(entry: number): void {
    this.#older.set(entry, this.#newest);
    if (this.#newest === 0) this.#oldest = entry;
    else this.#newer.set(this.#newest, entry);
    this.#newest = entry;
  }

  #unlink(entry: number): void {
    const older = this.#older.get(entry);
    const newer = this.#newer.get(entry);
    if (older === 0) this.#oldest = newer;
    else this.#newer.set(older, newer);
    if (newer === 0) this.#newest = older;
    else this.#older.set(newer, older);
    this.#older.set(entry, 0);
    this.#newer.set(entry, 0);
  }
}
