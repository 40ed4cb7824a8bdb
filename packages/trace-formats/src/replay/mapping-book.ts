/** A part of a range that lies in one address space. */
export interface MappedPiece {
  readonly space: number;
  readonly page: number;
  readonly pages: number;
}

/** What an unmap met in the book. */
export interface UnmapFinding {
  /**
   * - `mapped`: the whole range in one space and in no other
   * - `ambiguous`: the whole range in several spaces; one was taken
   * - `partly`: less than the range, or spread over spaces
   * - `unknown`: nothing of it; mapped before the recording began
   */
  readonly kind: 'mapped' | 'ambiguous' | 'partly' | 'unknown';
  /** What was mapped of the range, and is no more. */
  readonly pieces: readonly MappedPiece[];
}

/** Mappings made one behind the other, as a scatter list is: later unmapped by one call. */
interface Run {
  readonly page: number;
  end: number;
  readonly space: number;
}

/**
 * The mapped set kept with plain Maps, page by page, independent of any page table.
 *
 * The events name no domain, and several domains map the same IOVAs at once. A mapping goes to the space of the mapping
 * made just before it if it continues that one, else to the first space where its range is free.
 */
export class MappingBook {
  readonly #spaces: Map<number, number>[] = [];
  /** How many domains map a page, whatever space they were put into. */
  readonly #holders = new Map<number, number>();
  /** Runs by first page, newest last. */
  readonly #runs = new Map<number, Run[]>();
  #lastRun: Run | null = null;

  /** Address spaces needed so far. */
  get spaces(): number {
    return this.#spaces.length;
  }

  /** Pages mapped, counted once for each domain that maps them. */
  get mappedPages(): number {
    let pages = 0;
    for (const count of this.#holders.values()) pages += count;
    return pages;
  }

  /** Pages of a space: page number to frame number. */
  pagesOf(space: number): ReadonlyMap<number, number> {
    return this.#spaces[space] ?? new Map<number, number>();
  }

  /** Books a mapping of `pages` 4K pages. @returns its space */
  map(page: number, pages: number, frame: number): number {
    const last = this.#lastRun;
    const continues = last !== null && last.end === page && this.#heldIn(last.space, page, pages) === 0;
    const space = continues ? last.space : this.#freeSpace(page, pages);
    if (continues) last.end += pages;
    else {
      const run = { page, end: page + pages, space };
      this.#lastRun = run;
      const runs = this.#runs.get(page);
      if (runs) runs.push(run);
      else this.#runs.set(page, [run]);
    }
    const held = this.#spaces[space] as Map<number, number>;
    for (let at = page; at < page + pages; at++) {
      held.set(at, frame + (at - page));
      this.#holders.set(at, (this.#holders.get(at) ?? 0) + 1);
    }
    return space;
  }

  /** Books the end of a mapping, of what is known of the range. */
  unmap(page: number, pages: number): UnmapFinding {
    this.#lastRun = null;
    const whole = this.#spaces
      .map((_held, space) => space)
      .filter((space) => this.#heldIn(space, page, pages) === pages);
    const run = this.#takeRun(page, page + pages, whole);
    const space = run?.space ?? whole[0];
    if (space !== undefined) {
      this.#drop(space, page, pages);
      return { kind: whole.length === 1 ? 'mapped' : 'ambiguous', pieces: [{ space, page, pages }] };
    }
    const pieces: MappedPiece[] = [];
    for (let at = page; at < page + pages; at++) {
      const holder = this.#spaces.findIndex((held) => held.has(at));
      if (holder < 0) continue;
      this.#drop(holder, at, 1);
      pieces.push({ space: holder, page: at, pages: 1 });
    }
    return { kind: pieces.length === 0 ? 'unknown' : 'partly', pieces };
  }

  /** The newest run that is exactly this range in one of the spaces. */
  #takeRun(page: number, end: number, spaces: readonly number[]): Run | null {
    const runs = this.#runs.get(page);
    if (runs === undefined) return null;
    const index = runs.findLastIndex((run) => run.end === end && spaces.includes(run.space));
    if (index < 0) return null;
    const [run] = runs.splice(index, 1);
    if (runs.length === 0) this.#runs.delete(page);
    return run ?? null;
  }

  #freeSpace(page: number, pages: number): number {
    const free = this.#spaces.findIndex((_held, space) => this.#heldIn(space, page, pages) === 0);
    if (free >= 0) return free;
    this.#spaces.push(new Map());
    return this.#spaces.length - 1;
  }

  #heldIn(space: number, page: number, pages: number): number {
    const held = this.#spaces[space];
    let count = 0;
    for (let at = page; held !== undefined && at < page + pages; at++) if (held.has(at)) count++;
    return count;
  }

  #drop(space: number, page: number, pages: number): void {
    for (let at = page; at < page + pages; at++) {
      this.#spaces[space]?.delete(at);
      const holders = (this.#holders.get(at) ?? 0) - 1;
      if (holders > 0) this.#holders.set(at, holders);
      else this.#holders.delete(at);
    }
  }
}
