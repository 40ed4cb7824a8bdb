const CHUNK = 512;

/** A number of 32 bits for each slot, 0 until set. Memory exists only for chunks of 512 that hold something else than zeros. */
export class SlotTable {
  readonly #chunks: (Int32Array | undefined)[] = [];
  readonly #nonzero: number[] = [];

  get(slot: number): number {
    return this.#chunks[slot >>> 9]?.[slot & (CHUNK - 1)] ?? 0;
  }

  set(slot: number, value: number): void {
    const index = slot >>> 9;
    let chunk = this.#chunks[index];
    if (!chunk) {
      if (value === 0) return;
      chunk = new Int32Array(CHUNK);
      this.#chunks[index] = chunk;
      this.#nonzero[index] = 0;
    }
    const at = slot & (CHUNK - 1);
    const nonzero = this.#nonzero[index]! + Number(value !== 0) - Number(chunk[at] !== 0);
    chunk[at] = value;
    this.#nonzero[index] = nonzero;
    if (nonzero === 0) this.#chunks[index] = undefined;
  }
}
