/** First and last page, as indices into a linear array of pages. */
export interface PageSpan {
  readonly first: number;
  readonly last: number;
}

/** Pages that are contiguous on the host. */
export interface PinnedRun {
  readonly index: number;
  readonly pages: number;
  readonly pfn: number;
}

/** Runs of pinned pages by index; they do not overlap. A look-up costs the logarithm of their number. */
export class RunList {
  #runs: PinnedRun[] = [];

  /** Adds runs, in order, where none is. */
  insert(runs: readonly PinnedRun[]): void {
    const [first] = runs;
    if (!first) return;
    const at = this.#position(first.index);
    // In one go: a range of 4K pages has more runs than a call can have arguments.
    this.#runs = this.#runs.slice(0, at).concat(runs, this.#runs.slice(at));
  }

  /** The runs of a span, clipped to it. */
  within({ first, last }: PageSpan): PinnedRun[] {
    const found: PinnedRun[] = [];
    for (let at = this.#position(first); at < this.#runs.length; at++) {
      const run = this.#runs[at] as PinnedRun;
      if (run.index > last) break;
      found.push(clip(run, Math.max(run.index, first), Math.min(run.index + run.pages, last + 1)));
    }
    return found;
  }

  /** Takes the runs of a span out. @returns them, clipped to it */
  take(span: PageSpan): PinnedRun[] {
    const { first, last } = span;
    const taken = this.within(span);
    const from = this.#position(first);
    const to = this.#position(last + 1);
    const head = this.#runs[from];
    const tail = this.#runs[to];
    const kept: PinnedRun[] = [];
    if (head && head.index < first) kept.push(clip(head, head.index, first));
    const cutsTail = tail !== undefined && tail.index <= last;
    if (cutsTail) kept.push(clip(tail, last + 1, tail.index + tail.pages));
    this.#runs.splice(from, (cutsTail ? to + 1 : to) - from, ...kept);
    return taken;
  }

  /** Place of the first run that ends behind an index. */
  #position(index: number): number {
    let low = 0;
    let high = this.#runs.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      const run = this.#runs[middle] as PinnedRun;
      if (run.index + run.pages > index) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}

const clip = (run: PinnedRun, from: number, end: number): PinnedRun => ({
  index: from,
  pages: end - from,
  pfn: run.pfn + (from - run.index),
});
