import { hex } from '@faultline/address';
import type { Agent, Task } from '@faultline/sim';
import { framesOf } from '../folio/folio-order.ts';
import { splitLeafAt } from '../folio/unmap.ts';
import type { HostState } from '../host-state.ts';
import type { MmState } from './mm-state.ts';
import type { Vma } from './vma.ts';
import type { PageSpan } from './zap.ts';

/** A hugetlb mapping can only be cut between its pages. @throws RangeError otherwise, as Linux's EINVAL */
export function checkHugeEdges(mm: MmState, { startPage, endPage }: PageSpan): void {
  for (const page of [startPage, endPage]) {
    const vma = mm.vmas.find(page);
    if (!vma?.shape.hugetlb || vma.startPage === page) continue;
    const unit = framesOf(vma.shape.order);
    if (page % unit !== 0)
      throw new RangeError(`startPage, pages: ${hex(page)} is not between two pages of ${vma.backing} (EINVAL)`);
  }
}

/**
 * The mappings of exactly that range, after those at its ends were split, and the large leaves across its ends with them
 * (vma_adjust_trans_huge: CLEAR over each such leaf). The caller holds `mmap_lock` for writing.
 * @throws RangeError if an end lies within a huge page
 */
export function* carveMappings(host: HostState, mm: MmState, agent: Agent, span: PageSpan): Task<Vma[]> {
  checkHugeEdges(mm, span);
  for (const page of [span.startPage, span.endPage])
    while (mm.table.flags(page) !== 0 && page % framesOf(mm.table.level(page)) !== 0)
      yield* splitLeafAt(host, mm, agent, page);
  return mm.vmas.carve(span.startPage, span.endPage);
}
