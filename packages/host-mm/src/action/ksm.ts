import { type Agent, Cost, Location, type Task } from '@faultline/sim';
import { handleMmFault } from '../fault/handle-mm-fault.ts';
import { FolioFlag } from '../folio/folio-table.ts';
import { addKsmPlace } from '../folio/ksm-places.ts';
import { forEachEntry, spansOf } from '../folio/rmap.ts';
import { hasNoOtherUsers, splitFolio } from '../folio/split.ts';
import type { HostState } from '../host-state.ts';
import { Entry } from '../mm/entry-table.ts';
import type { MmState } from '../mm/mm-state.ts';
import { NotifierEvent, type NotifierRange } from '../notifier/mmu-notifier.ts';

/** A page of an address space that KSM looks at (a rmap item). */
export interface KsmCandidate {
  readonly mm: MmState;
  readonly page: number;
}

/**
 * KSM finds two pages of equal content and makes them one, write-protected for both (try_to_merge_two_pages). The first becomes the KSM page
 * in place, or is one already; the second is replaced by it. Fires CLEAR over 4K when a page is write-protected, and again when it is
 * replaced; a large folio is split first.
 * @returns whether both are one KSM page now; not if a page is missing, not anonymous, pinned or otherwise in use, or they differ, nor if one
 * large folio has both: that is only split, down to the pages
 */
export function* ksmMerge(host: HostState, agent: Agent, first: KsmCandidate, second: KsmCandidate): Task<boolean> {
  yield* host.ksmLock.acquire(agent);
  try {
    return yield* compareAndMerge(host, agent, first, second);
  } finally {
    host.ksmLock.release(agent);
  }
}

function* compareAndMerge(host: HostState, agent: Agent, first: KsmCandidate, second: KsmCandidate): Task<boolean> {
  let pair = [first, second] as const;
  let isOneLarge = false;
  yield* announceLook(agent, first);
  const one = candidateFolio(host, first);
  if (one === 0) return false;
  host.folios.get(one);
  try {
    yield* announceLook(agent, second);
    const two = candidateFolio(host, second);
    if (candidateFolio(host, first) !== one || two === 0) return false;
    // A page that a fork shares needs no merging, and two KSM pages are not merged again.
    if (one === two && host.folios.order(one) === 0) return host.folios.has(one, FolioFlag.ksm);
    isOneLarge = one === two;
    if (host.folios.has(two, FolioFlag.ksm)) pair = [second, first];
    if (!isOneLarge && host.folios.has(one, FolioFlag.ksm) && host.folios.has(two, FolioFlag.ksm)) return false;
    if (!haveEqualContent(host, first, second)) return false;
  } finally {
    host.put(one);
  }
  if (isOneLarge) {
    yield* splitOnly(host, agent, first);
    return false;
  }
  return yield* mergePair(host, agent, ...pair);
}

/** Two pages of one large folio are not merged: it is split, and they are found again as pages of their own (cmp_and_merge_page). */
function* splitOnly(host: HostState, agent: Agent, at: KsmCandidate): Task<void> {
  yield* at.mm.mmapLock.acquireRead(agent);
  try {
    const folio = yield* lockSmall(host, agent, at);
    if (folio === 0) return;
    host.unlock(agent, folio);
    host.put(folio);
  } finally {
    at.mm.mmapLock.releaseRead(agent);
  }
}

function* announceLook(agent: Agent, { mm, page }: KsmCandidate): Task<void> {
  yield agent.reads('KSM: look at page', Location.cpuEntry, mm.entryLocation(page), Cost.entryRead);
}

/** The anonymous folio that is mapped there, in memory that may be merged; 0 if there is none. */
function candidateFolio(host: HostState, { mm, page }: KsmCandidate): number {
  const vma = mm.vmas.find(page);
  const pfn = mm.table.pfn(page);
  if (mm.exited || vma === null || vma.shared || vma.shape.hugetlb || pfn < 0) return 0;
  const folio = host.folios.at(pfn);
  return host.folios.has(folio, FolioFlag.anon) ? folio : 0;
}

function haveEqualContent({ memory }: HostState, one: KsmCandidate, two: KsmCandidate): boolean {
  const a = one.mm.table.pfn(one.page);
  const b = two.mm.table.pfn(two.page);
  return memory.tagLo(a) === memory.tagLo(b) && memory.tagHi(a) === memory.tagHi(b);
}

/** Makes the first a KSM page if it is none yet, and maps it in place of the second. */
function* mergePair(host: HostState, agent: Agent, first: KsmCandidate, second: KsmCandidate): Task<boolean> {
  const { folios } = host;
  yield* announceLook(agent, first);
  const before = candidateFolio(host, first);
  if (before === 0) return false;
  const wasKsm = folios.has(before, FolioFlag.ksm);
  if (!wasKsm && !(yield* mergeOne(host, agent, first, 0))) return false;
  yield* announceLook(agent, first);
  const ksm = candidateFolio(host, first);
  if (ksm === 0 || !folios.has(ksm, FolioFlag.ksm)) return false;
  folios.get(ksm);
  const merged = yield* mergeOne(host, agent, second, ksm);
  host.put(ksm);
  if (!merged && !wasKsm) yield* breakCow(host, agent, first);
  return merged;
}

/** A KSM page that nobody shares is made an ordinary one again, by a copy. */
function* breakCow(host: HostState, agent: Agent, { mm, page }: KsmCandidate): Task<void> {
  yield* mm.mmapLock.acquireRead(agent);
  try {
    yield* unmergePage(host, mm, agent, page);
  } finally {
    mm.mmapLock.releaseRead(agent);
  }
}

/** If a KSM page is mapped there, gives it a copy (break_ksm). The caller holds `mmap_lock`. @returns VM_FAULT bits */
export function* unmergePage(host: HostState, mm: MmState, agent: Agent, page: number): Task<number> {
  const pfn = mm.table.pfn(page);
  if (pfn < 0 || !host.folios.has(host.folios.at(pfn), FolioFlag.ksm)) return 0;
  return yield* handleMmFault(host, mm, agent, { page, write: false, unshare: true });
}

/** try_to_merge_one_page. @param ksm the KSM page that takes its place; 0: it becomes one itself */
function* mergeOne(host: HostState, agent: Agent, at: KsmCandidate, ksm: number): Task<boolean> {
  yield* at.mm.mmapLock.acquireRead(agent);
  try {
    const folio = yield* lockSmall(host, agent, at);
    if (folio === 0) return false;
    const merged = yield* mergeLocked(host, agent, at, { folio, ksm });
    host.unlock(agent, folio);
    host.put(folio);
    return merged;
  } finally {
    at.mm.mmapLock.releaseRead(agent);
  }
}

/** Locks the candidate's folio, with a reference, and splits it until it is 4K. @returns 0 if that cannot be done now */
function* lockSmall(host: HostState, agent: Agent, at: KsmCandidate): Task<number> {
  const { folios, locks } = host;
  for (;;) {
    yield* announceLook(agent, at);
    const folio = candidateFolio(host, at);
    if (folio === 0 || !locks.tryAcquire(agent, folio)) return 0;
    folios.get(folio);
    if (folios.order(folio) === 0) return folio;
    const isSplit = yield* splitFolio(host, agent, folio);
    host.unlock(agent, folio);
    host.put(folio);
    if (!isSplit) return 0;
  }
}

function* mergeLocked(
  host: HostState,
  agent: Agent,
  at: KsmCandidate,
  { folio, ksm }: { readonly folio: number; readonly ksm: number },
): Task<boolean> {
  const { folios, memory } = host;
  const seen = yield* writeProtect(host, agent, at, folio);
  if (seen < 0) return false;
  if (ksm === 0) {
    becomeKsmPage(host, folio);
    return true;
  }
  const [a, b] = [folios.pfn(folio), folios.pfn(ksm)];
  const isEqual = memory.tagLo(a) === memory.tagLo(b) && memory.tagHi(a) === memory.tagHi(b);
  return isEqual && (yield* replacePage(host, agent, at, { folio, ksm, seen }));
}

const rangeOf = ({ page }: KsmCandidate): NotifierRange => ({
  startPage: page,
  pages: 1,
  event: NotifierEvent.CLEAR,
  blockable: true,
});

/**
 * Makes an entry read-only, clean and shared, if nobody but mappings and the swap cache refers to its page: I/O under way may still
 * write to it (write_protect_page). @returns the entry's bits; -1 if it cannot be
 */
function* writeProtect(host: HostState, agent: Agent, at: KsmCandidate, folio: number): Task<number> {
  const { folios } = host;
  const { table } = at.mm;
  const range = rangeOf(at);
  yield* at.mm.notifiers.start(agent, range);
  yield agent.writes('KSM: write-protect page', Location.cpuEntry, at.mm.entryLocation(at.page), Cost.entryWrite);
  const flags = table.flags(at.page);
  let bits = -1;
  if (table.pfn(at.page) === folios.pfn(folio)) {
    const mayWrite = (flags & (Entry.WRITE | Entry.DIRTY | Entry.EXCLUSIVE)) !== 0;
    if (!mayWrite || (hasNoOtherUsers(host, folio) && !folios.isPinned(folio))) {
      bits = flags & ~(Entry.WRITE | Entry.DIRTY | Entry.EXCLUSIVE);
      if ((flags & Entry.DIRTY) !== 0) folios.setFlag(folio, FolioFlag.dirty, true);
      table.setFlags(at.page, bits);
    }
  }
  yield* at.mm.notifiers.end(agent, range);
  return bits;
}

/** All that map the page, after a fork several, are its places from now on. */
function becomeKsmPage(host: HostState, folio: number): void {
  const { folios } = host;
  const places: KsmCandidate[] = [];
  for (const span of spansOf(host, folio))
    forEachEntry(host, folio, span, (page) => places.push({ mm: span.mm, page }));
  folios.setFlag(folio, FolioFlag.ksm | FolioFlag.referenced, true);
  // Without a copy in swap its content is nowhere else.
  if (!folios.has(folio, FolioFlag.swapcache)) folios.setFlag(folio, FolioFlag.dirty, true);
  for (const { mm, page } of places) addKsmPlace(host, folio, mm, page);
}

/** Maps the KSM page instead of a write-protected page of equal content, if its entry is as it was (replace_page). */
function* replacePage(
  host: HostState,
  agent: Agent,
  at: KsmCandidate,
  { folio, ksm, seen }: { readonly folio: number; readonly ksm: number; readonly seen: number },
): Task<boolean> {
  const { folios } = host;
  const { mm, page } = at;
  const range = rangeOf(at);
  yield* mm.notifiers.start(agent, range);
  const step = agent.writes('KSM: replace page', Location.cpuEntry, mm.entryLocation(page), Cost.entryWrite);
  yield agent.alsoWrites(step, Location.folio, folios.pfn(ksm));
  const isSame = mm.table.flags(page) === seen && mm.table.pfn(page) === folios.pfn(folio);
  if (isSame) {
    mm.table.set(page, 0, folios.pfn(ksm), seen | Entry.YOUNG);
    folios.get(ksm);
    host.countMapped(mm, ksm, 0);
    addKsmPlace(host, ksm, mm, page);
    host.countUnmapped(mm, folio, 0);
  }
  yield* mm.notifiers.end(agent, range);
  if (isSame) host.put(folio);
  return isSame;
}
