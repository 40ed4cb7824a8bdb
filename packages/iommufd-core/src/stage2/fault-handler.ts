import { type Agent, Cost, Location, type Task } from '@faultline/sim';
import { type ContiguousRun, VM_FAULT_ERROR, VM_FAULT_OOM } from '../host-address-space.ts';
import type { Area } from '../ioas/io-pagetable.ts';
import { type HwptSeat, hasChanged, mapInto } from './hwpt-seat.ts';
import { lacksWrite, restoreWrite } from './write-access.ts';

/** How a fault on one page ended. */
export const FaultOutcome = { success: 0, invalid: 1, failure: 2 } as const;
/** 0 success, 1 invalid (outside areas, against rights), 2 failure (no memory). */
export type FaultOutcomeCode = (typeof FaultOutcome)[keyof typeof FaultOutcome];

/**
 * Times that one page's fault is tried, each retry because the host changed in between, before it is answered success without a
 * map: the device asks again, so the work of one group stays bounded and nothing is lost.
 */
const MAX_FAULT_ATTEMPTS = 100;

/** The stage-2 fault handler of one hwpt. */
export class FaultHandler {
  readonly #seat: HwptSeat;
  /** Faults that found the page mapped already. */
  spurious = 0;
  /** Times that a fault started over because the host changed under it. */
  retries = 0;

  constructor(seat: HwptSeat) {
    this.#seat = seat;
  }

  /**
   * The stage-2 fault handler for one page: handle_mm_fault as far as needed, then map what is there now, under the
   * notifier's sequence check, so that nothing is mapped that is being taken away (I10).
   */
  *handle(agent: Agent, page: number, write: boolean): Task<FaultOutcomeCode> {
    for (let attempt = 0; attempt < MAX_FAULT_ATTEMPTS; attempt++) {
      const area = this.#seat.areas.find(page);
      if (!area || this.#seat.released() || (write && !area.writeable)) return FaultOutcome.invalid;
      const userPage = area.userPage + (page - area.page);
      const sequence = yield* this.#seat.mm.notifierReadBegin(agent, userPage);
      yield agent.reads('look the page up', Location.cpuEntry, this.#seat.mm.entryLocation(userPage), Cost.entryRead);
      if (!this.#isUsable(area, userPage)) {
        // As FOLL_WRITE: what is going to be mapped writeable must be the owner's own page, whatever this access is.
        const bits = yield* this.#fixHost(agent, userPage, write || area.writeable);
        if ((bits & VM_FAULT_ERROR) !== 0)
          return (bits & VM_FAULT_OOM) !== 0 ? FaultOutcome.failure : FaultOutcome.invalid;
        continue; // look it up again: handle_mm_fault does not return the page
      }
      const outcome = yield* this.#mapUnderLock(agent, { area, page, userPage, sequence });
      if (outcome !== null) return outcome;
      this.retries++;
    }
    return FaultOutcome.success;
  }

  /** @returns null if the host or the areas changed in between */
  *#mapUnderLock(
    agent: Agent,
    fault: { readonly area: Area; readonly page: number; readonly userPage: number; readonly sequence: number },
  ): Task<FaultOutcomeCode | null> {
    const { area, page, userPage, sequence } = fault;
    yield* this.#seat.updateLock.acquire(agent);
    try {
      if (this.#seat.released() || this.#seat.areas.find(page) !== area) return null;
      const mapped = this.#seat.domain.frameAt(page);
      if (mapped >= 0 && !area.unpinned) return this.#spurious(); // to what its pin holds
      if (yield* hasChanged(agent, this.#seat.mm, userPage, 1, sequence)) return null;
      const frame = this.#seat.mm.lookup(userPage);
      if (!this.#isUsable(area, userPage)) return null;
      if (mapped === frame) {
        if (!lacksWrite(this.#seat, area, page)) return this.#spurious();
        if (yield* restoreWrite(agent, this.#seat, area, page, sequence)) return FaultOutcome.success;
      }
      yield* this.#mapAround(agent, area, page, frame, sequence);
      return FaultOutcome.success;
    } catch (error) {
      if (isErrno(error, 'ENOMEM')) return FaultOutcome.failure;
      throw error;
    } finally {
      this.#seat.updateLock.release(agent);
    }
  }

  /** Whether the host maps the page with the right that the area gives to devices. */
  #isUsable(area: Area, userPage: number): boolean {
    return area.writeable ? this.#seat.mm.isWriteable(userPage) : this.#seat.mm.isReadable(userPage);
  }

  #spurious(): FaultOutcomeCode {
    this.spurious++;
    return FaultOutcome.success;
  }

  *#fixHost(agent: Agent, userPage: number, write: boolean): Task<number> {
    yield* this.#seat.mm.mmapLock.acquireRead(agent);
    try {
      return yield* this.#seat.mm.handleMmFault(agent, userPage, { write });
    } finally {
      this.#seat.mm.mmapLock.releaseRead(agent);
    }
  }

  /**
   * Maps the largest block around a page that is vacant here, contiguous on the host and free of invalidations in progress: a
   * notifier that has begun on any page of the block is waiting for the update lock, or is past its turn.
   */
  *#mapAround(agent: Agent, area: Area, page: number, frame: number, sequence: number): Task<void> {
    let block = this.#blockAround(area, page, frame);
    const userPage = area.userPage + (block.page - area.page);
    if (block.pages > 1 && (yield* hasChanged(agent, this.#seat.mm, userPage, block.pages, sequence)))
      block = { page, pages: 1, frame };
    if (area.writeable) this.#seat.mm.markDirty(area.userPage + (block.page - area.page), block.pages);
    this.#seat.observer.mapping?.(block.page, block.pages, block.frame);
    yield* mapInto(agent, this.#seat, { ...block, write: area.writeable });
    this.#seat.observer.mapped?.(block.page, block.pages);
  }

  #blockAround(area: Area, page: number, frame: number): { page: number; pages: number; frame: number } {
    const single = { page, pages: 1, frame };
    const vacant = Math.min(3, this.#seat.domain.vacantLevel(page));
    if (vacant <= 1) return single;
    const userPage = area.userPage + (page - area.page);
    const span = 512 ** (vacant - 1);
    const blockStart = Math.max(area.page, Math.floor(page / span) * span);
    const blockEnd = Math.min(area.page + area.pages, blockStart + span);
    const run: ContiguousRun = { startPage: 0, pages: 0, pfn: -1 };
    const toUser = area.userPage - area.page;
    this.#seat.mm.contiguousRun(userPage, blockStart + toUser, blockEnd - 1 + toUser, run, area.writeable);
    for (let level = vacant; level > 1; level--) {
      const size = 512 ** (level - 1);
      const start = Math.floor(page / size) * size;
      const first = frame - (page - start);
      const inRun = start + toUser >= run.startPage && start + size + toUser <= run.startPage + run.pages;
      if (inRun && first % size === 0) return { page: start, pages: size, frame: first };
    }
    return single;
  }
}

const isErrno = (error: unknown, code: string): boolean =>
  error instanceof Error && (error as { code?: unknown }).code === code;
