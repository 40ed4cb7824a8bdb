import { Cost, Location, type Task } from '@faultline/sim';
import { blockStart, framesOf } from '../folio/folio-order.ts';
import { FolioFlag } from '../folio/folio-table.ts';
import { freshBits, newAnonymousFolio } from './anonymous.ts';
import { AGAIN, entryStep, type FaultContext } from './fault-context.ts';
import { VmFault } from './vm-fault.ts';

/**
 * A page of a hugetlb mapping that was never touched (hugetlb_no_page): one from the pool, zeroed and mapped whole. It is never
 * swapped or split and on no LRU list. @returns SIGBUS if the pool is empty, which only happens to a mapping that has no promise, as a child's, or whose page somebody else keeps
 */
export function* missingHugePage(fault: FaultContext): Task<number> {
  const { host, mm, agent, vma, page } = fault;
  const { order } = vma.shape;
  const startPage = blockStart(page, framesOf(order));
  yield agent.writes('take huge page', Location.lock, host.frames.id, Cost.lock);
  const pfn = host.hugePages.take(order, vma.reserved);
  if (pfn < 0) return VmFault.SIGBUS;
  const folio = newAnonymousFolio(host, vma, startPage, pfn, order);
  host.folios.setFlag(folio, FolioFlag.hugetlb | FolioFlag.unevictable, true);
  yield agent.writes('fault: zero huge page', Location.frame, pfn, Cost.pageCopy, framesOf(order));
  host.memory.zeroFolio(pfn, order);
  yield entryStep(fault, 'fault: map huge page');
  if (!mm.table.isEmpty(startPage, order)) {
    host.put(folio);
    if (vma.reserved) host.hugePages.restore(order, 1);
    return AGAIN;
  }
  mm.table.set(startPage, order, pfn, freshBits(vma, fault.write));
  host.countMapped(mm, folio, order);
  return 0;
}
