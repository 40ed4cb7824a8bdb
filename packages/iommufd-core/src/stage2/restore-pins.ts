import type { Agent, Task } from '@faultline/sim';
import { type HwptSeat, isOutOfMemory, mapPinned } from './hwpt-seat.ts';
import { leafPages, vacantUntil } from './vacancy.ts';

/**
 * A strategy that takes more than it was asked to (whole leaves, all that was mapped as one) takes what devices have pinned beside the range,
 * too: that comes back at once. Under the update lock. It cannot fail (I8): without a table page a pinned page stays unmapped, and is counted.
 */
export function* restorePins(agent: Agent, seat: HwptSeat, page: number): Task<void> {
  const { pins, areas, domain } = seat;
  const area = pins.size === 0 || seat.released() ? undefined : areas.find(page);
  if (!area?.unpinned) return;
  try {
    for (const run of pins.held(area.userPage, area.pages)) {
      const end = area.page + (run.startPage - area.userPage) + run.pages;
      for (let at = end - run.pages; at < end; ) {
        const leaf = domain.leafAt(at);
        const next = leaf === null ? vacantUntil(domain, at, end) : leaf.page + leafPages(leaf);
        const part = { page: at, frame: run.pfn + run.pages - (end - at), pages: next - at };
        if (leaf === null) yield* mapPinned(agent, seat, area, part);
        at = next;
      }
    }
  } catch (error) {
    if (!isOutOfMemory(error)) throw error;
    seat.lostPins++;
  }
}
