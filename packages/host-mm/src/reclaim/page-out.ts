import { type Agent, assert, Condition, Cost, Location, type Task } from '@faultline/sim';
import { FolioFlag } from '../folio/folio-table.ts';
import type { HostState } from '../host-state.ts';

/** `written`: it is on the device. `queued`: the device is at it. `failed`: it is dirty as before. `gone`: nobody wants its content any more. */
export type PageOutOutcome = 'written' | 'queued' | 'failed' | 'gone';

/**
 * Writes a locked folio of the swap cache to its slots (pageout, swap_writepage). The folio is unlocked while the device works,
 * so that a fault can map it back, and locked again afterwards.
 */
export function* pageOutFolio(host: HostState, agent: Agent, folio: number): Task<PageOutOutcome> {
  const { folios } = host;
  if (host.freeSwap(folio)) return 'gone';
  const entry = folios.swapEntry(folio);
  const pages = folios.frames(folio);
  folios.setFlag(folio, FolioFlag.dirty, false);
  folios.setFlag(folio, FolioFlag.writeback, true);
  folios.setFlag(folio, FolioFlag.reclaim, true);
  folios.get(folio);
  host.unlock(agent, folio);
  let failed = false;
  const submitted = yield* host.swapIo.writeFolio(agent, { entry, pfn: folios.pfn(folio), pages }, (error) => {
    failed = error;
    endWriteback(host, folio, error);
  });
  yield* host.locks.acquire(agent, folio, folios.pfn(folio));
  return failed ? 'failed' : submitted === 'done' ? 'written' : 'queued';
}

/**
 * The device is done with a folio (end_swap_bio_write). What was written goes to where the next scan begins; what failed is dirty
 * again and stays. Part of the step that completes the I/O.
 */
function endWriteback(host: HostState, folio: number, failed: boolean): void {
  const { folios, counters } = host;
  assert(folios.has(folio, FolioFlag.writeback), () => `${folios.name(folio)} ends a write-back that did not begin`);
  folios.setFlag(folio, FolioFlag.writeback, false);
  if (failed) {
    folios.setFlag(folio, FolioFlag.dirty, true);
    folios.setFlag(folio, FolioFlag.reclaim, false);
    counters.swapWriteErrors++;
  } else if (folios.has(folio, FolioFlag.reclaim)) {
    folios.setFlag(folio, FolioFlag.reclaim, false);
    if (host.lru.isOn(folio) && !folios.has(folio, FolioFlag.active)) {
      host.lru.rotate(folio);
      counters.pgrotated += folios.frames(folio);
    }
  }
  if (!host.isolated.has(folio)) host.dropIfUnwanted(folio);
  host.put(folio);
  for (const wait of host.writebackWaits) wait.wake();
}

/** A step in which a folio's own lock is waited for while it is written, so that nobody changes it. */
export function* waitOnWriteback(host: HostState, agent: Agent, folio: number): Task<void> {
  if (!host.folios.has(folio, FolioFlag.writeback)) return;
  const ended = new Condition('write-back', () => !host.folios.has(folio, FolioFlag.writeback));
  host.writebackWaits.add(ended);
  try {
    while (!ended.ready()) {
      const step = agent.waits('wait on write-back', ended);
      step.kind = Location.folio;
      step.location = host.folios.pfn(folio);
      step.cost = Cost.free;
      yield step;
    }
  } finally {
    host.writebackWaits.delete(ended);
  }
}
