import { hex } from '@faultline/address';
import type { Agent, Task } from '@faultline/sim';
import { IommufdError } from '../errno.ts';
import { VM_FAULT_ERROR, VM_FAULT_OOM, VM_FAULT_RETRY } from '../host-address-space.ts';
import type { Area } from '../ioas/area.ts';
import { isThere, type PresentRun, presentRun } from './host-pages.ts';
import { fixHost, type HwptSeat, hasChanged, mapInto } from './hwpt-seat.ts';
import { mapPins } from './pinned-pages.ts';
import { leafPages, vacantUntil } from './vacancy.ts';

/** Maps areas when they come or when their domain does, and what devices have pinned of them. */
export class AreaMapper {
  readonly #seat: HwptSeat;

  constructor(seat: HwptSeat) {
    this.#seat = seat;
  }

  /**
   * Maps an area: a pinned one onto the frames that its pin holds; of an unpinned one what devices have pinned, then what its policy says,
   * with the largest leaves that fit, run by run, each under the notifier's sequence check. @returns 4K pages mapped
   * @throws IommufdError ENOMEM, EFAULT if memory cannot be populated
   */
  *map(agent: Agent, area: Area): Task<number> {
    if (!area.unpinned) return yield* this.#mapPinned(agent, area);
    yield* mapPins(agent, this.#seat, area.userPage, area.pages);
    if (area.policy.prefault === 'none') return 0;
    if (area.policy.prefault === 'populate') yield* this.#populate(agent, area);
    return yield* this.#mapPresent(agent, area);
  }

  *#mapPinned(agent: Agent, area: Area): Task<number> {
    const { updateLock } = this.#seat;
    yield* updateLock.acquire(agent);
    try {
      const { wholeSpan: span, writeable: write } = area;
      for (const run of area.memory.runs(span)) {
        // Without large pages Linux calls iommu_map for each 4K page.
        const pages = this.#seat.largePages() ? run.pages : 1;
        const first = area.page + (run.index - span.first);
        for (let done = 0; done < run.pages; done += pages)
          yield* mapInto(agent, this.#seat, area, { page: first + done, frame: run.pfn + done, pages, write });
      }
      return area.pages;
    } finally {
      updateLock.release(agent);
    }
  }

  /** Faults everything in, without pins: the host may take it away again. */
  *#populate(agent: Agent, area: Area): Task<void> {
    const { mm } = this.#seat;
    for (let page = area.userPage; page < area.userPage + area.pages; ) {
      if (isThere(mm, page, area.writeable)) {
        page++;
        continue;
      }
      const bits = yield* fixHost(agent, mm, page, area.writeable);
      if ((bits & VM_FAULT_ERROR) !== 0)
        throw new IommufdError(
          (bits & VM_FAULT_OOM) !== 0 ? 'ENOMEM' : 'EFAULT',
          `user_va: ${hex(page * 4096)} cannot be populated (VM_FAULT ${hex(bits)})`,
        );
      if ((bits & VM_FAULT_RETRY) === 0) page++; // there, or already taken away again
    }
  }

  *#mapPresent(agent: Agent, area: Area): Task<number> {
    const seat = this.#seat;
    const { mm, domain } = seat;
    const toDomain = area.page - area.userPage;
    const end = area.userPage + area.pages;
    const run: PresentRun = { startPage: 0, pages: 0, pfn: -1, write: false };
    let mapped = 0;
    for (let page = area.userPage; page < end; ) {
      const sequence = yield* mm.notifierReadBegin(agent, page, end - page);
      yield* seat.updateLock.acquire(agent);
      try {
        if (seat.released()) return mapped;
        page = this.#nextToMap(area, page, run);
        if (page === end || (yield* hasChanged(agent, mm, page, run.pages, sequence))) continue;
        const pages = vacantUntil(domain, page + toDomain, page + run.pages + toDomain) - toDomain - page;
        // As KVM: what a device may write to has no valid copy in swap.
        if (run.write) mm.markDirty(page, pages);
        yield* mapInto(agent, seat, area, { page: page + toDomain, frame: run.pfn, pages, write: run.write });
        mapped += pages;
        page += pages;
      } finally {
        seat.updateLock.release(agent);
      }
    }
    return mapped;
  }

  /** The next page of the owner that is there and not mapped yet, with its run. @returns the area's end if there is none */
  #nextToMap(area: Area, from: number, run: PresentRun): number {
    const { mm, domain } = this.#seat;
    const last = area.userPage + area.pages - 1;
    for (let page = from; page <= last; ) {
      const leaf = domain.leafAt(page + area.page - area.userPage);
      if (leaf !== null) page = leaf.page + leafPages(leaf) - area.page + area.userPage;
      else if (presentRun(mm, area, page, { first: page, last }, run)) return page;
      else page++;
    }
    return last + 1;
  }
}
