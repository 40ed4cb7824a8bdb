import { formatDurationNs, hex } from '@faultline/address';
import type { AddressSpace } from '@faultline/host-mm';
import type { HwptObserver, TakeAwayOutcome } from '@faultline/iommufd-core';
import type { EventSink } from '@faultline/sim';
import type { VtdDomain } from '@faultline/vtd-remapping';
import type { InvariantLedger } from './invariants.ts';
import { PageSet } from './page-set.ts';

/** What a {@link HwptWatch} looks at. */
export interface HwptWatchOptions {
  readonly name: string;
  readonly domain: VtdDomain;
  readonly mm: AddressSpace;
  /** Host-virtual page of a guest page, or -1 outside RAM. */
  readonly userPageOf: (page: number) => number;
  /** Whether the host is invalidating any of these host-virtual pages. */
  readonly isInvalidating: (userPage: number, pages: number) => boolean;
  /** Compares the io_pagetable with how the user made it (I7). */
  readonly checkAreas: () => void;
  readonly ledger: InvariantLedger;
  readonly now: () => number;
  readonly sink: EventSink;
  /** Called for every take-away, with what it did. */
  readonly onTakenAway: (page: number, pages: number, outcome: TakeAwayOutcome) => void;
}

/** An IOVA page for messages. */
export const iovaText = (page: number): string => hex(BigInt(page) * 4096n);

/**
 * Stands where one hwpt changes its domain, and checks that what is taken away goes (I8) and that nothing is mapped that a notifier
 * takes away (I10). It knows which pages the host has taken, so that DMA that reaches or misses them can be judged.
 */
export class HwptWatch implements HwptObserver {
  wholeLeafFallbacks = 0;
  /** Times that a fault was resolved by a map. */
  faultsMapped = 0;
  /** Table pages of the domain, at most, as seen after each change. */
  tablePagesPeak = 0;
  readonly #options: HwptWatchOptions;
  /** Pages that were, or are being, taken away and are not mapped again: a fault on them is nobody else's doing. */
  readonly #leaving = new PageSet();
  /** Those of them for which the notifier has returned: from then on DMA must not reach the old frame. */
  readonly #gone = new PageSet();
  /** Pages of which the right to write was, or is being, taken: a write that faults is nobody else's doing. */
  readonly #losingWrite = new PageSet();
  /** Those of them for which the notifier has returned: from then on no DMA may write there. */
  readonly #readOnly = new PageSet();
  #takeAwayStartNs = 0;

  constructor(options: HwptWatchOptions) {
    this.#options = options;
  }

  /** Whether DMA to the page is wrong, since it was taken away (for a write: or the right to write was). */
  isTaken(page: number, write: boolean): boolean {
    return this.#gone.has(page) || (write && this.#readOnly.has(page));
  }

  /** Whether a fault on the page is the doing of who took that page. */
  isLeaving(page: number): boolean {
    return this.#leaving.has(page) || this.#losingWrite.has(page);
  }

  /** Pages that were not resident when their memory was mapped, so that their first fault is nobody's doing. */
  neverMapped(page: number, pages: number): void {
    for (let at = page; at < page + pages; ) {
      const level = this.#options.domain.vacantLevel(at);
      const size = 512 ** (level - 1);
      const end = level === 0 ? at + 1 : Math.min(page + pages, (Math.floor(at / size) + 1) * size);
      if (level > 0) this.#leaving.addRange(at, end - at);
      at = end;
    }
  }

  /** The domain has been filled from the areas, before any device uses it: what was taken meanwhile and is mapped has come back. */
  filled(): void {
    const { domain } = this.#options;
    for (const pages of [this.#gone, this.#leaving, this.#readOnly, this.#losingWrite])
      for (const page of [...pages.pages()]) if (domain.vacantLevel(page) === 0) pages.deleteRange(page, 1);
  }

  /** Pages that a new domain maps read-only, as their owner may not write to them without a fault: a write faults, and that is nobody's doing. */
  mappedReadOnly(page: number, pages: number): void {
    const { domain } = this.#options;
    for (let at = page; at < page + pages; ) {
      const leaf = domain.leafAt(at);
      const end = leaf === null ? at + 1 : leaf.page + 512 ** (leaf.level - 1);
      if (leaf !== null && (leaf.rights & 2) === 0) this.#losingWrite.addRange(at, end - at);
      at = end;
    }
  }

  /** {@inheritDoc HwptObserver.takingAway} */
  takingAway(page: number, pages: number): void {
    this.#takeAwayStartNs = this.#options.now();
    this.#leaving.addRange(page, pages);
  }

  /** {@inheritDoc HwptObserver.takenAway} */
  takenAway(page: number, pages: number, outcome: TakeAwayOutcome): void {
    const { ledger, sink, now, name, checkAreas, onTakenAway } = this.#options;
    this.#gone.addRange(page, pages);
    this.#readOnly.deleteRange(page, pages);
    this.#note(outcome);
    const mapped = this.#firstMapped(page, pages);
    ledger.check('I8', mapped < 0, () => `iova ${iovaText(mapped)} is still mapped after the notifier`);
    checkAreas();
    const durationNs = now() - this.#takeAwayStartNs;
    if (sink.enabled)
      sink.record({
        atNs: this.#takeAwayStartNs,
        durationNs,
        track: `${name} hwpt`,
        name: 'take away',
        args: { iova: iovaText(page), pages, took: formatDurationNs(durationNs) },
      });
    onTakenAway(page, pages, outcome);
  }

  /** {@inheritDoc HwptObserver.takingWrite} */
  takingWrite(page: number, pages: number): void {
    this.#losingWrite.addRange(page, pages);
  }

  /** {@inheritDoc HwptObserver.writeTaken} */
  writeTaken(page: number, pages: number, outcome: TakeAwayOutcome): void {
    this.#readOnly.addRange(page, pages);
    this.#note(outcome);
    this.#options.checkAreas();
  }

  /** {@inheritDoc HwptObserver.mapping} */
  mapping(page: number, pages: number, frame: number): void {
    const { ledger, mm, userPageOf, isInvalidating, checkAreas } = this.#options;
    const userPage = userPageOf(page);
    const overlaps = isInvalidating(userPage, pages);
    const run = { startPage: 0, pages: 0, pfn: -1 };
    mm.contiguousRun(userPage, userPage, userPage + pages - 1, run);
    ledger.check('I10', !overlaps && run.pfn === frame && run.pages === pages, () =>
      overlaps
        ? `iova ${iovaText(page)} is mapped while a notifier takes it away`
        : `iova ${iovaText(page)} and ${pages - 1} pages more are mapped from frame ${hex(frame)}, where not all of them are`,
    );
    this.#gone.deleteRange(page, pages);
    this.#readOnly.deleteRange(page, pages);
    checkAreas();
  }

  /** {@inheritDoc HwptObserver.mapped} */
  mapped(page: number, pages: number): void {
    const { domain } = this.#options;
    this.faultsMapped++;
    this.tablePagesPeak = Math.max(this.tablePagesPeak, domain.table.tablePages);
    // Not before: who reads the entry just ahead of the map still faults because of the take-away.
    this.#leaving.deleteRange(page, pages);
    // What the host keeps read-only (a page that KSM shares, a zero page) is mapped so, and a write faults once more.
    const isWriteable = ((domain.leafAt(page)?.rights ?? 0) & 2) !== 0;
    if (isWriteable) this.#losingWrite.deleteRange(page, pages);
    else this.#losingWrite.addRange(page, pages);
  }

  /** {@inheritDoc HwptObserver.mappingPinned} */
  mappingPinned(page: number, pages: number): void {
    this.#gone.deleteRange(page, pages);
    this.#readOnly.deleteRange(page, pages);
  }

  #note(outcome: TakeAwayOutcome): void {
    if (outcome.fellBack) this.wholeLeafFallbacks++;
    this.tablePagesPeak = Math.max(this.tablePagesPeak, this.#options.domain.table.tablePages);
  }

  /** The first page of a range that the domain still maps, or -1. Steps over vacant blocks. */
  #firstMapped(page: number, pages: number): number {
    for (let at = page; at < page + pages; ) {
      const level = this.#options.domain.vacantLevel(at);
      if (level === 0) return at;
      const size = 512 ** (level - 1);
      at = (Math.floor(at / size) + 1) * size;
    }
    return -1;
  }
}
