const CHUNK_PAGES = 512;

/** A set of page numbers; memory follows the 2M blocks touched. */
export class PageSet {
  readonly #chunks = new Map<number, Uint8Array>();
  #size = 0;

  /** Number of pages in the set. */
  get size(): number {
    return this.#size;
  }

  has(page: number): boolean {
    const chunk = this.#chunks.get(Math.floor(page / CHUNK_PAGES));
    return chunk !== undefined && chunk[page % CHUNK_PAGES] === 1;
  }

  add(page: number): void {
    const key = Math.floor(page / CHUNK_PAGES);
    let chunk = this.#chunks.get(key);
    if (chunk === undefined) {
      chunk = new Uint8Array(CHUNK_PAGES);
      this.#chunks.set(key, chunk);
    }
    if (chunk[page % CHUNK_PAGES] === 1) return;
    chunk[page % CHUNK_PAGES] = 1;
    this.#size++;
  }

  /** Adds a range; costs the 2M blocks that are in it whole, and the pages of those that are not. */
  addRange(page: number, pages: number): void {
    for (let at = page; at < page + pages; ) {
      const key = Math.floor(at / CHUNK_PAGES);
      if (at % CHUNK_PAGES !== 0 || at + CHUNK_PAGES > page + pages) {
        this.add(at++);
        continue;
      }
      let chunk = this.#chunks.get(key);
      if (chunk === undefined) this.#size += CHUNK_PAGES;
      else for (let i = 0; i < CHUNK_PAGES; i++) if (chunk[i] !== 1) this.#size++;
      chunk = new Uint8Array(CHUNK_PAGES).fill(1);
      this.#chunks.set(key, chunk);
      at += CHUNK_PAGES;
    }
  }

  /** Every page in the set. */
  *pages(): Generator<number> {
    for (const [key, chunk] of this.#chunks)
      for (let i = 0; i < CHUNK_PAGES; i++) if (chunk[i] === 1) yield key * CHUNK_PAGES + i;
  }

  /** Removes a range; costs the 2M blocks it spans, not its pages. */
  deleteRange(page: number, pages: number): void {
    const end = page + pages;
    for (let key = Math.floor(page / CHUNK_PAGES); key * CHUNK_PAGES < end; key++) {
      const chunk = this.#chunks.get(key);
      if (chunk === undefined) continue;
      const from = Math.max(0, page - key * CHUNK_PAGES);
      const to = Math.min(CHUNK_PAGES, end - key * CHUNK_PAGES);
      for (let i = from; i < to; i++) if (chunk[i] === 1) this.#size--;
      chunk.fill(0, from, to);
    }
  }
}

/** The naive second model of memory (I2): the tag last written to each page, whoever wrote it. */
export class PageTags {
  readonly #chunks = new Map<number, Int32Array>();

  set(page: number, lo: number, hi: number): void {
    const key = Math.floor(page / CHUNK_PAGES);
    let chunk = this.#chunks.get(key);
    if (chunk === undefined) {
      chunk = new Int32Array(CHUNK_PAGES * 2);
      this.#chunks.set(key, chunk);
    }
    const at = (page % CHUNK_PAGES) * 2;
    chunk[at] = lo;
    chunk[at + 1] = hi;
  }

  /** Whether the page's last content was this tag; a page never written is zero. */
  matches(page: number, lo: number, hi: number): boolean {
    const chunk = this.#chunks.get(Math.floor(page / CHUNK_PAGES));
    if (chunk === undefined) return lo === 0 && hi === 0;
    const at = (page % CHUNK_PAGES) * 2;
    return chunk[at] === lo && chunk[at + 1] === hi;
  }

  /** Every page whose content is not zero. */
  *pages(): Generator<number> {
    for (const [key, chunk] of this.#chunks)
      for (let i = 0; i < CHUNK_PAGES; i++)
        if (chunk[i * 2] !== 0 || chunk[i * 2 + 1] !== 0) yield key * CHUNK_PAGES + i;
  }
}

/** Pages to pick from at random, each at most once at a time. */
export class PagePool {
  readonly #pages: number[] = [];

  add(page: number): void {
    this.#pages.push(page);
  }

  /** Takes a random page out, or -1 if there is none. `below(n)` gives a random integer in 0 .. n-1. */
  take(below: (bound: number) => number): number {
    if (this.#pages.length === 0) return -1;
    const index = below(this.#pages.length);
    const page = this.#pages[index] as number;
    this.#pages[index] = this.#pages.at(-1) as number;
    this.#pages.pop();
    return page;
  }
}
