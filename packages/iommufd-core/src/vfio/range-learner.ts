import type { DeviceRange, DeviceReport } from './device-report.ts';

/**
 * Learns where a device's paths go from watching them while everything is pinned: rings and mailboxes stay where their driver put them. What
 * was never used is not known, so a path must have been watched through all that it does; a device that goes elsewhere later is caught by a
 * `LieDetector`.
 */
export class RangeLearner {
  readonly #pages = new Map<string, Set<number>>();

  /** A DMA of a path reached an IOVA page. */
  saw(path: string, page: number): void {
    const pages = this.#pages.get(path) ?? new Set();
    this.#pages.set(path, pages.add(page));
  }

  /** Pages of a path seen so far. */
  seen(path: string): number {
    return this.#pages.get(path)?.size ?? 0;
  }

  /** What a path uses, as ranges in order. */
  rangesOf(path: string): DeviceRange[] {
    const ranges: { page: number; pages: number }[] = [];
    for (const page of [...(this.#pages.get(path) ?? [])].sort((a, b) => a - b)) {
      const last = ranges.at(-1);
      if (last && last.page + last.pages === page) last.pages++;
      else ranges.push({ page, pages: 1 });
    }
    return ranges;
  }

  /**
   * A report with the ranges of its unfaultable paths filled in as they were seen; declared ones stay. A path that was never seen stays
   * undeclared, and the attach is refused.
   */
  declare(report: DeviceReport): DeviceReport {
    const paths = report.paths.map((path) =>
      path.canFault || path.ranges || this.seen(path.path) === 0 ? path : { ...path, ranges: this.rangesOf(path.path) },
    );
    return { ...report, paths };
  }
}
