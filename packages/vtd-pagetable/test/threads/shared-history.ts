/**
 * What a page may translate to, for walkers in other threads: for each watched page a log of its values, written by the
 * one mapper. A change is announced before it begins and confirmed once hardware can see nothing else, so a walk that ran
 * between two looks at the log has an answer among the values in force meanwhile, or the table is wrong.
 *
 * A value is the frame times 4 plus R and W; 0 is not mapped.
 */
export class SharedHistory {
  /** Log entries kept for each page, a power of two. */
  static readonly depth = 64;
  readonly buffer: SharedArrayBuffer;
  readonly pages: readonly number[];
  /** Changes begun and ended, by page. */
  readonly #begun: Int32Array;
  readonly #ended: Int32Array;
  readonly #log: Int32Array;

  constructor(pages: readonly number[], buffer?: SharedArrayBuffer) {
    const count = pages.length;
    this.pages = pages;
    this.buffer = buffer ?? new SharedArrayBuffer(4 * count * (2 + SharedHistory.depth));
    this.#begun = new Int32Array(this.buffer, 0, count);
    this.#ended = new Int32Array(this.buffer, 4 * count, count);
    this.#log = new Int32Array(this.buffer, 8 * count);
  }

  /** The value in force, or about to be. */
  latest(nth: number): number {
    return this.#at(nth, Atomics.load(this.#begun, nth));
  }

  /** Mapper: from here on a walk may find the new value. */
  begin(nth: number, value: number): void {
    const change = (this.#begun[nth] as number) + 1;
    Atomics.store(this.#log, nth * SharedHistory.depth + (change % SharedHistory.depth), value);
    Atomics.store(this.#begun, nth, change);
  }

  /** Mapper: from here on a walk that begins finds nothing older. */
  end(nth: number): void {
    Atomics.store(this.#ended, nth, this.#begun[nth] as number);
  }

  /** Walker: to be called before a walk. */
  mark(nth: number): number {
    return Atomics.load(this.#ended, nth);
  }

  /**
   * Walker: whether the value, or those of its bits that `mask` has, was right at some moment since the mark; null if the
   * log is too short to tell.
   */
  judge(nth: number, mark: number, value: number, mask = -1): boolean | null {
    const last = Atomics.load(this.#begun, nth);
    let found = false;
    for (let change = mark; change <= last && !found; change++) found = (this.#at(nth, change) & mask) === value;
    // A log that went round while it was read proves nothing.
    return Atomics.load(this.#begun, nth) - mark >= SharedHistory.depth - 1 ? null : found;
  }

  #at(nth: number, change: number): number {
    return Atomics.load(this.#log, nth * SharedHistory.depth + (change % SharedHistory.depth));
  }
}
