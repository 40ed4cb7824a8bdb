import { type Agent, Cost, Location, type Task } from '@faultline/sim';
import { FolioFlag } from '../folio/folio-table.ts';
import { Entry } from '../mm/entry-table.ts';
import type { MmState } from '../mm/mm-state.ts';
import { FolioList } from './folio-list.ts';
import { ListedLru } from './listed-lru.ts';
import { type LruPolicy, type LruSizes, pagesCharged, type ScanControl, SWAP_CLUSTER_MAX } from './lru-policy.ts';
import type { MemoryCgroup } from './memory-cgroup.ts';

/** Generations at most and at least (MAX_NR_GENS, MIN_NR_GENS). */
const MAX_NR_GENS = 4;
const MIN_NR_GENS = 2;

/** The generations of one cgroup: a ring of lists by sequence number. */
interface Generations {
  readonly lists: readonly FolioList[];
  minSeq: number;
  maxSeq: number;
}

/**
 * The multi-generational LRU (MGLRU): folios are in generations by when they were last seen to be accessed. Aging walks the page tables of the
 * cgroup, moves what has an accessed bit to the youngest generation and opens a new one; eviction takes from the oldest.
 */
export class MultiGenLru extends ListedLru implements LruPolicy {
  readonly name = 'mglru';
  readonly #generations: Generations[] = [];

  /** {@inheritDoc LruPolicy.add} */
  add(folio: number, tail = false): void {
    const { folios } = this.host;
    const generations = this.#of(folios.memcg(folio));
    const seq = this.#sequenceFor(folio, generations);
    folios.setFlag(folio, FolioFlag.active, false);
    this.put(this.#list(generations, seq), folio, tail);
  }

  /** A folio that was accessed is youngest; a new one next to it; what comes from swap, or failed to go there, oldest (lru_gen_folio_seq). */
  #sequenceFor(folio: number, { minSeq, maxSeq }: Generations): number {
    const { folios } = this.host;
    if (folios.has(folio, FolioFlag.active)) return maxSeq;
    const waits = folios.has(folio, FolioFlag.reclaim) && folios.has(folio, FolioFlag.dirty | FolioFlag.writeback);
    if (!folios.has(folio, FolioFlag.swapcache) || waits) return Math.max(minSeq, maxSeq - 1);
    return minSeq + MIN_NR_GENS >= maxSeq ? minSeq : minSeq + 1;
  }

  /** {@inheritDoc LruPolicy.rotate} */
  rotate(folio: number): void {
    this.#move(folio, this.#of(this.host.folios.memcg(folio)).minSeq, true);
  }

  /** {@inheritDoc LruPolicy.deactivate} */
  deactivate(folio: number): void {
    if (!this.isOn(folio)) return;
    this.host.counters.pgdeactivate += this.host.folios.frames(folio);
    this.host.folios.setFlag(folio, FolioFlag.active | FolioFlag.referenced, false);
    this.#move(folio, this.#of(this.host.folios.memcg(folio)).minSeq, false);
  }

  /** {@inheritDoc LruPolicy.activate} */
  activate(folio: number): void {
    this.#move(folio, this.#of(this.host.folios.memcg(folio)).maxSeq, false);
  }

  /** {@inheritDoc LruPolicy.sizes} */
  sizes(memcg: MemoryCgroup): LruSizes {
    const { lists, minSeq, maxSeq } = this.#of(memcg.id);
    let active = 0;
    let inactive = 0;
    for (let seq = minSeq; seq <= maxSeq; seq++) {
      const pages = lists[seq % MAX_NR_GENS]?.pages ?? 0;
      if (seq > maxSeq - MIN_NR_GENS) active += pages;
      else inactive += pages;
    }
    return { active, inactive };
  }

  /** {@inheritDoc LruPolicy.coldestFirst} */
  *coldestFirst(memcg: MemoryCgroup): Generator<number, void, void> {
    const generations = this.#of(memcg.id);
    for (let seq = generations.minSeq; seq <= generations.maxSeq; seq++)
      yield* this.#list(generations, seq).oldestFirst();
  }

  /** {@inheritDoc LruPolicy.shrink} */
  *shrink(agent: Agent, memcg: MemoryCgroup, scan: ScanControl): Task<void> {
    const generations = this.#of(memcg.id);
    const total = generations.lists.reduce((sum, list) => sum + list.pages, 0);
    let left = Math.max(scan.priority === 0 ? total : total >> scan.priority, 0);
    let reclaimed = 0;
    while (left > 0 && reclaimed < scan.nrToReclaim) {
      this.#dropEmptyGenerations(generations);
      if (generations.minSeq + MIN_NR_GENS > generations.maxSeq) {
        // Nothing is old enough: aging comes first, unless this scan has no pressure to spend on it.
        if (scan.priority === 12) return;
        yield* this.#age(agent, memcg);
        this.#dropEmptyGenerations(generations);
        if (generations.minSeq + MIN_NR_GENS > generations.maxSeq) break;
      }
      const batch = Math.min(left, SWAP_CLUSTER_MAX);
      const before = scan.nrScanned;
      reclaimed += yield* this.#evict(agent, generations, batch, scan);
      left -= pagesCharged(batch, scan.nrScanned - before);
    }
    scan.nrReclaimed += reclaimed;
  }

  *#evict(agent: Agent, generations: Generations, pages: number, scan: ScanControl): Task<number> {
    yield agent.writes('scan the oldest generation', Location.lock, this.host.lruLock.id, Cost.reclaimScan, pages);
    const taken = this.isolate(this.#list(generations, generations.minSeq), pages);
    return yield* this.reclaim(agent, taken, scan);
  }

  /** Walks the page tables of the cgroup for accessed bits, one step a large leaf or last-level table, and opens a new generation. */
  *#age(agent: Agent, memcg: MemoryCgroup): Task<void> {
    const generations = this.#of(memcg.id);
    for (const mm of [...this.host.spaces])
      if (mm.memcg === memcg && !mm.exited) yield* this.#walk(agent, mm, generations);
    if (generations.maxSeq - generations.minSeq + 1 >= MAX_NR_GENS) this.#mergeOldest(generations);
    generations.maxSeq++;
  }

  *#walk(agent: Agent, mm: MmState, generations: Generations): Task<void> {
    const { table } = mm;
    for (const vma of [...mm.vmas.all])
      for (let page = table.nextUsed(vma.startPage, vma.endPage); page < vma.endPage; ) {
        const unitEnd = table.level(page) > 0 ? table.end(page) : Math.min(vma.endPage, page - (page % 512) + 512);
        yield agent.writes('age entries', Location.cpuEntry, mm.entryLocation(page), Cost.entryRead, 1);
        for (let at = page; at < unitEnd; at = table.end(at)) this.#ageEntry(agent, mm, at, generations);
        page = table.nextUsed(unitEnd, vma.endPage);
      }
  }

  #ageEntry(agent: Agent, mm: MmState, page: number, generations: Generations): void {
    const { table } = mm;
    const flags = table.flags(page);
    if ((flags & Entry.PRESENT) === 0) return;
    const elsewhere = mm.notifiers.clearYoung(agent, page, table.end(page) - page);
    if ((flags & Entry.YOUNG) === 0 && !elsewhere) return;
    table.setFlags(page, flags & ~Entry.YOUNG);
    this.#move(this.host.folios.at(table.value(page)), generations.maxSeq, false);
  }

  /** The oldest generation goes into the next one, so that there is room for a new one. */
  #mergeOldest(generations: Generations): void {
    const oldest = this.#list(generations, generations.minSeq);
    const next = this.#list(generations, generations.minSeq + 1);
    const { folios } = this.host;
    // Youngest of the old ones first, each behind all others: their order stays.
    const moved = [...oldest.oldestFirst()].reverse();
    for (const folio of moved) {
      oldest.remove(folio, folios.frames(folio));
      next.addTail(folio, folios.frames(folio));
    }
    generations.minSeq++;
  }

  #dropEmptyGenerations(generations: Generations): void {
    while (
      generations.minSeq + MIN_NR_GENS <= generations.maxSeq &&
      this.#list(generations, generations.minSeq).folios === 0
    )
      generations.minSeq++;
  }

  #move(folio: number, seq: number, tail: boolean): void {
    if (!this.remove(folio)) return;
    this.put(this.#list(this.#of(this.host.folios.memcg(folio)), seq), folio, tail);
  }

  #list({ lists }: Generations, seq: number): FolioList {
    return lists[seq % MAX_NR_GENS]!;
  }

  #of(memcg: number): Generations {
    let generations = this.#generations[memcg];
    if (!generations) {
      const name = this.host.memcgs[memcg]?.name ?? `cgroup ${memcg}`;
      const lists = Array.from({ length: MAX_NR_GENS }, (_, i) => new FolioList(this.links, `${name} generation ${i}`));
      generations = { lists, minSeq: 0, maxSeq: MIN_NR_GENS - 1 };
      this.#generations[memcg] = generations;
    }
    return generations;
  }
}
