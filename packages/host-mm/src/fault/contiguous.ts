import { Cost, Location, type Task } from '@faultline/sim';
import { blockStart, type FolioOrder, framesOf, PUD_ORDER } from '../folio/folio-order.ts';
import type { MmState } from '../mm/mm-state.ts';
import type { Vma } from '../mm/vma.ts';
import { chargeMemoryCgroup } from '../reclaim/try-to-free.ts';
import { mapNewAnonymous, newAnonymousFolio } from './anonymous.ts';
import { entryStep, type FaultContext } from './fault-context.ts';

/** An aligned run of pages of a contiguous backing that is filled at once: up to 1G. */
export interface ContiguousUnit {
  readonly startPage: number;
  readonly order: FolioOrder;
}

/** The largest aligned block around the page, up to 1G, that lies in the mapping. */
export function contiguousUnit(vma: Vma, page: number): ContiguousUnit {
  for (let order = PUD_ORDER; ; order--) {
    const startPage = blockStart(page, framesOf(order));
    if (order === 0 || (startPage >= vma.startPage && startPage + framesOf(order) <= vma.endPage))
      return { startPage, order };
  }
}

/** Where the frames of a page of a contiguous backing were and should be again. */
export function preferredPfn(mm: MmState, vma: Vma, page: number): { readonly preferredPfn?: number } {
  if (!vma.shape.contiguous) return {};
  const unit = contiguousUnit(vma, page);
  const first = mm.contiguousRuns.get(unit.startPage);
  return first === undefined ? {} : { preferredPfn: first + (page - unit.startPage) };
}

/**
 * Fills an untouched unit with folios whose frames are one run, as memory set aside at boot would be.
 * @returns fault bits; null if no such run is free, and single folios have to do
 */
export function* fillContiguousUnit(fault: FaultContext, unit: ContiguousUnit): Task<number | null> {
  const { host, mm, agent, vma } = fault;
  const pages = framesOf(unit.order);
  if (pages > mm.memcg.maxPages || !(yield* chargeMemoryCgroup(host, agent, mm.memcg, pages))) return null;
  yield agent.writes('allocate a contiguous run', Location.lock, host.frames.id, Cost.lock);
  if (mm.memcg.usedPages + pages > mm.memcg.maxPages) return null;
  if (host.allocator.freeFrames - pages < host.zone.watermarks.min) return null;
  const pfn = host.allocator.allocate(unit.order);
  if (pfn < 0) return null;
  const order = unit.order < vma.shape.order ? 0 : vma.shape.order;
  const step = framesOf(order);
  const folios: number[] = [];
  for (let at = 0; at < pages; at += step)
    folios.push(newAnonymousFolio(host, vma, unit.startPage + at, pfn + at, order));
  yield agent.writes('fault: zero the run', Location.frame, pfn, Cost.pageCopy, pages);
  host.memory.zeroFolio(pfn, unit.order);
  yield entryStep(fault, 'fault: map the run');
  if (!mm.table.isEmpty(unit.startPage, unit.order)) {
    for (const folio of folios) host.put(folio);
    return null;
  }
  mm.contiguousRuns.set(unit.startPage, pfn);
  for (const folio of folios) mapNewAnonymous(host, mm, vma, folio, fault.write);
  return 0;
}
