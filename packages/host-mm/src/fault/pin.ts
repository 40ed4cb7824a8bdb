import { hex } from '@faultline/address';
import { type Agent, Cost, Location, type Task } from '@faultline/sim';
import { HostMemoryError } from '../host-memory-error.ts';
import type { HostState } from '../host-state.ts';
import type { PageRun } from '../mm/contiguous-run.ts';
import type { MmState } from '../mm/mm-state.ts';
import { faultIn } from './fault.ts';
import { VM_FAULT_ERROR, VmFault } from './vm-fault.ts';

/** The error of a task that could not fault a page in. */
export function faultError(bits: number, page: number, what: string): HostMemoryError {
  if ((bits & VmFault.OOM) !== 0)
    return new HostMemoryError('ENOMEM', page, `${what}: no frame for page ${hex(page)}, and reclaim freed none`);
  return new HostMemoryError('EFAULT', page, `${what}: page ${hex(page)} is not mapped`);
}

/**
 * Pins every folio of a range once, faulting in what is missing; the caller holds `mmap_lock`. One step a folio, at the
 * price of its pages. When a page cannot be faulted in, all is undone.
 * @throws HostMemoryError with code ENOMEM or EFAULT
 */
export function* pinRange(
  host: HostState,
  mm: MmState,
  agent: Agent,
  range: { startPage: number; pages: number },
): Task<void> {
  const { folios } = host;
  const endPage = range.startPage + range.pages;
  const pinned: number[] = [];
  let page = range.startPage;
  while (page < endPage) {
    const ahead = mm.table.entry(page);
    const upTo = ahead > 0 ? Math.min(endPage, folios.startPage(ahead) + folios.frames(ahead)) : page + 1;
    yield agent.writes('pin folio', Location.cpuEntry, mm.entryLocation(page), Cost.pinPage, upTo - page);
    const folio = mm.table.entry(page);
    if (folio > 0) {
      if (folios.changePins(folio, 1) === 1) mm.pinnedFrames += folios.frames(folio);
      pinned.push(folio);
      page = folios.startPage(folio) + folios.frames(folio);
      continue;
    }
    const bits = yield* faultIn(host, mm, agent, page);
    if ((bits & VM_FAULT_ERROR) !== 0) {
      for (const each of pinned) unpinFolio(host, mm, each);
      throw faultError(bits, page, 'pin');
    }
  }
  const records = mm.pins.get(range.startPage) ?? [];
  records.push({ startPage: range.startPage, pages: range.pages, folios: pinned });
  mm.pins.set(range.startPage, records);
  mm.accountedPinPages += range.pages;
}

/**
 * Undoes the last pin of exactly this range; one step a folio. A folio whose mapping has gone meanwhile is freed with its
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
  for (const folio of record.folios) {
    const page = host.folios.startPage(folio);
    yield agent.writes('unpin folio', Location.cpuEntry, mm.entryLocation(page), Cost.lock);
    unpinFolio(host, mm, folio);
  }
}

/**
 * What the last pin of exactly this range got: one run for each folio, clipped to the range. Whatever happens to the
 * mapping, these frames stay until the unpin. @throws RangeError if there is no such pin
 */
export function pinnedRuns(host: HostState, mm: MmState, range: { startPage: number; pages: number }): PageRun[] {
  const record = mm.pins.get(range.startPage)?.findLast((each) => each.pages === range.pages);
  if (record === undefined) throw notPinned(range);
  let page = range.startPage;
  return record.folios.map((folio) => {
    const offset = page - host.folios.startPage(folio);
    const pages = Math.min(host.folios.frames(folio) - offset, range.startPage + range.pages - page);
    page += pages;
    return { startPage: page - pages, pages, pfn: host.folios.pfn(folio) + offset };
  });
}

const notPinned = (range: { startPage: number; pages: number }): RangeError =>
  new RangeError(`startPage: ${hex(range.startPage)} with ${hex(range.pages)} pages was not pinned as one range`);

/** Takes one pin off a folio, or off the pieces that it was split into. */
function unpinFolio(host: HostState, mm: MmState, folio: number): void {
  const { folios } = host;
  const pins = folios.changePins(folio, -1);
  if (folios.isHusk(folio)) {
    for (const piece of folios.pieces(folio)) unpinFolio(host, mm, piece);
    host.dropHusk(folio);
    return;
  }
  if (pins > 0) return;
  mm.pinnedFrames -= folios.frames(folio);
  if (!folios.isMapped(folio) && !folios.isIsolated(folio)) host.freeFolio(folio);
}
