import { checkAddressMask, checkOneOf } from './argument.ts';
import { addressOf, rangeShiftOf } from './invalidation-range.ts';
import type { SharedGeometry } from './iotlb-options.ts';
import { SetAssociative, type SetAssociativeGeometry } from './set-associative.ts';

/** Sets and ways of the cache for each kind of non-leaf entry; kinds do not share entries. */
export interface PagingStructureCacheGeometryByLevel {
  /** SS-PDE entries: span 2M, give an SS-PT. */
  readonly pde: SetAssociativeGeometry;
  /** SS-PDPTE entries: span 1G, give an SS-PD. */
  readonly pdpe: SetAssociativeGeometry;
  /** SS-PML4E entries: span 512G, give an SS-PDPT. */
  readonly pml4e: SetAssociativeGeometry;
  /** SS-PML5E entries: span 256T, give an SS-PML4. */
  readonly pml5e: SetAssociativeGeometry;
}

/** An array for each kind, or one for all. */
export type PagingStructureCacheGeometry = PagingStructureCacheGeometryByLevel | SharedGeometry;

/** Options of a {@link PagingStructureCache} beside its geometry. */
export interface PagingStructureCacheOptions {
  /**
   * The finest granularity that this hardware carries out; a finer request is done at this one, which the
   * specification allows (VT-d Rev 5.10, 6.5.2.3). A page-selective request with hint 1 still keeps everything. Default
   * `page`: exactly what is asked.
   */
  readonly finestInvalidation?: 'page' | 'domain' | 'global';
}

/**
 * 64 PDE entries, the lower of the two capacities (64, 128) that "Fast & Safe IO Memory Protection" (SOSP 2024) assumes
 * for the cache whose entries span 2M. Sizes of the upper levels and all associativities are an assumption.
 */
export const DEFAULT_PAGING_STRUCTURE_CACHE_GEOMETRY: PagingStructureCacheGeometryByLevel = {
  pde: { sets: 16, ways: 4 },
  pdpe: { sets: 4, ways: 4 },
  pml4e: { sets: 1, ways: 4 },
  pml5e: { sets: 1, ways: 2 },
};

/** log2 of the bytes that an entry spans, and its name, by level of the table that it points to, minus 1 (Table 19). */
const SPAN_SHIFTS = [21, 30, 39, 48] as const;
const STORE_NAMES = ['PDE', 'PDPE', 'PML4E', 'PML5E'] as const;

/** Level of the table that a cached entry points to: 1 = SS-PT (a PDE), 2 = SS-PD, 3 = SS-PDPT, 4 = SS-PML4. */
export type TableLevel = 1 | 2 | 3 | 4;

/** One cached non-leaf entry, for reports and checks. */
export interface PagingStructureEntry {
  readonly slot: number;
  /** Domain-id: tag of both look-up and invalidation. */
  readonly did: number;
  /** First byte that the entry spans. */
  readonly iova: bigint;
  /** Level of the table that it points to. */
  readonly level: TableLevel;
  /** Frame of that table. */
  readonly tablePfn: number;
  /** AND of R (bit 0) and of W (bit 1) from the root down to and including this entry. */
  readonly rights: number;
}

/** Counts of one paging-structure cache since it was made. */
export interface PagingStructureCacheCounters {
  readonly lookups: number;
  /** Hits by level of the table given: index 1 = PDE cache .. 4 = PML5E cache; index 0 unused. */
  readonly hitsByLevel: readonly number[];
  readonly fills: number;
  readonly evictions: number;
  readonly invalidations: number;
  readonly dropped: number;
}

/**
 * The second-stage paging-structure caches: PML5E, PML4E, PDPE and PDE, each tagged by domain-id and address
 * (VT-d Rev 5.10, 6.2.5 Table 19). Never filled from a leaf. Addresses are two signed 32-bit halves.
 */
export class PagingStructureCache {
  /** By level - 1. */
  readonly #stores: readonly SetAssociative[];
  readonly #bases: readonly number[];
  readonly #tablePfn: Float64Array;
  readonly #rights: Uint8Array;
  readonly #level: Uint8Array;
  readonly #finest: 'page' | 'domain' | 'global';
  readonly #hits = [0, 0, 0, 0, 0];
  #lookups = 0;
  #fills = 0;
  #evictions = 0;
  #invalidations = 0;
  #dropped = 0;

  /** @throws RangeError for sets that are no power of two, or an unknown finestInvalidation */
  constructor(
    geometry: PagingStructureCacheGeometry = DEFAULT_PAGING_STRUCTURE_CACHE_GEOMETRY,
    options: PagingStructureCacheOptions = {},
  ) {
    this.#finest = options.finestInvalidation ?? 'page';
    checkOneOf('finestInvalidation', this.#finest, ['page', 'domain', 'global']);
    const bases: number[] = [];
    let slots = 0;
    if ('shared' in geometry) {
      this.#stores = SetAssociative.sharing('paging-structure cache', geometry.shared, SPAN_SHIFTS);
      for (const store of this.#stores) {
        bases.push(0);
        slots = store.slots;
      }
    } else {
      const { pde, pdpe, pml4e, pml5e } = geometry;
      this.#stores = [pde, pdpe, pml4e, pml5e].map((shape, index) =>
        SetAssociative.alone(`${STORE_NAMES[index]} cache`, shape, SPAN_SHIFTS[index] as number),
      );
      for (const store of this.#stores) {
        bases.push(slots);
        slots += store.slots;
      }
    }
    this.#bases = bases;
    this.#tablePfn = new Float64Array(slots);
    this.#rights = new Uint8Array(slots);
    this.#level = new Uint8Array(slots);
  }

  /** A copy of the counts. */
  get counters(): PagingStructureCacheCounters {
    return {
      lookups: this.#lookups,
      hitsByLevel: [...this.#hits],
      fills: this.#fills,
      evictions: this.#evictions,
      invalidations: this.#invalidations,
      dropped: this.#dropped,
    };
  }

  /** Entries held now. */
  get size(): number {
    let size = 0;
    for (const store of this.#stores) size += store.count;
    return size;
  }

  /** The deepest cached entry for the address, which leaves the least to walk; -1 if none. Counts, and touches LRU. */
  lookup(did: number, iovaHi: number, iovaLo: number): number {
    this.#lookups++;
    for (let index = 0; index < 4; index++) {
      const store = this.#stores[index] as SetAssociative;
      const local = store.find(did, iovaHi, iovaLo, 0);
      if (local < 0) continue;
      store.touch(local);
      this.#hits[index + 1]!++;
      return local + (this.#bases[index] as number);
    }
    return -1;
  }

  /** Level of the table that the entry points to: where the walk goes on. */
  levelAt(slot: number): TableLevel {
    return this.#level[slot]! as TableLevel;
  }

  /** Frame of the table that the entry points to. */
  tablePfnAt(slot: number): number {
    return this.#tablePfn[slot]!;
  }

  /** AND of R (bit 0) and of W (bit 1) down to and including the entry. */
  rightsAt(slot: number): number {
    return this.#rights[slot]!;
  }

  /**
   * Caches a non-leaf entry met on a fault-free walk, or replaces the one of the same tag. One that grants nothing is not
   * cached (6.2.5.1).
   * @param level of the table that it points to @param rights AND down to and including it
   * @returns the slot, or -1 if it is not cached: no rights, or no slots for this level
   * @throws RangeError for a level that is not 1 to 4
   */
  fill(did: number, iovaHi: number, iovaLo: number, level: TableLevel, tablePfn: number, rights: number): number {
    const store = this.#stores[level - 1] as SetAssociative;
    if (store === undefined) checkOneOf('level', level, [1, 2, 3, 4]);
    if (store.slots === 0 || rights === 0) return -1;
    this.#fills++;
    let local = store.find(did, iovaHi, iovaLo, 0);
    if (local >= 0) store.touch(local);
    else {
      const evictions = store.evictions;
      local = store.insert(did, iovaHi, iovaLo, 0);
      this.#evictions += store.evictions - evictions;
    }
    const slot = local + (this.#bases[level - 1] as number);
    this.#tablePfn[slot] = tablePfn;
    this.#rights[slot] = rights;
    this.#level[slot] = level;
    return slot;
  }

  /**
   * Page-selective: the invalidation hint 1 keeps everything, 0 drops the domain's entries that span any part of the
   * aligned range of 2^addressMask 4K pages (Table 23).
   * @returns entries dropped @throws RangeError if the mask is outside 0..63
   */
  invalidatePages(did: number, iovaHi: number, iovaLo: number, addressMask: number, invalidationHint: 0 | 1): number {
    checkAddressMask(addressMask);
    if (invalidationHint === 0 && this.#finest !== 'page') return this.invalidateDomain(did);
    let dropped = 0;
    if (invalidationHint === 0) {
      for (const store of this.#stores) {
        store.forEachOverlapping(iovaHi, iovaLo, rangeShiftOf(addressMask), (local) => {
          if (store.tagAt(local) !== did) return;
          store.drop(local);
          dropped++;
        });
      }
    }
    return this.#countInvalidation(dropped);
  }

  /** Domain-selective. @returns entries dropped */
  invalidateDomain(did: number): number {
    if (this.#finest === 'global') return this.invalidateGlobal();
    return this.#invalidateWhere((tag) => tag === did);
  }

  /** Global. @returns entries dropped */
  invalidateGlobal(): number {
    return this.#invalidateWhere(() => true);
  }

  /** All entries, deepest level first, then in slot order. For reports and for checks of I5. */
  *entries(): IterableIterator<PagingStructureEntry> {
    for (const [index, store] of this.#stores.entries()) {
      for (let local = 0; local < store.slots; local++) {
        if (!store.occupies(local)) continue;
        const slot = local + (this.#bases[index] as number);
        yield {
          slot,
          did: store.tagAt(local),
          iova: addressOf(store.hiAt(local), store.loAt(local)),
          level: (index + 1) as TableLevel,
          tablePfn: this.tablePfnAt(slot),
          rights: this.rightsAt(slot),
        };
      }
    }
  }

  #invalidateWhere(matches: (tag: number) => boolean): number {
    let dropped = 0;
    for (const store of this.#stores) {
      store.forEach((local) => {
        if (!matches(store.tagAt(local))) return;
        store.drop(local);
        dropped++;
      });
    }
    return this.#countInvalidation(dropped);
  }

  #countInvalidation(dropped: number): number {
    this.#invalidations++;
    this.#dropped += dropped;
    return dropped;
  }
}
