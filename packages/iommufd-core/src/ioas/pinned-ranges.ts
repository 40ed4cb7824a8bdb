import type { ContiguousRun } from '../host-address-space.ts';

/** A run of the owner's pages that is pinned for a device. */
export interface PinnedRange {
  readonly userPage: number;
  readonly pages: number;
  /** Device that needs it. */
  readonly device: string;
  /** Area that it is a part of. */
  readonly area: object;
  /** The frames that the pin holds, in order. */
  readonly runs: readonly ContiguousRun[];
}

interface PageRange {
  readonly userPage: number;
  readonly pages: number;
}

/** The pins that an IOAS holds for devices. What is pinned keeps its frames, so a notifier leaves its mapping alone. */
export class PinnedRanges {
  /** Oldest first. */
  readonly #ranges: PinnedRange[] = [];

  /** Number of pins. */
  get size(): number {
    return this.#ranges.length;
  }

  add(range: PinnedRange): void {
    this.#ranges.push(range);
  }

  /** Takes one pin out, the newest first. @returns undefined if there is none like it */
  take(matches: (range: PinnedRange) => boolean): PinnedRange | undefined {
    const index = this.#ranges.findLastIndex(matches);
    return index < 0 ? undefined : this.#ranges.splice(index, 1)[0];
  }

  /** The parts of a range that no pin covers, in order. */
  outside(userPage: number, pages: number): PageRange[] {
    return this.#divide(userPage, pages, () => undefined);
  }

  /**
   * The frames that pins hold for a range, in order. Of two pins with different frames for a page (the host gave the first up in between) the older
   * one counts: its device goes on using it.
   */
  held(userPage: number, pages: number): ContiguousRun[] {
    const runs: ContiguousRun[] = [];
    this.#divide(userPage, pages, (pin, part) => runs.push(...runsWithin(pin.runs, part)));
    return runs.sort((a, b) => a.startPage - b.startPage);
  }

  /** Whether every page of a range that is pinned is so to its frame of a contiguous run from `frame` on. */
  fit(userPage: number, pages: number, frame: number): boolean {
    if (this.#ranges.length === 0) return true;
    return this.held(userPage, pages).every(({ startPage, pfn }) => pfn === frame + (startPage - userPage));
  }

  /** The frame that a pin holds for a page, or -1. */
  frameOf(userPage: number): number {
    for (const pin of this.#ranges) {
      if (userPage < pin.userPage || userPage >= pin.userPage + pin.pages) continue;
      const run = pin.runs.find(({ startPage, pages }) => userPage >= startPage && userPage < startPage + pages);
      if (run) return run.pfn + (userPage - run.startPage);
    }
    return -1;
  }

  /** Hands each page to the oldest pin that covers it. @returns what none covers, in order */
  #divide(userPage: number, pages: number, covered: (pin: PinnedRange, part: PageRange) => void): PageRange[] {
    let rest: PageRange[] = [{ userPage, pages }];
    for (const pin of this.#ranges) {
      const left: PageRange[] = [];
      for (const part of rest) {
        const from = Math.max(part.userPage, pin.userPage);
        const to = Math.min(part.userPage + part.pages, pin.userPage + pin.pages);
        if (from >= to) {
          left.push(part);
          continue;
        }
        covered(pin, { userPage: from, pages: to - from });
        if (from > part.userPage) left.push({ userPage: part.userPage, pages: from - part.userPage });
        if (to < part.userPage + part.pages) left.push({ userPage: to, pages: part.userPage + part.pages - to });
      }
      rest = left;
      if (rest.length === 0) break;
    }
    return rest;
  }
}

/** The parts of runs that lie in a range. */
function runsWithin(runs: readonly ContiguousRun[], range: PageRange): ContiguousRun[] {
  const parts: ContiguousRun[] = [];
  for (const run of runs) {
    const from = Math.max(run.startPage, range.userPage);
    const to = Math.min(run.startPage + run.pages, range.userPage + range.pages);
    if (from < to) parts.push({ startPage: from, pages: to - from, pfn: run.pfn + (from - run.startPage) });
  }
  return parts;
}
