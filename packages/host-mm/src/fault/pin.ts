import { hex } from '@faultline/address';
import { type Agent, Cost, Location, type Task } from '@faultline/sim';
import { framesOf } from '../folio/folio-order.ts';
import { FolioFlag } from '../folio/folio-table.ts';
import { HostMemoryError } from '../host-memory-error.ts';
import type { HostState } from '../host-state.ts';
import type { PageRun } from '../mm/contiguous-run.ts';
import { Entry } from '../mm/entry-table.ts';
import type { MmState, PinnedPart } from '../mm/mm-state.ts';
import { handleMmFault } from './handle-mm-fault.ts';
import { VM_FAULT_ERROR, VmFault } from './vm-fault.ts';

/** The error of a task that could not fault a page in, by the errno that Linux gives for the VM_FAULT bits (vm_fault_to_errno). */
export function faultError(bits: number, page: number, what: string): HostMemoryError {
  const place = `page ${hex(page)}`;
  if ((bits & VmFault.OOM) !== 0)
    return new HostMemoryError('ENOMEM', page, `${what}: no frame for ${place}, and reclaim freed none`);
  if ((bits & (VmFault.HWPOISON | VmFault.HWPOISON_LARGE)) !== 0)
    return new HostMemoryError('EHWPOISON', page, `${what}: the memory of ${place} is broken`);
  if ((bits & VmFault.SIGBUS) !== 0)
    return new HostMemoryError('EFAULT', page, `${what}: ${place} cannot be read from what backs it`);
  return new HostMemoryError('EFAULT', page, `${what}: ${place} is not mapped with the rights asked for`);
}

/**
 * Pins a range as FOLL_PIN|FOLL_LONGTERM|FOLL_WRITE does; the caller holds `mmap_lock`. One step for each leaf, at the price of its pages: missing
 * pages are faulted in, shared private pages copied first. When that fails, all is undone.
 * @throws HostMemoryError with the errno of the fault
 */
export function* pinRange(
  host: HostState,
  mm: MmState,
  agent: Agent,
  range: { readonly startPage: number; readonly pages: number; readonly write: boolean },
): Task<void> {
  const parts = yield* pinParts(host, mm, agent, range);
  const records = mm.pins.get(range.startPage) ?? [];
  records.push({ pages: range.pages, parts });
  mm.pins.set(range.startPage, records);
}

/**
 * The same for a caller who keeps the frames himself (pin_user_pages): whoever has several pins of one range at once, or gives
 * back a part. @returns the frames, one run for each leaf, in order
 */
export function* pinUserPages(
  host: HostState,
  mm: MmState,
  agent: Agent,
  range: { readonly startPage: number; readonly pages: number; readonly write: boolean },
): Task<PageRun[]> {
  return runsOf(yield* pinParts(host, mm, agent, range));
}

/** Gives pins back by frame (unpin_user_pages), whatever is mapped at the pages now; one step a run, which is within one folio. */
export function* unpinUserPages(host: HostState, mm: MmState, agent: Agent, runs: readonly PageRun[]): Task<void> {
  for (const { startPage, pages, pfn } of runs) {
    yield agent.writes('unpin folio', Location.cpuEntry, mm.entryLocation(startPage), Cost.lock);
    mm.accountedPinPages -= pages;
    unpinPart(host, { folio: host.folios.at(pfn), pfn, startPage, pages });
  }
}

const runsOf = (parts: readonly PinnedPart[]): PageRun[] =>
  parts.map(({ startPage, pages, pfn }) => ({ startPage, pages, pfn }));

function* pinParts(
  host: HostState,
  mm: MmState,
  agent: Agent,
  range: { readonly startPage: number; readonly pages: number; readonly write: boolean },
): Task<PinnedPart[]> {
  const endPage = range.startPage + range.pages;
  const parts: PinnedPart[] = [];
  for (let page = range.startPage; page < endPage; ) {
    const upTo = mm.table.pfn(page) < 0 ? page + 1 : Math.min(endPage, mm.table.end(page));
    yield agent.writes('pin folio', Location.cpuEntry, mm.entryLocation(page), Cost.pinPage, upTo - page);
    const part = pinLeaf(host, mm, page, endPage, range.write);
    if (part !== null) {
      parts.push(part);
      page += part.pages;
      continue;
    }
    const bits = yield* handleMmFault(host, mm, agent, { page, write: range.write, unshare: true });
    if ((bits & VM_FAULT_ERROR) === 0) continue;
    for (const each of parts) unpinPart(host, each);
    throw faultError(bits, page, 'pin');
  }
  mm.accountedPinPages += range.pages;
  return parts;
}

/** Pins what the leaf at the page maps of the range. @returns null if a fault must come first: missing, or write-protected */
function pinLeaf(host: HostState, mm: MmState, page: number, endPage: number, write: boolean): PinnedPart | null {
  const { table } = mm;
  const { folios } = host;
  const flags = table.flags(page);
  const pfn = table.pfn(page);
  if (pfn < 0 || (flags & Entry.PROT_NONE) !== 0 || (write && (flags & Entry.WRITE) === 0)) return null;
  const folio = folios.at(pfn);
  // A private page that others share would be copied at the next write, and the pin would hold the wrong one (FAULT_FLAG_UNSHARE).
  if (folios.has(folio, FolioFlag.anon) && (flags & Entry.EXCLUSIVE) === 0) return null;
  const pages = Math.min(endPage, table.end(page)) - page;
  table.setFlags(page, flags | Entry.YOUNG | (write ? Entry.DIRTY : 0));
  folios.changePins(folio, pages);
  if (!host.pinners.has(folio)) {
    host.pinners.set(folio, mm);
    mm.pinnedFrames += folios.frames(folio);
  }
  return { folio, pfn, startPage: page, pages };
}

/**
 * Undoes the last pin of exactly this range; one step a leaf. A folio whose mapping has gone meanwhile is freed with its
 * last pin. @throws RangeError if no such pin is left
 */
export function* unpinRange(
  host: HostState,
  mm: MmState,
  agent: Agent,
  range: { startPage: number; pages: number },
): Task<void> {
  const records = mm.pins.get(range.startPage) ?? [];
  const at = records.findLastIndex((record) => record.pages === range.pages);
  const record = records[at];
  if (record === undefined) throw notPinned(range);
  records.splice(at, 1);
  if (records.length === 0) mm.pins.delete(range.startPage);
  mm.accountedPinPages -= range.pages;
  for (const part of record.parts) {
    yield agent.writes('unpin folio', Location.cpuEntry, mm.entryLocation(part.startPage), Cost.lock);
    unpinPart(host, part);
  }
}

/**
 * What the last pin of exactly this range got: one run for each leaf. Whatever happens to the mapping, these frames stay until
 * the unpin. @throws RangeError if there is no such pin
 */
export function pinnedRuns(mm: MmState, range: { startPage: number; pages: number }): PageRun[] {
  const record = mm.pins.get(range.startPage)?.findLast((each) => each.pages === range.pages);
  if (record === undefined) throw notPinned(range);
  return runsOf(record.parts);
}

const notPinned = (range: { startPage: number; pages: number }): RangeError =>
  new RangeError(`startPage: ${hex(range.startPage)} with ${hex(range.pages)} pages was not pinned as one range`);

/** Takes back what one pin holds of a folio; a device may have written to it (unpin_user_pages_dirty_lock). */
export function unpinPart(host: HostState, { folio, pages }: PinnedPart): void {
  const { folios } = host;
  folios.setFlag(folio, FolioFlag.dirty, true);
  folios.changePins(folio, -pages);
  if (folios.isPinned(folio)) return;
  const pinner = host.pinners.get(folio);
  host.pinners.delete(folio);
  if (pinner) pinner.pinnedFrames -= framesOf(folios.order(folio));
  if (folios.refs(folio) === 0) host.freeFolio(folio);
}
