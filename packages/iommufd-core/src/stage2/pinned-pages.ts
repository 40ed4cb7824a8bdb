import type { Agent, Task } from '@faultline/sim';
import type { ContiguousRun } from '../host-address-space.ts';
import type { Area } from '../ioas/area.ts';
import type { AreaSlice } from '../ioas/io-pagetable.ts';
import { takeSliceAway } from './host-follower.ts';
import { type HwptSeat, isOutOfMemory, mapPinned } from './hwpt-seat.ts';
import { leafPages, vacantUntil } from './vacancy.ts';

/** Has the domain map what devices have pinned of the owner's memory, also where it maps something else. */
export function* mapPins(agent: Agent, seat: HwptSeat, userPage: number, pages: number): Task<void> {
  if (seat.pins.size === 0) return;
  yield* seat.updateLock.acquire(agent);
  try {
    yield* mapPinsLocked(agent, seat, userPage, pages);
  } finally {
    seat.updateLock.release(agent);
  }
}

function* mapPinsLocked(agent: Agent, seat: HwptSeat, userPage: number, pages: number): Task<void> {
  if (seat.released()) return;
  for (const slice of seat.areas.slicesOfMemory(userPage, pages)) {
    const { area } = slice;
    for (const run of seat.pins.held(area.userPage + (slice.page - area.page), slice.pages))
      yield* mapPinnedRun(agent, seat, area, run);
  }
}

/** At once where nothing is mapped, page by page where something else is. */
function* mapPinnedRun(agent: Agent, seat: HwptSeat, area: Area, run: ContiguousRun): Task<void> {
  const { domain } = seat;
  const write = area.writeable;
  const end = area.page + (run.startPage - area.userPage) + run.pages;
  for (let page = end - run.pages; page < end; ) {
    const frame = run.pfn + run.pages - (end - page);
    const leaf = domain.leafAt(page);
    if (leaf === null) {
      const next = vacantUntil(domain, page, end);
      yield* mapPinned(agent, seat, area, { page, frame, pages: next - page });
      page = next;
    } else if (leaf.frame + (page - leaf.page) === frame && (!write || (leaf.rights & 2) !== 0)) {
      page = leaf.page + leafPages(leaf);
    } else {
      yield* takeSliceAway(agent, seat, page, 1); // and then the pin is restored
      page++;
    }
  }
}

/**
 * Before a pin is given back that counts no more: what the host has given up or protected in the meantime (MADV_DONTNEED of pinned
 * memory) leaves the domain, since only the pin kept its frames. What another pin holds is mapped to the frames of that one. It cannot fail, as
 * the pin goes in any case: without a table page such a page stays unmapped, and is counted.
 */
export function* dropStale(agent: Agent, seat: HwptSeat, userPage: number, pages: number): Task<void> {
  yield* seat.updateLock.acquire(agent);
  try {
    if (seat.gone()) return;
    for (const part of seat.pins.outside(userPage, pages))
      for (const slice of seat.areas.slicesOfMemory(part.userPage, part.pages))
        yield* dropStaleSlice(agent, seat, slice);
    yield* mapPinsLocked(agent, seat, userPage, pages);
  } catch (error) {
    if (!isOutOfMemory(error)) throw error;
    seat.lostPins++;
  } finally {
    seat.updateLock.release(agent);
  }
}

function* dropStaleSlice(agent: Agent, seat: HwptSeat, { area, page: first, pages }: AreaSlice): Task<void> {
  const { domain, mm } = seat;
  const toUser = area.userPage - area.page;
  const run: ContiguousRun = { startPage: 0, pages: 0, pfn: -1 };
  const end = first + pages;
  for (let page = first; page < end; ) {
    const leaf = domain.leafAt(page);
    if (leaf === null) {
      page = vacantUntil(domain, page, end);
      continue;
    }
    const userPage = page + toUser;
    // No further than the leaf: a run to the end, for each of its 4K leaves, would cost the square of it.
    const last = Math.min(end, leaf.page + leafPages(leaf)) - 1;
    mm.contiguousRun(userPage, userPage, last + toUser, run, (leaf.rights & 2) !== 0);
    if (run.pfn >= 0 && run.pfn === leaf.frame + (page - leaf.page)) {
      page += run.pages;
      continue;
    }
    yield* takeSliceAway(agent, seat, page, 1);
    page++;
  }
}
