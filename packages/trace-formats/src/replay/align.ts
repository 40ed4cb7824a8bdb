/** A page-selective invalidation: 2^addressMask pages around `page`. */
export interface PageInvalidation {
  readonly did: number;
  readonly page: number;
  readonly addressMask: number;
}

/** An unmap event. */
export interface UnmapRange {
  readonly page: number;
  readonly pages: number;
}

/** How the unmaps of one recording fit the invalidations of another. */
export interface Alignment {
  /** By unmap: index of its invalidation, or -1. */
  readonly invalidationOf: readonly number[];
  readonly matched: number;
  /** Unmaps whose earliest and latest possible invalidation in order are the same one: no other alignment exists. */
  readonly unique: number;
}

function covers(invalidation: PageInvalidation, unmap: UnmapRange): boolean {
  const pages = 2 ** invalidation.addressMask;
  const first = invalidation.page - (invalidation.page % pages);
  return first <= unmap.page && unmap.page + unmap.pages <= first + pages;
}

/**
 * Gives every unmap, in order, an invalidation that covers its range, in order: once taking the earliest that fits and
 * once, from the end, the latest. An unmap that finds none is left out and moves nothing.
 */
export function alignUnmaps(unmaps: readonly UnmapRange[], invalidations: readonly PageInvalidation[]): Alignment {
  const forward: number[] = [];
  let from = 0;
  for (const unmap of unmaps) {
    let at = from;
    while (at < invalidations.length && !covers(invalidations[at] as PageInvalidation, unmap)) at++;
    forward.push(at < invalidations.length ? at : -1);
    if (at < invalidations.length) from = at + 1;
  }
  let unique = 0;
  let until = invalidations.length - 1;
  for (let index = unmaps.length - 1; index >= 0; index--) {
    let at = until;
    while (at >= 0 && !covers(invalidations[at] as PageInvalidation, unmaps[index] as UnmapRange)) at--;
    if (at >= 0) until = at - 1;
    if (at >= 0 && at === forward[index]) unique++;
  }
  return { invalidationOf: forward, matched: forward.filter((at) => at >= 0).length, unique };
}
