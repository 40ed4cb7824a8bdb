import { Cost, Location, type Task } from '@faultline/sim';
import { framesOf } from '../folio/folio-order.ts';
import { FolioFlag } from '../folio/folio-table.ts';
import { forgetKsmPlace } from '../folio/ksm-places.ts';
import { splitLeafAt } from '../folio/unmap.ts';
import { allocateFolio } from '../frame/allocate-folio.ts';
import type { HostState } from '../host-state.ts';
import { Entry } from '../mm/entry-table.ts';
import type { Vma } from '../mm/vma.ts';
import { NotifierEvent, type NotifierRange } from '../notifier/mmu-notifier.ts';
import { freshBits, newAnonymousFolio } from './anonymous.ts';
import { AGAIN, entryStep, type FaultContext } from './fault-context.ts';
import { waitForUserfault } from './userfault.ts';
import { VmFault } from './vm-fault.ts';

/**
 * A write to a private page that is write-protected (do_wp_page): the only user gets it back, everybody else a copy. A large leaf that is shared is split, and
 * the 4K page that is written is copied.
 */
export function* writeProtectedPage(fault: FaultContext): Task<number> {
  const { host, mm, agent, vma, page, write } = fault;
  const { table } = mm;
  const flags = table.flags(page);
  const value = table.value(page);
  if (write && vma.userfaultWp && (flags & Entry.UFFD_WP) !== 0) return yield* waitForUserfault(fault, true);
  yield entryStep(fault, 'fault: write-protected');
  if (table.flags(page) !== flags || table.value(page) !== value) return AGAIN;
  // Looked up only now: its folio may have been split meanwhile, which changes no entry.
  const folio = host.folios.at(table.pfn(page));
  if ((flags & Entry.EXCLUSIVE) !== 0 || isOnlyUser(host, folio)) {
    table.setFlags(page, reusedBits(flags, write));
    return 0;
  }
  if (table.level(page) > 0 && !host.folios.has(folio, FolioFlag.hugetlb)) {
    yield* splitLeafAt(host, mm, agent, page);
    return AGAIN;
  }
  return yield* copyPage(fault, folio, { flags, value });
}

const reusedBits = (flags: number, write: boolean): number =>
  flags | Entry.EXCLUSIVE | Entry.YOUNG | (write ? Entry.WRITE | Entry.DIRTY | Entry.SOFT_DIRTY : 0);

/** A copy that nobody writes to yet (FAULT_FLAG_UNSHARE) is as write-protected as the page was. */
const copiedBits = (vma: Vma, flags: number, write: boolean): number =>
  write
    ? freshBits(vma, true)
    : Entry.PRESENT | Entry.YOUNG | Entry.EXCLUSIVE | (flags & (Entry.SOFT_DIRTY | Entry.UFFD_WP));

/**
 * Whether the entry is all that refers to an anonymous folio, the swap cache aside if nobody else needs its slots
 * (wp_can_reuse_anon_folio). A KSM page is never reused.
 */
function isOnlyUser(host: HostState, folio: number): boolean {
  const { folios } = host;
  if (!folios.has(folio, FolioFlag.anon) || folios.has(folio, FolioFlag.ksm)) return false;
  if (folios.mapcount(folio) !== 1 || host.locks.isLocked(folio)) return false;
  host.freeSwap(folio);
  return folios.refs(folio) === 1;
}

/** Copies the page to a folio of its own and maps that, telling the notifiers: CLEAR over 4K, or the huge page (wp_page_copy). */
function* copyPage(
  fault: FaultContext,
  old: number,
  entry: { readonly flags: number; readonly value: number },
): Task<number> {
  const { host, mm, agent, vma, page } = fault;
  const { folios } = host;
  const order = folios.has(old, FolioFlag.hugetlb) ? folios.order(old) : 0;
  const startPage = page - (page % framesOf(order));
  folios.get(old);
  const pfn =
    order === 0 ? yield* allocateFolio(host, agent, { order, memcg: mm.memcg }) : host.hugePages.take(order, false);
  if (pfn < 0) {
    host.put(old);
    return order === 0 ? VmFault.OOM : VmFault.SIGBUS;
  }
  const copy = newAnonymousFolio(host, vma, startPage, pfn, order);
  if (order > 0) folios.setFlag(copy, FolioFlag.hugetlb | FolioFlag.unevictable, true);
  yield agent.writes('fault: copy page', Location.frame, pfn, Cost.pageCopy, framesOf(order));
  const from = folios.pfn(old) + (startPage - vma.pageOf(folios.index(old)));
  const source = folios.has(old, FolioFlag.ksm) ? folios.pfn(old) : from;
  for (let i = 0; i < framesOf(order); i++) host.memory.copyFrame(source + i, pfn + i);
  const range: NotifierRange = { startPage, pages: framesOf(order), event: NotifierEvent.CLEAR, blockable: true };
  yield* mm.notifiers.start(agent, range);
  yield entryStep(fault, 'fault: map copy');
  const isSame = mm.table.flags(page) === entry.flags && mm.table.value(page) === entry.value;
  if (isSame) {
    mm.table.set(startPage, order, pfn, copiedBits(vma, entry.flags, fault.write));
    host.countUnmapped(mm, old, order);
    host.countMapped(mm, copy, order);
    if (order === 0) host.lru.add(copy);
    if (folios.has(old, FolioFlag.ksm)) {
      host.counters.cow_ksm++;
      forgetKsmPlace(host, old, mm, page);
    }
  }
  yield* mm.notifiers.end(agent, range);
  // If this was the last to map it, nobody asks for what the swap cache has of it (free_swap_cache).
  if (isSame) {
    host.dropIfUnwanted(old);
    host.put(old);
  } else {
    host.put(copy);
  }
  host.put(old);
  return isSame ? 0 : AGAIN;
}
