import { hex } from '@faultline/address';
import { type Agent, Cost, Location, type Task } from '@faultline/sim';
import { FolioFlag } from '../folio/folio-table.ts';
import { splitFolio } from '../folio/split.ts';
import { unmapFolio } from '../folio/unmap.ts';
import type { HostState } from '../host-state.ts';
import { Entry } from '../mm/entry-table.ts';
import { waitOnWriteback } from '../reclaim/page-out.ts';

/**
 * What memory_failure made of a broken frame: `recovered`: it is out of use, and who had it has lost its content, or not even that. `delayed`: a dirty page
 * of the swap cache, kept there so that its next fault learns of it. `EBUSY`: somebody still uses it: a pin, or the host itself; it goes out
 * of use when it is freed. `EHWPOISON`: that was known.
 */
export type MemoryFailureOutcome = 'recovered' | 'delayed' | 'EBUSY' | 'EHWPOISON';

/**
 * A frame is broken (memory_failure). A large folio is split first; then the page is taken out of every page table: CLEAR over its extent in each VMA, and
 * faults there answer HWPOISON from then on (HWPOISON_LARGE in a huge page, which goes as a whole). A clean page of the swap cache is only dropped and read
 * again. The frame is never used again. @throws RangeError if there is no such frame
 */
export function* memoryFailure(host: HostState, agent: Agent, pfn: number): Task<MemoryFailureOutcome> {
  if (!host.memory.contains(pfn)) throw new RangeError(`pfn: there is no frame ${hex(pfn)}`);
  yield agent.writes('memory failure', Location.folio, pfn, Cost.lock);
  if (host.poisoned.has(pfn)) return 'EHWPOISON';
  host.poisoned.add(pfn);
  for (;;) {
    const folio = host.folios.at(pfn);
    if (folio === 0) return takeOutOfUse(host, pfn);
    const outcome = yield* failFolio(host, agent, folio, pfn);
    if (outcome !== null) return outcome;
    yield agent.writes('memory failure: look again', Location.folio, pfn, Cost.lock);
  }
}

/** Nobody has it: it is taken from the free frames, or from the huge page pool, the page of which becomes small frames. */
function takeOutOfUse(host: HostState, pfn: number): MemoryFailureOutcome {
  if (host.allocator.allocateAt(pfn, 0)) {
    host.brokenFrames++;
    return 'recovered';
  }
  const page = host.hugePages.dissolveAt(pfn);
  if (page === null) return 'EBUSY';
  host.freeFrames(page.pfn, page.order);
  return 'recovered';
}

/** @returns null if the frame has got another folio, or this one is smaller now: look again */
function* failFolio(host: HostState, agent: Agent, folio: number, pfn: number): Task<MemoryFailureOutcome | null> {
  const { folios, locks } = host;
  folios.get(folio);
  yield* locks.acquire(agent, folio, pfn);
  yield* waitOnWriteback(host, agent, folio);
  const isThere =
    folios.at(pfn) === folio && pfn >= folios.pfn(folio) && pfn < folios.pfn(folio) + folios.frames(folio);
  let outcome: MemoryFailureOutcome | null = null;
  if (isThere && folios.order(folio) > 0 && !folios.has(folio, FolioFlag.hugetlb)) {
    if (!host.lru.isOn(folio) || !(yield* splitFolio(host, agent, folio))) outcome = 'EBUSY';
  } else if (isThere) {
    outcome = yield* failLocked(host, agent, folio);
  }
  host.unlock(agent, folio);
  host.put(folio);
  return outcome;
}

function* failLocked(host: HostState, agent: Agent, folio: number): Task<MemoryFailureOutcome> {
  const { folios } = host;
  // Just allocated, or isolated: whoever works on it would not notice (HWPoisonHandlable).
  if (!host.lru.isOn(folio) && !(folios.has(folio, FolioFlag.hugetlb) && folios.isMapped(folio))) return 'EBUSY';
  if (folios.has(folio, FolioFlag.swapcache)) return yield* failInSwapCache(host, agent, folio);
  do {
    if (folios.isMapped(folio)) yield* unmapFolio(host, agent, folio, 'poison');
    yield agent.writes('memory failure: give the folio up', Location.folio, folios.pfn(folio), Cost.lock);
    // A fault that found it in the page cache may have mapped it again.
  } while (folios.isMapped(folio));
  giveUp(host, folio);
  if (!folios.has(folio, FolioFlag.anon)) poisonPageCache(host, folio);
  return folios.isPinned(folio) ? 'EBUSY' : 'recovered';
}

/** Takes the folio off the LRU for good. */
function giveUp(host: HostState, folio: number): void {
  host.lru.remove(folio);
  host.folios.setFlag(folio, FolioFlag.hwpoison | FolioFlag.unevictable, true);
}

/** The page cache says so to later faults (shmem keeps the poisoned page). */
function poisonPageCache(host: HostState, folio: number): void {
  const { folios, files } = host;
  const file = files[folios.mapping(folio)]!;
  if (file.cache.pfn(folios.index(folio)) !== folios.pfn(folio)) return;
  file.cache.set(folios.index(folio), 0, folios.pfn(folio), Entry.POISON);
  file.cached--;
  // The page cache no longer has it: from here on it is counted like memory of nobody.
  folios.setFlag(folio, FolioFlag.anon, true);
  folios.remap(folio, 0, 0);
  host.put(folio);
}

/** Entries become swap entries. A clean page can be read again; a dirty one is kept where the next fault finds that it is lost (me_swapcache_dirty). */
function* failInSwapCache(host: HostState, agent: Agent, folio: number): Task<MemoryFailureOutcome> {
  const { folios } = host;
  if (folios.isMapped(folio) && !(yield* unmapFolio(host, agent, folio, 'reclaim'))) return 'EBUSY';
  const step = agent.writes('memory failure: leave the swap cache', Location.folio, folios.pfn(folio), Cost.lock);
  yield agent.alsoWrites(step, Location.lock, host.swapLock.id);
  if (folios.isMapped(folio)) return 'EBUSY';
  if (folios.has(folio, FolioFlag.dirty)) {
    giveUp(host, folio);
    folios.setFlag(folio, FolioFlag.uptodate, false);
    return 'delayed';
  }
  giveUp(host, folio);
  host.deleteFromSwapCache(folio);
  return 'recovered';
}
