import { Iotlb } from '@faultline/iotlb';
import { Agent, runToEnd } from '@faultline/sim';
import { type SecondStageTable, TableMemory } from '@faultline/vtd-pagetable';
import { MISS, RemappingUnit, VtdDriver } from '@faultline/vtd-remapping';
import { clockNs, type Outcome, outcome } from './benchmark.ts';
import { mappedTable } from './table-world.ts';
import { ADDRESSES, type Addresses, FIRST_PAGE, GIB_PAGES, makeAddresses, mix, xorshift32 } from './working-set.ts';

const SOURCE_ID = 0x0310;
const DOMAIN_ID = 7;
/** Entries of the default geometry for 4K, 2M, 1G: as many pages are hot. */
const HOT_ENTRIES = { 1: 64, 2: 32, 3: 4 } as const;

type LeafLevel = keyof typeof HOT_ENTRIES;

const leafLo = (level: LeafLevel, frame: number): number => (frame << 12) | (level > 1 ? 0x80 : 0) | 3;
const leafHi = (frame: number): number => Math.floor(frame / 2 ** 20);

// Kept from round to round: when the last object of a class is collected, V8 throws away the code that was compiled for it.
const hot: (HotUnit | undefined)[] = [];
let missing: Iotlb | undefined;
let invalidated: Iotlb | undefined;
let attached: RemappingUnit | undefined;
/** Which page {@link iotlbMiss} looks up next. */
let turn = 64;

/** A unit and the addresses that it is asked for. */
export interface HotUnit {
  readonly unit: RemappingUnit;
  readonly addresses: Addresses;
}

/** A unit whose IOTLB is full of pages of one size, and random addresses in them: every translation hits. */
export function hotUnit(level: LeafLevel): HotUnit {
  const kept = hot[level];
  if (kept !== undefined) return kept;
  const unit = new RemappingUnit({ memory: new TableMemory({ pages: 16 }) });
  new VtdDriver({ unit, mode: 'legacy' }); // turns translation on
  const entries = HOT_ENTRIES[level];
  const shift = 9 * (level - 1);
  const addresses = makeAddresses(entries * 2 ** shift);
  const random = xorshift32(0x9e37_79b9);
  for (let i = 0; i < entries; i++) {
    const frame = ((random() & 0x3fff_ffff) >>> shift) << shift;
    const page = FIRST_PAGE + i * 2 ** shift;
    const hi = Math.floor(page / 2 ** 20);
    unit.iotlb.fill(SOURCE_ID, DOMAIN_ID, hi, (page << 12) | 0, level, leafLo(level, frame), leafHi(frame), 3);
  }
  const made = { unit, addresses };
  hot[level] = made;
  return made;
}

/** Translates the addresses in turn, reads and writes. @returns the hash over the frames */
export function translateHits({ unit, addresses }: HotUnit, operations: number): number {
  const { hi, lo } = addresses;
  const last = ADDRESSES - 1;
  const sourceId = SOURCE_ID;
  let hash = 0;
  for (let i = 0; i < operations; i++) {
    const at = i & last;
    hash = mix(hash, unit.translate(sourceId, hi[at]!, lo[at]!, i & 1));
  }
  return hash;
}

/** `translate` of a unit where every address is in the IOTLB, as a page of this level. */
export function iotlbHit(level: LeafLevel, operations: number): Outcome {
  const hotUnitOfLevel = hotUnit(level);
  const start = clockNs();
  const hash = translateHits(hotUnitOfLevel, operations);
  const end = clockNs();
  const { hits4K, hits2M, hits1G } = hotUnitOfLevel.unit.iotlb.counters;
  return outcome(start, end, mix(hash, level === 1 ? hits4K : level === 2 ? hits2M : hits1G));
}

const PAGES_HI = Math.floor(FIRST_PAGE / 2 ** 20);

/** Caches a 4K page, given by its number from {@link FIRST_PAGE}. */
const fillPage = (iotlb: Iotlb, page: number): number =>
  iotlb.fill(SOURCE_ID, DOMAIN_ID, PAGES_HI, page << 12, 1, (page << 12) | 3, 1, 3);

/** An IOTLB with the first pages in it. */
function smallIotlb(): Iotlb {
  const iotlb = new Iotlb();
  for (let page = 0; page < 64; page++) fillPage(iotlb, page);
  return iotlb;
}

/** 1024 pages in turn, in a cache for 64 that replaces the least recently used: each is looked up, missed and filled. */
export function iotlbMiss(operations: number): Outcome {
  missing ??= smallIotlb();
  const iotlb = missing;
  let hash = 0;
  const start = clockNs();
  for (let i = 0; i < operations; i++) {
    const page = turn++ & 1023;
    const slot = iotlb.lookup(SOURCE_ID, PAGES_HI, page << 12);
    hash = mix(hash, slot);
    if (slot < 0) fillPage(iotlb, page);
  }
  const end = clockNs();
  return outcome(start, end, mix(mix(hash, iotlb.counters.fills), iotlb.counters.evictions));
}

/** A page-selective invalidation that finds its page, and the fill that brings it back. */
export function iotlbInvalidation(operations: number): Outcome {
  invalidated ??= smallIotlb();
  const iotlb = invalidated;
  let hash = 0;
  const start = clockNs();
  for (let i = 0; i < operations; i++) {
    const page = Math.imul(i, 29) & 63;
    hash = mix(hash, iotlb.invalidatePages(DOMAIN_ID, PAGES_HI, page << 12, 0));
    fillPage(iotlb, page);
  }
  const end = clockNs();
  return outcome(start, end, mix(mix(hash, iotlb.counters.fills), iotlb.counters.dropped));
}

/** A unit with one device whose domain is that table. */
function attachedUnit(table: SecondStageTable): RemappingUnit {
  const { memory, rootPfn } = table;
  const unit = new RemappingUnit({ memory });
  const driver = new VtdDriver({ unit, mode: 'legacy' });
  driver.attach(SOURCE_ID, { domainId: DOMAIN_ID, tablePfn: rootPfn, levels: 4, endpoint: null });
  return unit;
}

const agent = new Agent('device');

/** Random pages of 1 GiB in 4K leaves: IOTLB, context cache, paging-structure caches, walk, fills. */
export function translationMiss(operations: number): Outcome {
  attached ??= attachedUnit(mappedTable(1));
  const unit = attached;
  const { hi, lo } = makeAddresses(GIB_PAGES);
  let hash = 0;
  const start = clockNs();
  for (let i = 0; i < operations; i++) {
    const iovaHi = hi[i & (ADDRESSES - 1)]!;
    const iovaLo = lo[i & (ADDRESSES - 1)]!;
    const access = i & 1;
    let frame = unit.translate(SOURCE_ID, iovaHi, iovaLo, access);
    if (frame === MISS) {
      const request = { sourceId: SOURCE_ID, iovaHi, iovaLo, access };
      frame = runToEnd(unit.translateMiss(agent, request));
    }
    hash = mix(hash, frame);
  }
  const end = clockNs();
  hash = mix(mix(mix(hash, unit.walkReads), unit.pagingCacheHits), unit.iotlb.counters.evictions);
  return outcome(start, end, hash);
}
