import { hex } from '@faultline/address';
import { type Agent, Cost, Location, type Task } from '@faultline/sim';
import { freshBits } from '../fault/anonymous.ts';
import { FANOUT, type FolioOrder, framesOf, PMD_ORDER } from '../folio/folio-order.ts';
import { FolioFlag } from '../folio/folio-table.ts';
import { splitFolio } from '../folio/split.ts';
import { splitLeafAt } from '../folio/unmap.ts';
import { type HostMemoryErrno, HostMemoryError } from '../host-memory-error.ts';
import type { HostState } from '../host-state.ts';
import { Entry } from '../mm/entry-table.ts';
import type { MmState } from '../mm/mm-state.ts';
import type { Vma } from '../mm/vma.ts';
import { NotifierEvent, type NotifierRange } from '../notifier/mmu-notifier.ts';

interface Move {
  readonly host: HostState;
  readonly mm: MmState;
  readonly agent: Agent;
  readonly from: Vma;
  readonly to: Vma;
}

const refuse = (code: HostMemoryErrno, page: number, why: string): HostMemoryError =>
  new HostMemoryError(code, page, `move: page ${hex(page)} ${why}`);

/** UFFDIO_MOVE (move_pages), under `mmap_lock` for reading: whole 2M leaves where both sides are aligned and the target is empty, else pages. */
export function* moveRange(
  host: HostState,
  mm: MmState,
  agent: Agent,
  { fromPage, toPage, pages }: { readonly fromPage: number; readonly toPage: number; readonly pages: number },
): Task<void> {
  const move = checkMappings(host, mm, agent, { fromPage, toPage, pages });
  for (let done = 0; done < pages; ) {
    const page = fromPage + done;
    const target = toPage + done;
    const order = pages - done >= FANOUT && movesWhole(move, page, target) ? PMD_ORDER : 0;
    if (order === 0) yield* makeSmall(move, page);
    if (yield* moveEntry(move, page, target, order)) done += framesOf(order);
  }
}

/** Whether a 2M leaf of a 2M folio begins at the page, and can be one at the target. */
function movesWhole({ host, mm }: Move, page: number, target: number): boolean {
  const { table } = mm;
  const isLeaf = table.level(page) === PMD_ORDER && (table.flags(page) & Entry.PRESENT) !== 0;
  if (!isLeaf || page % FANOUT !== 0 || target % FANOUT !== 0) return false;
  return host.folios.order(host.folios.at(table.value(page))) === PMD_ORDER && table.isEmpty(target, PMD_ORDER);
}

/** Both sides must be one mapping each of private anonymous memory with the same rights, the target registered (validate_move_areas). */
function checkMappings(
  host: HostState,
  mm: MmState,
  agent: Agent,
  { fromPage, toPage, pages }: { readonly fromPage: number; readonly toPage: number; readonly pages: number },
): Move {
  const from = mm.vmas.find(fromPage);
  const to = mm.vmas.find(toPage);
  if (from === null || fromPage + pages > from.endPage)
    throw refuse('EINVAL', fromPage, 'begins no range of one mapping');
  if (to === null || toPage + pages > to.endPage) throw refuse('EINVAL', toPage, 'begins no range of one mapping');
  if (!to.userfaultMissing && !to.userfaultWp) throw refuse('ENOENT', toPage, 'is not registered');
  for (const vma of [from, to])
    if (vma.file !== null || vma.shape.hugetlb)
      throw refuse('EINVAL', vma.startPage, 'is not private anonymous memory');
  if (!from.writeable || !to.writeable) throw refuse('EINVAL', fromPage, 'is not writeable on both sides');
  if (fromPage < toPage + pages && toPage < fromPage + pages) throw refuse('EINVAL', fromPage, 'overlaps the target');
  return { host, mm, agent, from, to };
}

/** Splits leaf and folio around a page, so that it can move alone. */
function* makeSmall({ host, mm, agent }: Move, page: number): Task<void> {
  const { folios, locks } = host;
  while (mm.table.level(page) > 0 && mm.table.flags(page) !== 0) yield* splitLeafAt(host, mm, agent, page);
  for (;;) {
    yield agent.writes('userfaultfd: look at entry', Location.cpuEntry, mm.entryLocation(page), Cost.entryRead);
    const pfn = mm.table.pfn(page);
    const folio = pfn < 0 ? 0 : folios.at(pfn);
    if (folio === 0 || folios.order(folio) === 0) return;
    folios.get(folio);
    yield* locks.acquire(agent, folio, folios.pfn(folio));
    const isSplit = yield* splitFolio(host, agent, folio);
    host.unlock(agent, folio);
    host.put(folio);
    if (!isSplit) throw refuse('EBUSY', page, 'is part of a folio that is in use');
  }
}

/** Moves one entry, with its folio locked (move_pages_pte, move_pages_huge_pmd). @returns false to look again: it has changed */
function* moveEntry(move: Move, page: number, target: number, order: FolioOrder): Task<boolean> {
  const { host, mm, agent } = move;
  const range: NotifierRange = { startPage: page, pages: framesOf(order), event: NotifierEvent.CLEAR, blockable: true };
  if ((mm.table.flags(page) & Entry.MIGRATION) !== 0) {
    const pfn = mm.table.value(page);
    yield* host.locks.waitUnlocked(agent, host.folios.at(pfn), pfn);
  }
  const folio = lockable(move, page);
  if (folio !== 0) {
    host.folios.get(folio);
    yield* host.locks.acquire(agent, folio, host.folios.pfn(folio));
  }
  yield* mm.notifiers.start(agent, range);
  try {
    const step = agent.writes('userfaultfd: move entry', Location.cpuEntry, mm.entryLocation(page), Cost.entryWrite);
    yield agent.alsoWrites(step, Location.cpuEntry, mm.entryLocation(target));
    return lockable(move, page) === folio && moveNow(move, { page, target, order, folio });
  } finally {
    yield* mm.notifiers.end(agent, range);
    if (folio !== 0) {
      host.unlock(agent, folio);
      host.put(folio);
    }
  }
}

/** The folio whose lock guards what is at the page: mapped there, or in the swap cache for it; 0 if there is none. */
function lockable({ host, mm }: Move, page: number): number {
  const flags = mm.table.flags(page);
  if ((flags & Entry.PRESENT) !== 0) return host.folios.at(mm.table.pfn(page));
  return (flags & Entry.SWAP) !== 0 ? host.swapCache.get(mm.table.value(page)) : 0;
}

/** @returns false to look again: the entry is on the move, or was split @throws HostMemoryError if it cannot be moved */
function moveNow(
  { host, mm, from, to }: Move,
  { page, target, order, folio }: { page: number; target: number; order: FolioOrder; folio: number },
): boolean {
  const { table } = mm;
  const { folios } = host;
  const flags = table.flags(page);
  const value = table.value(page);
  if (flags === 0) throw refuse('ENOENT', page, 'is missing');
  if (!table.isEmpty(target, order)) throw refuse('EEXIST', target, 'is taken');
  if ((flags & Entry.POISON) !== 0) throw refuse('EFAULT', page, 'is broken');
  if ((flags & Entry.MIGRATION) !== 0 || table.level(page) !== order) return false;
  if ((flags & Entry.EXCLUSIVE) === 0) throw refuse('EBUSY', page, 'is shared');
  if ((flags & Entry.PRESENT) === 0) {
    table.clear(page, 0);
    table.set(target, 0, value, (flags & ~Entry.UFFD_WP) | Entry.SOFT_DIRTY);
    return true;
  }
  if (folios.isPinned(folio)) throw refuse('EBUSY', page, 'is pinned');
  if (folios.order(folio) !== order) return false;
  table.clear(page, order);
  folios.remap(folio, host.anonVmaOf(to).id, to.indexOf(target));
  table.set(target, order, value, freshBits(to, true) | (from.readable && to.readable ? 0 : Entry.PROT_NONE));
  if ((flags & Entry.DIRTY) !== 0) folios.setFlag(folio, FolioFlag.dirty, true);
  return true;
}
