import { Cost, Location, type Task } from '@faultline/sim';
import { blockStart, type FolioOrder, framesOf, PMD_ORDER, PUD_ORDER, smallerLeaf } from '../folio/folio-order.ts';
import { FolioFlag } from '../folio/folio-table.ts';
import { allocateFolio, tryAllocateFolio } from '../frame/allocate-folio.ts';
import type { HostState } from '../host-state.ts';
import { Entry } from '../mm/entry-table.ts';
import type { MmState } from '../mm/mm-state.ts';
import type { Vma } from '../mm/vma.ts';
import { contiguousUnit, fillContiguousUnit, preferredPfn } from './contiguous.ts';
import { AGAIN, entryStep, type FaultContext } from './fault-context.ts';
import { VmFault } from './vm-fault.ts';

/**
 * A page of anonymous memory that was never touched: a folio of zeros, the largest of the backing that fits and is free. (A read
 * gets a page of its own too, where Linux maps the shared zero page.)
 */
export function* missingAnonymousPage(fault: FaultContext): Task<number> {
  const { host, mm, agent, vma, page } = fault;
  if (vma.shape.contiguous) {
    const unit = contiguousUnit(vma, page);
    if (mm.table.isEmpty(unit.startPage, unit.order)) {
      const bits = yield* fillContiguousUnit(fault, unit);
      if (bits !== null) return bits;
    }
  }
  let order = fittingOrder(mm, vma, page);
  let pfn = -1;
  for (; ; order = smallerLeaf(order)) {
    const preferred = preferredPfn(mm, vma, blockStart(page, framesOf(order)));
    pfn = yield* allocateFolio(host, agent, { order, memcg: mm.memcg, ...preferred });
    if (pfn >= 0 || order === 0) break;
    host.counters.thp_fault_fallback++;
  }
  if (pfn < 0) return VmFault.OOM;
  const startPage = blockStart(page, framesOf(order));
  const folio = newAnonymousFolio(host, vma, startPage, pfn, order);
  yield agent.writes('fault: zero folio', Location.frame, pfn, Cost.pageCopy, framesOf(order));
  host.memory.zeroFolio(pfn, order);
  yield entryStep(fault, 'fault: map folio');
  if (!mm.table.isEmpty(startPage, order)) {
    host.put(folio);
    return AGAIN;
  }
  mapNewAnonymous(host, mm, vma, folio, fault.write);
  return 0;
}

/** The largest order of the backing whose aligned block around the page is empty and in the mapping. */
export function fittingOrder(mm: MmState, vma: Vma, page: number): FolioOrder {
  for (let order = vma.shape.order; order > 0; order = smallerLeaf(order)) {
    const start = blockStart(page, framesOf(order));
    const fits = start >= vma.startPage && start + framesOf(order) <= vma.endPage;
    if (fits && mm.table.isEmpty(start, order)) return order;
  }
  return 0;
}

/** A folio for pages of the mapping, charged, not mapped yet; the caller has its one reference. */
export function newAnonymousFolio(
  host: HostState,
  vma: Vma,
  startPage: number,
  pfn: number,
  order: FolioOrder,
): number {
  const mapping = host.anonVmaOf(vma).id;
  // Huge pages of the pool are not charged (no memory_hugetlb_accounting).
  const memcg = vma.shape.hugetlb ? host.rootMemcg : vma.mm.memcg;
  return host.newFolio({ pfn, order, flags: FolioFlag.anon, mapping, index: vma.indexOf(startPage), memcg });
}

/** The bits of a fresh anonymous entry: writeable and dirty if the mapping is, as in Linux. */
export const freshBits = (vma: Vma, write: boolean): number =>
  Entry.PRESENT |
  Entry.YOUNG |
  Entry.EXCLUSIVE |
  Entry.SOFT_DIRTY |
  (vma.writeable ? Entry.WRITE | Entry.DIRTY : 0) |
  (write ? Entry.DIRTY : 0);

/** Maps a new folio where nothing is, by one leaf of its size, and puts it on the LRU; the caller's reference becomes the mapping's. */
export function mapNewAnonymous(host: HostState, mm: MmState, vma: Vma, folio: number, write: boolean): void {
  const { folios, counters } = host;
  const order = folios.order(folio);
  mm.table.set(vma.pageOf(folios.index(folio)), order, folios.pfn(folio), freshBits(vma, write));
  host.countMapped(mm, folio, order);
  host.lru.add(folio);
  if (order === PMD_ORDER || order === PUD_ORDER) counters.thp_fault_alloc++;
}

/**
 * Makes the first page of an untouched block present with the largest folio that fits, as part of the caller's step and without
 * charging for zeroing. @returns false if that takes reclaim, or something is there: the ordinary way
 */
export function prefaultAnonymous(host: HostState, mm: MmState, vma: Vma, page: number): boolean {
  if (vma.shape.contiguous || vma.shape.hugetlb || vma.file || vma.userfaultMissing) return false;
  for (let order = fittingOrder(mm, vma, page); ; order = smallerLeaf(order)) {
    const pfn = tryAllocateFolio(host, { order, memcg: mm.memcg });
    if (pfn >= 0) {
      host.memory.zeroFolio(pfn, order);
      mapNewAnonymous(
        host,
        mm,
        vma,
        newAnonymousFolio(host, vma, blockStart(page, framesOf(order)), pfn, order),
        false,
      );
      host.counters.pgfault++;
      return true;
    }
    if (order === 0) return false;
  }
}
