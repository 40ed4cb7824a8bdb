/** A page's content: its tag, and its 512 words once somebody has stored single words in it. */
export interface PageContent {
  /** Low half of the 64-bit tag, as int32. */
  readonly tagLo: number;
  /** High half of the 64-bit tag, as int32. */
  readonly tagHi: number;
  /** The 512 64-bit words, or null while they follow from the tag (see {@link wordOfTag}). */
  readonly words: BigUint64Array | null;
}

/** 64-bit words in a page. */
export const WORDS_PER_PAGE = 512;
const GOLDEN = 0x9e3779b97f4a7c15n;

const u64 = (value: bigint): bigint => BigInt.asUintN(64, value);

/** The finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection of 64-bit words. */
function mix(value: bigint): bigint {
  let z = u64(value);
  z = u64((z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n);
  z = u64((z ^ (z >> 27n)) * 0x94d049bb133111ebn);
  return z ^ (z >> 31n);
}

/** The 64-bit tag of two int32 halves. */
export const tagOf = (lo: number, hi: number): bigint => (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0);

/** Word `index` (0..511) of a page with that tag whose words nobody has stored; all words of tag 0 are 0. */
export function wordOfTag(tag: bigint, index: number): bigint {
  return tag === 0n ? 0n : mix(tag + GOLDEN * BigInt(index + 1));
}

/** What word `index` with that value adds to a tag; exclusive-or, so that storing the old value restores the old tag. */
const share = (index: number, value: bigint): bigint =>
  value === 0n ? 0n : mix(mix(value + GOLDEN) ^ (GOLDEN * BigInt(index + 1)));

/** The tag after word `index` has changed. */
export function tagAfterStore(tag: bigint, index: number, change: { from: bigint; to: bigint }): bigint {
  return tag ^ share(index, change.from) ^ share(index, change.to);
}

/** The tag of a page written as a whole from words: what storing them one by one into a page of zeros gives. */
export function tagOfWords(words: BigUint64Array): bigint {
  let tag = 0n;
  for (let i = 0; i < words.length; i++) tag ^= share(i, words[i]!);
  return tag;
}
