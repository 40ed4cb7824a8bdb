import { hex } from '@faultline/address';
import { type Agent, Cost, Location, type Task } from '@faultline/sim';
import { faultError } from '../fault/pin.ts';
import { VM_FAULT_ERROR } from '../fault/vm-fault.ts';
import { framesOf } from '../folio/folio-order.ts';
import type { HostState } from '../host-state.ts';
import { checkHugeEdges } from '../mm/carve.ts';
import { Entry } from '../mm/entry-table.ts';
import type { MmState } from '../mm/mm-state.ts';
import { Vma } from '../mm/vma.ts';
import { zapRange } from '../mm/zap.ts';
import { NotifierEvent, type NotifierRange } from '../notifier/mmu-notifier.ts';
import { unmergePage } from './ksm.ts';

/** munmap: mappings are split at the edges; each part fires UNMAP and is zapped. */
export function* unmapMemory(
  host: HostState,
  mm: MmState,
  agent: Agent,
  range: { readonly startPage: number; readonly pages: number },
): Task<void> {
  yield* mm.mmapLock.acquireWrite(agent);
  try {
    const endPage = range.startPage + range.pages;
    checkHugeEdges(mm, { startPage: range.startPage, endPage });
    for (const vma of mm.vmas.carve(range.startPage, endPage)) yield* unmapVma(host, mm, agent, vma);
  } finally {
    mm.mmapLock.releaseWrite(agent);
  }
}

function* unmapVma(host: HostState, mm: MmState, agent: Agent, vma: Vma): Task<void> {
  const { startPage, pages, shape } = vma;
  const range: NotifierRange = { startPage, pages, event: NotifierEvent.UNMAP, blockable: true };
  yield* mm.notifiers.start(agent, range);
  yield* zapRange(host, mm, agent, { startPage, endPage: startPage + pages });
  yield* mm.notifiers.end(agent, range);
  if (shape.hugetlb && vma.reserved) host.hugePages.unreserve(shape.order, pages / framesOf(shape.order));
  mm.vmas.remove(vma);
}

/** The end of a process (exit_mmap): the notifiers are released, then every mapping goes. */
export function* exitSpace(host: HostState, mm: MmState, agent: Agent): Task<void> {
  mm.exited = true;
  yield* mm.notifiers.release(agent);
  mm.userfaults?.wake(0, 2 ** 45);
  yield* mm.mmapLock.acquireWrite(agent);
  try {
    for (const vma of [...mm.vmas.all]) yield* unmapVma(host, mm, agent, vma);
  } finally {
    mm.mmapLock.releaseWrite(agent);
  }
}

/**
 * mremap: moves a whole mapping, entries and all, to other addresses; its folios stay where they are. Fires UNMAP over the old ones. KSM pages
 * become ordinary ones first, each with CLEAR over 4K; a userfaultfd loses the mapping.
 * @throws RangeError if no mapping starts there, or the new place is taken; HostMemoryError ENOMEM for a copy of a KSM page
 */
export function* moveMapping(
  host: HostState,
  mm: MmState,
  agent: Agent,
  startPage: number,
  toPage: number,
): Task<void> {
  yield* mm.mmapLock.acquireWrite(agent);
  try {
    const vma = mm.vmas.find(startPage);
    if (vma === null || vma.startPage !== startPage)
      throw new RangeError(`startPage: no mapping starts at ${hex(startPage)}`);
    const unit = framesOf(vma.shape.alignment);
    if (toPage % unit !== 0) throw new RangeError(`toPage: ${hex(toPage)} is not aligned to ${vma.backing}`);
    const moved = new Vma(mm, { ...view(vma), startPage: toPage, endPage: toPage + vma.pages });
    yield* unmergeKsm(host, mm, agent, vma);
    mm.vmas.add(moved);
    moved.reserved = vma.reserved;
    for (const anonVma of vma.anonChain) moved.join(anonVma);
    vma.file?.vmas.add(moved);
    const range: NotifierRange = { startPage, pages: vma.pages, event: NotifierEvent.UNMAP, blockable: true };
    yield* mm.notifiers.start(agent, range);
    yield* moveEntries(mm, agent, vma, toPage);
    yield* mm.notifiers.end(agent, range);
    mm.vmas.remove(vma);
  } finally {
    mm.mmapLock.releaseWrite(agent);
  }
}

/** Rmap by places cannot follow a mapping that moves (MADV_UNMERGEABLE). */
function* unmergeKsm(host: HostState, mm: MmState, agent: Agent, vma: Vma): Task<void> {
  if (host.ksm.size === 0) return;
  for (let page = mm.table.nextUsed(vma.startPage, vma.endPage); page < vma.endPage; ) {
    const bits = yield* unmergePage(host, mm, agent, page);
    if ((bits & VM_FAULT_ERROR) !== 0) throw faultError(bits, page, 'mremap');
    page = mm.table.nextUsed(mm.table.end(page), vma.endPage);
  }
}

function view(vma: Vma): ConstructorParameters<typeof Vma>[1] {
  const { startPage, endPage, backing, readable, writeable, shared, pgoff, file, anonVma } = vma;
  return { startPage, endPage, backing, readable, writeable, shared, pgoff, file, anonVma };
}

function* moveEntries(mm: MmState, agent: Agent, vma: Vma, toPage: number): Task<void> {
  const { table } = mm;
  for (let page = table.nextUsed(vma.startPage, vma.endPage); page < vma.endPage; ) {
    const order = table.level(page);
    const step = agent.writes('move entry', Location.cpuEntry, mm.entryLocation(page), Cost.entryWrite);
    yield agent.alsoWrites(step, Location.cpuEntry, mm.entryLocation(page - vma.startPage + toPage));
    const flags = table.flags(page);
    const value = table.value(page);
    if (flags !== 0 && table.level(page) === order) {
      table.clear(page, order);
      table.set(page - vma.startPage + toPage, order, value, (flags & ~Entry.UFFD_WP) | Entry.SOFT_DIRTY);
    }
    page = table.nextUsed(page, vma.endPage);
  }
}
