import { type Agent, Cost, Location, type Task } from '@faultline/sim';
import { FolioFlag } from '../folio/folio-table.ts';
import { forEachEntry, isMappedIn, spansOf } from '../folio/rmap.ts';
import type { HostState } from '../host-state.ts';
import { Entry } from '../mm/entry-table.ts';

/** What the accessed bits of a folio say about its fate in this scan. */
export type ReferenceVerdict = 'reclaim' | 'keep' | 'activate';

/**
 * Clears the accessed bits of all entries that map the folio, in the CPU's tables and, by `clear_flush_young`, in those of
 * whoever listens. @returns how many entries had one (folio_referenced); a secondary MMU without such bits looks cold
 */
export function* folioReferenced(host: HostState, agent: Agent, folio: number): Task<number> {
  let referenced = 0;
  for (const span of spansOf(host, folio)) {
    if (!isMappedIn(host, folio, span)) continue;
    const { mm } = span;
    yield agent.writes('clear accessed bits', Location.cpuEntry, mm.entryLocation(span.startPage), Cost.entryRead);
    let seen = 0;
    forEachEntry(host, folio, span, (page, _order, flags) => {
      if ((flags & Entry.YOUNG) === 0) return;
      mm.table.setFlags(page, flags & ~Entry.YOUNG);
      seen++;
    });
    const elsewhere = yield* mm.notifiers.clearFlushYoung(agent, span.startPage, span.endPage - span.startPage);
    referenced += Math.max(seen, elsewhere ? 1 : 0);
  }
  return referenced;
}

/**
 * The second chance of an anonymous folio (folio_check_references): accessed once since the last scan, it is kept; more than once,
 * or in two scans, it becomes active. Clears PG_referenced.
 */
export function* checkReferences(host: HostState, agent: Agent, folio: number): Task<ReferenceVerdict> {
  const entries = yield* folioReferenced(host, agent, folio);
  const before = host.folios.has(folio, FolioFlag.referenced);
  host.folios.setFlag(folio, FolioFlag.referenced, false);
  if (entries === 0) return 'reclaim';
  host.folios.setFlag(folio, FolioFlag.referenced, true);
  return before || entries > 1 ? 'activate' : 'keep';
}
