import type { Agent, Task } from '@faultline/sim';
import { FolioFlag } from '../folio/folio-table.ts';
import type { HostState } from '../host-state.ts';
import { changeProtection, type EntryChange } from '../mm/change-protection.ts';
import { Entry } from '../mm/entry-table.ts';
import type { MmState } from '../mm/mm-state.ts';
import type { Vma } from '../mm/vma.ts';

/**
 * NUMA balancing marks a range, so that the next access to each page faults and shows who uses it (change_prot_numa): PROTECTION_VMA over each
 * mapping's part. Left alone are hugetlb, memory without rights, KSM pages, and private pages that are pinned or shared.
 * @returns pages marked
 */
export function* changeProtNuma(
  host: HostState,
  mm: MmState,
  agent: Agent,
  range: { readonly startPage: number; readonly pages: number },
): Task<number> {
  const endPage = range.startPage + range.pages;
  let marked = 0;
  yield* mm.mmapLock.acquireRead(agent);
  try {
    for (const vma of mm.vmas.within(range.startPage, endPage)) {
      if (vma.shape.hugetlb || !vma.readable) continue;
      const span = { startPage: Math.max(range.startPage, vma.startPage), endPage: Math.min(endPage, vma.endPage) };
      marked += yield* changeProtection(host, agent, vma, span, hint(host, vma));
    }
  } finally {
    mm.mmapLock.releaseRead(agent);
  }
  host.counters.numa_pte_updates += marked;
  return marked;
}

const hint =
  (host: HostState, vma: Vma): EntryChange =>
  (flags, page, order) => {
    if ((flags & Entry.PRESENT) === 0) return flags;
    const { folios } = host;
    const folio = folios.at(vma.mm.table.pfn(page));
    if (folios.has(folio, FolioFlag.ksm)) return flags;
    const isLarge = order > 0 || folios.order(folio) > 0;
    const isShared = isLarge ? (flags & Entry.EXCLUSIVE) === 0 : folios.mapcount(folio) > 1;
    return vma.isCow && (folios.isPinned(folio) || isShared) ? flags : flags | Entry.PROT_NONE;
  };
