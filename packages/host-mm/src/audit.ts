import { hex } from '@faultline/address';
import { framesOf } from './folio/folio-order.ts';
import { FolioFlag, GUP_PIN_COUNTING_BIAS } from './folio/folio-table.ts';
import { cacheReferences } from './folio/split.ts';
import type { HostState } from './host-state.ts';
import { Entry } from './mm/entry-table.ts';
import type { MmState } from './mm/mm-state.ts';
import type { Vma } from './mm/vma.ts';

/** What page tables say about folios. */
interface Found {
  /** Entries that map each folio. */
  readonly maps: Map<number, number>;
  /** Swap entries in page tables and page caches, with how many name each. */
  readonly swap: Map<number, number>;
}

/**
 * Checks a host at rest: every entry's folio knows of it, every reference is accounted for, folios are on the LRU exactly if they
 * should, no frame is in two folios, frames, slots, residency, charges and pins are counted right, nothing is in flight.
 * @returns what is wrong, in words
 */
export function auditHost(host: HostState): string[] {
  const wrong: string[] = [];
  const found: Found = { maps: new Map(), swap: new Map() };
  for (const mm of host.spaces) auditSpace(host, mm, found, wrong);
  for (const file of host.files) auditFile(host, file, found, wrong);
  auditFolios(host, found, wrong);
  auditSwap(host, found, wrong);
  if (host.locks.size > 0) wrong.push(`${host.locks.size} folio locks are held`);
  if (host.isolated.size > 0) wrong.push(`${host.isolated.size} folios isolated`);
  if (host.swapIo.inFlight > 0) wrong.push(`${host.swapIo.inFlight} swap commands in flight`);
  return wrong;
}

function auditSpace(host: HostState, mm: MmState, found: Found, wrong: string[]): void {
  const { table } = mm;
  let resident = 0;
  let swapped = 0;
  for (const vma of mm.vmas.all)
    for (let page = table.nextUsed(vma.startPage, vma.endPage); page < vma.endPage; ) {
      const flags = table.flags(page);
      const frames = framesOf(table.level(page));
      if ((flags & Entry.PRESENT) !== 0) {
        const folio = host.folios.at(table.value(page));
        if (folio === 0)
          wrong.push(`${mm.name}: page ${hex(page)} maps frame ${hex(table.value(page))}, which is in no folio`);
        else {
          found.maps.set(folio, (found.maps.get(folio) ?? 0) + 1);
          if (!isFoundByRmap(host, vma, page, folio))
            wrong.push(`${mm.name}: page ${hex(page)} is not where ${host.folios.name(folio)} is looked for`);
        }
        resident += frames;
      } else if ((flags & Entry.SWAP) !== 0) {
        const entry = table.value(page);
        found.swap.set(entry, (found.swap.get(entry) ?? 0) + 1);
        swapped++;
      } else if ((flags & Entry.MIGRATION) !== 0) {
        wrong.push(`${mm.name}: page ${hex(page)} is still on the move`);
      }
      page = table.nextUsed(table.end(page), vma.endPage);
    }
  if (resident !== mm.residentFrames)
    wrong.push(`${mm.name}: ${mm.residentFrames} frames resident by count, ${resident} by entries`);
  if (swapped !== mm.swappedPages)
    wrong.push(`${mm.name}: ${mm.swappedPages} pages swapped by count, ${swapped} by entries`);
  if (mm.notifiers.inProgress > 0) wrong.push(`${mm.name}: ${mm.notifiers.inProgress} notifier ranges are open`);
}

/** Whether reclaim would find this mapping of the folio. */
function isFoundByRmap(host: HostState, vma: Vma, page: number, folio: number): boolean {
  const { folios } = host;
  const { mm } = vma;
  if (folios.has(folio, FolioFlag.ksm))
    return host.ksm.get(folio)?.some((place) => place.mm === mm && place.page === page) ?? false;
  const id = folios.mapping(folio);
  const isLinked = folios.has(folio, FolioFlag.anon)
    ? vma.anonChain.some((each) => each.id === id)
    : vma.file?.id === id;
  const offset = mm.table.value(page) - folios.pfn(folio);
  return isLinked && vma.pageOf(folios.index(folio)) + offset === page;
}

function auditFile(host: HostState, file: HostState['files'][number], found: Found, wrong: string[]): void {
  let cached = 0;
  let swapped = 0;
  for (
    let i = file.cache.nextUsed(0, file.pages);
    i < file.pages;
    i = file.cache.nextUsed(file.cache.end(i), file.pages)
  ) {
    if ((file.cache.flags(i) & Entry.SWAP) !== 0) {
      const entry = file.cache.value(i);
      found.swap.set(entry, (found.swap.get(entry) ?? 0) + 1);
      swapped++;
    } else if ((file.cache.flags(i) & Entry.PRESENT) !== 0) {
      cached++;
      if (host.folios.at(file.cache.pfn(i)) === 0) wrong.push(`${file.name}: page ${hex(i)} is in no folio`);
    }
  }
  if (cached !== file.cached) wrong.push(`${file.name}: ${file.cached} pages cached by count, ${cached} in the cache`);
  if (swapped !== file.swapped)
    wrong.push(`${file.name}: ${file.swapped} pages swapped by count, ${swapped} in the cache`);
}

function auditFolios(host: HostState, found: Found, wrong: string[]): void {
  const { folios, lru } = host;
  const charged = new Map<number, number>();
  const extents: { pfn: number; frames: number }[] = [];
  for (let folio = 1; folio < folios.limit; folio++) {
    if (!folios.isLive(folio)) continue;
    const name = folios.name(folio);
    const frames = folios.frames(folio);
    extents.push({ pfn: folios.pfn(folio), frames });
    charged.set(folios.memcg(folio), (charged.get(folios.memcg(folio)) ?? 0) + frames);
    const maps = found.maps.get(folio) ?? 0;
    if (maps !== folios.mapcount(folio))
      wrong.push(`${name}: ${folios.mapcount(folio)} mappings by count, ${maps} entries`);
    const pins = folios.pins(folio) * (folios.order(folio) === 0 ? GUP_PIN_COUNTING_BIAS : 1);
    const references = maps + cacheReferences(host, folio) + pins;
    if (references !== folios.refs(folio))
      wrong.push(`${name}: ${folios.refs(folio)} references, ${references} accounted for`);
    if (references === 0) wrong.push(`${name}: nobody refers to it`);
    const places = host.ksm.get(folio)?.length ?? 0;
    if (places !== (folios.has(folio, FolioFlag.ksm) ? maps : 0))
      wrong.push(`${name}: ${places} places by the list of KSM, ${maps} entries`);
    // A folio that only pins keep is still on its list, as in Linux.
    const belongs = !folios.has(folio, FolioFlag.unevictable) && references > 0;
    if (belongs !== lru.isOn(folio)) wrong.push(`${name}: is ${belongs ? 'not ' : ''}on the LRU`);
  }
  auditFrames(host, extents, wrong);
  for (const memcg of host.memcgs)
    if (memcg.usedPages !== (charged.get(memcg.id) ?? 0))
      wrong.push(`${memcg.name}: ${memcg.usedPages} pages charged, ${charged.get(memcg.id) ?? 0} in folios`);
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
  const elsewhere = host.hugePages.freeFrames + host.compressedFrames + host.brokenFrames;
  if (host.allocator.allocatedFrames !== total + elsewhere)
    wrong.push(`${host.allocator.allocatedFrames} frames allocated, ${total} in folios, ${elsewhere} elsewhere`);
}

function auditSwap(host: HostState, found: Found, wrong: string[]): void {
  for (const [entry, references] of found.swap)
    if (host.swap.references(entry) !== references)
      wrong.push(`swap entry ${entry}: ${host.swap.references(entry)} references by count, ${references} entries`);
  const cachedOnly =
    host.swapCache.pages - [...found.swap.keys()].filter((entry) => host.swapCache.get(entry) !== 0).length;
  if (host.swap.usedSlots !== found.swap.size + cachedOnly)
    wrong.push(
      `${host.swap.usedSlots} swap slots in use, ${found.swap.size} named by entries and ${cachedOnly} more cached`,
    );
}
