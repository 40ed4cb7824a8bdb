import type { Agent, Task } from '@faultline/sim';
import { HostEvent, type HostRange } from '../host-address-space.ts';
import type { AreaSlice } from '../ioas/io-pagetable.ts';
import type { LeafRange } from '../iommu-domain.ts';
import type { HwptSeat } from './hwpt-seat.ts';
import { restorePins } from './restore-pins.ts';
import { YoungPages } from './young-pages.ts';

/** The notifier's side of one hwpt: what becomes of the domain when the host's mappings change or age. */
export class HostFollower {
  readonly #seat: HwptSeat;
  readonly #young = new YoungPages();

  constructor(seat: HwptSeat) {
    this.#seat = seat;
  }

  /**
   * The notifier's start: when it returns, the domain gives no right to the range that the host is about to take. What is
   * pinned stays as it is, as its frames do.
   *
   * PROTECTION_PAGE (fork) and SOFT_DIRTY only take the right to write, so the domain keeps R, and a read never notices.
   * PROTECTION_VMA is also what mprotect(PROT_NONE) and NUMA hinting say, and nothing tells them from mprotect(PROT_READ):
   * with it, as with every other event, the range goes. (KVM takes the range away whatever the event.)
   *
   * Where nobody may sleep, it does not wait for the update lock, whose holder may sleep, but answers EAGAIN; invalidations are
   * waited for by polling, and table pages come from the host at once or from the reserve.
   * @returns false for EAGAIN: nothing was done
   */
  *invalidate(agent: Agent, range: HostRange): Task<boolean> {
    const { strategy, updateLock } = this.#seat;
    if (strategy === null) return true;
    if (agent.maySleep) yield* updateLock.acquire(agent);
    else if (!(yield* updateLock.tryAcquire(agent))) return false;
    try {
      if (this.#seat.gone()) return true;
      const onlyWrites = range.event === HostEvent.PROTECTION_PAGE || range.event === HostEvent.SOFT_DIRTY;
      // Only now: areas and pins change under this lock or before it.
      for (const { userPage, pages } of this.#seat.pins.outside(range.startPage, range.pages))
        yield* this.#follow(agent, userPage, pages, onlyWrites);
      return true;
    } finally {
      updateLock.release(agent);
    }
  }

  *#follow(agent: Agent, userPage: number, userPages: number, onlyWrites: boolean): Task<void> {
    for (const slice of this.#seat.areas.slicesOfMemory(userPage, userPages)) {
      if (!onlyWrites) yield* takeSliceAway(agent, this.#seat, slice.page, slice.pages);
      else if (slice.area.writeable) yield* this.#dropWrite(agent, slice);
      if (!onlyWrites) this.#young.take(slice.page, slice.pages);
    }
  }

  /** Where nothing is left without W, and by a strategy that knows no change of rights, the range is taken away instead, as KVM does. */
  *#dropWrite(agent: Agent, { area, page, pages }: AreaSlice): Task<void> {
    const { strategy, observer } = this.#seat;
    if (!strategy?.dropWrite || !area.readable) return yield* takeSliceAway(agent, this.#seat, page, pages);
    observer.takingWrite?.(page, pages);
    const outcome = yield* strategy.dropWrite(agent, page, pages);
    observer.writeTaken?.(page, pages, outcome);
    yield* restorePins(agent, this.#seat, page);
  }

  /**
   * Clears the accessed bits of the memory in this domain. What is cleared is flushed, since a cached translation is used without
   * setting A again: aging costs IOTLB misses. It takes no lock and never sleeps, as the kernel calls it under the
   * page-table lock.
   * @returns whether a device has used the pages since they were last asked about
   */
  *clearFlushYoung(agent: Agent, userPage: number, pages: number): Task<boolean> {
    const { areas, domain } = this.#seat;
    if (this.#seat.gone() || !domain.accessedDirty) return false;
    let young = false;
    for (const slice of areas.slicesOfMemory(userPage, pages)) {
      const leaves = yield* domain.readAndClearAccessed(agent, slice.page, slice.pages);
      if (this.#harvest(slice, leaves)) young = true;
    }
    return young;
  }

  /** The same with no flush, and only a look without `clear`; part of the caller's step. */
  youngNow(userPage: number, pages: number, clear: boolean): boolean {
    const { areas, domain } = this.#seat;
    if (this.#seat.gone() || !domain.accessedDirty) return false;
    let young = false;
    for (const slice of areas.slicesOfMemory(userPage, pages)) {
      const leaves = domain.accessedNow(slice.page, slice.pages, clear);
      const seen = clear ? this.#harvest(slice, leaves) : leaves.length > 0 || this.#young.has(slice.page, slice.pages);
      if (seen) young = true;
    }
    return young;
  }

  /** A large leaf's bit said that all its pages were used: those that were not asked about are kept as used. */
  #harvest({ page, pages }: LeafRange, leaves: readonly LeafRange[]): boolean {
    for (const leaf of leaves) this.#young.add(leaf);
    return this.#young.take(page, pages);
  }
}

/** Takes a slice out of the domain by the strategy, and says so to who looks on. Under the update lock. */
export function* takeSliceAway(agent: Agent, seat: HwptSeat, page: number, pages: number): Task<void> {
  if (seat.strategy === null) return;
  seat.observer.takingAway?.(page, pages);
  const outcome = yield* seat.strategy.takeAway(agent, page, pages);
  seat.observer.takenAway?.(page, pages, outcome);
  yield* restorePins(agent, seat, page);
}
