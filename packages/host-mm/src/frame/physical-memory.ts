import { hex } from '@faultline/address';
import { assert } from '@faultline/sim';
import { checkInteger } from '../argument.ts';
import { type FolioOrder, framesOf } from '../folio/folio-order.ts';
import { FrameSpan, type FrameSpanOptions } from './frame-span.ts';
import { type PageContent, tagAfterStore, tagOf, tagOfWords, WORDS_PER_PAGE, wordOfTag } from './page-content.ts';
import { PageStore } from './page-store.ts';

/**
 * The content of the host's frames. Each frame has a 64-bit tag, zero at first, that stands for its whole content: word
 * `i` of a page with tag `t` is a fixed mix of `t` and `i` (`wordOfTag`). Storing a single word gives the page
 * 512 words of its own and changes its tag, so that whoever compares tags sees the change. Frame numbers outside the
 * memory are a bug of the caller and asserted.
 *
 * ```ts
 * const memory = new PhysicalMemory({ firstPfn: 0x40000, frames: 1024 });
 * memory.writeTag(0x40000, 7, 0);
 * memory.storeWord(0x40000, 3, 0xfeedn);
 * ```
 */
export class PhysicalMemory {
  readonly #span: FrameSpan;
  readonly #store = new PageStore();

  /** @throws RangeError naming the argument that does not fit */
  constructor(options: FrameSpanOptions) {
    this.#span = new FrameSpan(options);
  }

  /** Whether there is such a frame. */
  contains(pfn: number): boolean {
    return this.#span.contains(pfn);
  }

  /** Low half of the frame's tag, as int32. */
  tagLo(pfn: number): number {
    this.#check(pfn);
    return this.#store.tagLo(pfn);
  }

  /** High half of the frame's tag, as int32. */
  tagHi(pfn: number): number {
    this.#check(pfn);
    return this.#store.tagHi(pfn);
  }

  /** Writes the whole page: sets the tag and drops words of its own. */
  writeTag(pfn: number, lo: number, hi: number): void {
    this.#check(pfn);
    this.#store.setTag(pfn, lo, hi);
  }

  /** Copies one frame's content to another. */
  copyFrame(from: number, to: number): void {
    this.#check(from);
    this.#check(to);
    if (from !== to) this.#store.copyFrom(this.#store, from, to);
  }

  /** Fills a frame with zeros. */
  zeroFrame(pfn: number): void {
    this.#check(pfn);
    this.#store.setTag(pfn, 0, 0);
  }

  /** Fills a folio with zeros; 2M and 1G take O(1). */
  zeroFolio(pfn: number, order: FolioOrder): void {
    this.#check(pfn);
    this.#check(pfn + framesOf(order) - 1);
    this.#store.zero(pfn, framesOf(order));
  }

  /** One 64-bit word of a frame. @throws RangeError for an index outside 0..511 */
  loadWord(pfn: number, index: number): bigint {
    this.#check(pfn);
    checkInteger('index', index, 0, WORDS_PER_PAGE - 1);
    const words = this.#store.words(pfn);
    return words ? words[index]! : wordOfTag(tagOf(this.#store.tagLo(pfn), this.#store.tagHi(pfn)), index);
  }

  /**
   * Stores one 64-bit word. The tag changes by an exclusive-or that depends on the index, the old and the new value
   * only: stores in any order give one tag, and storing the old values again brings the old tag back.
   * @throws RangeError for an index outside 0..511 or a value outside 64 bits
   */
  storeWord(pfn: number, index: number, value: bigint): void {
    this.#check(pfn);
    checkInteger('index', index, 0, WORDS_PER_PAGE - 1);
    if (value < 0n || value >= 1n << 64n) throw new RangeError(`value: ${hex(value)} is outside 64 bits`);
    const words = this.#store.materialise(pfn);
    const from = words[index]!;
    if (from === value) return;
    words[index] = value;
    const tag = tagOf(this.#store.tagLo(pfn), this.#store.tagHi(pfn));
    this.#store.retag(pfn, tagAfterStore(tag, index, { from, to: value }));
  }

  /** Writes the whole page from 512 words, which are copied. @throws RangeError for another number of words */
  writeWords(pfn: number, words: BigUint64Array): void {
    this.#check(pfn);
    if (words.length !== WORDS_PER_PAGE) throw new RangeError(`words: ${words.length} given, a page has 512`);
    const tag = tagOfWords(words);
    this.#store.write(pfn, { tagLo: Number(tag & 0xffffffffn) | 0, tagHi: Number(tag >> 32n) | 0, words });
  }

  /** The frame's content, copied. */
  readContent(pfn: number): PageContent {
    this.#check(pfn);
    return this.#store.read(pfn);
  }

  /** Replaces the frame's content. */
  writeContent(pfn: number, content: PageContent): void {
    this.#check(pfn);
    this.#store.write(pfn, content);
  }

  #check(pfn: number): void {
    if (!this.contains(pfn)) assert(false, () => `there is no frame ${hex(pfn)}`);
  }
}
