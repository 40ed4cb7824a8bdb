import { type Agent, Cost, Location, type Task } from '@faultline/sim';
import { type FolioOrder, framesOf } from '../folio/folio-order.ts';
import { FolioFlag } from '../folio/folio-table.ts';
import { type FolioSpan, spansOf } from '../folio/rmap.ts';
import { hasNoOtherUsers, splitFolio } from '../folio/split.ts';
import { unmapFolio } from '../folio/unmap.ts';
import { tryAllocateFolio } from '../frame/allocate-folio.ts';
import type { HostState } from '../host-state.ts';
import { Entry } from '../mm/entry-table.ts';
import { waitOnWriteback } from '../reclaim/page-out.ts';

/**
 * What became of a folio that was to be moved, in the words of `move_pages(2)`: `EAGAIN`: somebody refers to it or has pinned it, it
 * is where it was. `EBUSY`: it is on no LRU list, because somebody else works on it. `ENOMEM`: no frames for it, not even for its pieces.
 * `ENOENT`: no folio has the frame.
 */
export type MigrateOutcome = 'moved' | 'EAGAIN' | 'EBUSY' | 'ENOMEM' | 'ENOENT';

/** How folios are moved. */
export interface Migration {
  /** Takes the frames where a folio of that order goes; -1 if there are none. Part of the caller's step. */
  readonly target: (order: FolioOrder, hugetlb: boolean) => number;
  /** Whether to wait for folio locks and write-back (MIGRATE_SYNC), or give up (MIGRATE_ASYNC). */
  readonly sync: boolean;
}

/** Wherever frames are free; does not reclaim for it. A huge page goes to one of its pool that is promised to nobody. */
const anywhere =
  (host: HostState): Migration['target'] =>
  (order, hugetlb) =>
    hugetlb ? host.hugePages.take(order, false) : tryAllocateFolio(host, { order, memcg: host.rootMemcg });

/**
 * Moves the folio that has a frame to other frames (migrate_pages of one folio). Fires CLEAR over the folio's extent in each VMA that maps it,
 * even if it then turns out that it cannot be moved; nothing when the entries come back.
 */
export function* migratePage(host: HostState, agent: Agent, pfn: number): Task<MigrateOutcome> {
  yield agent.writes('migrate: look for folio', Location.folio, pfn, Cost.lock);
  const folio = host.folios.at(pfn);
  if (folio === 0) return 'ENOENT';
  return yield* migrateFolio(host, agent, folio, { target: anywhere(host), sync: true });
}

/**
 * Moves a folio, or its pieces if it must be split: because it is mapped in part, or no frames of its size are free. Begins in the caller's step,
 * in which the folio is in use. @returns the outcome of the last piece that could not be moved, if any
 */
export function* migrateFolio(host: HostState, agent: Agent, folio: number, how: Migration): Task<MigrateOutcome> {
  const refused = yield* lockAndIsolate(host, agent, folio, how.sync);
  if (refused !== null) return refused;
  const pieces: number[] = [];
  let outcome = yield* moveLocked(host, agent, folio, how, pieces);
  release(host, agent, folio);
  for (const piece of pieces) {
    yield agent.writes('migrate: lock piece', Location.folio, host.folios.pfn(piece), Cost.lock);
    if (!host.locks.tryAcquire(agent, piece)) {
      host.putBack(piece);
      outcome = 'EAGAIN';
      continue;
    }
    const moved = yield* moveLocked(host, agent, piece, how, pieces);
    release(host, agent, piece);
    if (moved !== 'moved') outcome = moved;
  }
  return outcome;
}

/** Locks the folio, waits for its write-back, and takes it off the LRU. @returns null, or why not */
function* lockAndIsolate(host: HostState, agent: Agent, folio: number, sync: boolean): Task<MigrateOutcome | null> {
  const { folios, locks } = host;
  folios.get(folio);
  // Isolated only once it is locked: who holds the lock may be waiting for isolated folios to come back.
  if (sync) {
    yield* locks.acquire(agent, folio, folios.pfn(folio));
    yield* waitOnWriteback(host, agent, folio);
  } else if (!locks.tryAcquire(agent, folio)) {
    host.put(folio);
    return 'EAGAIN';
  }
  // Huge pages and locked memory are on no list; the reference serves instead.
  if (folios.has(folio, FolioFlag.unevictable)) return null;
  const isolated = host.isolate(folio);
  if (!isolated) host.unlock(agent, folio);
  host.put(folio);
  return isolated ? null : 'EBUSY';
}

/** Back to where it belongs, or freed if nobody wants it any more. */
function release(host: HostState, agent: Agent, folio: number): void {
  host.unlock(agent, folio);
  if (host.isolated.has(folio)) host.putBack(folio);
  else host.put(folio);
}

function* moveLocked(
  host: HostState,
  agent: Agent,
  folio: number,
  how: Migration,
  pieces: number[],
): Task<MigrateOutcome> {
  const { folios, counters } = host;
  // Freed meanwhile, but for the reference of who moves it.
  if (folios.refs(folio) === 1) return 'moved';
  if (folios.has(folio, FolioFlag.writeback)) return 'EAGAIN';
  const hugetlb = folios.has(folio, FolioFlag.hugetlb);
  for (;;) {
    const order = folios.order(folio);
    const isThp = order > 0 && !hugetlb;
    let pfn = -1;
    if (!isThp || !folios.has(folio, FolioFlag.partiallyMapped)) {
      yield agent.writes('migrate: take frames', Location.lock, host.frames.id, Cost.lock);
      pfn = how.target(order, hugetlb);
    }
    if (pfn >= 0) {
      const moved = yield* moveTo(host, agent, folio, pfn);
      if (isThp) counters[moved ? 'thp_migration_success' : 'thp_migration_fail']++;
      counters[moved ? 'pgmigrate_success' : 'pgmigrate_fail'] += framesOf(order);
      return moved ? 'moved' : 'EAGAIN';
    }
    if (isThp) counters.thp_migration_fail++;
    if (!isThp || !(yield* splitFolio(host, agent, folio, pieces))) {
      counters.pgmigrate_fail += framesOf(order);
      return isThp ? 'EAGAIN' : 'ENOMEM';
    }
    counters.thp_migration_split++;
  }
}

/**
 * Moves a locked folio to frames that were taken for it: entries become migration entries, the content is copied, the folio has other
 * frames, the entries are present again. If somebody else uses it, they all come back as they were. @returns whether it has moved
 */
function* moveTo(host: HostState, agent: Agent, folio: number, newPfn: number): Task<boolean> {
  const { folios } = host;
  const oldPfn = folios.pfn(folio);
  const order = folios.order(folio);
  const hugetlb = folios.has(folio, FolioFlag.hugetlb);
  let moved = false;
  if ((yield* unmapFolio(host, agent, folio, 'migrate')) && isMovable(host, folio)) {
    const step = agent.writes('migrate: copy folio', Location.frame, newPfn, Cost.pageCopy, framesOf(order));
    yield agent.alsoWrites(step, Location.folio, oldPfn);
    moved = isMovable(host, folio);
    if (moved) exchangeFrames(host, folio, newPfn);
  }
  yield* removeMigrationEntries(host, agent, folio, oldPfn);
  yield agent.writes('migrate: free frames', Location.lock, host.frames.id, Cost.lock);
  if (moved) folios.forgetFrames(oldPfn, order);
  host.returnFrames(moved ? oldPfn : newPfn, order, hugetlb);
  if (folios.isMapped(folio)) host.deferIfPartlyMapped(folio);
  return moved;
}

/** Nothing maps it, and nobody but who moves it and the caches refers to it: nobody can read or write it. */
const isMovable = (host: HostState, folio: number): boolean =>
  !host.folios.isMapped(folio) &&
  !host.folios.isPinned(folio) &&
  hasNoOtherUsers(host, folio) &&
  !host.folios.has(folio, FolioFlag.writeback);

function exchangeFrames(host: HostState, folio: number, newPfn: number): void {
  const { folios, memory, files } = host;
  const oldPfn = folios.pfn(folio);
  for (let i = 0; i < folios.frames(folio); i++) memory.copyFrame(oldPfn + i, newPfn + i);
  folios.moveTo(folio, newPfn);
  if (folios.has(folio, FolioFlag.anon | FolioFlag.swapcache)) return;
  const { cache } = files[folios.mapping(folio)]!;
  const index = folios.index(folio);
  cache.set(index, 0, newPfn, cache.flags(index));
}

/**
 * Makes the migration entries of a locked folio present again, with the rights that they have by now, wherever the folio is
 * (remove_migration_ptes). Tells no notifier: nobody has translations of them. Looks again after each VMA, as mremap may move entries on.
 */
function* removeMigrationEntries(host: HostState, agent: Agent, folio: number, oldPfn: number): Task<void> {
  for (;;) {
    const span = spansOf(host, folio).find((each) => migrationEntries(host, folio, each, oldPfn).length > 0);
    if (span === undefined) return;
    const label = 'migration entry becomes present';
    yield agent.writes(
      label,
      Location.cpuEntry,
      span.mm.entryLocation(span.startPage),
      Cost.entryWrite,
      span.endPage - span.startPage,
    );
    for (const page of migrationEntries(host, folio, span, oldPfn)) restoreEntry(host, folio, span, page, oldPfn);
  }
}

/** The first pages of the span's entries that say that the folio is on the move. */
function migrationEntries(host: HostState, folio: number, span: FolioSpan, oldPfn: number): number[] {
  const { table } = span.mm;
  const pages: number[] = [];
  for (let page = span.startPage; page < span.endPage; page = table.end(page)) {
    const at = table.value(page) - oldPfn;
    if ((table.flags(page) & Entry.MIGRATION) !== 0 && at >= 0 && at < host.folios.frames(folio)) pages.push(page);
  }
  return pages;
}

function restoreEntry(host: HostState, folio: number, { mm }: FolioSpan, page: number, oldPfn: number): void {
  const { table } = mm;
  const order = table.level(page);
  const pfn = host.folios.pfn(folio) + (table.value(page) - oldPfn);
  table.set(table.end(page) - framesOf(order), order, pfn, (table.flags(page) & ~Entry.MIGRATION) | Entry.PRESENT);
  host.folios.get(folio);
  host.countMapped(mm, folio, order);
}
