import { type Agent, Cost, Location, type Task } from '@faultline/sim';
import { blockStart, FANOUT, framesOf } from '../folio/folio-order.ts';
import { FolioFlag } from '../folio/folio-table.ts';
import { forgetKsmPlace } from '../folio/ksm-places.ts';
import { splitLeafAt } from '../folio/unmap.ts';
import type { HostState } from '../host-state.ts';
import { Entry } from './entry-table.ts';
import type { MmState } from './mm-state.ts';

/** Folios gathered before they are freed together, as Linux's `mmu_gather` does. */
const GATHER_FOLIOS = 512;

/** A range of pages, end excluded. */
export interface PageSpan {
  readonly startPage: number;
  readonly endPage: number;
}

/**
 * Takes every entry of the range out of the CPU page table, splits leaves that stick out of it, and frees frames and
 * swap slots. One step for each large leaf and for each last-level table, whose lock Linux holds meanwhile. The caller has
 * opened the notifier range.
 * @param keepCows leaves private copies of a file's pages, in memory or in swap
 */
export function* zapRange(host: HostState, mm: MmState, agent: Agent, span: PageSpan, keepCows = false): Task<void> {
  const { table } = mm;
  const gathered: number[] = [];
  let page = table.nextUsed(span.startPage, span.endPage);
  while (page < span.endPage) {
    const level = table.level(page);
    const unit = level === 0 ? FANOUT : framesOf(level);
    const unitStart = blockStart(page, unit);
    const unitEnd = unitStart + unit;
    // A fault may have put a large leaf around the place reached so far; then only its rest is in the way.
    if (level !== 0 && (unitStart < page || unitEnd > span.endPage)) {
      yield* splitLeafAt(host, mm, agent, page);
    } else {
      const endPage = Math.min(unitEnd, span.endPage);
      const entries = level === 0 ? endPage - page : 1;
      yield agent.writes('zap entries', Location.cpuEntry, mm.entryLocation(page), Cost.entryWrite, entries);
      page = zapUnit(host, mm, { startPage: page, endPage }, gathered, keepCows);
    }
    if (gathered.length >= GATHER_FOLIOS) yield* freeGathered(host, agent, gathered);
    page = table.nextUsed(page, span.endPage);
  }
  if (gathered.length > 0) yield* freeGathered(host, agent, gathered);
}

/** Clears entries that lie wholly in the span. @returns the page after the last one seen: that of a leaf that sticks out */
function zapUnit(host: HostState, mm: MmState, span: PageSpan, gathered: number[], keepCows: boolean): number {
  const { table } = mm;
  let page = span.startPage;
  while (page < span.endPage) {
    const order = table.level(page);
    const end = table.end(page);
    if (table.flags(page) !== 0) {
      if (end - framesOf(order) < span.startPage || end > span.endPage) return page;
      if (!keepCows || !isAnonymous(host, mm, page)) zapEntry(host, mm, page, order, gathered);
    }
    page = end;
  }
  return Math.min(page, span.endPage);
}

/** Whether an entry stands for anonymous memory: it is in swap, or its folio is. */
function isAnonymous({ folios }: HostState, { table }: MmState, page: number): boolean {
  if ((table.flags(page) & Entry.SWAP) !== 0) return true;
  const folio = folios.at(table.value(page));
  return folio !== 0 && folios.has(folio, FolioFlag.anon);
}

function zapEntry(host: HostState, mm: MmState, page: number, order: number, gathered: number[]): void {
  const { table } = mm;
  const { folios } = host;
  const flags = table.flags(page);
  const value = table.value(page);
  table.clear(page, order);
  if ((flags & Entry.SWAP) !== 0) {
    host.dropSwapEntry(mm, value);
    return;
  }
  const folio = folios.at(value);
  if (folio !== 0 && folios.has(folio, FolioFlag.ksm)) forgetKsmPlace(host, folio, mm, page);
  // A folio on the move has lost this mapping's reference and count already.
  if ((flags & Entry.PRESENT) === 0) return;
  if ((flags & Entry.DIRTY) !== 0) folios.setFlag(folio, FolioFlag.dirty, true);
  host.countUnmapped(mm, folio, order);
  // The mapping may have a page there again, if it was promised one.
  if (folios.has(folio, FolioFlag.hugetlb) && mm.vmas.find(page)?.reserved)
    host.hugePages.restore(folios.order(folio), 1);
  gathered.push(folio);
}

/** Gives the mappings' references back. A folio that is only in the swap cache any more, with nobody to need it, goes with them. */
function* freeGathered(host: HostState, agent: Agent, gathered: number[]): Task<void> {
  yield agent.writes('free gathered frames', Location.lock, host.frames.id, Cost.lock);
  for (const folio of gathered) {
    host.dropIfUnwanted(folio);
    host.put(folio);
  }
  gathered.length = 0;
}
