import { hex } from '@faultline/address';
import type { Agent, Task } from '@faultline/sim';
import { IommufdError } from '../errno.ts';
import { type ContiguousRun, VM_FAULT_ERROR, VM_FAULT_OOM, VM_FAULT_RETRY } from '../host-address-space.ts';
import type { Area } from '../ioas/area.ts';
import { isThere, type PresentRun, presentRun } from './host-pages.ts';
import { fixHost, type HwptSeat, hasChanged, largestLeaf } from './hwpt-seat.ts';
import { remapPage, vacantUntil } from './leaf-change.ts';

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
    yield* this.mapPins(agent, area.userPage, area.pages);
    if (area.policy.prefault === 'none') return 0;
    if (area.policy.prefault === 'populate') yield* this.#populate(agent, area);
    return yield* this.#mapPresent(agent, area);
  }

  *#mapPinned(agent: Agent, area: Area): Task<number> {
    const { domain, updateLock } = this.#seat;
    yield* updateLock.acquire(agent);
    try {
      const { wholeSpan: span, readable: read, writeable: write } = area;
      const largest = largestLeaf(this.#seat, area);
      for (const { index, pages, pfn: frame } of area.memory.runs(span))
        yield* domain.map(agent, { page: area.page + (index - span.first), frame, pages, read, write, largest });
      return area.pages;
    } finally {
      updateLock.release(agent);
    }
  }

  /** Has the domain map what devices have pinned of the owner's memory, whatever it maps there now. */
  *mapPins(agent: Agent, userPage: number, pages: number): Task<void> {
    const { updateLock, pins } = this.#seat;
    if (pins.size === 0) return;
    yield* updateLock.acquire(agent);
    try {
      yield* this.mapPinsLocked(agent, userPage, pages);
    } finally {
      updateLock.release(agent);
    }
  }

  /** The same for who holds the update lock. */
  *mapPinsLocked(agent: Agent, userPage: number, pages: number): Task<void> {
    const { areas, pins, released } = this.#seat;
    if (pins.size === 0 || released()) return;
    for (const slice of areas.slicesOfMemory(userPage, pages)) {
      const { area } = slice;
      for (const run of pins.held(area.userPage + (slice.page - area.page), slice.pages))
        yield* this.#mapPinnedRun(agent, area, run);
    }
  }

  /** At once where nothing is mapped, page by page where something else is. */
  *#mapPinnedRun(agent: Agent, area: Area, run: ContiguousRun): Task<void> {
    const { domain } = this.#seat;
    const { readable: read, writeable: write } = area;
    const largest = largestLeaf(this.#seat, area);
    const end = area.page + (run.startPage - area.userPage) + run.pages;
    for (let page = end - run.pages; page < end; ) {
      const frame = run.pfn + run.pages - (end - page);
      const leaf = domain.leafAt(page);
      if (leaf === null) {
        const next = vacantUntil(domain, page, end);
        yield* domain.map(agent, { page, frame, pages: next - page, read, write, largest });
        page = next;
      } else if (leaf.frame + (page - leaf.page) === frame && (!write || (leaf.rights & 2) !== 0)) {
        page = Math.min(end, leaf.page + leaf.pages);
      } else {
        yield* remapPage(agent, domain, { page, frame, read, write }, () => false);
        page++;
      }
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
        const request = { page: page + toDomain, frame: run.pfn, pages, read: area.readable, write: run.write };
        yield* domain.map(agent, { ...request, largest: largestLeaf(seat, area) });
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
      if (leaf !== null) page = leaf.page + leaf.pages - area.page + area.userPage;
      else if (presentRun(mm, area, page, { first: page, last }, run)) return page;
      else page++;
    }
    return last + 1;
  }
}
