import { InvalidationGather, SecondStageTable, TableMemory } from '@faultline/vtd-pagetable';
import { FIRST_PAGE, GIB_PAGES, mix } from './working-set.ts';

/** GiB that are mapped and unmapped together where one is over too soon for the clock. */
export const BATCH_GIB = 16;

/** A table in 4 MiB of table memory of its own, and what its changes owe. */
export interface TableWorld {
  readonly table: SecondStageTable;
  gather: InvalidationGather;
}

const makeWorld = (): TableWorld => ({
  table: new SecondStageTable({ memory: new TableMemory({ pages: 1024 }), reservePages: 0 }),
  gather: new InvalidationGather(),
});

const RIGHTS = { read: true, write: true };

/** A frame that makes `level` the largest leaf that fits: aligned to it and to nothing larger. */
const frameFor = (level: number): number => 0x400_0000 + (level === 1 ? 1 : level === 2 ? 512 : 0);

function mustBe(got: number, expected: number, what: string): void {
  if (got !== expected) throw new Error(`${what}: ${got}, expected ${expected}`);
}

/** Maps the first `count` GiB, one at a time, in leaves of a level. */
export function mapGib(world: TableWorld, count: number, level: number): void {
  const first = frameFor(level);
  for (let i = 0; i < count; i++) {
    const page = FIRST_PAGE + i * GIB_PAGES;
    const request = { page, frame: first + i * GIB_PAGES, pages: GIB_PAGES, rights: RIGHTS };
    mustBe(world.table.map(request, world.gather), GIB_PAGES, 'map');
  }
}

/** Unmaps them again. */
export function unmapGib(world: TableWorld, count: number): void {
  for (let i = 0; i < count; i++)
    mustBe(world.table.unmap(FIRST_PAGE + i * GIB_PAGES, GIB_PAGES, world.gather), GIB_PAGES, 'unmap');
}

/** After the flush, which both sides leave out. */
export function freeGathered(world: TableWorld): void {
  world.table.freeTables(world.gather);
  world.gather = new InvalidationGather();
}

/** Over every leaf in address order, and the counts. Reads memory itself, as the native side does. */
export function hashTable(table: SecondStageTable): number {
  const { halves, basePfn } = table.memory;
  const hashLevel = (pfn: number, level: number, base: number, before: number): number => {
    let hash = before;
    const first = (pfn - basePfn) * 1024;
    for (let index = 0; index < 512; index++) {
      const lo = halves[first + 2 * index]!;
      const hi = halves[first + 2 * index + 1]!;
      if ((lo & 3) === 0) continue;
      const page = base + index * 2 ** (9 * (level - 1));
      if (level === 1 || (level < 4 && (lo & 0x80) !== 0)) hash = mix(mix(mix(hash, page), lo), hi);
      else hash = hashLevel((hi & 0xf_ffff) * 2 ** 20 + (lo >>> 12), level - 1, page, hash);
    }
    return hash;
  };
  let hash = hashLevel(table.rootPfn, table.levels, 0, 0);
  for (let level = 1; level <= 3; level++) hash = mix(hash, table.leaves[level]!);
  return mix(hash, table.tablePages);
}

/** Folds what is owed into a hash. */
export const hashGather = (hash: number, { firstPage, lastPage, freedTables }: InvalidationGather): number =>
  mix(mix(mix(hash, firstPage), lastPage), freedTables.length);

// Kept from round to round: when the last object of a class is collected, V8 throws away the code that was compiled for it.
let changing: TableWorld | undefined;
const mapped: (SecondStageTable | undefined)[] = [];

/** The table whose map, unmap and cut are measured; empty between two rounds. */
export function changingWorld(): TableWorld {
  changing ??= makeWorld();
  return changing;
}

/** GiB that {@link mappedTable} maps. */
export const mappedGib = (level: 1 | 2 | 3): number => (level === 3 ? BATCH_GIB : 1);

/** The table where 1 GiB is mapped in leaves of a level, or 16 GiB in 1G leaves. */
export function mappedTable(level: 1 | 2 | 3): SecondStageTable {
  let table = mapped[level];
  if (table === undefined) {
    const world = makeWorld();
    mapGib(world, mappedGib(level), level);
    table = world.table;
    mapped[level] = table;
  }
  return table;
}
