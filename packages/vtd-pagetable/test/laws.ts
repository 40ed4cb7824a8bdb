import { runToEnd } from '@faultline/sim';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import {
  InvalidationGather,
  PageTableError,
  type PartialLeafRule,
  type SecondStageTable,
  unmap,
  WalkAccess,
  WalkState,
  WalkStatus,
  walk,
} from '../src/index.ts';
import { NaiveTable, reachedTables, slotOf } from './naive-table.ts';
import { PLAIN } from './plain-agent.ts';

const G = 262_144;

/** Makes an empty table; the laws destroy it. */
export type CreateTable = () => SecondStageTable;

interface Range {
  readonly page: number;
  readonly pages: number;
}
/** One call of a random program. */
export type Call =
  | ({ readonly call: 'map'; readonly shift: number; readonly write: boolean } & Range)
  | ({ readonly call: 'unmap'; readonly rule: PartialLeafRule; readonly holes: 'stop' | 'skip' } & Range)
  | ({ readonly call: 'cut' } & Range)
  | { readonly call: 'access'; readonly page: number; readonly write: boolean };

/** Pages near boundaries of all sizes, in the first three 1G of a table and in its last. */
const pageNumber = fc
  .tuple(fc.nat(3), fc.constantFrom(0, 0, 1, 2, 255, 511), fc.constantFrom(0, 0, 1, 7, 511))
  .map(([giga, mega, small]) => giga * G + mega * 512 + small);
const range = fc
  .tuple(pageNumber, pageNumber)
  .map(([a, b]) => ({ page: Math.min(a, b), pages: Math.max(1, Math.abs(a - b)) }));

export const calls: fc.Arbitrary<Call[]> = fc.array(
  fc.oneof(
    { weight: 4, arbitrary: fc.tuple(range, fc.constantFrom(0, 5 * G, 3 * 512, 7), fc.boolean()).map(mapCall) },
    {
      weight: 3,
      arbitrary: fc
        .tuple(range, fc.constantFrom<PartialLeafRule>('linux-7.3', 'whole-leaf'), fc.constantFrom('stop', 'skip'))
        .map(([r, rule, holes]): Call => ({ call: 'unmap', rule, holes: holes as 'stop' | 'skip', ...r })),
    },
    { weight: 2, arbitrary: range.map((r): Call => ({ call: 'cut', ...r })) },
    {
      weight: 1,
      arbitrary: fc.tuple(pageNumber, fc.boolean()).map(([page, write]): Call => ({ call: 'access', page, write })),
    },
  ),
  { maxLength: 14 },
);

/** A run that is not congruent to its frames needs 4K leaves: keep those short. */
function mapCall([r, shift, write]: [Range, number, boolean]): Call {
  return { call: 'map', shift, write, page: r.page, pages: shift === 7 ? Math.min(r.pages, 1200) : r.pages };
}

/** A table and the model beside it. */
export class Pair {
  readonly table: SecondStageTable;
  readonly model = new NaiveTable();
  readonly #walker = new WalkState();
  #stopped = false;

  constructor(table: SecondStageTable) {
    this.table = table;
  }

  /** Makes the call on both and checks everything that the call by itself promises. */
  make(call: Call): void {
    const { table } = this;
    const before = this.model.list();
    const tables = reachedTables(table);
    const used = table.memory.used;
    const gather = new InvalidationGather();
    if (call.call === 'map') this.#map(call, gather);
    else if (call.call === 'unmap') this.#unmap(call, gather, used);
    else if (call.call === 'cut') this.#cut(call, gather);
    else this.#access(call.page, call.write);
    this.#checkGather(call, gather, before, tables);
    table.freeTables(gather);
    this.check();
  }

  /** Leaves, counters, table pages and translations agree with the model. */
  check(): void {
    const { table, model } = this;
    const leaves = [...table.allLeaves()];
    expect(leaves.map(({ page, entry }) => [page, entry])).toEqual(model.list());
    const counts: Record<string, number> = { '4K': 0, '2M': 0, '1G': 0 };
    for (const { level } of leaves) {
      const size = ['', '4K', '2M', '1G'][level] as string;
      counts[size] = (counts[size] as number) + 1;
    }
    expect(table.leafCounts).toEqual(counts);
    expect(table.mappedPages).toBe([...model.leaves.values()].reduce((sum, leaf) => sum + leaf.pages, 0));
    const reached = reachedTables(table);
    expect(table.tablePages).toBe(reached.size);
    expect(table.memory.used).toBe(reached.size + table.reserve.held);
  }

  /** One page by leaf look-up and by a hardware walk. */
  checkPage(page: number): void {
    const frame = this.model.frameOf(page);
    expect(this.table.frameAt(page)).toBe(frame);
    const status = walk(this.table.memory, this.table.masks, this.table.beginWalk(this.#walker, page, WalkAccess.read));
    expect(status === WalkStatus.translated ? this.#walker.framePfn : -1).toBe(frame);
  }

  #map(call: Call & { call: 'map' }, gather: InvalidationGather): void {
    const { page, pages, shift, write } = call;
    const frame = page + shift;
    const expected = this.model.map(page, frame, pages, write ? 3n : 1n);
    let error: unknown = null;
    try {
      expect(this.table.map({ page, frame, pages, rights: { read: true, write } }, gather)).toBe(pages);
    } catch (thrown) {
      error = thrown;
    }
    if (expected === pages) expect(error).toBeNull();
    else
      expect(error).toMatchObject({
        code: 'EADDRINUSE',
        message: expect.stringContaining(`0x${((page + expected) * 4096).toString(16)} `),
      });
    if (error !== null) expect(error).toBeInstanceOf(PageTableError);
  }

  #unmap(call: Call & { call: 'unmap' }, gather: InvalidationGather, used: number): void {
    const { page, pages, rule, holes } = call;
    const request = { page, pages, partialLeaf: rule, holes };
    const expected = this.model.unmap(page, pages, rule, holes);
    this.#stopped = expected.stopped;
    expect(runToEnd(unmap(PLAIN, this.table, request, gather))).toBe(expected.pages);
    expect(this.table.memory.used).toBe(used);
  }

  #cut(call: Range, gather: InvalidationGather): void {
    const crossed = this.model.cut(call.page, call.pages);
    expect(this.table.cut(call.page, call.pages, gather)).toEqual({ ok: true, installs: crossed.length, retries: 0 });
    for (const leaf of crossed) {
      expect(gather.firstPage).toBeLessThanOrEqual(leaf.page);
      expect(gather.lastPage).toBeGreaterThanOrEqual(leaf.page + leaf.pages - 1);
    }
    expect([gather.empty, gather.leafOnly]).toEqual([crossed.length === 0, true]);
  }

  #access(page: number, write: boolean): void {
    const slot = slotOf(this.table, page);
    if (!slot) return;
    const bits = write ? 0x300n : 0x100n;
    const { memory } = this.table;
    memory.store(slot.pfn, slot.index, memory.load(slot.pfn, slot.index) | bits);
    this.model.set(page, bits);
  }

  /** Every leaf that went is within the gathered range; tables go only there, and only if the call covered them whole. */
  #checkGather(
    call: Call,
    gather: InvalidationGather,
    before: [number, bigint][],
    tables: ReturnType<typeof reachedTables>,
  ): void {
    for (const [page] of before) {
      if (this.model.leaves.has(page) || call.call === 'access') continue;
      expect(gather.firstPage <= page && page <= gather.lastPage, `page ${page} went but is not gathered`).toBe(true);
    }
    if (call.call === 'access' || call.call === 'cut') return;
    const covers = (r: Range) => r.page >= call.page && r.page + r.pages <= call.page + call.pages;
    const after = reachedTables(this.table);
    const unlinked = [...tables.keys()].filter((pfn) => !after.has(pfn));
    expect([...gather.freedTables].sort()).toEqual(unlinked.sort());
    if (call.call === 'unmap' && !this.#stopped)
      expect(unlinked).toEqual([...tables.keys()].filter((pfn) => covers(tables.get(pfn) as Range)).sort());
    for (const pfn of unlinked) {
      const reached = tables.get(pfn) as Range;
      expect(covers(reached)).toBe(true);
      expect(gather.firstPage <= reached.page && reached.page + reached.pages - 1 <= gather.lastPage).toBe(true);
    }
  }
}

/** Random programs against the model. */
export function programLaws(create: CreateTable, numRuns: number): void {
  it('random programs leave the table as the model says', () => {
    fc.assert(
      fc.property(calls, fc.array(pageNumber, { maxLength: 8 }), (program, samples) => {
        const table = create();
        const pair = new Pair(table);
        for (const call of program) {
          pair.make(call);
          for (const page of samples) pair.checkPage(page);
          if (call.call !== 'access')
            for (const page of [call.page - 1, call.page, call.page + call.pages - 1, call.page + call.pages])
              if (page >= 0) pair.checkPage(page);
        }
        table.destroy();
        expect([table.memory.used, table.tablePages, table.mappedPages]).toEqual([0, 0, 0]);
      }),
      { numRuns },
    );
  });
}
