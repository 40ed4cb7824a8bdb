import type { Agent, Task } from '@faultline/sim';
import type { HostState } from '../host-state.ts';
import { changeEntries, type EntryChange } from '../mm/change-protection.ts';
import { Entry } from '../mm/entry-table.ts';
import type { MmState } from '../mm/mm-state.ts';
import type { Vma } from '../mm/vma.ts';
import { NotifierEvent, type NotifierRange } from '../notifier/mmu-notifier.ts';

/** Pages of a 57-bit address space: Linux's range ends at the end of all addresses. */
const ALL_PAGES = 2 ** 45;

/**
 * Writing 4 to /proc/pid/clear_refs: forgets which pages were written to, and write-protects them to learn it anew: SOFT_DIRTY over the whole
 * address space. hugetlb is left alone, and so are 4K entries of pinned private pages.
 */
export function* clearSoftDirty(host: HostState, mm: MmState, agent: Agent): Task<void> {
  yield* mm.mmapLock.acquireWrite(agent);
  try {
    for (const vma of mm.vmas.all) vma.softDirty = false;
    const range: NotifierRange = { startPage: 0, pages: ALL_PAGES, event: NotifierEvent.SOFT_DIRTY, blockable: true };
    yield* mm.notifiers.start(agent, range);
    for (const vma of mm.vmas.all)
      if (!vma.shape.hugetlb) yield* changeEntries(host, mm, agent, vma, forgetWrites(host, vma));
    yield* mm.notifiers.end(agent, range);
  } finally {
    mm.mmapLock.releaseWrite(agent);
  }
}

const forgetWrites =
  (host: HostState, vma: Vma): EntryChange =>
  (flags, page, order) => {
    if ((flags & Entry.POISON) !== 0) return flags;
    const mayBePinned = order === 0 && vma.isCow && (flags & Entry.PRESENT) !== 0 && (flags & Entry.WRITE) !== 0;
    if (mayBePinned && host.folios.isPinned(host.folios.at(vma.mm.table.pfn(page)))) return flags;
    return flags & ~(Entry.WRITE | Entry.SOFT_DIRTY);
  };

/** Whether the page counts as written to since (bit 55 of /proc/pid/pagemap): it was, or its mapping is new. */
export const isSoftDirty = (mm: MmState, page: number): boolean =>
  (mm.vmas.find(page)?.softDirty ?? false) || (mm.table.flags(page) & Entry.SOFT_DIRTY) !== 0;
