import type { DomainLeaf, IommuDomain } from '../iommu-domain.ts';

/** 4K pages that a leaf maps. */
export const leafPages = (leaf: DomainLeaf): number => 512 ** (leaf.level - 1);

/** End of the vacant pages that begin at one, up to `end`. */
export function vacantUntil(domain: IommuDomain, page: number, end: number): number {
  for (let at = page; at < end; ) {
    const level = domain.vacantLevel(at);
    if (level === 0) return at;
    const block = 512 ** (level - 1);
    at = (Math.floor(at / block) + 1) * block;
  }
  return end;
}
