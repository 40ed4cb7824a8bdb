import type { Agent, Task } from '@faultline/sim';
import type { HostState } from '../host-state.ts';
import { FolioLinks, type FolioList } from './folio-list.ts';
import type { ScanControl } from './lru-policy.ts';
import { shrinkFolioList } from './shrink-folio-list.ts';

/** What both ways to keep folios by age have in common: lists on which a folio is at most once, and scans from their tails. */
export abstract class ListedLru {
  protected readonly host: HostState;
  protected readonly links = new FolioLinks();

  constructor(host: HostState) {
    this.host = host;
  }

  /** {@inheritDoc LruPolicy.remove} */
  remove(folio: number): boolean {
    const list = this.links.listOf(folio);
    list?.remove(folio, this.host.folios.frames(folio));
    return list !== null;
  }

  /** {@inheritDoc LruPolicy.isOn} */
  isOn(folio: number): boolean {
    return this.links.listOf(folio) !== null;
  }

  /** {@inheritDoc LruPolicy.split} */
  split(folio: number, pieces: readonly number[], before: number): void {
    const list = this.links.listOf(folio);
    if (list === null) return;
    const { folios } = this.host;
    list.shrink(before - folios.frames(folio));
    let older = folio;
    for (const piece of pieces) {
      if (piece === folio) continue;
      list.addYounger(piece, folios.frames(piece), older);
      older = piece;
    }
  }

  /** @param tail next to be looked at */
  protected put(list: FolioList, folio: number, tail: boolean): void {
    const frames = this.host.folios.frames(folio);
    if (tail) list.addTail(folio, frames);
    else list.addHead(folio, frames);
  }

  /** Takes folios of that many pages, at least, off the tail of a list. Part of the caller's step. */
  protected isolate(list: FolioList, pages: number): number[] {
    const { host } = this;
    const taken: number[] = [];
    for (let scanned = 0; scanned < pages && list.tail !== 0; ) {
      const folio = list.tail;
      scanned += host.folios.frames(folio);
      host.isolate(folio);
      taken.push(folio);
    }
    return taken;
  }

  /** Reclaims what it can of folios that were isolated. @returns pages reclaimed */
  protected *reclaim(agent: Agent, taken: number[], scan: ScanControl): Task<number> {
    const { host } = this;
    let scanned = 0;
    for (const folio of taken) scanned += host.folios.frames(folio);
    scan.nrScanned += scanned;
    host.counters[`pgscan_${scan.by}`] += scanned;
    if (taken.length === 0) return 0;
    const { reclaimed, pageout } = yield* shrinkFolioList(host, agent, taken, scan);
    scan.nrPageout += pageout;
    host.counters[`pgsteal_${scan.by}`] += reclaimed;
    return reclaimed;
  }
}
