import type { Agent, Task } from '@faultline/sim';
import type { ContiguousRun } from '../host-address-space.ts';
import type { Area } from '../ioas/area.ts';
import type { DomainLeaf } from '../iommu-domain.ts';
import { takeSliceAway } from './host-follower.ts';
import { type HwptSeat, hasChanged } from './hwpt-seat.ts';
import { flushAll } from './take-away.ts';

/** A write to a page that is mapped without W. */
interface WriteFault {
  readonly area: Area;
  readonly page: number;
  /** The notifier's, from before the page was looked up. */
  readonly sequence: number;
}

/**
 * Gives W back to the leaf that maps a page, if the host lets all of it be written and no notifier is about to act on any of it.
 * Otherwise only this page is meant: it leaves the domain, and is mapped again by the caller. Under the update lock, with the page
 * itself looked up and writeable since `sequence`.
 * @returns whether the leaf has W now
 */
export function* restoreWrite(agent: Agent, seat: HwptSeat, leaf: DomainLeaf, fault: WriteFault): Task<boolean> {
  const { domain, mm, observer } = seat;
  const { area, page, sequence } = fault;
  const pages = 512 ** (leaf.level - 1);
  const userPage = area.userPage + (leaf.page - area.page);
  if (!isWriteableLeaf(seat, userPage, pages) || (yield* hasChanged(agent, mm, userPage, pages, sequence))) {
    yield* takeSliceAway(agent, seat, page, 1);
    return false;
  }
  mm.markDirty(userPage, pages);
  observer.mapping?.(leaf.page, pages, leaf.frame);
  const gather = domain.gather();
  yield* domain.protect(agent, { page: leaf.page, pages, rights: leaf.rights | 2, holes: 'stop' }, gather);
  // Devices that cannot fault may use the leaf, so the stale read-only translation has to go (Rev 5.10, 6.5.3.5).
  yield* flushAll(agent, domain, gather);
  observer.mapped?.(leaf.page, pages);
  return true;
}

/** Whether the host maps all of a leaf writeable, in a row: then to the leaf's frames, as one of its pages is known to be there. */
function isWriteableLeaf({ mm }: HwptSeat, userPage: number, pages: number): boolean {
  const run: ContiguousRun = { startPage: 0, pages: 0, pfn: -1 };
  mm.contiguousRun(userPage, userPage, userPage + pages - 1, run, true);
  return run.pages === pages;
}
