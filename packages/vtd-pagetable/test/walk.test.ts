import { Agent, Cost, Location, runToEnd } from '@faultline/sim';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  DEFAULT_ENTRY_CAPABILITIES,
  type EntryCapabilities,
  FaultReason,
  reservedMasks,
  SecondStageTable,
  TableMemory,
  WalkAccess,
  WalkState,
  WalkStatus,
  walk,
  walkIndex,
  walkTask,
} from '../src/index.ts';
import { naiveWalk } from './naive-table.ts';

const PAGES = 10;
const SLOTS = [0, 1, 256, 511];
const BASE = 0x1000;

const units: fc.Arbitrary<EntryCapabilities> = fc.record({
  hostAddressWidth: fc.constantFrom(32, 46, 52),
  page2M: fc.boolean(),
  page1G: fc.boolean(),
  snoopControl: fc.boolean(),
  specRevision: fc.constantFrom('3.x', '5.10'),
  deviceTlb: fc.boolean(),
});
const rights = fc.constantFrom(0n, 1n, 2n, 3n, 3n, 3n, 3n, 3n);
const pointer = fc.integer({ min: 0, max: PAGES }).map((page) => BigInt(BASE + page) << 12n);
/** Tables in and just outside the region, leaves of all sizes, single wrong bits and pure noise. */
const entry = fc.oneof(
  { weight: 6, arbitrary: fc.tuple(pointer, rights).map(([address, bits]) => address | bits) },
  {
    weight: 3,
    arbitrary: fc
      .tuple(fc.bigInt({ min: 0n, max: 2n ** 32n - 1n }), fc.constantFrom(12n, 21n, 30n), rights)
      .map(([frame, shift, bits]) => ((frame << shift) & 0x000f_ffff_ffff_f000n) | 0x80n | bits),
  },
  {
    weight: 1,
    arbitrary: fc.tuple(pointer, rights, fc.bigInt({ min: 2n, max: 63n })).map(([a, r, bit]) => a | r | (1n << bit)),
  },
  { weight: 1, arbitrary: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }) },
);
const corrupt = fc.record({
  unit: units,
  levels: fc.constantFrom(3, 4, 5),
  entries: fc.array(entry, { minLength: PAGES * SLOTS.length, maxLength: PAGES * SLOTS.length }),
  walks: fc.array(
    fc.record({
      slots: fc.array(fc.constantFrom(...SLOTS), { minLength: 5, maxLength: 5 }),
      offset: fc.nat(4095),
      write: fc.boolean(),
    }),
    { minLength: 6, maxLength: 6 },
  ),
});

const halves = (iova: bigint): [number, number] => [Number(iova >> 32n), Number(BigInt.asIntN(32, iova))];

function answerOf(state: WalkState): object {
  const translated = state.status === WalkStatus.translated;
  const { rights: held, reads, level, faultReason: reason } = state;
  return { reason, frame: translated ? state.framePfn : -1, rights: held, reads, level };
}

describe('a walk', () => {
  it('over any tables, sound or corrupt, is the one that the rules give', () => {
    const reasons = new Map<number, number>();
    fc.assert(
      fc.property(corrupt, ({ unit, levels, entries, walks }) => {
        const memory = new TableMemory({ basePfn: BASE, pages: PAGES });
        for (const [index, word] of entries.entries())
          memory.store(BASE + Math.floor(index / SLOTS.length), SLOTS[index % SLOTS.length] as number, word);
        const masks = reservedMasks(unit);
        for (const { slots, offset, write } of walks) {
          const iova = slots
            .slice(0, levels)
            .reduce((address, slot, depth) => address | (BigInt(slot) << BigInt(12 + 9 * depth)), BigInt(offset));
          const expected = naiveWalk({ memory, unit, rootPfn: BASE, levels, iova, write });
          const access = write ? WalkAccess.write : WalkAccess.read;
          const plain = new WalkState();
          plain.begin(BASE, levels, ...halves(iova), access);
          const status = walk(memory, masks, plain);
          expect(status).toBe(expected.reason === 0 ? WalkStatus.translated : WalkStatus.faulted);
          expect(answerOf(plain)).toEqual(expected);
          const stepped = new WalkState();
          stepped.begin(BASE, levels, ...halves(iova), access);
          expect(runToEnd(walkTask(new Agent('walker'), memory, masks, stepped))).toBe(status);
          expect({ ...stepped, entry: stepped.entry }).toEqual({ ...plain, entry: plain.entry });
          reasons.set(expected.reason, (reasons.get(expected.reason) ?? 0) + 1);
        }
      }),
      { numRuns: 1500 },
    );
    // The generator reaches every outcome often.
    for (const reason of [0, 5, 6, 7, 12]) expect(reasons.get(reason) ?? 0).toBeGreaterThan(100);
  });
  it('as a task announces each read before it makes it', () => {
    const memory = new TableMemory({ pages: 16 });
    const table = new SecondStageTable({ memory });
    table.map({ page: 0x12345, frame: 0x777, pages: 1, rights: { read: true, write: false } });
    const agent = new Agent('walker');
    const state = table.beginWalk(new WalkState(), 0x12345, WalkAccess.read);
    const labels: string[] = [];
    for (const step of walkTask(agent, memory, table.masks, state)) {
      expect([step.kind, step.cost, step.waitFor]).toEqual([Location.entry, Cost.walkRead, null]);
      expect(step.location).toBe(memory.location(state.tablePfn, state.index));
      labels.push(step.label);
      expect(state.reads).toBe(labels.length - 1);
    }
    expect(labels).toEqual(['read SS-PML4E', 'read SS-PDPTE', 'read SS-PDE', 'read SS-PTE']);
    expect([state.framePfn, state.rights, state.level]).toEqual([0x777, 1, 1]);
  });
  it('can start below the root with the rights so far', () => {
    const memory = new TableMemory({ pages: 16 });
    const table = new SecondStageTable({ memory });
    table.map({ page: 512, frame: 512, pages: 512, rights: { read: true, write: true } });
    const full = table.beginWalk(new WalkState(), 700, WalkAccess.write);
    while (full.level > 2) walk1(memory, table, full);
    const short = new WalkState();
    short.begin(full.tablePfn, 2, 0, 700 << 12, WalkAccess.write, 1);
    expect(walk(memory, table.masks, short)).toBe(WalkStatus.faulted);
    expect([short.faultReason, short.reads]).toEqual([FaultReason.writeNotAllowed, 1]);
    short.begin(full.tablePfn, 2, 0, 700 << 12, WalkAccess.write, 3);
    expect(walk(memory, table.masks, short)).toBe(WalkStatus.translated);
    expect([short.framePfn, short.reads]).toEqual([700, 1]);
  });
  it.each([3, 4, 5] as const)('beyond the input range of %i levels faults and finds no leaf', (levels) => {
    const table = new SecondStageTable({ memory: new TableMemory({ pages: 16 }), levels });
    table.map({ page: 0, frame: 5, pages: 1, rights: { read: true, write: true } });
    const state = table.beginWalk(new WalkState(), table.inputPages, WalkAccess.read);
    expect(walk(table.memory, table.masks, state)).toBe(WalkStatus.faulted);
    expect([state.faultReason, state.reads]).toEqual([FaultReason.addressBeyondWidth, 0]);
    expect([table.frameAt(table.inputPages), table.frameAt(-1), table.frameAt(0)]).toEqual([-1, -1, 5]);
  });
  it.each([-1, Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY, Number.NaN])(
    'of page %s is beyond the width',
    (page) => {
      const table = new SecondStageTable({ memory: new TableMemory({ pages: 32 }) });
      // Where the low bits of page -1 would lead to.
      table.map({ page: table.inputPages - 1, frame: 5, pages: 1, rights: { read: true, write: true } });
      const state = table.beginWalk(new WalkState(), page, WalkAccess.read);
      expect(walk(table.memory, table.masks, state)).toBe(WalkStatus.faulted);
      expect([state.faultReason, state.reads, table.frameAt(page)]).toEqual([FaultReason.addressBeyondWidth, 0, -1]);
    },
  );
  it('indexes by halves as by whole addresses', () => {
    fc.assert(
      fc.property(fc.bigInt({ min: 0n, max: 2n ** 57n - 1n }), (iova) => {
        const [hi, lo] = halves(iova);
        for (const level of [1, 2, 3, 4, 5])
          expect(walkIndex(level, hi, lo)).toBe(Number((iova >> BigInt(3 + 9 * level)) & 511n));
      }),
    );
  });
  it('into a freed table page meets a reserved bit', () => {
    const memory = new TableMemory({ pages: 1 });
    const pfn = memory.allocate();
    memory.free(pfn);
    for (const level of [1, 2, 3, 4, 5]) {
      const state = new WalkState();
      state.begin(pfn, level, 0, 0, WalkAccess.write);
      walk(memory, reservedMasks(DEFAULT_ENTRY_CAPABILITIES), state);
      expect(state.faultReason).toBe(FaultReason.pagingReserved);
    }
  });
});

function walk1(memory: TableMemory, table: SecondStageTable, state: WalkState): void {
  const task = walkTask(new Agent('walker'), memory, table.masks, state);
  task.next();
  task.next();
}
