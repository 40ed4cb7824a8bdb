/** A mapping of the ftrace, while it lives. */
interface LiveMapping {
  readonly page: number;
  readonly pages: number;
  readonly frame: number;
  /** Domain that a DMA through it has shown; -1 until then. */
  did: number;
}

/** What is known of a page at a moment. */
export type PageFinding =
  /** A live mapping gives this frame. */
  | 'agrees'
  /** The page is known in this domain, with another frame or with none. */
  | 'contradicts'
  /** Nothing is known of the page in this domain: mapped before the ftrace began. */
  | 'earlier';

/**
 * The mappings of an ftrace as they come and go in the order of a QEMU log. The ftrace names no domain; a DMA shows to which
 * one a mapping belongs, and so does the invalidation that follows its unmap.
 */
export class LiveMappings {
  readonly #byPage = new Map<number, LiveMapping[]>();
  /** Pages unmapped during the ftrace, by domain: from then on every mapping of them is known. */
  readonly #retired = new Map<number, Set<number>>();
  readonly #usersOf: (page: number, frame: number) => ReadonlySet<number> | undefined;

  /** @param usersOf domains that ever made a DMA to this frame through this page, to choose between equal mappings */
  constructor(usersOf: (page: number, frame: number) => ReadonlySet<number> | undefined) {
    this.#usersOf = usersOf;
  }

  /** A map event. */
  add(page: number, pages: number, frame: number): void {
    const mapping: LiveMapping = { page, pages, frame, did: -1 };
    for (let offset = 0; offset < pages; offset++) {
      const held = this.#byPage.get(page + offset);
      if (held) held.push(mapping);
      else this.#byPage.set(page + offset, [mapping]);
    }
  }

  /** An unmap whose invalidation names the domain. @returns whether a mapping of it was live */
  remove(did: number, page: number, pages: number): boolean {
    let known = true;
    let retired = this.#retired.get(did);
    if (retired === undefined) {
      retired = new Set();
      this.#retired.set(did, retired);
    }
    for (let at = page; at < page + pages; at++) {
      retired.add(at);
      const held = this.#byPage.get(at) ?? [];
      const chosen = this.#choose(held, did, page, pages);
      if (chosen === null) {
        known = false;
        continue;
      }
      chosen.did = did;
      held.splice(held.indexOf(chosen), 1);
      if (held.length === 0) this.#byPage.delete(at);
    }
    return known;
  }

  /** A DMA of a domain to a frame through a page. */
  check(did: number, page: number, frame: number): PageFinding {
    const held = this.#byPage.get(page) ?? [];
    const gives = held.filter((mapping) => mapping.frame + (page - mapping.page) === frame);
    const match = gives.find((mapping) => mapping.did === did) ?? gives.find((mapping) => mapping.did < 0);
    if (match !== undefined) {
      match.did = did;
      return 'agrees';
    }
    if (held.some((mapping) => mapping.did === did)) return 'contradicts';
    return this.#retired.get(did)?.has(page) ? 'contradicts' : 'earlier';
  }

  /** The mapping of this domain; else one that only this domain uses; else one that nobody uses; the oldest of equals. */
  #choose(held: readonly LiveMapping[], did: number, page: number, pages: number): LiveMapping | null {
    let best: LiveMapping | null = null;
    let bestScore = 0;
    for (const mapping of held) {
      if (mapping.did >= 0 && mapping.did !== did) continue;
      const users = this.#usersOf(page, mapping.frame + (page - mapping.page));
      const use = users === undefined ? 2 : users.has(did) ? 3 : 1;
      const exact = mapping.page === page && mapping.pages === pages ? 8 : 0;
      const score = exact + (mapping.did === did ? 4 : use);
      if (score > bestScore) {
        best = mapping;
        bestScore = score;
      }
    }
    return best;
  }
}
