import { runToEnd, type Task } from '@faultline/sim';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type CutOptions,
  collapse,
  cut,
  InvalidationGather,
  map,
  readAndClearDirty,
  SecondStageTable,
  TableMemory,
  unmap,
} from '../src/index.ts';
import { slotOf } from './naive-table.ts';
import { PLAIN } from './plain-agent.ts';
import { StaleDevice } from './stale-device.ts';

const G = 262_144;
const rights = { read: true, write: true };

function newTable(accessedDirty = true): SecondStageTable {
  return new SecondStageTable({ memory: new TableMemory({ pages: 64 }), accessedDirty });
}

function setBits(table: SecondStageTable, page: number, bits: bigint): void {
  const { pfn, index } = slotOf(table, page) as { pfn: number; index: number };
  table.memory.store(pfn, index, table.memory.load(pfn, index) | bits);
}

function read(table: SecondStageTable, page: number, pages: number, clear: boolean) {
  const gather = new InvalidationGather();
  const reported: [number, number][] = [];
  const report = (first: number, count: number) => reported.push([first, count]);
  const count = runToEnd(readAndClearDirty(PLAIN, table, { page, pages, clear }, gather, report));
  expect(count).toBe(reported.length);
  return { reported, gathered: [gather.firstPage, gather.lastPage], gather };
}

describe('a dirty read', () => {
  it('reports whole leaves of any size, not clipped to the range, and gathers what it clears', () => {
    const table = newTable();
    table.map({ page: G, frame: 0, pages: G + 1024 + 3, rights });
    for (const page of [G + 5, 2 * G + 600, 2 * G + 1025]) setBits(table, page, 0x300n);
    setBits(table, 2 * G, 0x100n); // accessed alone
    const all = [
      [G, G],
      [2 * G + 512, 512],
      [2 * G + 1025, 1],
    ];
    expect(read(table, 0, 4 * G, false)).toMatchObject({ reported: all, gathered: [-1, -1] });
    expect(read(table, G + 7, G + 600, false).reported).toEqual(all.slice(0, 2));
    expect(read(table, G + 7, 1, true)).toMatchObject({ reported: [all[0]], gathered: [G, 2 * G - 1] });
    expect(read(table, 0, 4 * G, true)).toMatchObject({
      reported: all.slice(1),
      gathered: [2 * G + 512, 2 * G + 1025],
    });
    expect(read(table, 0, 4 * G, true)).toMatchObject({ reported: [], gathered: [-1, -1] });
    expect(table.leafAt(2 * G + 1025)?.entry).toBe((1025n << 12n) + (BigInt(G) << 12n) + 0x103n);
  });
  it('keeps a bit that hardware sets while D is being cleared', () => {
    const table = newTable();
    table.map({ page: 0, frame: 0, pages: 1, rights });
    setBits(table, 0, 0x200n);
    const { memory } = table;
    const exchange = memory.compareExchange.bind(memory);
    let meddled = false;
    memory.compareExchange = (pfn, index, expected, replacement) => {
      if (!meddled) setBits(table, 0, 0x100n);
      meddled = true;
      return exchange(pfn, index, expected, replacement);
    };
    expect(read(table, 0, 1, true).reported).toEqual([[0, 1]]);
    expect(table.leafAt(0)?.entry).toBe(0x103n);
  });
  it('takes bytes through the method, and is refused where hardware sets no D', () => {
    const table = newTable();
    table.mapRange({ iova: 0x20_0000n, paddr: 0n, length: 0x20_0000n, rights });
    setBits(table, 512, 0x200n);
    const reported: [bigint, bigint][] = [];
    const range = { iova: 0x20_1000n, length: 0x1000n, clear: true };
    table.readAndClearDirty(range, new InvalidationGather(), (iova, length) => reported.push([iova, length]));
    expect(reported).toEqual([[0x20_0000n, 0x20_0000n]]);
    expect(() => newTable(false).readAndClearDirty(range, new InvalidationGather(), () => undefined)).toThrow(
      'EOPNOTSUPP: the unit sets no dirty bits in this table',
    );
    const memory = new TableMemory({ pages: 8, coherent: false });
    expect(() => new SecondStageTable({ memory, accessedDirty: true })).toThrow('EOPNOTSUPP: accessedDirty');
  });
  it('does not let dirty bits get lost in freeTables', () => {
    const table = newTable();
    table.map({ page: 0, frame: 0, pages: 1, rights });
    setBits(table, 0, 0x200n);
    const gather = new InvalidationGather();
    table.unmap(0, 1, gather);
    expect(() => table.freeTables(gather)).toThrow('freeTables would lose dirty bits');
  });
});

/** Pages that the device writes: in three 2M blocks of a 1G leaf. */
const pages = [0, 1, 2, 511, 512, 513, 1030, 70_000].map((page) => G + page);
interface Operation {
  readonly op: 'cut' | 'remap' | 'collapse' | 'read';
  /** Of a cut or remap: which page, and by which policy. */
  readonly nth: number;
  readonly harvest: boolean;
}
const operation: fc.Arbitrary<Operation> = fc.record({
  op: fc.constantFrom<Operation['op']>('cut', 'remap', 'collapse', 'read'),
  nth: fc.nat(pages.length - 1),
  harvest: fc.boolean(),
});
const program = fc.array(fc.tuple(operation, fc.array(fc.nat(3 * pages.length), { maxLength: 12 })), { maxLength: 12 });

/** How the host goes wrong on purpose. */
type Mistake = 'none' | 'report-before-flush' | 'no-late-bits';

/** Runs operations with device accesses between any two steps. @returns pages whose write no report covers */
function unsavedAfter(operations: [Operation, number[]][], mistake: Mistake): Set<number> {
  const table = newTable();
  table.map({ page: G, frame: G, pages: G, rights });
  const device = new StaleDevice(table);
  const readAll = { page: G, pages: G, clear: true };
  const run = (
    accesses: number[],
    task: (gather: InvalidationGather, report: (p: number, n: number) => void) => Task<unknown>,
  ) => {
    const gather = new InvalidationGather();
    const reported: { page: number; pages: number }[] = [];
    const queue = [...accesses];
    const access = () => {
      // One access in three is a pause: the next step comes first.
      const next = queue.shift() ?? 0;
      const page = pages[next % (pages.length + 1)];
      if (page !== undefined) device.access(page, next % 3 !== 0);
    };
    const steps = task(gather, (page, count) => reported.push({ page, pages: count }));
    while (!steps.next().done) access();
    access();
    if (mistake === 'report-before-flush') device.save(gather.dirtyLeaves);
    access();
    if (mistake === 'no-late-bits') gather.lateTables.length = 0;
    device.flush(gather);
    const early = mistake === 'report-before-flush';
    const dirty = table.settle(gather);
    device.save(early ? reported : [...reported, ...dirty]);
    while (queue.length > 0) access();
  };
  for (const [operation, accesses] of operations) {
    if (operation.op === 'read')
      run(accesses, (gather, report) => readAndClearDirty(PLAIN, table, readAll, gather, report));
    else if (operation.op === 'collapse') run(accesses, (gather) => collapse(PLAIN, table, G, G, gather));
    else {
      const page = pages[operation.nth] as number;
      const options: CutOptions = { accessedDirty: operation.harvest ? 'clear-after-harvest' : 'inherit' };
      run(accesses, (gather) => cut(PLAIN, table, page, 1, gather, options));
      if (operation.op === 'cut') continue;
      const range = { page, pages: 1, partialLeaf: 'linux-7.3', holes: 'stop' } as const;
      run(accesses, (gather) => unmap(PLAIN, table, range, gather));
      run(accesses, (gather) => map(PLAIN, table, { page, frame: page, pages: 1, rights: 3 }, gather));
    }
  }
  run([], (gather, report) => readAndClearDirty(PLAIN, table, readAll, gather, report));
  table.destroy();
  expect(table.memory.used).toBe(0);
  return device.unsaved;
}

describe('no write of a device is lost (I6)', () => {
  it('over cuts of either policy, collapses, unmaps and dirty reads, with accesses between any two steps', () => {
    fc.assert(
      fc.property(program, (operations) => {
        expect([...unsavedAfter(operations, 'none')]).toEqual([]);
      }),
      { numRuns: 400 },
    );
  });
  it.each(['report-before-flush', 'no-late-bits'] as const)('unless the host makes a mistake: %s', (mistake) => {
    const found = fc.check(
      fc.property(program, (operations) => unsavedAfter(operations, mistake).size === 0),
      { numRuns: 3000, seed: 1 },
    );
    expect(found.failed).toBe(true);
  });
});
