import { hex } from '@faultline/address';
import { type Agent, Cost, Location, type Step, type Task } from '@faultline/sim';
import { freshBits, newAnonymousFolio } from '../fault/anonymous.ts';
import { blockStart, FANOUT, framesOf } from '../folio/folio-order.ts';
import { FolioFlag } from '../folio/folio-table.ts';
import { addKsmPlace } from '../folio/ksm-places.ts';
import { splitLeafAt } from '../folio/unmap.ts';
import { allocateFolio } from '../frame/allocate-folio.ts';
import { HostMemoryError } from '../host-memory-error.ts';
import type { HostState } from '../host-state.ts';
import { Entry } from '../mm/entry-table.ts';
import { MmState } from '../mm/mm-state.ts';
import type { Vma } from '../mm/vma.ts';
import { NotifierEvent, type NotifierRange } from '../notifier/mmu-notifier.ts';
import { exitSpace } from './munmap.ts';

/** One fork under way, at one mapping. */
interface VmaCopy {
  readonly host: HostState;
  readonly agent: Agent;
  readonly from: Vma;
  readonly to: Vma;
}

/**
 * A child with the same memory, which both share until one writes (dup_mmap). Fires, for each private mapping that ever had a page of its own, one range
 * over the whole of it: PROTECTION_PAGE; CLEAR for hugetlb. What is pinned is copied at once, so that who pinned it and the parent go on to
 * see one page. The child is charged to the parent's cgroup. It has no notifier, no pins and no userfaultfd.
 * @throws HostMemoryError ENOMEM when a copy finds no frame; then there is no child, and the parent's pages are write-protected
 */
export function* forkSpace(host: HostState, parent: MmState, agent: Agent, name: string): Task<MmState> {
  yield* parent.mmapLock.acquireWrite(agent);
  const { spaces, counters } = host;
  const child = new MmState({ id: spaces.length, name, memcg: parent.memcg, counters });
  let isWhole = false;
  try {
    spaces.push(child);
    for (const vma of [...parent.vmas.all]) yield* copyVma(host, agent, vma, child);
    isWhole = true;
    return child;
  } finally {
    parent.mmapLock.releaseWrite(agent);
    if (!isWhole) yield* exitSpace(host, child, agent);
  }
}

function* copyVma(host: HostState, agent: Agent, from: Vma, child: MmState): Task<void> {
  const to = from.copy(child, from.startPage, from.endPage);
  to.userfaultMissing = false;
  to.userfaultWp = false;
  to.reserved = false;
  // Without pages of its own a mapping has nothing to copy: faults fill it from its file (vma_needs_copy).
  const needsCopy = from.anonChain.length > 0;
  to.anonVma = needsCopy ? host.newAnonVma() : null;
  if (to.anonVma) to.join(to.anonVma);
  child.vmas.add(to);
  if (!needsCopy) return;
  const { mm, startPage, pages, shape } = from;
  const event = shape.hugetlb ? NotifierEvent.CLEAR : NotifierEvent.PROTECTION_PAGE;
  const range: NotifierRange = { startPage, pages, event, blockable: true };
  yield* mm.notifiers.start(agent, range);
  try {
    yield* copyEntries({ host, agent, from, to });
  } finally {
    yield* mm.notifiers.end(agent, range);
  }
}

/** The step in which entries of both sides around the page change. */
function entriesStep({ agent, from, to }: VmaCopy, label: string, page: number, entries: number): Step {
  const step = agent.writes(label, Location.cpuEntry, from.mm.entryLocation(page), Cost.entryWrite, entries);
  return agent.alsoWrites(step, Location.cpuEntry, to.mm.entryLocation(page));
}

/** Shares what can be shared, a large leaf or a last-level table in a step; copies what cannot. */
function* copyEntries(copy: VmaCopy): Task<void> {
  const { host, agent, from } = copy;
  const { table } = from.mm;
  for (let page = table.nextUsed(from.startPage, from.endPage); page < from.endPage; ) {
    const order = table.level(page);
    const unit = order === 0 ? FANOUT : framesOf(order);
    const endPage = Math.min(blockStart(page, unit) + unit, from.endPage);
    yield entriesStep(copy, 'fork: share entries', page, order === 0 ? endPage - page : 1);
    while (page < endPage && shareEntry(copy, page)) page = table.end(page);
    if (page < endPage) {
      if (table.level(page) > 0 && !from.shape.hugetlb) yield* splitLeafAt(host, from.mm, agent, page);
      else if (yield* copyPinnedPage(copy, page)) page = table.end(page);
    }
    page = table.nextUsed(page, from.endPage);
  }
}

/** Whether the child gets a copy at once, since somebody has pinned the parent's page, and the parent must keep it (folio_needs_cow_for_dma). */
const isPinnedExclusive = (host: HostState, flags: number, pfn: number): boolean =>
  (flags & Entry.PRESENT) !== 0 && (flags & Entry.EXCLUSIVE) !== 0 && host.folios.isPinned(host.folios.at(pfn));

/** Shares one entry, if there is one and the child has none yet; part of the caller's step. @returns false if its page must be copied */
function shareEntry({ host, from, to }: VmaCopy, page: number): boolean {
  const { table } = from.mm;
  const flags = table.flags(page);
  const order = table.level(page);
  if (flags === 0) return true;
  if (isPinnedExclusive(host, flags, table.pfn(page))) return false;
  const startPage = table.end(page) - framesOf(order);
  const value = table.value(page);
  // Poison is copied as it is; what is on the move comes back on both sides without the right to write.
  const shared = (flags & Entry.POISON) !== 0 ? flags : flags & ~(Entry.WRITE | Entry.EXCLUSIVE);
  table.setFlags(page, shared);
  const young = (flags & Entry.PRESENT) !== 0 ? Entry.YOUNG : 0;
  to.mm.table.set(startPage, order, value, shared & ~(young | Entry.UFFD_WP));
  if ((flags & Entry.SWAP) !== 0) {
    host.swap.duplicate(value);
    to.mm.swappedPages++;
    to.mm.memcg.swappedPages++;
  }
  if ((flags & Entry.PRESENT) === 0) {
    const moving = (flags & Entry.MIGRATION) !== 0 ? host.folios.at(value) : 0;
    if (moving !== 0 && host.folios.has(moving, FolioFlag.ksm)) addKsmPlace(host, moving, to.mm, page);
    return true;
  }
  const folio = host.folios.at(value);
  host.folios.get(folio);
  host.countMapped(to.mm, folio, order);
  if (host.folios.has(folio, FolioFlag.ksm)) addKsmPlace(host, folio, to.mm, page);
  return true;
}

/** Gives the child a page of its own with the content of the parent's pinned one, if that is still there (copy_present_page). @returns whether it was */
function* copyPinnedPage(copy: VmaCopy, page: number): Task<boolean> {
  const { host, agent, from, to } = copy;
  const { table } = from.mm;
  const { order } = from.shape.hugetlb ? from.shape : { order: 0 };
  const startPage = blockStart(page, framesOf(order));
  const memcg = to.mm.memcg;
  const pfn = order > 0 ? host.hugePages.take(order, false) : yield* allocateFolio(host, agent, { order, memcg });
  if (pfn < 0) throw new HostMemoryError('ENOMEM', page, `fork: no frame for a copy of the pinned page ${hex(page)}`);
  const folio = newAnonymousFolio(host, to, startPage, pfn, order);
  if (order > 0) host.folios.setFlag(folio, FolioFlag.hugetlb | FolioFlag.unevictable, true);
  const step = entriesStep(copy, 'fork: copy pinned page', page, framesOf(order));
  step.cost = Cost.pageCopy;
  yield step;
  const flags = table.flags(page);
  if (table.level(page) !== order || !isPinnedExclusive(host, flags, table.pfn(page))) {
    host.put(folio);
    return false;
  }
  for (let i = 0; i < framesOf(order); i++) host.memory.copyFrame(table.value(page) + i, pfn + i);
  to.mm.table.set(startPage, order, pfn, freshBits(to, true) | (flags & Entry.PROT_NONE));
  host.countMapped(to.mm, folio, order);
  if (order === 0) host.lru.add(folio);
  return true;
}
