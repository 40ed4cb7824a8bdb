import type { ContextCacheOptions } from './context-cache.ts';
import type { IotlbOptions } from './iotlb-options.ts';
import type { PagingStructureCacheOptions } from './paging-structure-cache.ts';
import type { PasidCacheOptions } from './pasid-cache.ts';

/** How the caches of one kind of hardware carry out invalidations: options to be spread into each cache's own. */
export interface InvalidationVariant {
  readonly iotlb: Pick<IotlbOptions, 'finestInvalidation' | 'fracture' | 'partialInvalidation'>;
  readonly pagingStructures: Pick<PagingStructureCacheOptions, 'finestInvalidation'>;
  readonly context: Pick<ContextCacheOptions, 'finestInvalidation'>;
  readonly pasid: Pick<PasidCacheOptions, 'finestInvalidation'>;
}

const EXACT: InvalidationVariant = {
  iotlb: { finestInvalidation: 'page', fracture: 'never', partialInvalidation: 'none' },
  pagingStructures: { finestInvalidation: 'page' },
  context: { finestInvalidation: 'device' },
  pasid: { finestInvalidation: 'pasid' },
};

/**
 * - `exact`: each request drops what it names and nothing else; a large entry goes only if it is covered whole.
 * - `coarse`: page- and PASID-selective requests drop the domain, device-selective ones too.
 * - `fractured`: as `exact`, but large pages are held as 4K entries, so that a page-selective request reaches one
 *   fraction and leaves the rest.
 * - `xeonE7v2`: as `exact`, but a page-selective request with hint 0 drops the non-leaf entries of the whole domain: what
 *   the datasheet of that processor says.
 */
export const INVALIDATION_VARIANTS = {
  exact: EXACT,
  coarse: {
    iotlb: { finestInvalidation: 'domain', fracture: 'never', partialInvalidation: 'none' },
    pagingStructures: { finestInvalidation: 'domain' },
    context: { finestInvalidation: 'domain' },
    pasid: { finestInvalidation: 'domain' },
  },
  fractured: { ...EXACT, iotlb: { ...EXACT.iotlb, fracture: '4K' } },
  xeonE7v2: { ...EXACT, pagingStructures: { finestInvalidation: 'domain' } },
} as const satisfies Readonly<Record<string, InvalidationVariant>>;
