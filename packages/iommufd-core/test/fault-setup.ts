import type { Agent, Task } from '@faultline/sim';
import { DEFAULT_FAULT_POLICY, type FaultPolicy, HwptPaging, STRATEGIES, type Strategy } from '../src/index.ts';
import { type PinnedRange, PinnedRanges } from '../src/ioas/pinned-ranges.ts';
import { HostSetup, type HostSetupOptions, USER } from './host-setup.ts';

/** First IOVA page of the area: not where its memory is in the owner, which begins at {@link OWN}. */
export const IOVA = 5120;
/** First page of the area's memory. */
export const OWN = USER + 512;

/** How a {@link FaultSetup} differs from the ordinary. */
export interface FaultSetupOptions extends Omit<HostSetupOptions, 'strategy'> {
  readonly strategy?: Strategy;
  /** Pages of the area; 1024. */
  readonly length?: number;
  /** Where the area begins, in pages after {@link IOVA} and after {@link OWN}; 0. */
  readonly offset?: number;
  readonly readable?: boolean;
  readonly writeable?: boolean;
  readonly policy?: Partial<FaultPolicy>;
  /** Nobody looks on. */
  readonly silent?: boolean;
}

/**
 * One area in one hwpt that the host does not know of: what the owner has and what the domain maps drift apart as a test has it, as
 * they do between any two steps of those that bring them together. Pages count from {@link IOVA}.
 */
export class FaultSetup extends HostSetup {
  readonly pins = new PinnedRanges();
  readonly hwpt: HwptPaging;
  /** What whoever looks on has seen, pages counted from {@link IOVA}. */
  readonly seen: string[] = [];
  /** What the host was told of devices that may write. */
  readonly dirty: [page: number, pages: number][] = [];
  /** Pages of the owner that were faulted in, W for writes. */
  readonly fixed: string[] = [];

  constructor(options: FaultSetupOptions = {}) {
    super({ pages: 1536, frames: 4096, ...options });
    const note = (what: string) => (page: number, pages: number) =>
      void this.seen.push(`${what} ${page - IOVA}+${pages}`);
    const observer = {
      mapping: note('map'),
      mapped: note('mapped'),
      mappingPinned: note('pin'),
      takingAway: note('take'),
    };
    this.hwpt = new HwptPaging({
      domain: this.domain,
      areas: this.ioas.areas,
      mm: this.mm,
      strategy: options.strategy ?? STRATEGIES.cut,
      pins: this.pins,
      observer: options.silent ? {} : observer,
    });
    const { length = 1024, offset = 0, readable = true, writeable = true, policy } = options;
    this.area(offset, length, OWN + offset, { readable, writeable, policy });
    this.#listen();
  }

  /** Makes an area, of which nothing is mapped yet. */
  area(
    page: number,
    pages: number,
    user: number,
    { readable = true, writeable = true, policy = {} as Partial<FaultPolicy> | undefined } = {},
  ): void {
    this.run((agent) =>
      this.ioas.map(agent, {
        iova: BigInt(IOVA + page) * 4096n,
        userVa: BigInt(user) * 4096n,
        length: BigInt(pages) * 4096n,
        readable,
        writeable,
        unpinned: true,
        policy: { ...DEFAULT_FAULT_POLICY, ...policy },
      }),
    );
  }

  /** Maps what is resident of all areas. */
  mapAll(): void {
    for (const area of this.ioas.areas.areas()) this.run((agent) => this.hwpt.mapResident(agent, area));
  }

  override fault(page: number, write = true): number {
    return this.run((agent) => this.hwpt.handleFault(agent, IOVA + page, write));
  }

  /** Pins pages for a device, and has the domain map nothing for it yet. */
  pin(page: number, pages = 1): PinnedRange {
    const userPage = OWN + page;
    const runs = this.run((agent) => this.mm.pinUserPages(agent, userPage, pages, true));
    const pin = { userPage, pages, device: 'nic', area: {}, runs };
    this.pins.add(pin);
    return pin;
  }

  /** What the owner gives up; it has nothing there afterwards, or new frames. */
  giveUp(page: number, pages: number, then: 'nothing' | 'populate' = 'populate'): void {
    this.run((agent) => this.mm.madviseDontNeed(agent, OWN + page, pages));
    if (then === 'populate') this.run((agent) => this.mm.populate(agent, OWN + page, pages));
  }

  /** From now on the host is about to take a page, and has not come to this hwpt yet: the sequence says so, and nothing else. */
  takingSoon(page: number): void {
    const retry = this.mm.notifierReadRetry.bind(this.mm);
    this.mm.notifierReadRetry = (first, sequence, pages = 1) =>
      (first <= OWN + page && OWN + page < first + pages) || retry(first, sequence, pages);
  }

  /** The hwpt's side of a notifier, as the host would call it. */
  notify(page: number, pages: number, event: 'CLEAR' | 'SOFT_DIRTY'): void {
    const range = { startPage: OWN + page, pages, event: event === 'CLEAR' ? 1 : 4, blockable: true };
    this.run((agent) => this.hwpt.invalidateRangeStart(agent, range));
  }

  /** Frame of the domain for a page, or -1. */
  frame(page: number): number {
    return this.domain.frameAt(IOVA + page);
  }

  /** Frame of the owner for a page, or -1. */
  own(page: number): number {
    return this.mm.lookup(OWN + page);
  }

  rights(page: number): number {
    return this.domain.leafAt(IOVA + page)?.rights ?? 0;
  }

  /** Pages that the domain maps, in order. */
  get present(): number[] {
    return [...this.domain.table.allLeaves()].flatMap(({ page, level }) =>
      Array.from({ length: 512 ** (level - 1) }, (_, nth) => page + nth - IOVA),
    );
  }

  get counters() {
    const {
      spuriousFaults: spurious,
      upgradedFaults: upgrades,
      mappedAround: around,
      faultRetries: retries,
    } = this.hwpt;
    return { spurious, upgrades, around, retries };
  }

  #listen(): void {
    const { mm, dirty, fixed } = this;
    const markDirty = mm.markDirty.bind(mm);
    mm.markDirty = (page, pages) => {
      dirty.push([page - OWN, pages]);
      markDirty(page, pages);
    };
    const handle = mm.handleMmFault.bind(mm);
    mm.handleMmFault = (agent: Agent, page, access): Task<number> => {
      fixed.push(`${page - OWN}${access.write ? 'W' : ''}`);
      return handle(agent, page, access);
    };
  }
}
