import { Agent, Location, stepsConflict, type Task } from '@faultline/sim';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  collapse,
  cut,
  InvalidationGather,
  map,
  protect,
  readAndClearAccessed,
  readAndClearDirty,
  SecondStageTable,
  TableMemory,
  unmap,
  unmapByPatch2023,
} from '../src/index.ts';
import { slotOf } from './naive-table.ts';
import { unlawful, WatchedMemory } from './watched-memory.ts';

const G = 262_144;
const rights = { read: true, write: true };

interface Call {
  readonly op: 'map' | 'unmap' | 'cut' | 'collapse' | 'protect' | 'dirty' | 'accessed' | 'patch-2023';
  readonly page: number;
  readonly pages: number;
  /** A choice between two ways, other in each operation. */
  readonly way: boolean;
  readonly holes: 'stop' | 'skip';
}

const calls = (...ops: Call['op'][]): fc.Arbitrary<Call> =>
  fc.record({
    op: fc.constantFrom(...ops),
    page: fc.constantFrom(0, 1, 7, 8, 511, 512, 1023, 1024, 1030, G - 1, G, G + 5, G + 512),
    pages: fc.constantFrom(1, 1, 2, 3, 9, 511, 512, 513, 1024),
    way: fc.boolean(),
    holes: fc.constantFrom('stop', 'skip'),
  });

/** 4K leaves with holes, 2M leaves, a 1G leaf; where hardware sets them, A and D in some. */
function newTable(memory: TableMemory): SecondStageTable {
  const table = new SecondStageTable({ memory, accessedDirty: memory.coherent });
  table.map({ page: 0, frame: 512, pages: 1, rights });
  table.map({ page: 3, frame: 515, pages: 520, rights });
  table.map({ page: 1024, frame: 0, pages: 2048, rights });
  table.map({ page: G, frame: G, pages: G, rights });
  if (memory.coherent) for (const page of [0, 8, 9, 515, 1024, 2048]) setBits(table, page, 0x300n);
  return table;
}

function setBits(table: SecondStageTable, page: number, bits: bigint): void {
  const slot = slotOf(table, page);
  if (slot) table.memory.store(slot.pfn, slot.index, table.memory.load(slot.pfn, slot.index) | bits);
}

const off = { D1: false, D3: false, D4: false, D5: false, D6: false, D7: false, D8: false, D9: false };
const nothing = { contains: () => false, loadWord: () => 0n, storeWord: () => undefined };

function taskOf(agent: Agent, table: SecondStageTable, call: Call, gather: InvalidationGather): Task<unknown> {
  const { page, pages, way, holes } = call;
  const range = { page, pages, holes, clear: way };
  const silent = () => undefined;
  if (call.op === 'map') return map(agent, table, { ...range, frame: page + (way ? 0 : 1), rights: 3 }, gather);
  if (call.op === 'unmap')
    return unmap(agent, table, { ...range, partialLeaf: way ? 'linux-7.3' : 'whole-leaf' }, gather);
  if (call.op === 'cut') return cut(agent, table, page, pages, gather, { installs: way ? 'one' : 'two' });
  if (call.op === 'collapse') return collapse(agent, table, 0, 2 * G, gather);
  if (call.op === 'protect') return protect(agent, table, { ...range, rights: way ? 1 : 3 }, gather);
  if (call.op === 'dirty') return readAndClearDirty(agent, table, range, gather, silent);
  if (call.op === 'accessed') return readAndClearAccessed(agent, table, range, gather, silent);
  return unmapByPatch2023(agent, table, { page, pages, defects: off }, gather, nothing);
}

/** Whether an error is a refusal, such as EADDRINUSE: an end like any other. */
const isRefusal = (thrown: unknown): boolean => thrown instanceof Error && 'code' in thrown;

describe('the steps of an operation', () => {
  const anyCall = calls('map', 'unmap', 'cut', 'collapse', 'protect', 'dirty', 'accessed', 'patch-2023');
  it.each([true, false])(
    'announce every word that they change, and touch what they announce (coherent: %s)',
    (coherent) => {
      fc.assert(
        fc.property(fc.array(anyCall, { minLength: 1, maxLength: 5 }), (program) => {
          const memory = new WatchedMemory({ pages: 64, coherent });
          const table = newTable(memory);
          const agent = new Agent('test');
          for (const call of program) {
            if (!coherent && (call.op === 'dirty' || call.op === 'accessed')) continue;
            const gather = new InvalidationGather();
            const { steps, thrown } = memory.watch(agent, taskOf(agent, table, call, gather), table);
            if (thrown !== null && !isRefusal(thrown)) throw thrown;
            expect(steps.map((step) => unlawful(step)).filter((wrong) => wrong !== null)).toEqual([]);
            expect(memory.unflushed(table.rootPfn, table.levels)).toEqual([]);
            table.settle(gather);
          }
        }),
        { numRuns: 40 },
      );
    },
  );
});

/** What can be told of a table and an operation when all has ended. */
interface Ending {
  readonly leaves: [number, bigint][];
  readonly outcomes: unknown[];
}

/** Runs two tasks on one table: some steps of each, then the next of each in the order asked for, then all the rest. */
class Race {
  readonly table: SecondStageTable;
  readonly #tasks: Task<unknown>[];
  readonly #gathers = [new InvalidationGather(), new InvalidationGather()];
  readonly #agents = [new Agent('a'), new Agent('b')];
  readonly #outcomes: unknown[] = [null, null];

  constructor(first: Call, second: Call | 'hardware', coherent: boolean, page: number) {
    this.table = newTable(new TableMemory({ pages: 64, coherent }));
    const [a, b] = this.#agents as [Agent, Agent];
    const [owedByA, owedByB] = this.#gathers as [InvalidationGather, InvalidationGather];
    this.#tasks = [
      taskOf(a, this.table, first, owedByA),
      second === 'hardware' ? this.#hardware(b, page) : taskOf(b, this.table, second, owedByB),
    ];
  }

  /** A walk that has found a leaf sets A and D in it. */
  *#hardware(agent: Agent, page: number): Task<void> {
    const slot = slotOf(this.table, page);
    if (slot === null) return;
    const { memory } = this.table;
    const found = memory.load(slot.pfn, slot.index);
    yield agent.writes('set A and D', Location.entry, memory.location(slot.pfn, slot.index), 0);
    const seen = memory.load(slot.pfn, slot.index);
    if ((seen & ~0x300n) === (found & ~0x300n)) memory.store(slot.pfn, slot.index, seen | 0x300n);
  }

  /** @returns whether the task goes on */
  step(nth: number): boolean {
    if (this.#outcomes[nth] !== null) return false;
    try {
      const { done, value } = (this.#tasks[nth] as Task<unknown>).next();
      if (done) this.#outcomes[nth] = { value };
      return !done;
    } catch (thrown) {
      if (!isRefusal(thrown)) throw thrown;
      this.#outcomes[nth] = String(thrown);
      return false;
    }
  }

  /** Whether the order of the steps announced by both can matter, by what they announce. */
  get conflict(): boolean {
    const [a, b] = this.#agents as [Agent, Agent];
    return stepsConflict(a.step, b.step);
  }

  finish(): Ending {
    for (const nth of [0, 1]) while (this.step(nth));
    const owed = this.#gathers.map(({ firstPage, lastPage }) => [firstPage, lastPage]);
    return {
      leaves: [...this.table.allLeaves()].map(({ page, entry }) => [page, entry]),
      outcomes: [this.#outcomes, owed],
    };
  }
}

describe('two steps that do not conflict', () => {
  /** @returns how it ends; null where the order matters by what is announced, or where one has ended before */
  function ending(order: [number, number], prefix: [number, number], ...of: ConstructorParameters<typeof Race>) {
    const race = new Race(...of);
    let alive = race.step(0) && race.step(1);
    for (let nth = 0; alive && nth < prefix[0]; nth++) alive = race.step(0);
    for (let nth = 0; alive && nth < prefix[1]; nth++) alive = race.step(1);
    if (!alive || race.conflict) return null;
    for (const nth of order) race.step(nth);
    return race.finish();
  }
  const prefixes = fc.tuple(fc.nat(7), fc.nat(4));
  it('lead to the same end in either order: hardware that sets A and D, and any operation', () => {
    const pages = fc.constantFrom(0, 3, 7, 8, 511, 515, 522, 1024, 2047, G + 5);
    let compared = 0;
    fc.assert(
      fc.property(
        calls('map', 'unmap', 'cut', 'collapse', 'protect', 'dirty', 'accessed'),
        prefixes,
        pages,
        (call, [steps], page) => {
          const one = ending([0, 1], [steps, 0], call, 'hardware', true, page);
          if (one === null) return;
          compared++;
          expect(ending([1, 0], [steps, 0], call, 'hardware', true, page)).toEqual(one);
        },
      ),
      { numRuns: 300 },
    );
    expect(compared).toBeGreaterThan(30);
  });
  it('lead to the same end in either order: operations that may run at the same time', () => {
    const some = calls('map', 'unmap', 'cut', 'protect');
    let compared = 0;
    fc.assert(
      fc.property(some, some, prefixes, fc.boolean(), (a, b, prefix, coherent) => {
        const one = ending([0, 1], prefix, a, b, coherent, 0);
        if (one === null) return;
        compared++;
        expect(ending([1, 0], prefix, a, b, coherent, 0)).toEqual(one);
      }),
      { numRuns: 300 },
    );
    expect(compared).toBeGreaterThan(30);
  });
});
