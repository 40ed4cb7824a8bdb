import { type Agent, assert, Cost, Location, type Task } from '@faultline/sim';
import { freshBits } from '../fault/anonymous.ts';
import { handleMmFault } from '../fault/handle-mm-fault.ts';
import { VM_FAULT_ERROR } from '../fault/vm-fault.ts';
import { blockStart, FANOUT, PMD_ORDER } from '../folio/folio-order.ts';
import { FolioFlag } from '../folio/folio-table.ts';
import { cacheReferences } from '../folio/split.ts';
import { allocateFolio } from '../frame/allocate-folio.ts';
import type { HostState } from '../host-state.ts';
import { Entry } from '../mm/entry-table.ts';
import type { MmState } from '../mm/mm-state.ts';
import type { Vma } from '../mm/vma.ts';
import { NotifierEvent, type NotifierRange } from '../notifier/mmu-notifier.ts';

/** What a 2M range may be like to be collapsed: `/sys/kernel/mm/transparent_hugepage/khugepaged/`. */
export interface CollapseLimits {
  /** Pages that are not there, and become zeros; 511 if left out. */
  readonly maxPtesNone?: number;
  /** Pages that are in swap, and are read; 64 if left out. */
  readonly maxPtesSwap?: number;
  /** Pages that other address spaces map too, and are copied; 256 if left out. */
  readonly maxPtesShared?: number;
}

/**
 * What became of a range, after Linux's `enum scan_result`. `collapsed`, or `mapped`: a 2M leaf maps it (already). `vma`: it is not wholly
 * in a mapping of anonymous memory that may have 2M leaves. `none`, `swap`, `shared`: more such pages than allowed. `cold`: no page was
 * accessed. `busy`: a page is pinned, locked, on no LRU list, or changed meanwhile. `no-memory`: no 2M free, or a page could not be read.
 */
export type CollapseOutcome =
  | 'collapsed'
  | 'mapped'
  | 'vma'
  | 'none'
  | 'swap'
  | 'shared'
  | 'cold'
  | 'busy'
  | 'no-memory';

/** One collapse under way. */
interface Collapse {
  readonly host: HostState;
  readonly mm: MmState;
  readonly agent: Agent;
  readonly startPage: number;
  /** `null`: MADV_COLLAPSE, to which neither limits nor accessed bits matter. */
  readonly limits: Required<CollapseLimits> | null;
}

/** An entry that was taken out of the table. */
interface Taken {
  readonly page: number;
  readonly value: number;
  readonly flags: number;
}

/** Linux's defaults. */
export const KHUGEPAGED_LIMITS: Required<CollapseLimits> = { maxPtesNone: 511, maxPtesSwap: 64, maxPtesShared: 256 };

/**
 * Makes the 2M range that holds a page one folio with one leaf (collapse_huge_page): looks at its entries, allocates, reads what is in swap, and under
 * `mmap_lock` for writing takes the entries out within a CLEAR range of 2M, copies, and installs the leaf. All 512 entries that map one 2M folio in order
 * become its leaf again without a copy, with the same CLEAR.
 */
export function* collapseRange(
  host: HostState,
  mm: MmState,
  agent: Agent,
  page: number,
  limits: Required<CollapseLimits> | null,
): Task<CollapseOutcome> {
  const collapse: Collapse = { host, mm, agent, startPage: blockStart(page, FANOUT), limits };
  const seen = yield* underReadLock(collapse, function* () {
    yield agent.reads('khugepaged: scan entries', Location.cpuEntry, mm.entryLocation(page), Cost.entryRead, FANOUT);
    return scanEntries(collapse);
  });
  if (seen !== 'collapsed') return seen;
  if (mappedWhole(collapse) !== 0) return yield* replace(collapse, 0);
  const pfn = yield* allocateFolio(host, agent, { order: PMD_ORDER, memcg: mm.memcg });
  if (pfn < 0) {
    host.counters.thp_collapse_alloc_failed++;
    return 'no-memory';
  }
  host.counters.thp_collapse_alloc++;
  // Part of no mapping yet, so that nobody finds it.
  const folio = host.newFolio({ pfn, order: PMD_ORDER, flags: FolioFlag.anon, mapping: 0, index: 0, memcg: mm.memcg });
  let outcome = yield* underReadLock(collapse, () => swapInEntries(collapse));
  if (outcome === 'collapsed') outcome = yield* replace(collapse, folio);
  if (outcome !== 'collapsed') host.put(folio);
  return outcome;
}

function* underReadLock<T>({ mm, agent }: Collapse, work: () => Task<T>): Task<T> {
  yield* mm.mmapLock.acquireRead(agent);
  try {
    return yield* work();
  } finally {
    mm.mmapLock.releaseRead(agent);
  }
}

/** The mapping, if all of the range is in it and it may have 2M leaves (hugepage_vma_revalidate). */
function eligibleVma({ mm, startPage }: Collapse): Vma | null {
  const vma = mm.vmas.find(startPage);
  if (vma === null || startPage + FANOUT > vma.endPage || mm.unstable) return null;
  const isFit = vma.file === null && !vma.shape.hugetlb && vma.shape.order >= PMD_ORDER && vma.readable;
  return isFit ? vma : null;
}

const whatIsThere = (flags: number): CollapseOutcome =>
  flags === 0 ? 'none' : (flags & Entry.PRESENT) !== 0 ? 'mapped' : 'busy';

/** Looks at the 512 entries (hpage_collapse_scan_pmd); part of the caller's step. @returns `collapsed` if they can be */
function scanEntries(collapse: Collapse): CollapseOutcome {
  const { host, mm, startPage, limits } = collapse;
  const { table } = mm;
  const vma = eligibleVma(collapse);
  if (vma === null) return 'vma';
  if (table.level(startPage) >= PMD_ORDER) return whatIsThere(table.flags(startPage));
  let none = 0;
  let swapped = 0;
  let shared = 0;
  let young = 0;
  for (let page = startPage; page < startPage + FANOUT; page++) {
    const flags = table.flags(page);
    if (flags === 0) none++;
    else if ((flags & Entry.SWAP) !== 0) swapped++;
    else if (!isUsable(host, table.pfn(page), flags, 0)) return 'busy';
    else {
      if ((flags & Entry.EXCLUSIVE) === 0) shared++;
      const referenced = host.folios.has(host.folios.at(table.pfn(page)), FolioFlag.referenced);
      if (referenced || (flags & Entry.YOUNG) !== 0 || mm.notifiers.testYoung(collapse.agent, page)) young++;
    }
  }
  if (none > 0 && vma.userfaultMissing) return 'none';
  if (none === FANOUT) return 'none';
  if (limits === null) return 'collapsed';
  if (none > limits.maxPtesNone) return 'none';
  if (swapped > limits.maxPtesSwap) return 'swap';
  if (shared > limits.maxPtesShared) return 'shared';
  return young === 0 || (swapped > 0 && young < FANOUT / 2) ? 'cold' : 'collapsed';
}

/** Whether a present entry's page may be copied: anonymous, small or part of a large folio, on the LRU, unlocked, and in nobody's hands. */
function isUsable(host: HostState, pfn: number, flags: number, own: number): boolean {
  const { folios, locks, lru } = host;
  if (pfn < 0 || (flags & (Entry.UFFD_WP | Entry.PROT_NONE)) !== 0) return false;
  const folio = folios.at(pfn);
  if (!folios.has(folio, FolioFlag.anon) || folios.has(folio, FolioFlag.ksm) || folios.isPinned(folio)) return false;
  if (own === 0 && (!lru.isOn(folio) || locks.isLocked(folio) || folios.has(folio, FolioFlag.writeback))) return false;
  return folios.refs(folio) === folios.mapcount(folio) + cacheReferences(host, folio) + own;
}

/** The 2M folio that all 512 entries map in order, exclusively; 0 if there is none. */
function mappedWhole({ host, mm, startPage }: Collapse): number {
  const { table } = mm;
  const { folios } = host;
  const pfn = table.pfn(startPage);
  if (pfn < 0 || table.level(startPage) > 0) return 0;
  const folio = folios.at(pfn);
  if (folios.order(folio) !== PMD_ORDER || folios.pfn(folio) !== pfn || folios.mapcount(folio) !== FANOUT) return 0;
  const bits = Entry.WRITE | Entry.EXCLUSIVE | Entry.UFFD_WP | Entry.PROT_NONE;
  const first = table.flags(startPage) & bits;
  for (let i = 0; i < FANOUT; i++)
    if (table.pfn(startPage + i) !== pfn + i || (table.flags(startPage + i) & bits) !== first) return 0;
  return folio;
}

/** Reads what is in swap, as faults would (__collapse_huge_page_swapin). */
function* swapInEntries(collapse: Collapse): Task<CollapseOutcome> {
  const { host, mm, agent, startPage } = collapse;
  for (let page = startPage; page < startPage + FANOUT; page++) {
    if ((mm.table.flags(page) & Entry.SWAP) === 0) continue;
    if (eligibleVma(collapse) === null) return 'vma';
    const bits = yield* handleMmFault(host, mm, agent, { page, write: false });
    if ((bits & VM_FAULT_ERROR) !== 0) return 'no-memory';
  }
  return 'collapsed';
}

/** Exchanges the entries for a leaf, with nobody at the page table. @param folio the new one; 0: the one that they map */
function* replace(collapse: Collapse, folio: number): Task<CollapseOutcome> {
  const { mm, agent } = collapse;
  yield* mm.mmapLock.acquireWrite(agent);
  try {
    const seen = scanEntries({ ...collapse, limits: null });
    if (seen !== 'collapsed') return seen;
    return yield* replaceLocked(collapse, folio);
  } finally {
    mm.mmapLock.releaseWrite(agent);
  }
}

function* replaceLocked(collapse: Collapse, folio: number): Task<CollapseOutcome> {
  const { host, mm, agent, startPage } = collapse;
  const range: NotifierRange = { startPage, pages: FANOUT, event: NotifierEvent.CLEAR, blockable: true };
  yield* mm.notifiers.start(agent, range);
  yield agent.writes(
    'khugepaged: take entries out',
    Location.cpuEntry,
    mm.entryLocation(startPage),
    Cost.entryWrite,
    FANOUT,
  );
  if (folio === 0) {
    const isWhole = restoreLeaf(collapse);
    yield* mm.notifiers.end(agent, range);
    return isWhole ? 'collapsed' : 'busy';
  }
  const taken = takeEntries(collapse);
  yield* mm.notifiers.end(agent, range);
  if (taken === null) return 'busy';
  const pfn = host.folios.pfn(folio);
  yield agent.writes('khugepaged: copy pages', Location.frame, pfn, Cost.pageCopy, FANOUT);
  copyPages(collapse, taken, pfn);
  yield agent.writes('khugepaged: install leaf', Location.cpuEntry, mm.entryLocation(startPage), Cost.entryWrite);
  installLeaf(collapse, taken, folio);
  return 'collapsed';
}

/** The leaf of a folio that was mapped by entries comes back; no page moves. @returns whether the folio is still mapped so, by nobody else */
function restoreLeaf(collapse: Collapse): boolean {
  const { host, mm, startPage } = collapse;
  const { folios } = host;
  const folio = mappedWhole(collapse);
  if (folio === 0 || folios.isPinned(folio) || host.locks.isLocked(folio)) return false;
  const pfn = folios.pfn(folio);
  let flags = 0;
  for (let page = startPage; page < startPage + FANOUT; page++) flags |= mm.table.flags(page);
  mm.table.clearBlock(startPage, PMD_ORDER);
  mm.table.set(startPage, PMD_ORDER, pfn, flags);
  folios.changeMaps(folio, 0, -FANOUT);
  folios.changeMaps(folio, PMD_ORDER, 1);
  host.put(folio, FANOUT - 1);
  mm.anonHugeFrames += FANOUT;
  host.deferredSplit.delete(folio);
  folios.setFlag(folio, FolioFlag.partiallyMapped, false);
  return true;
}

/**
 * Locks and isolates every page of the range and empties its table, if nothing has changed (__collapse_huge_page_isolate). Their mappings stay
 * counted. @returns what was there; null if a page is in use, and all is as before
 */
function takeEntries(collapse: Collapse): Taken[] | null {
  const { host, mm, agent, startPage } = collapse;
  const { table } = mm;
  if (scanEntries({ ...collapse, limits: null }) !== 'collapsed') return null;
  const taken: Taken[] = [];
  const isolated = new Set<number>();
  let isIdle = true;
  for (let page = startPage; page < startPage + FANOUT && isIdle; page++) {
    const flags = table.flags(page);
    if (flags === 0) continue;
    const folio = host.folios.at(table.pfn(page));
    isIdle = (flags & Entry.PRESENT) !== 0 && (isolated.has(folio) || host.isolate(folio));
    if (!isIdle) break;
    if (!isolated.has(folio)) host.locks.tryAcquire(agent, folio);
    isolated.add(folio);
    isIdle = isUsable(host, table.pfn(page), flags, 1);
    taken.push({ page, value: table.value(page), flags });
  }
  if (isIdle) {
    table.clearBlock(startPage, PMD_ORDER);
    return taken;
  }
  for (const folio of isolated) giveBack(host, agent, folio);
  return null;
}

function giveBack(host: HostState, agent: Agent, folio: number): void {
  host.unlock(agent, folio);
  host.putBack(folio);
}

/** Fills the new folio: the pages' content, zeros where there was none. */
function copyPages({ host, startPage }: Collapse, taken: readonly Taken[], pfn: number): void {
  host.memory.zeroFolio(pfn, PMD_ORDER);
  for (const { page, value } of taken) host.memory.copyFrame(value, pfn + (page - startPage));
}

/** Maps the new folio and frees what it replaces. */
function installLeaf(collapse: Collapse, taken: readonly Taken[], folio: number): void {
  const { host, mm, agent, startPage } = collapse;
  const vma = mm.vmas.find(startPage);
  assert(vma !== null, () => `${mm.name}: a mapping goes while its pages are collapsed`);
  host.folios.remap(folio, host.anonVmaOf(vma).id, vma.indexOf(startPage));
  mm.table.set(startPage, PMD_ORDER, host.folios.pfn(folio), freshBits(vma, false));
  host.countMapped(mm, folio, PMD_ORDER);
  host.folios.setFlag(folio, FolioFlag.dirty, true);
  host.lru.add(folio);
  const old = new Set<number>();
  for (const { value } of taken) {
    const each = host.folios.at(value);
    host.countUnmapped(mm, each, 0);
    host.put(each);
    old.add(each);
  }
  for (const each of old) giveBack(host, agent, each);
}
