import { formatDurationNs, hex } from '@faultline/address';
import type { AddressSpace, PhysicalMemory } from '@faultline/host-mm';
import type { HwptObserver, TakeAwayOutcome } from '@faultline/iommufd-core';
import type { DmaPath, DmaTarget, Endpoint } from '@faultline/pci-device';
import { type Agent, type EventSink, LatencyHistogram } from '@faultline/sim';
import { faultReasonText, isWalkError } from '@faultline/vtd-pagetable';
import type { InvariantLedger } from './invariants.ts';
import { PagePool, PageSet, PageTags } from './page-set.ts';

/** What a {@link DmaChecker} looks at. */
export interface DmaCheckerOptions {
  readonly name: string;
  readonly memory: PhysicalMemory;
  readonly mm: AddressSpace;
  /** Host-virtual page of a guest page, or -1 outside RAM. */
  readonly userPageOf: (page: number) => number;
  /** Level of the vacant block around a page in the domain; 0 if the page is mapped. */
  readonly vacantLevelOf: (page: number) => number;
  /** Whether the domain lets devices write to a page. */
  readonly isWriteable: (page: number) => boolean;
  /** Hash of the io_pagetable. */
  readonly areasHash: () => string;
  readonly ledger: InvariantLedger;
  readonly now: () => number;
  readonly sink: EventSink;
  /** Whether the strategy claims that nobody outside the range notices (I4). */
  readonly claimsHitless: boolean;
  /** Whether the driver of a device says that the path can fault. */
  readonly claimsFaultable: (endpoint: Endpoint, path: DmaPath) => boolean;
  /** Called for every take-away, with what it did. */
  readonly onTakenAway: (page: number, pages: number, outcome: TakeAwayOutcome) => void;
}

/** Pages of guest memory that a device's pin keeps, in frames in a row. */
export interface PinnedFrames {
  readonly page: number;
  readonly pages: number;
  readonly frame: number;
}

const frameIn = (runs: readonly PinnedFrames[], page: number): number => {
  const run = runs.find((each) => page >= each.page && page < each.page + each.pages);
  return run ? run.frame + (page - run.page) : -1;
};

const iovaText = (page: number): string => hex(BigInt(page) * 4096n);

/**
 * Stands where DMA meets memory and where the hwpt changes the domain, and checks that both are right. Holds the naive
 * second model of the guest's memory (I2) and the pages that the host has taken away (I1, I4).
 */
export class DmaChecker implements DmaTarget, HwptObserver {
  readonly contents = new PageTags();
  readonly writtenByDma = new PageSet();
  readonly faultLatency = new LatencyHistogram();
  /** Pages that the host took away one by one, for workloads that come back to them. */
  readonly reclaimed = new PagePool();
  innocentFaulted = 0;
  innocentStalled = 0;
  /** Time that they waited, in ns. */
  innocentStalledNs = 0;
  wholeLeafFallbacks = 0;
  /** Times that a fault was resolved by a map. */
  faultsMapped = 0;
  /** Faults that contradict what the device's driver told vfio of the path. */
  lies = 0;
  readonly #options: DmaCheckerOptions;
  /** Pages that were, or are being, taken away and are not mapped again: a fault on them is nobody else's doing. */
  readonly #leaving = new PageSet();
  /** Those of them for which the notifier has returned: from then on DMA must not reach the old frame. */
  readonly #gone = new PageSet();
  /** Pages of which the right to write was, or is being, taken: a write that faults is nobody else's doing. */
  readonly #losingWrite = new PageSet();
  /** Those of them for which the notifier has returned: from then on no DMA may write there. */
  readonly #readOnly = new PageSet();
  /** Pages whose content the guest is giving up: until that is over, they may hold the old content or none. */
  readonly #unsettled = new PageSet();
  readonly #faultedAt = new Map<Agent, { readonly ns: number; readonly innocent: boolean }>();
  #isDying = false;
  /** What stays mapped when the process has gone: the frames that pins of devices keep. Null while it lives. */
  #survivors: readonly PinnedFrames[] | null = null;
  readonly #invalidating: { page: number; pages: number }[] = [];
  #areasHash = '';
  #takeAwayStartNs = 0;

  constructor(options: DmaCheckerOptions) {
    this.#options = options;
  }

  /** Remembers the io_pagetable as the user made it; from here on it must not change (I7). */
  sealAreas(): void {
    this.#areasHash = this.#options.areasHash();
  }

  /** The host begins to invalidate a range of host-virtual pages: nothing in it may be mapped until it ends (I10). */
  invalidationStarts(range: { startPage: number; pages: number }): void {
    this.#invalidating.push({ page: range.startPage, pages: range.pages });
  }

  /** The host's invalidation of a range is over. */
  invalidationEnds(range: { startPage: number; pages: number }): void {
    const index = this.#invalidating.findIndex(
      (active) => active.page === range.startPage && active.pages === range.pages,
    );
    if (index >= 0) this.#invalidating.splice(index, 1);
  }

  /** {@inheritDoc DmaTarget.access} */
  access(endpoint: Endpoint, page: number, frame: number, write: boolean, tagLo: number, tagHi: number): void {
    const { memory, mm, ledger } = this.#options;
    const userPage = this.#options.userPageOf(page);
    const where = () => `${endpoint.name} ${write ? 'wrote' : 'read'} iova ${iovaText(page)} at frame ${hex(frame)}`;
    if (!ledger.check('I11', userPage >= 0, () => `${where()}, outside the guest's memory`)) return;
    const current = this.#survivors === null ? mm.lookup(userPage) : frameIn(this.#survivors, page);
    ledger.check('I1', current === frame && !this.#gone.has(page), () =>
      current === frame
        ? `${where()} after the notifier had returned`
        : `${where()}; the page is ${current < 0 ? 'not resident' : `in frame ${hex(current)}`}`,
    );
    if (write) {
      ledger.check('I1', !this.#readOnly.has(page), () => `${where()} after the right to write was taken`);
      memory.writeTag(frame, tagLo, tagHi);
      this.contents.set(page, tagLo, tagHi);
      this.writtenByDma.add(page);
    } else {
      const lo = memory.tagLo(frame);
      const hi = memory.tagHi(frame);
      ledger.check('I2', this.#holds(page, lo, hi), () => `${where()} and found another content than was written`);
    }
  }

  /** {@inheritDoc DmaTarget.missing} */
  missing(endpoint: Endpoint, agent: Agent, path: DmaPath, page: number, reason: number): void {
    const { ledger, now, claimsHitless, userPageOf } = this.#options;
    const where = () => `${endpoint.name} (${path}) at iova ${iovaText(page)}: ${faultReasonText(reason)}`;
    ledger.check('I3', !isWalkError(reason), where);
    // A path that can fault waits for the page; one that cannot finds its declared ranges pinned.
    const canWait = endpoint.faults[path].whenMissing === 'stall';
    if (!this.#isDying && !(canWait && this.#options.claimsFaultable(endpoint, path))) this.lies++;
    const innocent =
      !this.#isDying && userPageOf(page) >= 0 && !this.#leaving.has(page) && !this.#losingWrite.has(page);
    this.#faultedAt.set(agent, { ns: now(), innocent });
    if (innocent) {
      this.innocentFaulted++;
      if (canWait) this.innocentStalled++;
    }
    if (claimsHitless) ledger.check('I4', !innocent, () => `${where()}, a page that nobody took away`);
  }

  /** {@inheritDoc DmaTarget.answered} */
  answered(endpoint: Endpoint, agent: Agent, page: number, responseCode: number): void {
    const fault = this.#faultedAt.get(agent);
    if (fault === undefined) return;
    this.#faultedAt.delete(agent);
    const startNs = fault.ns;
    const durationNs = this.#options.now() - startNs;
    this.faultLatency.record(durationNs);
    if (fault.innocent) this.innocentStalledNs += durationNs;
    if (this.#options.sink.enabled)
      this.#options.sink.record({
        atNs: startNs,
        durationNs,
        track: agent.name,
        name: 'I/O page fault',
        args: { device: endpoint.name, iova: iovaText(page), response: responseCode },
      });
  }

  /** Pages that were not resident when their memory was mapped, so that their first fault is nobody's doing. */
  neverMapped(page: number, pages: number): void {
    for (let at = page; at < page + pages; ) {
      const level = this.#options.vacantLevelOf(at);
      const end =
        level === 0 ? at + 1 : Math.min(page + pages, (Math.floor(at / 512 ** (level - 1)) + 1) * 512 ** (level - 1));
      if (level > 0) this.#leaving.addRange(at, end - at);
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
    const { ledger, sink, now, name } = this.#options;
    this.#gone.addRange(page, pages);
    this.#readOnly.deleteRange(page, pages);
    if (pages === 1) this.reclaimed.add(page);
    if (outcome.fellBack) this.wholeLeafFallbacks++;
    const mapped = this.#firstMapped(page, pages);
    ledger.check('I8', mapped < 0, () => `iova ${iovaText(mapped)} is still mapped after the notifier`);
    this.#checkAreas();
    if (sink.enabled)
      sink.record({
        atNs: this.#takeAwayStartNs,
        durationNs: now() - this.#takeAwayStartNs,
        track: `${name} hwpt`,
        name: 'take away',
        args: { iova: iovaText(page), pages, took: formatDurationNs(now() - this.#takeAwayStartNs) },
      });
    this.#options.onTakenAway(page, pages, outcome);
  }

  /** {@inheritDoc HwptObserver.takingWrite} */
  takingWrite(page: number, pages: number): void {
    this.#losingWrite.addRange(page, pages);
  }

  /** {@inheritDoc HwptObserver.writeTaken} */
  writeTaken(page: number, pages: number, outcome: TakeAwayOutcome): void {
    this.#readOnly.addRange(page, pages);
    if (outcome.fellBack) this.wholeLeafFallbacks++;
    this.#checkAreas();
  }

  /** {@inheritDoc HwptObserver.mapping} */
  mapping(page: number, pages: number, frame: number): void {
    const { ledger, mm, userPageOf } = this.#options;
    const userPage = userPageOf(page);
    const overlaps = this.#invalidating.some(
      (range) => userPage < range.page + range.pages && range.page < userPage + pages,
    );
    const run = { startPage: 0, pages: 0, pfn: -1 };
    mm.contiguousRun(userPage, userPage, userPage + pages - 1, run);
    ledger.check('I10', !overlaps && run.pfn === frame && run.pages === pages, () =>
      overlaps
        ? `iova ${iovaText(page)} is mapped while a notifier takes it away`
        : `iova ${iovaText(page)} and ${pages - 1} pages more are mapped from frame ${hex(frame)}, where not all of them are`,
    );
    this.#gone.deleteRange(page, pages);
    this.#readOnly.deleteRange(page, pages);
    this.#checkAreas();
  }

  /** {@inheritDoc HwptObserver.mapped} */
  mapped(page: number, pages: number): void {
    this.faultsMapped++;
    // Not before: who reads the entry just ahead of the map still faults because of the take-away.
    this.#leaving.deleteRange(page, pages);
    // What the host keeps read-only (a page that KSM shares, a zero page) is mapped so, and a write faults once more.
    if (this.#options.isWriteable(page)) this.#losingWrite.deleteRange(page, pages);
    else this.#losingWrite.addRange(page, pages);
  }

  /** A read or write by the guest's CPU, checked against and noted in the second model. */
  cpuAccessed(page: number, write: boolean, tagLo: number, tagHi: number): void {
    if (write) {
      this.contents.set(page, tagLo, tagHi);
      return;
    }
    const content = this.#options.mm.cpuRead(this.#options.userPageOf(page));
    this.#options.ledger.check(
      'I2',
      this.#holds(page, content.tagLo, content.tagHi),
      () => `the CPU read gpa ${iovaText(page)} and found another content than was written`,
    );
  }

  /** The guest begins to give up the content of a range (a balloon, MADV_DONTNEED by the VMM). */
  discardBegins(page: number, pages: number): void {
    this.#unsettled.addRange(page, pages);
  }

  /** It is over: what the pages hold now, zeros or what was written since, is what they have to keep. */
  discardEnds(page: number, pages: number): void {
    this.#unsettled.deleteRange(page, pages);
    for (let i = page; i < page + pages; i++) {
      const content = this.#options.mm.cpuRead(this.#options.userPageOf(i));
      this.contents.set(i, content.tagLo, content.tagHi);
    }
  }

  /** The content of pages is lost, as their frames are broken: from here on they may hold anything. */
  contentLost(page: number, pages: number): void {
    this.discardBegins(page, pages);
  }

  /** The process that owns the memory is being killed: from here on nobody who faults is innocent. */
  processDies(): void {
    this.#isDying = true;
  }

  /** Its notifiers have returned: no DMA may reach anything but what pins of devices keep. */
  processGone(survivors: readonly PinnedFrames[]): void {
    this.#survivors = survivors;
  }

  /** Compares every page ever written with where its content is now, in a frame or in swap (I2). */
  checkAllContents(): void {
    if (this.#isDying) return;
    const { mm, ledger, userPageOf } = this.#options;
    for (const page of this.contents.pages()) {
      const userPage = userPageOf(page);
      if (userPage < 0) continue;
      const content = mm.cpuRead(userPage);
      ledger.check(
        'I2',
        this.#holds(page, content.tagLo, content.tagHi),
        () => `at the end gpa ${iovaText(page)} holds another content than was last written`,
      );
    }
  }

  /** The first page of a range that the domain still maps, or -1. Steps over vacant blocks. */
  #firstMapped(page: number, pages: number): number {
    for (let at = page; at < page + pages; ) {
      const level = this.#options.vacantLevelOf(at);
      if (level === 0) return at;
      const size = 512 ** (level - 1);
      at = (Math.floor(at / size) + 1) * size;
    }
    return -1;
  }

  #holds(page: number, lo: number, hi: number): boolean {
    return this.contents.matches(page, lo, hi) || this.#unsettled.has(page);
  }

  #checkAreas(): void {
    if (this.#areasHash === '') return;
    this.#options.ledger.check(
      'I7',
      this.#options.areasHash() === this.#areasHash,
      () => 'the io_pagetable has changed',
    );
  }
}
