import { Agent, runToEnd } from '@faultline/sim';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type CutResult,
  cut,
  InvalidationGather,
  SecondStageTable,
  TableMemory,
  WalkState,
  WalkStatus,
  walk,
} from '../src/index.ts';
import { NaiveTable, reachedTables, slotOf } from './naive-table.ts';
import { PLAIN } from './plain-agent.ts';

const G = 262_144;
const SNP = 0x800n;
const AD = 0x300n;

interface Setup {
  readonly reservePages?: number;
  readonly allocationMayFail?: boolean;
  readonly memoryPages?: number;
}

/** 2M leaves at page 512, 1G leaves at G and 2G; all readable and dirty, with software bits. */
function newTable(setup: Setup = {}): SecondStageTable {
  const { memoryPages = 64, reservePages = 4, allocationMayFail = false } = setup;
  const table = new SecondStageTable({
    memory: new TableMemory({ pages: memoryPages }),
    capabilities: {
      hostAddressWidth: 46,
      page2M: true,
      page1G: true,
      snoopControl: true,
      specRevision: '5.10',
      deviceTlb: true,
    },
    reservePages,
    allocationMayFail,
  });
  const bits = { rights: { read: true, write: false }, attributes: SNP | AD | (1n << 63n) };
  table.map({ page: 512, frame: 5 * 512, pages: 1024, ...bits });
  table.map({ page: G, frame: 7 * G, pages: 2 * G, ...bits });
  return table;
}

function modelOf(): NaiveTable {
  const model = new NaiveTable();
  model.map(512, 5 * 512, 1024, 1n | SNP | AD | (1n << 63n));
  model.map(G, 7 * G, 2 * G, 1n | SNP | AD | (1n << 63n));
  return model;
}

const entries = (table: SecondStageTable) => [...table.allLeaves()].map(({ page, entry }) => [page, entry]);

/** Holes in and across the leaves. */
const holes = fc
  .tuple(
    fc.constantFrom(512, 1000, 1023, 1024, G, G + 1, G + 512, G + 70_000, 2 * G - 1, 2 * G),
    fc.nat(4000),
    fc.nat(3),
  )
  .map(([page, extra, kind]) => ({ page, pages: [1, 512, G, extra + 1][kind] as number }));

/** Addresses around the hole, and the ends of what is mapped. */
const samplesOf = ({ page, pages }: { page: number; pages: number }): number[] =>
  [512, 1535, G, 2 * G - 1, 2 * G, 3 * G - 1].concat(
    [page, page + pages].flatMap((end) => [end - 1, end, end + 1, end - (end % 512), end + 511 - (end % 512)]),
  );

/** Walks every sample as hardware and compares with the frames of before. */
class Watcher {
  readonly #table: SecondStageTable;
  readonly #frames: ReadonlyMap<number, number>;
  readonly #state = new WalkState();

  constructor(table: SecondStageTable, pages: readonly number[]) {
    this.#table = table;
    this.#frames = new Map(pages.map((page) => [page, modelOf().frameOf(page)]));
  }

  look(): void {
    for (const [page, frame] of this.#frames) {
      const status = walk(this.#table.memory, this.#table.masks, this.#table.beginWalk(this.#state, page, 0));
      if (frame < 0) expect([status, this.#state.faultReason]).toEqual([WalkStatus.faulted, 6]);
      else expect([status, this.#state.framePfn, this.#state.rights]).toEqual([WalkStatus.translated, frame, 1]);
    }
  }
}

describe('a cut', () => {
  it('gives the table of separate maps of left, hole and right, with all attributes', () => {
    fc.assert(
      fc.property(holes, ({ page, pages }) => {
        const table = newTable();
        const model = modelOf();
        const gather = new InvalidationGather();
        const crossed = model.cut(page, pages);
        expect(table.cut(page, pages, gather)).toEqual({ ok: true, installs: crossed.length, retries: 0 });
        expect(entries(table)).toEqual(model.list());
        for (const leaf of crossed) {
          expect(gather.firstPage).toBeLessThanOrEqual(leaf.page);
          expect(gather.lastPage).toBeGreaterThanOrEqual(leaf.page + leaf.pages - 1);
        }
        expect(gather.freedTables).toEqual([]);
        // Again: nothing is left to do.
        expect(table.cut(page, pages, new InvalidationGather())).toEqual({ ok: true, installs: 0, retries: 0 });
        table.destroy();
        expect(table.memory.used).toBe(0);
      }),
      { numRuns: 150 },
    );
  });
  it('is hitless: at every yield every address translates as before', () => {
    fc.assert(
      fc.property(holes, (hole) => {
        const table = newTable();
        const watcher = new Watcher(table, samplesOf(hole));
        const task = cut(PLAIN, table, hole.page, hole.pages, new InvalidationGather());
        while (!task.next().done) watcher.look();
        watcher.look();
      }),
      { numRuns: 150 },
    );
  });
  it('from 1G to 4K writes one published entry, once', () => {
    const table = newTable();
    const published = () => {
      const words = new Map<string, bigint>();
      for (const pfn of reachedTables(table).keys())
        for (let index = 0; index < 512; index++) words.set(`${pfn}.${index}`, table.memory.load(pfn, index));
      return words;
    };
    const before = published();
    const labels: string[] = [];
    const task = cut(PLAIN, table, G + 70_001, 1, new InvalidationGather());
    for (let step = task.next(); !step.done; step = task.next()) labels.push(step.value.label);
    const after = published();
    expect([...before].filter(([slot, word]) => after.get(slot) !== word)).toHaveLength(1);
    expect(labels.filter((label) => label === 'install sub-tree')).toHaveLength(1);
    expect(labels.filter((label) => label === 'build table')).toHaveLength(2);
    expect(table.leafCounts).toEqual({ '4K': 512, '2M': 2 + 511, '1G': 1 });
    expect([...table.splits]).toEqual([0, 0, 1, 1]);
  });
  it('costs a read a level, a build a table and one write; the second end only what the first has left to do', () => {
    const [read, build, install] = ['read entry', 'build table', 'install sub-tree'];
    const steps = (page: number, pages: number): string[] => {
      const labels: string[] = [];
      const task = cut(PLAIN, newTable(), page, pages, new InvalidationGather());
      for (let step = task.next(); !step.done; step = task.next()) labels.push(step.value.label);
      return labels;
    };
    const down = [read, read];
    expect(steps(G + 70_001, 1)).toEqual([...down, build, build, install, read]);
    expect(steps(G + 70_001, 1000)).toEqual([...down, build, build, build, install, read]);
    expect(steps(G + 1024, 512)).toEqual([...down, build, install]);
    expect(steps(G + 1024, 513)).toEqual([...down, build, build, install]);
    expect(steps(G + 70_001, G - 70_001)).toEqual([...down, build, build, install, read, read]);
    expect(steps(519, 1)).toEqual([...down, read, build, install]);
    // Ends in two leaves; an end, or both, where leaves end already; nothing mapped at all.
    const both = [...down, build, build, install, read];
    expect(steps(2 * G - 1, 2)).toEqual([...both, ...both]);
    expect(steps(G, 512)).toEqual([read, ...down, build, install]);
    expect(steps(2 * G, 7)).toEqual([read, ...both]);
    expect(steps(512, 512)).toEqual([...down, ...down]);
    expect(steps(5 * G + 7, 1)).toEqual([...down, ...down]);
  });
  it.each([
    [-1, 1, 'EINVAL: page: -1'],
    [0, 0, 'EINVAL: pages: 0'],
    [2 ** 36 - 1, 2, 'ERANGE: iova: 0xfffffffff000 + 0x2000'],
  ])('refuses page %d, pages %d', (page, pages, message) => {
    expect(() => newTable().cut(page, pages, new InvalidationGather())).toThrow(message);
  });
});

describe('a bit that hardware sets while a cut is under way', () => {
  /** Sets bit 10 (to tell it from what is there) at the `at`-th yield. @returns the result and whether a leaf was hit */
  function cutWithFlip(table: SecondStageTable, page: number, at: number): { result: CutResult; last: boolean } {
    const task = cut(PLAIN, table, page, 1, new InvalidationGather());
    const watcher = new Watcher(table, samplesOf({ page, pages: 1 }));
    for (let count = 0; ; count++) {
      const step = task.next();
      if (step.done) return { result: step.value, last: count <= at };
      if (count === at) {
        const slot = slotOf(table, page) as { pfn: number; index: number };
        table.memory.store(slot.pfn, slot.index, table.memory.load(slot.pfn, slot.index) | 0x400n);
      }
      watcher.look();
    }
  }
  it.each([G + 70_001, 700])('is in all children (page %d), at whatever step it comes', (page) => {
    let retried = 0;
    for (let at = 0; ; at++) {
      const table = newTable();
      const { result, last } = cutWithFlip(table, page, at);
      if (last) break;
      expect(result.ok).toBe(true);
      retried += result.retries;
      const marked = [...table.allLeaves()].filter(({ entry }) => (entry & 0x400n) !== 0n);
      const pages = marked.reduce((sum, leaf) => sum + 512 ** (leaf.level - 1), 0);
      // Before the install the whole old leaf is marked; after it, the new leaf of this page alone.
      expect([page >= G ? G : 512, 1]).toContain(pages);
      if (result.retries > 0) expect(pages).toBe(page >= G ? G : 512);
      const model = modelOf();
      model.cut(page, 1);
      expect([...table.allLeaves()].map((leaf) => [leaf.page, leaf.entry & ~0x400n])).toEqual(model.list());
      expect(table.memory.used).toBe(table.tablePages + table.reserve.held);
    }
    expect(retried).toBeGreaterThan(0);
  });
});

/** Drives a cut and lets the allocations fail whose bits are set. @returns its result and how many it asked for */
function cutWithFailures(table: SecondStageTable, hole: { page: number; pages: number }, mask: number) {
  const agent = new Agent('reclaim');
  const watcher = new Watcher(table, samplesOf(hole));
  const task = cut(agent, table, hole.page, hole.pages, new InvalidationGather());
  let asked = 0;
  for (let step = task.next(); ; step = task.next()) {
    if (step.done) return { result: step.value, asked };
    if (step.value.choices > 0) step.value.chosen = (mask >> asked++) & 1;
    watcher.look();
  }
}

describe('allocation failure', () => {
  const hole = { page: G + 70_001, pages: G };
  it('at each allocation, in every combination, does not stop a cut that has a reserve', () => {
    const wanted = modelOf();
    wanted.cut(hole.page, hole.pages);
    for (let mask = 0; mask < 16; mask++) {
      const table = newTable({ allocationMayFail: true });
      const { result, asked } = cutWithFailures(table, hole, mask);
      expect([result, asked]).toEqual([{ ok: true, installs: 2, retries: 0 }, 4]);
      expect(entries(table)).toEqual(wanted.list());
      const failed = [0, 1, 2, 3].filter((bit) => (mask >> bit) & 1).length;
      expect([table.reserve.failures, table.reserve.taken, table.reserve.held]).toEqual([failed, failed, 4 - failed]);
      expect(table.memory.used).toBe(table.tablePages + 4 - failed);
      runToEnd(table.reserve.refill(PLAIN));
      expect(table.reserve.held).toBe(4);
      table.destroy();
      expect(table.memory.used).toBe(0);
    }
  });
  it('without a reserve leaves the leaf as it was and loses no page', () => {
    for (let mask = 1; mask < 4; mask++) {
      const table = newTable({ allocationMayFail: true, reservePages: 0 });
      const before = [entries(table), table.memory.used, table.tablePages, { ...table.leafCounts }];
      const { result } = cutWithFailures(table, { page: G + 70_001, pages: 1 }, mask);
      expect(result).toEqual({ ok: false, installs: 0, retries: 0 });
      expect([entries(table), table.memory.used, table.tablePages, table.leafCounts]).toEqual(before);
    }
  });
  it('takes a table page at frame 0 like any other', () => {
    const memory = new TableMemory({ pages: 64, basePfn: 0 });
    expect(memory.allocate()).toBe(0);
    const table = new SecondStageTable({ memory, reservePages: 0 });
    table.map({ page: G, frame: 0, pages: G, rights: { read: true, write: true } });
    memory.free(0);
    expect(table.cut(G + 512, 512, new InvalidationGather())).toEqual({ ok: true, installs: 1, retries: 0 });
    expect(reachedTables(table).has(0)).toBe(true);
    expect([G, G + 512, 2 * G - 1].map((page) => table.frameAt(page))).toEqual([0, 512, G - 1]);
  });
  it.each([
    [G, 21n],
    [G, 29n],
    [G, 12n],
    [512, 12n],
    [512, 20n],
  ])('refuses a leaf (page %d) whose address has bit %d, below its size', (page, bit) => {
    const table = newTable();
    const slot = slotOf(table, page) as { pfn: number; index: number };
    const corrupt = table.memory.load(slot.pfn, slot.index) | (1n << bit);
    table.memory.store(slot.pfn, slot.index, corrupt);
    expect(() => table.cut(page + 7, 1, new InvalidationGather())).toThrow('EIO');
    expect(table.memory.load(slot.pfn, slot.index)).toBe(corrupt);
  });
  it('at the second end keeps the first: hitless, counted, and done by the next try', () => {
    const table = newTable({ memoryPages: 7, reservePages: 1 });
    const gather = new InvalidationGather();
    // Root, two lower tables and one reserved page leave three: the first end takes two, the second wants two.
    const first = table.cut(hole.page, hole.pages, gather);
    expect(first.installs + (first.ok ? 0 : 1)).toBe(2);
    expect(table.memory.used).toBe(table.tablePages + table.reserve.held);
    new Watcher(table, samplesOf(hole)).look();
    expect([gather.firstPage, gather.empty]).toEqual([G, false]);
  });
  it('a refill stops where the host has no page, and announces before it takes one', () => {
    const table = newTable({ memoryPages: 6, reservePages: 2 });
    const held = table.reserve.held;
    table.cut(G + 1, 1, new InvalidationGather());
    const left = table.reserve.held;
    expect(left).toBeLessThan(held);
    runToEnd(table.reserve.refill(PLAIN));
    expect(table.reserve.held).toBe(left);
    const roomy = newTable({ reservePages: 1, allocationMayFail: true });
    cutWithFailures(roomy, { page: 513, pages: 1 }, 1);
    const { used } = roomy.memory;
    const refill = roomy.reserve.refill(PLAIN);
    expect(refill.next().done).toBe(false);
    expect(roomy.memory.used).toBe(used);
    runToEnd(refill);
    expect([roomy.reserve.held, roomy.memory.used]).toEqual([1, used + 1]);
  });
});
