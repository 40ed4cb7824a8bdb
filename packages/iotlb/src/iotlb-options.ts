import type { PageSize } from '@faultline/address';
import { checkOneOf } from './argument.ts';
import type { RandomSource } from './replacement.ts';
import type { SetAssociativeGeometry } from './set-associative.ts';

/** Sets and ways of an IOTLB for each page size; sizes do not share entries. */
export type IotlbGeometryBySize = Readonly<Record<PageSize, SetAssociativeGeometry>>;

/** Sets and ways of an IOTLB whose entries of all sizes compete for one array. */
export interface SharedGeometry {
  readonly shared: SetAssociativeGeometry;
}

/** An array for each page size, or one for all. */
export type IotlbGeometry = IotlbGeometryBySize | SharedGeometry;

/**
 * 64 entries of 4K, the size measured on Sandy Bridge to Broadwell in "Understanding PCIe performance" (SIGCOMM 2018).
 * No source gives associativity or the entries for large pages: 4 ways, 32 of 2M and 4 of 1G are an assumption.
 */
export const DEFAULT_IOTLB_GEOMETRY: IotlbGeometryBySize = {
  '4K': { sets: 16, ways: 4 },
  '2M': { sets: 8, ways: 4 },
  '1G': { sets: 1, ways: 4 },
};

/** The capacity of QEMU's IOTLB (a hash table of 1024 entries in all); use it with {@link QEMU_IOTLB_OPTIONS}. */
export const QEMU_IOTLB_GEOMETRY: IotlbGeometryBySize = {
  '4K': { sets: 1, ways: 1024 },
  '2M': { sets: 1, ways: 1024 },
  '1G': { sets: 1, ways: 1024 },
};

/**
 * What a page-selective invalidation does to a cached large page that it does not cover as a whole.
 * - `none`: nothing. All that software may rely on: the address mask has to match the page (VT-d Rev 5.10, 6.5.2.3 and
 *   6.5.3.3), since hardware may hold a large page fractured.
 * - `whole`: drops it. What QEMU does.
 *
 * With {@link IotlbOptions.fracture} it reaches one fraction, which is then the whole entry.
 */
export type PartialInvalidation = 'whole' | 'none';

/** Entries that go without an invalidation, which hardware may let happen at any time (VT-d Rev 5.10, 6.2.4). */
export interface SpontaneousLoss {
  readonly random: RandomSource;
  /** On average one look-up in so many that would have hit finds its entry lost. At least 1. */
  readonly oneIn: number;
}

/** Options of an {@link Iotlb}. */
export interface IotlbOptions {
  /** Default {@link DEFAULT_IOTLB_GEOMETRY}. */
  readonly geometry?: IotlbGeometry;
  /** Default `none`. */
  readonly partialInvalidation?: PartialInvalidation;
  /**
   * The largest page that an entry holds: a larger leaf is cached as the fraction of it that was asked for, of this
   * size (VT-d Rev 5.10, 6.2.4.1). Default `never`: a leaf is cached whole.
   */
  readonly fracture?: 'never' | '2M' | '4K';
  /**
   * The finest granularity that this hardware carries out; a finer request, page- or PASID-selective, is done at this
   * one, which the specification allows (VT-d Rev 5.10, 6.5.2.3 and 6.5.2.4). Default `page`: exactly what is asked.
   */
  readonly finestInvalidation?: 'page' | 'domain' | 'global';
  /**
   * True: a request with PASID may be answered by an entry of a request without PASID of the same source-id and the same
   * RID_PASID (VT-d Rev 5.10, 6.2.1). Default false.
   */
  readonly pasidHitsRidEntries?: boolean;
  /** Entries get lost now and then. Default: none does. */
  readonly mayLoseEntries?: SpontaneousLoss;
  /**
   * QEMU 7.2 (10.0.2 no longer) keeps the page mask of an invalidation in 8 bits, so that it compares only the lower 8 bits of page
   * numbers and drops every page of the domain that is equal modulo 256. Over-invalidation is legal for hardware.
   * 8 for that; default 64, exact.
   */
  readonly comparedPageBits?: 8 | 64;
  /** QEMU's replacement: a fill that finds this many entries, of all sizes together, first empties the cache. */
  readonly resetAtEntries?: number;
}

/** Rejects values that an option cannot have, which would otherwise pass for the default. @throws RangeError naming the option */
export function checkIotlbOptions(options: IotlbOptions): void {
  const { partialInvalidation, fracture, finestInvalidation, mayLoseEntries, comparedPageBits, resetAtEntries } =
    options;
  checkOneOf('partialInvalidation', partialInvalidation ?? 'none', ['none', 'whole']);
  checkOneOf('fracture', fracture ?? 'never', ['never', '2M', '4K']);
  checkOneOf('finestInvalidation', finestInvalidation ?? 'page', ['page', 'domain', 'global']);
  checkOneOf('comparedPageBits', comparedPageBits ?? 64, [8, 64]);
  if (mayLoseEntries && !(mayLoseEntries.oneIn >= 1)) throw new RangeError(`oneIn: ${mayLoseEntries.oneIn} is below 1`);
  if (resetAtEntries !== undefined && !(resetAtEntries >= 1))
    throw new RangeError(`resetAtEntries: ${resetAtEntries} is below 1`);
}

/** An IOTLB that keeps and drops what that of QEMU 10 and later does: 1024 entries, all emptied when full. */
export const QEMU_IOTLB_OPTIONS = {
  geometry: QEMU_IOTLB_GEOMETRY,
  partialInvalidation: 'whole',
  comparedPageBits: 64,
  resetAtEntries: 1024,
} as const satisfies IotlbOptions;

/** The same for QEMU 7.2, which drops too much. Checked: equal to a recording of it in each of 90,439 look-ups. */
export const QEMU_7_2_IOTLB_OPTIONS = { ...QEMU_IOTLB_OPTIONS, comparedPageBits: 8 } as const satisfies IotlbOptions;
