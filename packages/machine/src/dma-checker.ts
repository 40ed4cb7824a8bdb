import { hex } from '@faultline/address';
import type { AddressSpace, PhysicalMemory } from '@faultline/host-mm';
import type { DmaPath, DmaTarget, Endpoint } from '@faultline/pci-device';
import { type Agent, type EventSink, LatencyHistogram } from '@faultline/sim';
import { faultReasonText, isWalkError } from '@faultline/vtd-pagetable';
import { type HwptWatch, iovaText } from './hwpt-watch.ts';
import type { InvariantLedger } from './invariants.ts';
import { PagePool, PageSet, PageTags } from './page-set.ts';

/** What a {@link DmaChecker} looks at. */
export interface DmaCheckerOptions {
  readonly name: string;
  readonly memory: PhysicalMemory;
  readonly mm: AddressSpace;
  /** Host-virtual page of a guest page, or -1 outside RAM. */
  readonly userPageOf: (page: number) => number;
  /** The watch of the hwpt that a device is attached to. */
  readonly watchOf: (endpoint: Endpoint) => HwptWatch;
  /** The frame that a pin of the IOAS holds for a guest page, or -1: DMA reaches it whatever the host maps there by now. */
  readonly pinnedFrameOf: (page: number) => number;
  /** Hash of the io_pagetable. */
  readonly areasHash: () => string;
  readonly ledger: InvariantLedger;
  readonly now: () => number;
  readonly sink: EventSink;
  /** Whether the strategy claims that nobody outside the range notices (I4). */
  readonly claimsHitless: boolean;
  /** Whether a device was isolated since it does not answer invalidations: what it misses is nobody's doing. */
  readonly isIsolated: (endpoint: Endpoint) => boolean;
  /** A DMA was blocked and the device does not ask for the page. */
  readonly onBlocked: (endpoint: Endpoint, page: number, write: boolean) => void;
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

/**
 * Stands where DMA of one VM meets memory, and checks that it is right. Holds the naive second model of the guest's memory (I2); which
 * pages the host has taken away (I1, I4) it learns from the watch of the hwpt that the device is attached to.
 */
export class DmaChecker implements DmaTarget {
  readonly contents = new PageTags();
  readonly writtenByDma = new PageSet();
  readonly faultLatency = new LatencyHistogram();
  /** Pages that the host took away one by one, for workloads that come back to them. */
  readonly reclaimed = new PagePool();
  innocentFaulted = 0;
  innocentStalled = 0;
  /** Time that they waited, in ns. */
  innocentStalledNs = 0;
  /** What devices did that their drivers said they do not. */
  lies = 0;
  readonly #options: DmaCheckerOptions;
  /** Pages whose content the guest is giving up: until that is over, they may hold the old content or none. */
  readonly #unsettled = new PageSet();
  readonly #faultedAt = new Map<Agent, { readonly ns: number; readonly innocent: boolean }>();
  #isDying = false;
  /** What stays mapped when the process has gone: the frames that pins of devices keep. Null while it lives. */
  #survivors: readonly PinnedFrames[] | null = null;
  readonly #invalidating: { page: number; pages: number }[] = [];
  #areasHash = '';

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

  /** Whether an invalidation of any of these host-virtual pages is in progress. */
  isInvalidating(userPage: number, pages: number): boolean {
    return this.#invalidating.some((range) => userPage < range.page + range.pages && range.page < userPage + pages);
  }

  /** What of these host-virtual pages is being invalidated. */
  invalidating(userPage: number, pages: number): { readonly page: number; readonly pages: number }[] {
    return this.#invalidating.flatMap((range) => {
      const page = Math.max(userPage, range.page);
      const end = Math.min(userPage + pages, range.page + range.pages);
      return end > page ? [{ page, pages: end - page }] : [];
    });
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
    const watch = this.#options.watchOf(endpoint);
    const userPage = this.#options.userPageOf(page);
    const where = () => `${endpoint.name} ${write ? 'wrote' : 'read'} iova ${iovaText(page)} at frame ${hex(frame)}`;
    if (!ledger.check('I11', userPage >= 0, () => `${where()}, outside the guest's memory`)) return;
    const current = this.#survivors === null ? mm.lookup(userPage) : frameIn(this.#survivors, page);
    const isKept = (current !== frame || watch.isTaken(page, write)) && this.#options.pinnedFrameOf(page) === frame;
    if (isKept && current !== frame) {
      // Memory that the VMM gave up although a pin keeps it (MADV_DONTNEED): device and guest see different pages from now on.
      if (write) memory.writeTag(frame, tagLo, tagHi);
      return;
    }
    ledger.check('I1', isKept || (current === frame && !watch.isTaken(page, false)), () =>
      current === frame
        ? `${where()} after the notifier had returned`
        : `${where()}; the page is ${current < 0 ? 'not resident' : `in frame ${hex(current)}`}`,
    );
    if (write) {
      ledger.check('I1', isKept || !watch.isTaken(page, true), () => `${where()} after the right to write was taken`);
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
    if (this.#options.isIsolated(endpoint)) return;
    const { ledger, now, claimsHitless, userPageOf } = this.#options;
    const where = () => `${endpoint.name} (${path}) at iova ${iovaText(page)}: ${faultReasonText(reason)}`;
    ledger.check('I3', !isWalkError(reason), where);
    const canWait = endpoint.faults[path].whenMissing === 'stall';
    if (!this.#isDying && !canWait) this.#options.onBlocked(endpoint, page, path === 'write' || path === 'completion');
    const innocent = !this.#isDying && userPageOf(page) >= 0 && !this.#options.watchOf(endpoint).isLeaving(page);
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

  /** It is over: each page holds zeros or what was last written (I2), and has to keep that. */
  discardEnds(page: number, pages: number): void {
    const { mm, userPageOf, ledger } = this.#options;
    this.#unsettled.deleteRange(page, pages);
    for (let i = page; i < page + pages; i++) {
      const { tagLo, tagHi } = mm.cpuRead(userPageOf(i));
      ledger.check(
        'I2',
        (tagLo === 0 && tagHi === 0) || this.contents.matches(i, tagLo, tagHi),
        () => `gpa ${iovaText(i)}, given up, holds neither zeros nor what was last written`,
      );
      this.contents.set(i, tagLo, tagHi);
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

  #holds(page: number, lo: number, hi: number): boolean {
    return this.contents.matches(page, lo, hi) || this.#unsettled.has(page);
  }

  /** I7: the io_pagetable is as the user made it. */
  checkAreas(): void {
    if (this.#areasHash === '') return;
    this.#options.ledger.check(
      'I7',
      this.#options.areasHash() === this.#areasHash,
      () => 'the io_pagetable has changed',
    );
  }
}
