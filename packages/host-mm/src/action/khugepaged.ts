import type { Agent, Task } from '@faultline/sim';
import { checkInteger } from '../argument.ts';
import { blockStart, FANOUT } from '../folio/folio-order.ts';
import type { HostState } from '../host-state.ts';
import type { MmState } from '../mm/mm-state.ts';
import { type CollapseLimits, collapseRange, KHUGEPAGED_LIMITS } from './collapse.ts';

/**
 * One pass of khugepaged over an address space: collapses every 2M range that is within the limits and has an accessed page.
 * @returns how many were collapsed @throws RangeError for a limit outside 0..511
 */
export function* scanForHugePages(host: HostState, mm: MmState, agent: Agent, options: CollapseLimits): Task<number> {
  const limits: Required<CollapseLimits> = { ...KHUGEPAGED_LIMITS, ...options };
  checkInteger('maxPtesNone', limits.maxPtesNone, 0, FANOUT - 1);
  checkInteger('maxPtesSwap', limits.maxPtesSwap, 0, FANOUT - 1);
  checkInteger('maxPtesShared', limits.maxPtesShared, 0, FANOUT - 1);
  let collapsed = 0;
  for (let page = 0; ; ) {
    page = nextTable(mm, page);
    if (page < 0 || mm.exited) return collapsed;
    if ((yield* collapseRange(host, mm, agent, page, limits)) === 'collapsed') collapsed++;
    page += FANOUT;
  }
}

/** The first aligned 2M at or after the page that has entries of 4K, in a mapping that may have 2M leaves; -1 if there is none. */
function nextTable(mm: MmState, from: number): number {
  for (const vma of mm.vmas.all) {
    if (vma.endPage <= from || vma.shape.hugetlb || vma.file !== null) continue;
    for (let page = mm.table.nextUsed(Math.max(from, vma.startPage), vma.endPage); page < vma.endPage; ) {
      if (mm.table.level(page) === 0) return blockStart(page, FANOUT);
      page = mm.table.nextUsed(mm.table.end(page), vma.endPage);
    }
  }
  return -1;
}
