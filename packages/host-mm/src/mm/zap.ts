import { type Agent, Cost, Location, type Task } from '@faultline/sim';
import { blockStart, FANOUT, framesOf } from '../folio/folio-order.ts';
import type { HostState } from '../host-state.ts';
import { splitRange } from '../reclaim/reclaim.ts';
import type { MmState } from './mm-state.ts';

/** Folios gathered before their frames are freed together, as Linux's `mmu_gather` does. */
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
 */
export function* zapRange(host: HostState, mm: MmState, agent: Agent, span: PageSpan): Task<void> {
  const { table } = mm;
  const gathered: number[] = [];
  let page = table.nextUsed(span.startPage, span.endPage);
  while (page < span.endPage) {
    const level = table.levelAt(page);
    const unitStart = blockStart(page, level === 0 ? FANOUT : framesOf(level));
    const unitEnd = unitStart + (level === 0 ? FANOUT : framesOf(level));
    // A fault may have put a large leaf around the place reached so far; then only its rest is in the way.
    if (level !== 0 && (unitStart < page || unitEnd > span.endPage)) {
      yield* splitMapped(host, mm, agent, page);
    } else {
      const endPage = Math.min(unitEnd, span.endPage);
      const entries = level === 0 ? endPage - page : 1;
      yield agent.writes('zap entries', Location.cpuEntry, mm.entryLocation(page), Cost.entryWrite, entries);
      page = zapUnit(host, mm, { startPage: page, endPage }, gathered);
    }
    if (gathered.length >= GATHER_FOLIOS) yield* freeGathered(host, agent, gathered);
    page = table.nextUsed(page, span.endPage);
  }
  if (gathered.length > 0) yield* freeGathered(host, agent, gathered);
}

/** Clears entries that lie wholly in the span. @returns the page after the last one seen: that of a leaf that sticks out */
function zapUnit(host: HostState, mm: MmState, span: PageSpan, gathered: number[]): number {
  const { folios } = host;
  let page = span.startPage;
  while (page < span.endPage) {
    const entry = mm.table.entry(page);
    if (entry > 0) {
      const start = folios.startPage(entry);
      const end = start + folios.frames(entry);
      if (start < span.startPage || end > span.endPage) return page;
      if (host.unmap(entry)) gathered.push(entry);
      page = end;
    } else {
      if (entry < 0) {
        mm.table.clear(page, 0);
        host.dropSwapEntry(mm, entry);
      }
      page++;
    }
  }
  return page;
}

/** Splits the large leaf that maps the page by one level, if it is still there when its turn comes. */
function* splitMapped(host: HostState, mm: MmState, agent: Agent, page: number): Task<void> {
  const folio = mm.table.entry(page);
  if (folio <= 0) return;
  const order = host.folios.order(folio);
  const range = splitRange(host, folio);
  if (range) yield* mm.notifiers.start(agent, range);
  yield agent.writes('split large leaf', Location.cpuEntry, mm.entryLocation(page), Cost.folioSplit);
  const same = mm.table.entry(page) === folio && host.folios.order(folio) === order;
  if (same && order !== 0) host.split(folio);
  if (range) yield* mm.notifiers.end(agent, range);
}

function* freeGathered(host: HostState, agent: Agent, gathered: number[]): Task<void> {
  yield agent.writes('free gathered frames', Location.lock, host.frames.id, Cost.lock);
  for (const folio of gathered) host.freeFolio(folio);
  gathered.length = 0;
}
