/** Addresses in a working set; a power of two. Each benchmark goes round them. */
export const ADDRESSES = 4096;
/** Where everything is mapped: 4 TiB, as a page number. */
export const FIRST_PAGE = 0x4000_0000;
/** 4K pages in 1 GiB. */
export const GIB_PAGES = 0x4_0000;

/** The generator of the native side, xorshift32: the same seed gives the same working set there. Not for statistics. */
export function xorshift32(seed: number): () => number {
  let state = seed;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}

/** Folds a number, of which the low 32 bits count, into a hash; the order matters. */
export const mix = (hash: number, value: number): number => (Math.imul(hash, 31) + (value | 0)) | 0;

/** Addresses as signed 32-bit halves. */
export interface Addresses {
  readonly hi: Int32Array;
  readonly lo: Int32Array;
}

/** Random addresses in the first `pages` pages from {@link FIRST_PAGE}; `pages` is a power of two. */
export function makeAddresses(pages: number): Addresses {
  const random = xorshift32(0x2545_f491);
  const hi = new Int32Array(ADDRESSES);
  const lo = new Int32Array(ADDRESSES);
  for (let i = 0; i < ADDRESSES; i++) {
    const page = FIRST_PAGE + (random() & (pages - 1));
    hi[i] = Math.floor(page / 2 ** 20);
    lo[i] = (page << 12) | (random() & 0xfff);
  }
  return { hi, lo };
}
