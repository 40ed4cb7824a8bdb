import { type Agent, Cost, Location, type Task } from '@faultline/sim';
import { FolioFlag } from '../folio/folio-table.ts';
import { folioReferenced } from './check-references.ts';
import { FolioList } from './folio-list.ts';
import { ListedLru } from './listed-lru.ts';
import { type LruPolicy, type LruSizes, pagesCharged, type ScanControl, SWAP_CLUSTER_MAX } from './lru-policy.ts';
import type { MemoryCgroup } from './memory-cgroup.ts';

/** `vm.swappiness` of 60: the share of anonymous memory in a scan is swappiness / 200, but all of it in the last one. */
const SWAPPINESS = 60;
const MAX_SWAPPINESS = 200;
/** log2 of the pages in 1 GiB, the unit of the inactive ratio. */
const GIB_PAGES_SHIFT = 18;

interface Lists {
  readonly active: FolioList;
  readonly inactive: FolioList;
}

/**
 * The classic LRU: an active and an inactive list of anonymous memory for each cgroup. New folios start inactive; accessed
 * once since the last scan they get a second chance, accessed again they become active; when the inactive list is short, the oldest active folios move to it.
 */
export class ClassicLru extends ListedLru implements LruPolicy {
  readonly name = 'classic';
  readonly #lists: Lists[] = [];

  /** {@inheritDoc LruPolicy.add} */
  add(folio: number, tail = false): void {
    const { folios } = this.host;
    const lists = this.#of(folios.memcg(folio));
    this.put(folios.has(folio, FolioFlag.active) ? lists.active : lists.inactive, folio, tail);
  }

  /** {@inheritDoc LruPolicy.rotate} */
  rotate(folio: number): void {
    if (this.remove(folio)) this.add(folio, true);
  }

  /** {@inheritDoc LruPolicy.deactivate} */
  deactivate(folio: number): void {
    const { folios, counters } = this.host;
    folios.setFlag(folio, FolioFlag.referenced, false);
    // An inactive one stays in its place: at the head it would be the last to go (folio_deactivate).
    if (!folios.has(folio, FolioFlag.active) || !this.remove(folio)) return;
    counters.pgdeactivate += folios.frames(folio);
    folios.setFlag(folio, FolioFlag.active, false);
    this.add(folio);
  }

  /** {@inheritDoc LruPolicy.activate} */
  activate(folio: number): void {
    const { folios, counters } = this.host;
    if (folios.has(folio, FolioFlag.active)) return;
    const wasOn = this.remove(folio);
    folios.setFlag(folio, FolioFlag.active, true);
    counters.pgactivate += folios.frames(folio);
    if (wasOn) this.add(folio);
  }

  /** {@inheritDoc LruPolicy.sizes} */
  sizes(memcg: MemoryCgroup): LruSizes {
    const { active, inactive } = this.#of(memcg.id);
    return { active: active.pages, inactive: inactive.pages };
  }

  /** {@inheritDoc LruPolicy.coldestFirst} */
  *coldestFirst(memcg: MemoryCgroup): Generator<number, void, void> {
    const { active, inactive } = this.#of(memcg.id);
    yield* inactive.oldestFirst();
    yield* active.oldestFirst();
  }

  /** {@inheritDoc LruPolicy.shrink} */
  *shrink(agent: Agent, memcg: MemoryCgroup, scan: ScanControl): Task<void> {
    const { inactive } = this.#of(memcg.id);
    let left = this.#toScan(inactive.pages, scan);
    let active = this.#toScan(this.#of(memcg.id).active.pages, scan);
    let reclaimed = 0;
    while (left > 0 || active > 0) {
      if (left > 0) {
        const batch = Math.min(left, SWAP_CLUSTER_MAX);
        const before = scan.nrScanned;
        reclaimed += yield* this.#shrinkInactive(agent, memcg, batch, scan);
        left -= pagesCharged(batch, scan.nrScanned - before);
      }
      if (active > 0) {
        const batch = Math.min(active, SWAP_CLUSTER_MAX);
        active -= batch;
        if (scan.forceDeactivate || this.#inactiveIsLow(memcg)) yield* this.#shrinkActive(agent, memcg, batch);
        else scan.skippedDeactivate = true;
      }
      if (reclaimed >= scan.nrToReclaim) break;
    }
    scan.nrReclaimed += reclaimed;
    if (this.#inactiveIsLow(memcg)) yield* this.#shrinkActive(agent, memcg, SWAP_CLUSTER_MAX);
  }

  /** Pages of a list to look at in this round (get_scan_count). */
  #toScan(pages: number, scan: ScanControl): number {
    const share = Math.floor(pages / 2 ** scan.priority);
    return scan.priority === 0 ? share : Math.floor((share * SWAPPINESS) / MAX_SWAPPINESS);
  }

  #inactiveIsLow(memcg: MemoryCgroup): boolean {
    const { active, inactive } = this.sizes(memcg);
    const gib = (active + inactive) >> GIB_PAGES_SHIFT;
    const ratio = gib > 0 ? Math.floor(Math.sqrt(10 * gib)) : 1;
    return inactive * ratio < active;
  }

  *#shrinkInactive(agent: Agent, memcg: MemoryCgroup, pages: number, scan: ScanControl): Task<number> {
    const { inactive } = this.#of(memcg.id);
    yield agent.writes('scan the inactive list', Location.lock, this.host.lruLock.id, Cost.reclaimScan, pages);
    return yield* this.reclaim(agent, this.isolate(inactive, pages), scan);
  }

  /** Moves the oldest active folios to the inactive list, accessed or not: anonymous memory gets its second chance there. */
  *#shrinkActive(agent: Agent, memcg: MemoryCgroup, pages: number): Task<void> {
    const { host } = this;
    yield agent.writes('scan the active list', Location.lock, host.lruLock.id, Cost.reclaimScan, pages);
    for (const folio of this.isolate(this.#of(memcg.id).active, pages)) {
      yield* folioReferenced(host, agent, folio);
      host.folios.setFlag(folio, FolioFlag.active, false);
      host.counters.pgdeactivate += host.folios.frames(folio);
      host.putBack(folio);
    }
  }

  #of(memcg: number): Lists {
    let lists = this.#lists[memcg];
    if (!lists) {
      const name = this.host.memcgs[memcg]?.name ?? `cgroup ${memcg}`;
      lists = {
        active: new FolioList(this.links, `${name} active_anon`),
        inactive: new FolioList(this.links, `${name} inactive_anon`),
      };
      this.#lists[memcg] = lists;
    }
    return lists;
  }
}
