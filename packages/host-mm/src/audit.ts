import { hex } from '@faultline/address';
import type { HostState } from './host-state.ts';
import type { MmState } from './mm/mm-state.ts';

/**
 * Checks a host at rest: every folio mapped where it says, on the LRU exactly if mapped, no frame in two folios, frames,
 * slots, residency and pins counted right, nothing in flight. @returns what is wrong, in words
 */
export function auditHost(host: HostState): string[] {
  const wrong: string[] = [];
  const sums = new Map<MmState, { resident: number; pinned: number }>();
  for (const mm of host.spaces) sums.set(mm, { resident: 0, pinned: 0 });
  const extents: { pfn: number; frames: number }[] = [];
  for (let folio = 1; folio < host.folios.limit; folio++) {
    if (!host.folios.isLive(folio) || host.folios.isHusk(folio)) continue;
    const frames = host.folios.frames(folio);
    extents.push({ pfn: host.folios.pfn(folio), frames });
    const sum = sums.get(host.mmOf(folio));
    if (sum && host.folios.isMapped(folio)) sum.resident += frames;
    if (sum && host.folios.pins(folio) > 0) sum.pinned += frames;
    auditFolio(host, folio, wrong);
  }
  auditFrames(host, extents, wrong);
  let swapped = 0;
  for (const [mm, sum] of sums) {
    swapped += mm.swappedPages;
    if (mm.residentFrames !== sum.resident)
      wrong.push(`${mm.name}: ${mm.residentFrames} frames resident by count, ${sum.resident} by folios`);
    if (mm.pinnedFrames !== sum.pinned)
      wrong.push(`${mm.name}: ${mm.pinnedFrames} frames pinned by count, ${sum.pinned} by folios`);
    if (mm.locks.size > 0) wrong.push(`${mm.name}: ${mm.locks.size} page locks are held`);
    if (mm.notifiers.inProgress > 0) wrong.push(`${mm.name}: ${mm.notifiers.inProgress} notifier ranges are open`);
  }
  if (host.swap.usedSlots !== swapped) wrong.push(`${host.swap.usedSlots} swap slots in use, ${swapped} swap entries`);
  if (host.swapCache.size > 0) wrong.push(`${host.swapCache.size} pages in the swap cache`);
  if (host.isolated > 0) wrong.push(`${host.isolated} folios isolated`);
  return wrong;
}

function auditFolio(host: HostState, folio: number, wrong: string[]): void {
  const { folios, lru } = host;
  const mm = host.mmOf(folio);
  const page = folios.startPage(folio);
  const name = `folio at page ${hex(page)} of ${mm.name}`;
  if (folios.isMapped(folio)) {
    if (mm.table.entry(page) !== folio) wrong.push(`${name} is not where it says`);
    if (mm.table.levelAt(page) !== folios.order(folio)) wrong.push(`${name} is mapped by a leaf of another size`);
    if (!lru.has(folio)) wrong.push(`${name} is mapped but not on the LRU`);
  } else {
    if (folios.pins(folio) === 0) wrong.push(`${name} is neither mapped nor pinned`);
    if (lru.has(folio)) wrong.push(`${name} is on the LRU but not mapped`);
  }
}

function auditFrames(host: HostState, extents: { pfn: number; frames: number }[], wrong: string[]): void {
  extents.sort((a, b) => a.pfn - b.pfn);
  let end = 0;
  let total = 0;
  for (const { pfn, frames } of extents) {
    if (pfn < end) wrong.push(`frame ${hex(pfn)} is in two folios`);
    if (!host.allocator.isAllocated(pfn) || !host.allocator.isAllocated(pfn + frames - 1))
      wrong.push(`frame ${hex(pfn)} is in a folio, but free`);
    end = pfn + frames;
    total += frames;
  }
  if (host.allocator.allocatedFrames !== total)
    wrong.push(`${host.allocator.allocatedFrames} frames allocated, ${total} in folios`);
}
