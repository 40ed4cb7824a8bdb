import { type Agent, Cost, Location, type Task } from '@faultline/sim';
import { blockStart, FANOUT, FRAMES_PER_1G, framesOf } from '../folio/folio-order.ts';
import { splitLeafAt } from '../folio/unmap.ts';
import type { HostState } from '../host-state.ts';
import { NotifierEvent, type NotifierRange } from '../notifier/mmu-notifier.ts';
import { Entry } from './entry-table.ts';
import type { MmState } from './mm-state.ts';
import type { Vma } from './vma.ts';
import type { PageSpan } from './zap.ts';

/** Gives an entry's new bits; its old ones leave it as it is. */
export type EntryChange = (flags: number, page: number, order: number) => number;

/** 512 GiB: what one PUD table maps, for which change_pud_range opens one notifier range. */
const FRAMES_PER_512G = FANOUT * FRAMES_PER_1G;

/** Whether a private entry's write protection has no purpose, or a shared one's writes are known of (can_change_pte_writable). */
export function canChangeWriteable(vma: Vma, flags: number): boolean {
  if (!vma.writeable || (flags & (Entry.PROT_NONE | Entry.UFFD_WP)) !== 0) return false;
  if (!vma.softDirty && (flags & Entry.SOFT_DIRTY) === 0) return false;
  return (flags & (vma.shared ? Entry.DIRTY : Entry.EXCLUSIVE)) !== 0;
}

/**
 * Changes the entries of a part of a mapping within PROTECTION_VMA ranges (change_protection): one for each 512 GiB in which anything is,
 * from the first 1 GiB that is not empty on; for hugetlb always one over the whole part.
 * @returns pages whose entries have changed
 */
export function* changeProtection(
  host: HostState,
  agent: Agent,
  vma: Vma,
  span: PageSpan,
  change: EntryChange,
): Task<number> {
  const { mm } = vma;
  let changed = 0;
  for (let startPage = span.startPage; startPage < span.endPage; ) {
    const endPage = vma.shape.hugetlb
      ? span.endPage
      : Math.min(span.endPage, blockStart(startPage, FRAMES_PER_512G) + FRAMES_PER_512G);
    const first = mm.table.nextUsed(startPage, endPage);
    if (first < endPage || vma.shape.hugetlb) {
      const from = vma.shape.hugetlb ? startPage : Math.max(startPage, blockStart(first, FRAMES_PER_1G));
      changed += yield* notifiedChange(host, mm, agent, { startPage: from, endPage }, change);
    }
    startPage = endPage;
  }
  return changed;
}

function* notifiedChange(
  host: HostState,
  mm: MmState,
  agent: Agent,
  span: PageSpan,
  change: EntryChange,
): Task<number> {
  const { startPage, endPage } = span;
  const event = NotifierEvent.PROTECTION_VMA;
  const range: NotifierRange = { startPage, pages: endPage - startPage, event, blockable: true };
  yield* mm.notifiers.start(agent, range);
  const changed = yield* changeEntries(host, mm, agent, span, change);
  yield* mm.notifiers.end(agent, range);
  return changed;
}

/**
 * Changes the bits of all entries of a range; a leaf that sticks out of it is split first. One step for each large leaf and each last-level
 * table, as zapping has. The caller has opened the notifier range. @returns pages whose entries have changed
 */
export function* changeEntries(
  host: HostState,
  mm: MmState,
  agent: Agent,
  span: PageSpan,
  change: EntryChange,
): Task<number> {
  const { table } = mm;
  let changed = 0;
  for (let page = table.nextUsed(span.startPage, span.endPage); page < span.endPage; ) {
    const level = table.level(page);
    const unit = level === 0 ? FANOUT : framesOf(level);
    const unitStart = blockStart(page, unit);
    if (level !== 0 && (unitStart < page || unitStart + unit > span.endPage)) {
      yield* splitLeafAt(host, mm, agent, page);
      // Somebody may have emptied it meanwhile, and an empty entry is never split.
      page = table.nextUsed(page, span.endPage);
      continue;
    }
    const endPage = Math.min(unitStart + unit, span.endPage);
    const entries = level === 0 ? endPage - page : 1;
    yield agent.writes('change protection', Location.cpuEntry, mm.entryLocation(page), Cost.entryWrite, entries);
    // Somebody may have put a large leaf there meanwhile: then it is looked at again.
    if (table.level(page) > level) continue;
    for (; page < endPage; page = table.end(page)) {
      const flags = table.flags(page);
      if (flags === 0) continue;
      const order = table.level(page);
      const next = change(flags, page, order);
      if (next === flags) continue;
      table.setFlags(page, next);
      changed += framesOf(order);
    }
    page = table.nextUsed(page, span.endPage);
  }
  return changed;
}
