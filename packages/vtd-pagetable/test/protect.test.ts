import { runToEnd } from '@faultline/sim';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  InvalidationGather,
  type ProtectRequest,
  protect,
  SecondStageTable,
  TableMemory,
  WalkState,
  walk,
} from '../src/index.ts';
import { slotOf } from './naive-table.ts';
import { PLAIN } from './plain-agent.ts';

const G = 262_144;
const rights = { read: true, write: true };

/** A 1G leaf, two 2M leaves, 100 small ones, a hole of one page, and 50 small ones. */
function newTable(): SecondStageTable {
  const table = new SecondStageTable({ memory: new TableMemory({ pages: 64 }) });
  table.map({ page: G, frame: 0, pages: G + 1024 + 100, rights });
  table.map({ page: 2 * G + 1125, frame: 9, pages: 50, rights });
  return table;
}

function run(table: SecondStageTable, request: Partial<ProtectRequest> & { page: number; pages: number }) {
  const gather = new InvalidationGather();
  const done = runToEnd(protect(PLAIN, table, { rights: 1, holes: 'stop', ...request }, gather));
  return { done, gathered: [gather.firstPage, gather.lastPage], leafOnly: gather.leafOnly };
}

const rightsAt = (table: SecondStageTable, page: number) => table.leafAt(page)?.rights ?? 0;

describe('a change of rights', () => {
  it('reaches the whole leaves of the range and nothing else, as walks see it', () => {
    const table = newTable();
    expect(run(table, { page: 2 * G + 512, pages: 512 + 7 })).toEqual({
      done: 519,
      gathered: [2 * G + 512, 2 * G + 1030],
      leafOnly: true,
    });
    const state = new WalkState();
    const walked = (page: number) => {
      walk(table.memory, table.masks, table.beginWalk(state, page, 1));
      return state.faultReason;
    };
    expect([511, 512, 1030, 1031].map((page) => walked(2 * G + page))).toEqual([0, 5, 5, 0]);
    expect(table.frameAt(2 * G + 600)).toBe(G + 600);
  });
  it('stops at a hole or skips it', () => {
    expect(run(newTable(), { page: 2 * G + 1024, pages: 200 })).toMatchObject({ done: 100 });
    expect(run(newTable(), { page: 2 * G + 1024, pages: 200, holes: 'skip' })).toMatchObject({ done: 150 });
    expect(run(newTable(), { page: 0, pages: 20 })).toEqual({ done: 0, gathered: [-1, -1], leafOnly: true });
  });
  it('gathers nothing where nothing changes, or where only W comes and all devices take faults', () => {
    const table = newTable();
    const all = { page: G, pages: G };
    expect(run(table, { ...all, rights: 3 }).gathered).toEqual([-1, -1]);
    expect(run(table, { ...all, rights: 1 }).gathered).toEqual([G, 2 * G - 1]);
    expect(run(table, { ...all, rights: 3, faultCapable: true }).gathered).toEqual([-1, -1]);
    expect(run(table, { ...all, rights: 2, faultCapable: true }).gathered).toEqual([G, 2 * G - 1]);
    // R was not there: a stale entry denies reads too (6.5.3.5).
    expect(run(table, { ...all, rights: 3, faultCapable: true }).gathered).toEqual([G, 2 * G - 1]);
    // What takes W away is owed whatever the devices do: a stale entry would let writes through.
    expect(run(table, { ...all, rights: 1, faultCapable: true }).gathered).toEqual([G, 2 * G - 1]);
    expect(run(table, { ...all, rights: 3 }).gathered).toEqual([G, 2 * G - 1]);
    expect(run(table, { page: 2 * G, pages: 1024 }).gathered).toEqual([2 * G, 2 * G + 1023]);
  });
  it.each([
    [G + 5, 10, 'EINVAL: iova: 0x40005000 is inside the 1G leaf at 0x40000000; cut there first'],
    [2 * G, 513, 'EINVAL: iova: 0x80201000 is inside the 2M leaf at 0x80200000; cut there first'],
    [-1, 1, 'EINVAL: page: -1'],
    [2 ** 36 - 1, 2, 'ERANGE: iova: 0xfffffffff000 + 0x2000'],
  ])('refuses page %d, pages %d, and changes nothing', (page, pages, message) => {
    const table = newTable();
    expect(() => run(table, { page, pages })).toThrow(message);
    expect([G, 2 * G, 2 * G + 512].map((at) => rightsAt(table, at))).toEqual([3, 3, 3]);
    expect(() => run(table, { page: G, pages: G, rights: 0 })).toThrow('EINVAL: rights: neither read nor write');
  });
  it('after a cut does what a plain model of pages says', () => {
    const range = fc.tuple(fc.nat(1600), fc.integer({ min: 1, max: 700 }), fc.constantFrom(1, 2, 3));
    fc.assert(
      fc.property(fc.array(range, { maxLength: 6 }), (changes) => {
        const table = newTable();
        const model = new Map<number, number>();
        for (let page = 0; page < 2400; page++) model.set(page, table.frameAt(2 * G + page) < 0 ? 0 : 3);
        for (const [page, pages, wanted] of changes) {
          table.cut(2 * G + page, pages, new InvalidationGather());
          let done = 0;
          for (; done < pages && model.get(page + done) !== 0; done++) model.set(page + done, wanted);
          expect(run(table, { page: 2 * G + page, pages, rights: wanted }).done).toBe(done);
        }
        for (const [page, wanted] of model) expect(rightsAt(table, 2 * G + page)).toBe(wanted);
      }),
      { numRuns: 40 },
    );
  });
  it('keeps a bit that hardware sets meanwhile', () => {
    const table = newTable();
    const task = protect(PLAIN, table, { page: G, pages: G, rights: 1, holes: 'stop' }, new InvalidationGather());
    for (let step = task.next(); !step.done && step.value.label !== 'change rights'; ) step = task.next();
    const { pfn, index } = slotOf(table, G) as { pfn: number; index: number };
    table.memory.store(pfn, index, table.memory.load(pfn, index) | 0x300n);
    expect(runToEnd(task)).toBe(G);
    expect((table.leafAt(G)?.entry ?? 0n) & 0x303n).toBe(0x301n);
  });
  it('keeps a bit that hardware sets in the very moment of the exchange', () => {
    const table = newTable();
    const { memory } = table;
    const exchange = memory.compareExchange.bind(memory);
    let meddled = false;
    memory.compareExchange = (pfn, index, expected, replacement) => {
      if (!meddled) memory.store(pfn, index, memory.load(pfn, index) | 0x300n);
      meddled = true;
      return exchange(pfn, index, expected, replacement);
    };
    expect(run(table, { page: G, pages: G })).toMatchObject({ done: G, gathered: [G, 2 * G - 1] });
    expect((table.leafAt(G)?.entry ?? 0n) & 0x303n).toBe(0x301n);
  });

  /** Stands before the change of the two 2M leaves. @returns how to go on: the pages that have the rights, and the steps */
  function beforeChange(table: SecondStageTable) {
    const request = { page: 2 * G, pages: 1024, rights: 1, holes: 'stop' } as const;
    const task = protect(PLAIN, table, request, new InvalidationGather());
    for (let step = task.next(); !step.done && step.value.label !== 'change rights'; ) step = task.next();
    return () => {
      const labels: string[] = [];
      for (let step = task.next(); ; step = task.next()) {
        if (step.done) return { done: step.value, labels };
        labels.push(step.value.label);
      }
    };
  }
  it('does not bring back a leaf that somebody unmaps meanwhile, and has nothing to flush then', () => {
    const memory = new TableMemory({ pages: 64, coherent: false });
    const table = new SecondStageTable({ memory });
    table.map({ page: 2 * G, frame: 0, pages: 1024, rights });
    const finish = beforeChange(table);
    const slot = slotOf(table, 2 * G) as { pfn: number; index: number };
    table.unmap(2 * G, 512, new InvalidationGather());
    expect(finish()).toEqual({ done: 0, labels: [] });
    expect([memory.load(slot.pfn, slot.index), rightsAt(table, 2 * G + 512)]).toEqual([0n, 3]);
  });
  it('goes into a table that somebody puts in the place of a leaf meanwhile, and leaves its own entry alone', () => {
    const table = newTable();
    const finish = beforeChange(table);
    table.cut(2 * G + 7, 1, new InvalidationGather());
    expect(finish().done).toBe(1024);
    expect([0, 7, 511, 512, 1023, 1024].map((page) => rightsAt(table, 2 * G + page))).toEqual([1, 1, 1, 1, 1, 3]);
    // R and W of the entry above hold for all that is below: without W there no leaf could be written again.
    run(table, { page: 2 * G, pages: 1024, rights: 3 });
    const state = new WalkState();
    walk(table.memory, table.masks, table.beginWalk(state, 2 * G + 7, 1));
    expect(state.faultReason).toBe(0);
  });
});
