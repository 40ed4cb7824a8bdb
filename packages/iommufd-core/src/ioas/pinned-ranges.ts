/** A run of the owner's pages that is pinned. */
export interface PinnedRange {
  readonly userPage: number;
  readonly pages: number;
  /** Device that asked for it, or null for an area that is pinned whole. */
  readonly device: string | null;
}

/** The pins that an IOAS holds. What is pinned keeps its frames, so a notifier leaves its mapping alone. */
export class PinnedRanges {
  readonly #ranges: PinnedRange[] = [];

  add(range: PinnedRange): void {
    this.#ranges.push(range);
  }

  /** Takes one pin out, the newest first. @returns undefined if there is none like it */
  take(matches: (range: PinnedRange) => boolean): PinnedRange | undefined {
    const index = this.#ranges.findLastIndex(matches);
    return index < 0 ? undefined : this.#ranges.splice(index, 1)[0];
  }

  /** The parts of a range that no pin covers, in order. */
  outside(userPage: number, pages: number): { readonly userPage: number; readonly pages: number }[] {
    const end = userPage + pages;
    const inside = this.#ranges
      .filter((range) => range.userPage < end && userPage < range.userPage + range.pages)
      .sort((a, b) => a.userPage - b.userPage);
    const parts: { userPage: number; pages: number }[] = [];
    let from = userPage;
    for (const range of inside) {
      if (range.userPage > from) parts.push({ userPage: from, pages: range.userPage - from });
      from = Math.max(from, range.userPage + range.pages);
    }
    if (from < end) parts.push({ userPage: from, pages: end - from });
    return parts;
  }
}
