import { hex } from '@faultline/address';
import type { MistakenEntry, UnsplitUnmapReport } from '@faultline/iommufd-core';
import type { CrashStats } from './stats.ts';

/** The simulated host is dead. Thrown through the task that killed it; the machine turns it into a verdict. */
export class HostCrash extends Error {
  readonly page: number;

  constructor(page: number, reason: string) {
    super(reason);
    this.page = page;
  }
}

/** What all sub-range unmaps without a split have done so far, for the account of a crash. */
export class UnsplitUnmapLog {
  readonly mistaken: MistakenEntry[] = [];
  readonly corrupted: MistakenEntry[] = [];
  readonly freed: number[] = [];
  #unmaps = 0;

  /**
   * Adds one unmap's report. @param isTable whether a frame is a page-table page @returns why the host dies of it, or null
   */
  add(report: UnsplitUnmapReport, isTable: (pfn: number) => boolean): string | null {
    if (report.mistaken.length > 0) this.#unmaps++;
    // Not by spreading: a large range takes hundreds of thousands of words for entries.
    for (const entry of report.mistaken) this.mistaken.push(entry);
    for (const entry of report.corrupted) this.corrupted.push(entry);
    const foreign = report.freed.filter((pfn) => !isTable(pfn));
    for (const pfn of foreign) this.freed.push(pfn);
    if (report.badAddress)
      return `page fault in the kernel: the walk followed a guest word to ${hpaText(report.badAddress.pfn, report.badAddress.index)}, where there is no memory`;
    if (foreign[0] !== undefined)
      return `bad page state: frame ${hex(foreign[0])} was freed as a page-table page and is none`;
    return null;
  }

  /** The lists of {@link CrashStats}, with an owner for each frame; long ones are cut to the last few. */
  account(ownerOf: (pfn: number) => string): Pick<CrashStats, 'totals' | 'mistaken' | 'corrupted' | 'freed'> {
    const word = (entry: MistakenEntry) => ({
      hpa: hpaText(entry.pfn, entry.index),
      word: hex(entry.word),
      owner: ownerOf(entry.pfn),
    });
    return {
      totals: { unmaps: this.#unmaps, mistaken: this.mistaken.length, corrupted: this.corrupted.length },
      mistaken: this.mistaken.slice(-MOST_ROWS).map((entry) => ({ level: entry.level, ...word(entry) })),
      corrupted: this.corrupted.slice(-MOST_ROWS).map(word),
      freed: this.freed.slice(-MOST_ROWS).map((pfn) => ({ hpa: hpaText(pfn, 0), owner: ownerOf(pfn) })),
    };
  }
}

const MOST_ROWS = 16;
const hpaText = (pfn: number, index: number): string => hex(BigInt(pfn) * 4096n + BigInt(index) * 8n);
