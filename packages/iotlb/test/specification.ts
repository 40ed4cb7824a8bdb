import fc from 'fast-check';
import type { FunctionMask, LeafLevel, PasidCacheGranularity, TableLevel, TranslationKind } from '../src/index.ts';
import type { CacheSpecification } from './laws.ts';
import { pageBytes } from './naive-iotlb.ts';

/** Signed halves of an address, as the caches take them. */
export const hi = (address: bigint): number => Number(BigInt.asIntN(32, address >> 32n));
export const lo = (address: bigint): number => Number(BigInt.asIntN(32, address));

const alignDown = (address: bigint, bytes: bigint): bigint => (address / bytes) * bytes;

/** Few values that collide: regions of 1G (low, around 4G, top of 57 bits), and a few pages inside. */
const iovaArbitrary = fc
  .tuple(fc.constantFrom(0n, 3n, 4n, (1n << 27n) - 1n), fc.nat(2), fc.nat(2))
  .map(([g, m, k]) => (g << 30n) + (BigInt(m * 255) << 21n) + (BigInt(k * 255) << 12n));
const didArbitrary = fc.constantFrom(1, 2, 0xffff);
const pasidArbitrary = fc.constantFrom(0, 7, 0xfffff);
const sourceIdArbitrary = fc.constantFrom(0, 8, 10, 12, 0xffff);
const addressMaskArbitrary = fc.oneof(fc.constantFrom(0, 9, 18), fc.nat(63));

/** Range of 2^am pages around an address. */
function rangeOf(iova: bigint, am: number): { start: bigint; end: bigint } {
  const length = 1n << BigInt(12 + am);
  const start = alignDown(iova, length);
  return { start, end: start + length };
}

/** One IOTLB entry as data. */
export interface Translation {
  readonly sourceId: number;
  readonly did: number;
  readonly pasid: number;
  readonly withPasid: boolean;
  readonly kind: TranslationKind;
  readonly iova: bigint;
  readonly level: LeafLevel;
  readonly originLevel: LeafLevel;
  readonly pfn: number;
  readonly rights: number;
}

/** IOTLB, P_IOTLB and implied invalidations. */
export type TranslationInvalidation =
  | { readonly kind: 'global' }
  | { readonly kind: 'domain'; readonly did: number }
  | { readonly kind: 'pages'; readonly did: number; readonly iova: bigint; readonly am: number }
  | { readonly kind: 'pasid'; readonly did: number; readonly pasid: number }
  | {
      readonly kind: 'pasidPages';
      readonly did: number;
      readonly pasid: number;
      readonly iova: bigint;
      readonly am: number;
    }
  | { readonly kind: 'pageRequest'; readonly did: number; readonly iova: bigint };

const translationArbitrary: fc.Arbitrary<Translation> = fc
  .record({
    sourceId: sourceIdArbitrary,
    did: didArbitrary,
    pasid: pasidArbitrary,
    withPasid: fc.boolean(),
    kind: fc.constantFrom<TranslationKind>(1, 2, 2, 2, 3, 4),
    iova: iovaArbitrary,
    level: fc.constantFrom<LeafLevel>(1, 2, 3),
    pfn: fc.integer({ min: 0, max: 2 ** 40 - 1 }),
    rights: fc.integer({ min: 1, max: 3 }),
  })
  .map((entry) => {
    const bytes = pageBytes(entry.level);
    const pfn = Number(alignDown(BigInt(entry.pfn) << 12n, bytes) >> 12n);
    return { ...entry, originLevel: entry.level, pfn };
  });

const translationInvalidations: fc.Arbitrary<TranslationInvalidation> = fc.oneof(
  { weight: 1, arbitrary: fc.constant({ kind: 'global' as const }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('domain' as const), did: didArbitrary }) },
  {
    weight: 5,
    arbitrary: fc.record({
      kind: fc.constant('pages' as const),
      did: didArbitrary,
      iova: iovaArbitrary,
      am: addressMaskArbitrary,
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ kind: fc.constant('pasid' as const), did: didArbitrary, pasid: pasidArbitrary }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('pasidPages' as const),
      did: didArbitrary,
      pasid: pasidArbitrary,
      iova: iovaArbitrary,
      am: addressMaskArbitrary,
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constant('pageRequest' as const), did: didArbitrary, iova: iovaArbitrary }),
  },
);

/** VT-d Rev 5.10, Tables 17, 23, 24 and 27. `partial` and `largest` are the freedoms of an implementation that they leave. */
export function translationSpecification({
  partial = 'none',
  largest = 3,
}: {
  readonly partial?: 'none' | 'whole';
  readonly largest?: LeafLevel;
}): CacheSpecification<Translation, TranslationInvalidation> {
  const reaches = (entry: Translation, iova: bigint, am: number, whole: boolean): boolean => {
    const { start, end } = rangeOf(iova, am);
    const entryEnd = entry.iova + pageBytes(entry.level);
    return whole ? start <= entry.iova && entryEnd <= end : entry.iova < end && start < entryEnd;
  };
  const hasFirstStage = ({ kind }: Translation): boolean => kind === 1 || kind === 3;
  return {
    entries: translationArbitrary,
    invalidations: translationInvalidations,
    keyOf: ({ sourceId, pasid, withPasid, iova, level }) => `${sourceId}/${withPasid ? pasid : '-'}/${level}/${iova}`,
    cached(entry) {
      const level = Math.min(entry.level, largest) as LeafLevel;
      const iova = alignDown(entry.iova, pageBytes(level));
      return { ...entry, level, iova, pfn: entry.pfn + Number((iova % pageBytes(entry.level)) >> 12n) };
    },
    mustDrop(invalidation, entry) {
      if (invalidation.kind === 'global') return true;
      if (entry.did !== invalidation.did) return false;
      switch (invalidation.kind) {
        case 'domain':
          return true;
        case 'pages':
          return hasFirstStage(entry) || reaches(entry, invalidation.iova, invalidation.am, partial === 'none');
        case 'pasid':
          return entry.pasid === invalidation.pasid;
        case 'pasidPages':
          return (
            entry.pasid === invalidation.pasid &&
            hasFirstStage(entry) &&
            reaches(entry, invalidation.iova, invalidation.am, partial === 'none')
          );
        case 'pageRequest':
          return hasFirstStage(entry) || reaches(entry, invalidation.iova, 0, false);
      }
    },
  };
}

/** One paging-structure entry as data. */
export interface Structure {
  readonly did: number;
  readonly iova: bigint;
  readonly level: TableLevel;
  readonly tablePfn: number;
  readonly rights: number;
}

/** Page-selective ones have an invalidation hint; the others ignore it. */
export type StructureInvalidation =
  | { readonly kind: 'global' }
  | { readonly kind: 'domain'; readonly did: number }
  | {
      readonly kind: 'pages';
      readonly did: number;
      readonly iova: bigint;
      readonly am: number;
      readonly hint: 0 | 1;
    };

const spanBytes = (level: number): bigint => 1n << BigInt(12 + 9 * level);

/** VT-d Rev 5.10, Tables 19 and 23. */
export const STRUCTURE_SPECIFICATION: CacheSpecification<Structure, StructureInvalidation> = {
  entries: fc
    .record({
      did: didArbitrary,
      iova: iovaArbitrary,
      level: fc.constantFrom<TableLevel>(1, 2, 3, 4),
      tablePfn: fc.integer({ min: 0, max: 2 ** 40 - 1 }),
      rights: fc.integer({ min: 1, max: 3 }),
    })
    .map((entry) => ({ ...entry, iova: alignDown(entry.iova, spanBytes(entry.level)) })),
  invalidations: fc.oneof(
    { weight: 1, arbitrary: fc.constant({ kind: 'global' as const }) },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant('domain' as const), did: didArbitrary }) },
    {
      weight: 5,
      arbitrary: fc.record({
        kind: fc.constant('pages' as const),
        did: didArbitrary,
        iova: iovaArbitrary,
        am: addressMaskArbitrary,
        hint: fc.constantFrom<0 | 1>(0, 0, 1),
      }),
    },
  ),
  keyOf: ({ did, iova, level }) => `${did}/${level}/${iova}`,
  mustDrop(invalidation, entry) {
    if (invalidation.kind === 'global') return true;
    if (entry.did !== invalidation.did) return false;
    if (invalidation.kind === 'domain') return true;
    const { start, end } = rangeOf(invalidation.iova, invalidation.am);
    return invalidation.hint === 0 && entry.iova < end && start < entry.iova + spanBytes(entry.level);
  },
};

/** One context entry as data. */
export interface Context {
  readonly sourceId: number;
  readonly did: number;
  readonly value: string;
}

export type ContextInvalidation =
  | { readonly kind: 'global' }
  | { readonly kind: 'domain'; readonly did: number }
  | { readonly kind: 'device'; readonly did: number; readonly sourceId: number; readonly functionMask: FunctionMask };

/** VT-d Rev 5.10, 6.5.2.1 and Table 21. */
export const contextSpecification = (
  mode: 'legacy' | 'scalable',
): CacheSpecification<Context, ContextInvalidation> => ({
  entries: fc.record({ sourceId: sourceIdArbitrary, did: didArbitrary, value: fc.string({ maxLength: 2 }) }),
  invalidations: fc.oneof(
    { weight: 1, arbitrary: fc.constant({ kind: 'global' as const }) },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant('domain' as const), did: didArbitrary }) },
    {
      weight: 5,
      arbitrary: fc.record({
        kind: fc.constant('device' as const),
        did: didArbitrary,
        sourceId: sourceIdArbitrary,
        functionMask: fc.constantFrom<FunctionMask>(0, 1, 2, 3),
      }),
    },
  ),
  keyOf: ({ sourceId }) => `${sourceId}`,
  mustDrop(invalidation, entry) {
    if (invalidation.kind === 'global') return true;
    const ofDomain = mode === 'scalable' || entry.did === invalidation.did;
    if (invalidation.kind === 'domain') return ofDomain;
    const ignored = [[], [2], [2, 1], [2, 1, 0]][invalidation.functionMask] as number[];
    const compared = [...Array(16).keys()].filter((bit) => !ignored.includes(bit));
    return ofDomain && compared.every((bit) => ((entry.sourceId ^ invalidation.sourceId) & (1 << bit)) === 0);
  },
});

/** One PASID-table entry as data. */
export interface PasidEntry {
  readonly sourceId: number;
  readonly pasid: number;
  readonly did: number;
  readonly value: string;
}

export interface PasidInvalidation {
  readonly granularity: PasidCacheGranularity;
  readonly did: number;
  readonly pasid: number;
}

/** VT-d Rev 5.10, 6.5.2.2. */
export const PASID_SPECIFICATION: CacheSpecification<PasidEntry, PasidInvalidation> = {
  entries: fc.record({
    sourceId: sourceIdArbitrary,
    pasid: pasidArbitrary,
    did: didArbitrary,
    value: fc.string({ maxLength: 2 }),
  }),
  invalidations: fc.record({
    granularity: fc.constantFrom<PasidCacheGranularity>(0, 1, 1, 3),
    did: didArbitrary,
    pasid: pasidArbitrary,
  }),
  keyOf: ({ sourceId, pasid }) => `${sourceId}/${pasid}`,
  mustDrop: ({ granularity, did, pasid }, entry) =>
    granularity === 3 || (entry.did === did && (granularity === 0 || entry.pasid === pasid)),
};
