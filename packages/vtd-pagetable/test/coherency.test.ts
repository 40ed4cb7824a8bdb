import type { Task } from '@faultline/sim';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  collapse,
  cut,
  InvalidationGather,
  map,
  protect,
  SecondStageTable,
  SS_FLUSHED,
  TableMemory,
  unmap,
  WalkState,
  WalkStatus,
  walk,
} from '../src/index.ts';
import { reachedTables } from './naive-table.ts';
import { PLAIN } from './plain-agent.ts';

const G = 262_144;

/** Frame and rights as hardware and as the CPU finds them; a fault's reason as a negative number. */
function asHardware(table: SecondStageTable, page: number): number {
  const state = new WalkState();
  const status = walk(table.memory, table.masks, table.beginWalk(state, page, 0));
  return status === WalkStatus.translated ? state.framePfn * 4 + state.rights : -state.faultReason;
}
function asCpu(table: SecondStageTable, page: number): number {
  const leaf = table.leafAt(page);
  return leaf === null ? -6 : (leaf.frame + page - leaf.page) * 4 + leaf.rights;
}

const pageNumber = fc.constantFrom(0, 1, 7, 511, 512, 1024, 70_000, G - 1, G, G + 513, 2 * G);
const call = fc.record({
  call: fc.constantFrom('map', 'unmap', 'cut', 'collapse', 'protect'),
  page: pageNumber,
  pages: fc.constantFrom(1, 3, 512, 1000, G),
  two: fc.boolean(),
});
type Call = typeof call extends fc.Arbitrary<infer T> ? T : never;

function task(table: SecondStageTable, { call, page, pages, two }: Call, gather: InvalidationGather): Task<unknown> {
  const range = { page, pages, holes: 'skip' } as const;
  if (call === 'map') return map(PLAIN, table, { ...range, frame: 3 * G + page, rights: 3 }, gather);
  if (call === 'unmap') return unmap(PLAIN, table, { ...range, partialLeaf: 'whole-leaf' }, gather);
  if (call === 'cut') return cut(PLAIN, table, page, pages, gather, { installs: two ? 'two' : 'one' });
  if (call === 'collapse') return collapse(PLAIN, table, page, pages, gather);
  return protect(PLAIN, table, { ...range, rights: two ? 1 : 3 }, gather);
}

/** Runs a task; a refusal, such as for a page in use, is an end like any other. */
function step(running: Task<unknown>): boolean {
  try {
    return !running.next().done;
  } catch (thrown) {
    expect(thrown).toHaveProperty('code');
    return false;
  }
}

describe('where hardware does not snoop', () => {
  it('each operation ends with all that it wrote in memory, and on the way hardware finds the old or the new', () => {
    fc.assert(
      fc.property(fc.array(call, { minLength: 1, maxLength: 6 }), (calls) => {
        const table = new SecondStageTable({ memory: new TableMemory({ pages: 64, coherent: false }) });
        for (const one of calls) {
          const samples = [
            one.page - 1,
            one.page,
            one.page + 1,
            one.page + one.pages - 1,
            one.page + one.pages,
            3,
            600,
          ];
          const watched = samples.filter((page) => page >= 0);
          const before = watched.map((page) => asHardware(table, page));
          const gather = new InvalidationGather();
          const seen = watched.map((page) => new Set([asHardware(table, page)]));
          const running = task(table, one, gather);
          while (step(running)) for (const [nth, page] of watched.entries()) seen[nth]?.add(asHardware(table, page));
          watched.forEach((page, nth) => {
            const after = asCpu(table, page);
            expect(asHardware(table, page)).toBe(after);
            expect([...(seen[nth] as Set<number>)].filter((value) => value !== before[nth] && value !== after)).toEqual(
              [],
            );
          });
          for (const pfn of reachedTables(table).keys())
            for (let index = 0; index < 512; index++) {
              const entry = table.memory.load(pfn, index);
              // The mark itself is the CPU's own affair.
              if ((table.memory.hardwareLoad(pfn, index) | SS_FLUSHED) !== (entry | SS_FLUSHED))
                expect(`${pfn}.${index}`).toBe('flushed');
            }
          table.settle(gather);
        }
        table.destroy();
        expect(table.memory.used).toBe(0);
      }),
      { numRuns: 60 },
    );
  });
  /** A map of page 0 in an empty table that stands before its first step of this name. */
  function interrupted(label: string) {
    const memory = new TableMemory({ pages: 64, coherent: false });
    const table = new SecondStageTable({ memory });
    const first = map(PLAIN, table, { page: 0, frame: 100, pages: 1, rights: 3 }, new InvalidationGather());
    for (let at = first.next(); !at.done && at.value.label !== label; ) at = first.next();
    return { memory, table, first };
  }
  it('a mapper that shares a table which another has not flushed yet flushes it itself', () => {
    const { table, first } = interrupted('flush entries');
    // The first table of the path is installed, but not where hardware looks.
    table.map({ page: 1, frame: 101, pages: 1, rights: { read: true, write: true } });
    expect(asHardware(table, 1)).toBe(101 * 4 + 3);
    while (!first.next().done);
    expect(asHardware(table, 0)).toBe(100 * 4 + 3);
  });
  it('a mapper flushes what it wrote, and no entry on the way that was flushed long since', () => {
    const { table, first } = interrupted('none of them');
    expect(first.next().done).toBe(true);
    const labels: string[] = [];
    const second = map(PLAIN, table, { page: 1, frame: 101, pages: 1, rights: 3 }, new InvalidationGather());
    for (let at = second.next(); !at.done; at = second.next()) labels.push(at.value.label);
    expect(labels).toEqual([...Array(3).fill('read table entry'), 'install leaf', 'flush entries']);
  });
  it('a mapper marks what it has flushed, and not what came in its place', () => {
    const { memory, first, table } = interrupted('mark entry flushed');
    const { rootPfn } = table;
    const other = memory.allocate();
    memory.store(rootPfn, 0, (BigInt(other) << 12n) | 3n);
    first.next();
    expect(memory.load(rootPfn, 0) & SS_FLUSHED).toBe(0n);
  });
  it('a mapper leaves an entry empty that somebody has emptied while it was flushed', () => {
    const { memory, first, table } = interrupted('flush entries');
    memory.store(table.rootPfn, 0, 0n);
    for (let at = first.next(); !at.done && at.value.label !== 'read table entry'; ) at = first.next();
    expect(memory.load(table.rootPfn, 0)).toBe(0n);
  });
  it('a missing flush shows: hardware does not find the new table (D1)', () => {
    const memory = new TableMemory({ pages: 64, coherent: false });
    const table = new SecondStageTable({ memory });
    table.map({ page: G, frame: G, pages: G, rights: { read: true, write: true } });
    const flush = memory.flush.bind(memory);
    memory.flush = (pfn, index, count) => {
      if (count !== 512) flush(pfn, index, count);
    };
    table.cut(G + 1, 1, new InvalidationGather());
    expect([asHardware(table, G), asCpu(table, G)]).toEqual([-6, G * 4 + 3]);
  });
});

it('where it snoops, no step is spent on flushing', () => {
  const labels: string[] = [];
  const table = new SecondStageTable({ memory: new TableMemory({ pages: 64 }) });
  for (const running of [
    map(PLAIN, table, { page: 0, frame: 0, pages: 513, rights: 3 }, new InvalidationGather()),
    cut(PLAIN, table, 3, 1, new InvalidationGather()),
    unmap(PLAIN, table, { page: 3, pages: 1, partialLeaf: 'linux-7.3', holes: 'stop' }, new InvalidationGather()),
  ])
    for (let at = running.next(); !at.done; at = running.next()) labels.push(at.value.label);
  expect(labels).toContain('install sub-tree');
  expect(labels.filter((label) => label.includes('flush'))).toEqual([]);
});
