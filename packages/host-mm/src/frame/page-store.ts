import { FANOUT, FRAMES_PER_1G } from '../folio/folio-order.ts';
import { type PageContent, tagOf, WORDS_PER_PAGE, wordOfTag } from './page-content.ts';

/** The content of 512 neighbours that are not all zero. */
class Chunk {
  /** Two halves of each tag, low first. */
  readonly tags = new Int32Array(2 * FANOUT);
  words: Map<number, BigUint64Array> | null = null;
}

/**
 * Page contents by number (frame or swap slot, below 2^31), zero until written. Uses memory only for chunks of 512 that
 * were written; whole 2M and 1G blocks are zeroed by dropping them.
 */
export class PageStore {
  readonly #regions: ((Chunk | undefined)[] | undefined)[] = [];

  tagLo(number: number): number {
    const chunk = this.#regions[number >> 18]?.[(number >> 9) & 511];
    return chunk ? chunk.tags[(number & 511) * 2]! : 0;
  }

  tagHi(number: number): number {
    const chunk = this.#regions[number >> 18]?.[(number >> 9) & 511];
    return chunk ? chunk.tags[(number & 511) * 2 + 1]! : 0;
  }

  /** The materialised words, not a copy; null while they follow from the tag. */
  words(number: number): BigUint64Array | null {
    return this.#regions[number >> 18]?.[(number >> 9) & 511]?.words?.get(number & 511) ?? null;
  }

  /** The words, materialised on the spot; not a copy. */
  materialise(number: number): BigUint64Array {
    const present = this.words(number);
    if (present) return present;
    const tag = tagOf(this.tagLo(number), this.tagHi(number));
    const words = new BigUint64Array(WORDS_PER_PAGE);
    if (tag !== 0n) for (let i = 0; i < WORDS_PER_PAGE; i++) words[i] = wordOfTag(tag, i);
    this.#setWords(number, words);
    return words;
  }

  /** Sets the tag; the words follow from it again. */
  setTag(number: number, lo: number, hi: number): void {
    const chunk = (lo | hi) === 0 ? this.#regions[number >> 18]?.[(number >> 9) & 511] : this.#chunk(number);
    if (!chunk) return;
    const at = (number & 511) * 2;
    chunk.tags[at] = lo;
    chunk.tags[at + 1] = hi;
    chunk.words?.delete(number & 511);
  }

  /** Sets the tag and leaves materialised words alone, whose change it reflects. */
  retag(number: number, tag: bigint): void {
    const chunk = this.#chunk(number);
    const at = (number & 511) * 2;
    chunk.tags[at] = Number(tag & 0xffffffffn) | 0;
    chunk.tags[at + 1] = Number(tag >> 32n) | 0;
  }

  /** Takes over a content; its words are copied. */
  write(number: number, content: PageContent): void {
    this.setTag(number, content.tagLo, content.tagHi);
    if (content.words) this.#setWords(number, content.words.slice());
  }

  /** The content; its words are copied. */
  read(number: number): PageContent {
    return {
      tagLo: this.tagLo(number),
      tagHi: this.tagHi(number),
      words: this.words(number)?.slice() ?? null,
    };
  }

  /** Copies one page's content from another store (or this one). */
  copyFrom(store: PageStore, from: number, to: number): void {
    this.setTag(to, store.tagLo(from), store.tagHi(from));
    const words = store.words(from);
    if (words) this.#setWords(to, words.slice());
  }

  /** Zeroes a power of two of pages, up to 1G, from `first`, which is aligned to them. Whole 2M and 1G blocks are dropped. */
  zero(first: number, pages: number): void {
    const region = this.#regions[first >> 18];
    if (!region) return;
    if (pages === FRAMES_PER_1G) this.#regions[first >> 18] = undefined;
    else if (pages >= FANOUT) region.fill(undefined, (first >> 9) & 511, ((first >> 9) & 511) + pages / FANOUT);
    else for (let i = 0; i < pages; i++) this.setTag(first + i, 0, 0);
  }

  #chunk(number: number): Chunk {
    let region = this.#regions[number >> 18];
    if (!region) {
      region = new Array<Chunk | undefined>(FANOUT).fill(undefined);
      this.#regions[number >> 18] = region;
    }
    const at = (number >> 9) & 511;
    let chunk = region[at];
    if (!chunk) {
      chunk = new Chunk();
      region[at] = chunk;
    }
    return chunk;
  }

  #setWords(number: number, words: BigUint64Array): void {
    const chunk = this.#chunk(number);
    chunk.words ??= new Map();
    chunk.words.set(number & 511, words);
  }
}
