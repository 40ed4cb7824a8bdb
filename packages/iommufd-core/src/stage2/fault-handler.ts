import { type Agent, ANY_LOCATION, Cost, Location, type Step, type Task } from '@faultline/sim';
import { VM_FAULT_ERROR, VM_FAULT_OOM } from '../host-address-space.ts';
import type { Area } from '../ioas/area.ts';
import type { DomainLeaf } from '../iommu-domain.ts';
import { LEAF_LEVEL } from './fault-policy.ts';
import { takeSliceAway } from './host-follower.ts';
import { isThere, type PresentRun, presentRun } from './host-pages.ts';
import { fixHost, type HwptSeat, hasChanged, isOutOfMemory, mapInto, mapPinned } from './hwpt-seat.ts';
import { leafPages, vacantUntil } from './vacancy.ts';
import { restoreWrite } from './write-access.ts';

/** How a fault on one page ended. */
export const FaultOutcome = { success: 0, invalid: 1, failure: 2 } as const;
/** 0 success, 1 invalid (outside areas, against rights, no such memory), 2 failure (no memory). */
export type FaultOutcomeCode = (typeof FaultOutcome)[keyof typeof FaultOutcome];

/**
 * Times that one page's fault is tried, each retry because the host changed in between, before it is answered success without a
 * map: the device asks again, so the work of one group stays bounded and nothing is lost.
 */
const MAX_FAULT_ATTEMPTS = 100;

/** A fault on one page, as it is tried to be mapped. */
interface Attempt {
  readonly area: Area;
  readonly page: number;
  readonly userPage: number;
  readonly write: boolean;
  /** The notifier's, from before the page was looked up. */
  readonly sequence: number;
}

/** A range of IOVA pages that is mapped at once. */
interface Block {
  readonly page: number;
  readonly pages: number;
  readonly frame: number;
}

/** The stage-2 fault handler of one hwpt. */
export class FaultHandler {
  readonly #seat: HwptSeat;
  /** Faults that found the page mapped already. */
  spurious = 0;
  /** Times that a fault started over because the host changed under it. */
  retries = 0;
  /** Faults that made a leaf writeable, or replaced its frame. */
  upgrades = 0;
  /** Pages mapped around faults, beyond the leaf of the fault itself. */
  mappedAround = 0;

  constructor(seat: HwptSeat) {
    this.#seat = seat;
  }

  /**
   * Handles the fault of one page: handle_mm_fault as far as needed, then map what is there now, under the notifier's sequence check,
   * so that nothing is mapped that is being taken away (I10). A page is mapped with the right that the owner has without a fault: reading a page
   * that is shared copy-on-write maps it read-only, and a later write makes it the owner's own and adds W.
   */
  *handle(agent: Agent, page: number, write: boolean): Task<FaultOutcomeCode> {
    const { areas, mm, released } = this.#seat;
    for (let attempt = 0; attempt < MAX_FAULT_ATTEMPTS; attempt++) {
      const area = areas.find(page);
      if (!area || released() || !(write ? area.writeable : area.readable)) return FaultOutcome.invalid;
      if (!area.unpinned) return yield* this.#pinned(agent, area, page);
      const userPage = area.userPage + (page - area.page);
      if (attempt === 0 && area.policy.populateAround) yield* this.#populateAround(agent, area, page);
      const sequence = yield* mm.notifierReadBegin(agent, userPage);
      yield agent.reads('look the page up', Location.cpuEntry, mm.entryLocation(userPage), Cost.entryRead);
      if (!isThere(mm, userPage, write) && this.#seat.pins.frameOf(userPage) < 0) {
        const bits = yield* fixHost(agent, mm, userPage, write);
        if ((bits & VM_FAULT_ERROR) !== 0)
          return (bits & VM_FAULT_OOM) !== 0 ? FaultOutcome.failure : FaultOutcome.invalid;
        continue; // look it up again: handle_mm_fault does not return the page
      }
      const outcome = yield* this.#mapUnderLock(agent, { area, page, userPage, write, sequence });
      if (outcome !== null) return outcome;
      this.retries++;
    }
    return FaultOutcome.success;
  }

  /** A pinned area is mapped as a whole by who made it; before that is done the device has to ask again. */
  *#pinned(agent: Agent, area: Area, page: number): Task<FaultOutcomeCode> {
    const { updateLock, areas } = this.#seat;
    yield* updateLock.acquire(agent);
    try {
      this.spurious++;
      return areas.find(page) === area ? FaultOutcome.success : FaultOutcome.invalid;
    } finally {
      updateLock.release(agent);
    }
  }

  /** @returns null if the host or the areas changed in between */
  *#mapUnderLock(agent: Agent, attempt: Attempt): Task<FaultOutcomeCode | null> {
    const { area, page, userPage, write, sequence } = attempt;
    const { updateLock, released, areas, mm, pins, domain } = this.#seat;
    yield* updateLock.acquire(agent);
    try {
      if (released() || areas.find(page) !== area) return null;
      const pinned = pins.frameOf(userPage);
      if (pinned >= 0) return yield* this.#installPinned(agent, area, page, pinned);
      if (yield* hasChanged(agent, mm, userPage, 1, sequence)) return null;
      if (!isThere(mm, userPage, write)) return null;
      const leaf = domain.leafAt(page);
      if (leaf !== null) {
        if (yield* this.#fits(agent, attempt, leaf)) return FaultOutcome.success;
        // It was taken away, and while that was flushed a notifier may have begun, or a device have pinned the page, which brought it back.
        if ((yield* hasChanged(agent, mm, userPage, 1, sequence)) || domain.leafAt(page) !== null) return null;
      }
      if (!(yield* this.#mapBlock(agent, attempt))) return null;
      if (area.policy.around > 1) yield* this.#mapWindow(agent, attempt);
      return FaultOutcome.success;
    } catch (error) {
      if (isOutOfMemory(error)) return FaultOutcome.failure;
      throw error;
    } finally {
      updateLock.release(agent);
    }
  }

  /** A page that is pinned for a device maps the pin's frame, whatever the owner has there now. */
  *#installPinned(agent: Agent, area: Area, page: number, frame: number): Task<FaultOutcomeCode> {
    const { domain, observer } = this.#seat;
    const leaf = domain.leafAt(page);
    const isRight = leaf !== null && leaf.frame + (page - leaf.page) === frame;
    if (isRight && (!area.writeable || (leaf.rights & 2) !== 0)) {
      this.spurious++;
      return FaultOutcome.success;
    }
    this.upgrades++;
    if (leaf !== null) yield* takeSliceAway(agent, this.#seat, page, 1); // which restores the pin
    if (domain.leafAt(page) === null) yield* mapPinned(agent, this.#seat, area, { page, pages: 1, frame });
    observer.mapped?.(page, 1);
    return FaultOutcome.success;
  }

  /** Makes what is mapped already fit the access. @returns false if the page is not mapped any more */
  *#fits(agent: Agent, attempt: Attempt, leaf: DomainLeaf): Task<boolean> {
    const { page, userPage, write } = attempt;
    if (leaf.frame + (page - leaf.page) !== this.#seat.mm.lookup(userPage)) {
      this.upgrades++;
      yield* takeSliceAway(agent, this.#seat, page, 1);
      return false;
    }
    if (!write || (leaf.rights & 2) !== 0) {
      this.spurious++;
      return true;
    }
    this.upgrades++;
    return yield* restoreWrite(agent, this.#seat, leaf, attempt);
  }

  /**
   * Maps the largest block around a page that is vacant here, contiguous on the host and free of invalidations in progress: a
   * notifier that has begun on any page of the block is waiting for the update lock, or is past its turn.
   * @returns false if the page itself is being invalidated by now
   */
  *#mapBlock(agent: Agent, { area, page, userPage, sequence }: Attempt): Task<boolean> {
    const { mm } = this.#seat;
    const frame = mm.lookup(userPage);
    const run: PresentRun = { startPage: 0, pages: 0, pfn: -1, write: false };
    let block = this.#blockAround(area, page, frame, run);
    const first = userPage - (page - block.page);
    if (block.pages > 1 && (yield* hasChanged(agent, mm, first, block.pages, sequence))) {
      if (mm.notifierReadRetry(userPage, sequence)) return false;
      block = { page, pages: 1, frame };
    }
    yield* this.#mapRange(agent, area, block, run.write);
    return true;
  }

  *#mapRange(agent: Agent, area: Area, block: Block, write: boolean): Task<void> {
    const { mm, observer } = this.#seat;
    // As KVM: what a device may write to has no valid copy in swap.
    if (write) mm.markDirty(area.userPage + (block.page - area.page), block.pages);
    observer.mapping?.(block.page, block.pages, block.frame);
    yield* mapInto(agent, this.#seat, area, { ...block, write });
    observer.mapped?.(block.page, block.pages);
  }

  /** @param run filled with the owner's run around the page */
  #blockAround(area: Area, page: number, frame: number, run: PresentRun): Block {
    const { mm, domain, pins } = this.#seat;
    const single = { page, pages: 1, frame };
    const toUser = area.userPage - area.page;
    const vacant = Math.min(LEAF_LEVEL[area.policy.largest], domain.vacantLevel(page));
    const span = 512 ** (vacant - 1);
    const blockStart = Math.max(area.page, Math.floor(page / span) * span);
    const blockEnd = Math.min(area.page + area.pages, Math.floor(page / span) * span + span);
    const bounds = { first: blockStart + toUser, last: blockEnd - 1 + toUser };
    presentRun(mm, area, page + toUser, bounds, run);
    for (let level = vacant; level > 1; level--) {
      const size = 512 ** (level - 1);
      const start = Math.floor(page / size) * size;
      const first = frame - (page - start);
      const inRun = start + toUser >= run.startPage && start + size + toUser <= run.startPage + run.pages;
      if (inRun && first % size === 0 && pins.fit(start + toUser, size, first))
        return { page: start, pages: size, frame: first };
    }
    return single;
  }

  /** Fault-around: maps what is resident and vacant in the window, with the rights that it has. */
  *#mapWindow(agent: Agent, { area, page, sequence }: Attempt): Task<void> {
    const { mm, pins } = this.#seat;
    yield lookAround(agent);
    for (const { write, ...block } of this.#vacantRuns(area, page)) {
      const userPage = area.userPage + (block.page - area.page);
      if (!pins.fit(userPage, block.pages, block.frame)) continue;
      if (yield* hasChanged(agent, mm, userPage, block.pages, sequence)) continue;
      try {
        yield* this.#mapRange(agent, area, block, write);
      } catch (error) {
        if (isOutOfMemory(error)) return; // the fault itself is resolved
        throw error;
      }
      this.mappedAround += block.pages;
    }
  }

  /** The owner's runs in the window around a page that nothing is mapped for, each with the right that it may be mapped with. */
  #vacantRuns(area: Area, page: number): (Block & { readonly write: boolean })[] {
    const { mm, domain } = this.#seat;
    const toUser = area.userPage - area.page;
    const { first, end } = window(area, page);
    const runs = [];
    const run: PresentRun = { startPage: 0, pages: 0, pfn: -1, write: false };
    for (let at = first; at < end; ) {
      const leaf = domain.leafAt(at);
      const bounds = { first: at + toUser, last: end - 1 + toUser };
      if (leaf !== null) at = leaf.page + leafPages(leaf);
      else if (!presentRun(mm, area, at + toUser, bounds, run)) at++;
      else {
        const pages = vacantUntil(domain, at, at + run.pages) - at;
        runs.push({ page: at, pages, frame: run.pfn, write: run.write });
        at += pages;
      }
    }
    return runs;
  }

  /** Faults the neighbours in, until there is an error: the fault itself does not depend on them. */
  *#populateAround(agent: Agent, area: Area, page: number): Task<void> {
    const { mm } = this.#seat;
    const { first, end } = window(area, page);
    const missing = [];
    yield lookAround(agent);
    for (let at = first; at < end; at++) {
      const userPage = area.userPage + (at - area.page);
      if (at !== page && !isThere(mm, userPage, area.writeable)) missing.push(userPage);
    }
    for (const userPage of missing) {
      const bits = yield* fixHost(agent, mm, userPage, area.writeable);
      if ((bits & VM_FAULT_ERROR) !== 0) return;
    }
  }
}

/** The step in which a window is looked at, all at once: what it costs is counted with the map. */
const lookAround = (agent: Agent): Step => agent.reads('look around', Location.cpuEntry, ANY_LOCATION, Cost.free);

/** The aligned window of fault-around within the area. */
function window(area: Area, page: number): { readonly first: number; readonly end: number } {
  const { around } = area.policy;
  const start = Math.floor(page / around) * around;
  return { first: Math.max(area.page, start), end: Math.min(area.page + area.pages, start + around) };
}
