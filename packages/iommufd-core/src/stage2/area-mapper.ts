import type { Agent, Task } from '@faultline/sim';
import type { ContiguousRun } from '../host-address-space.ts';
import type { Area } from '../ioas/io-pagetable.ts';
import { type HwptSeat, hasChanged, mapInto } from './hwpt-seat.ts';

/** Maps areas when they come, or when their domain does. */
export class AreaMapper {
  readonly #seat: HwptSeat;

  constructor(seat: HwptSeat) {
    this.#seat = seat;
  }

  /**
   * Maps an area: a pinned one onto the frames that its pin holds, an unpinned one as far as its memory is resident, with the largest
   * leaves that fit, run by run, each under the notifier's sequence check. @returns 4K pages mapped
   */
  *map(agent: Agent, area: Area): Task<number> {
    if (!area.unpinned) return yield* this.#mapPinned(agent, area);
    const run: ContiguousRun = { startPage: 0, pages: 0, pfn: -1 };
    const end = area.userPage + area.pages;
    let mapped = 0;
    for (let page = area.userPage; page < end; ) {
      const sequence = yield* this.#seat.mm.notifierReadBegin(agent, page, end - page);
      yield* this.#seat.updateLock.acquire(agent);
      try {
        if (this.#seat.released()) return mapped;
        const { writeable } = area;
        for (this.#seat.mm.contiguousRun(page, page, end - 1, run, writeable); run.pfn < 0 && ++page < end; )
          this.#seat.mm.contiguousRun(page, page, end - 1, run, writeable);
        if (page === end || (yield* hasChanged(agent, this.#seat.mm, page, run.pages, sequence))) continue;
        yield* this.#mapRun(agent, area, run);
        mapped += run.pages;
        page += run.pages;
      } finally {
        this.#seat.updateLock.release(agent);
      }
    }
    return mapped;
  }

  *#mapPinned(agent: Agent, area: Area): Task<number> {
    yield* this.#seat.updateLock.acquire(agent);
    try {
      for (const run of this.#seat.mm.pinnedRuns(area.userPage, area.pages)) yield* this.#mapRun(agent, area, run);
      return area.pages;
    } finally {
      this.#seat.updateLock.release(agent);
    }
  }

  #mapRun(agent: Agent, area: Area, run: ContiguousRun): Task<number> {
    // As KVM: what a device may write to has no valid copy in swap.
    if (area.writeable) this.#seat.mm.markDirty(run.startPage, run.pages);
    const page = area.page + (run.startPage - area.userPage);
    return mapInto(agent, this.#seat, { page, frame: run.pfn, pages: run.pages, write: area.writeable });
  }
}
