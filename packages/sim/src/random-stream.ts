import { uniformInt } from 'pure-rand/distribution/uniformInt';
import { xoroshiro128plus } from 'pure-rand/generator/xoroshiro128plus';

/** FNV-1a over UTF-16 code units, folded with the seed, so that each name gets its own sequence. */
function subSeed(seed: number, name: string): number {
  let hash = 0x811c9dc5 ^ seed;
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193);
  // Neighbouring seeds must differ in more than a few bits (murmur3's finaliser).
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return hash ^ (hash >>> 16);
}

/**
 * A named stream of random numbers. A stream's numbers depend on the run's seed and on its own name only, so a new
 * stream elsewhere changes nobody's sequence.
 */
export class RandomStream {
  readonly #generator: ReturnType<typeof xoroshiro128plus>;

  /** @param seed the run's seed, an integer @param name the stream's name, such as `reclaim` */
  constructor(seed: number, name: string) {
    if (!Number.isSafeInteger(seed)) throw new RangeError(`seed: ${seed} is not an integer`);
    this.#generator = xoroshiro128plus(subSeed(seed | 0, `${Math.floor(seed / 2 ** 32)}/${name}`));
  }

  /** A uniform integer in 0 .. bound-1. @throws RangeError if the bound is not a positive integer */
  below(bound: number): number {
    if (!Number.isSafeInteger(bound) || bound <= 0) throw new RangeError(`bound: ${bound} is not a positive integer`);
    return uniformInt(this.#generator, 0, bound - 1);
  }

  /** 32 random bits as a signed integer. */
  bits32(): number {
    return this.#generator.next() | 0;
  }

  /** True with the given probability. */
  chance(probability: number): boolean {
    return this.bits32() >>> 0 < probability * 2 ** 32;
  }

  /** A uniform member of a list that is not empty. @throws RangeError for an empty list */
  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)] as T;
  }
}
