import type { Agent, Task } from '@faultline/sim';
import type { DomainGather, IommuDomain } from '../iommu-domain.ts';
import { takeAwayByCut } from './strategy.ts';

/** What a page is to be mapped to. */
export interface PageMapping {
  readonly page: number;
  readonly frame: number;
  readonly read: boolean;
  readonly write: boolean;
}

/** Whether the domain maps the page to the frame, with the right. */
export function mapsTo(domain: IommuDomain, { page, frame, write }: PageMapping): boolean {
  const leaf = domain.leafAt(page);
  return leaf !== null && leaf.frame + (page - leaf.page) === frame && (!write || (leaf.rights & 2) !== 0);
}

/**
 * Makes one page map to a frame with a right, whatever maps it now. Only the right of the same frame is added in place, by one compare-and-swap of
 * its leaf, which is cut first unless `mayWrite` allows all of it. Anything else goes and is flushed before the new frame comes. Under the
 * hwpt's update lock.
 * @param mayWrite whether the owner may write to all pages of a range of IOVA pages without a fault, that map to frames from the given one on
 * @throws Error with code ENOMEM if there is no table page
 */
export function* remapPage(
  agent: Agent,
  domain: IommuDomain,
  mapping: PageMapping,
  mayWrite: (page: number, pages: number, frame: number) => boolean,
): Task<void> {
  const { page, frame } = mapping;
  const leaf = domain.leafAt(page);
  if (leaf !== null && leaf.frame + (page - leaf.page) === frame) {
    const gather = domain.gather();
    const range = mayWrite(leaf.page, leaf.pages, leaf.frame) ? leaf : { page, pages: 1 };
    const isWhole = range.pages === leaf.pages || (yield* domain.cut(agent, page, 1, gather)).ok;
    if (isWhole) {
      const { page: first, pages } = range;
      const rights = (mapping.read ? 1 : 0) | (mapping.write ? 2 : 0);
      yield* domain.protect(agent, { page: first, pages, rights, holes: 'skip' }, gather);
    }
    yield* flush(agent, domain, gather);
    if (isWhole) return;
  }
  if (leaf !== null) yield* takeAwayByCut(agent, domain, page, 1);
  yield* domain.map(agent, { ...mapping, pages: 1 });
}

function* flush(agent: Agent, domain: IommuDomain, gather: DomainGather): Task<void> {
  if (!gather.empty) yield* domain.flush(agent, gather);
  yield* domain.refillReserve(agent);
}

/** End of the vacant pages that begin at one, up to `end`. */
export function vacantUntil(domain: IommuDomain, page: number, end: number): number {
  let at = page;
  while (at < end) {
    const level = domain.vacantLevel(at);
    if (level === 0) return at;
    const block = 512 ** (level - 1);
    at = (Math.floor(at / block) + 1) * block;
  }
  return end;
}
