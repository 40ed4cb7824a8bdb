import { runToEnd } from '@faultline/sim';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  InvalidationGather,
  naiveUnmap,
  type PhysicalWords,
  SecondStageTable,
  TableMemory,
  unmap,
} from '../src/index.ts';
import { calls, Pair } from './laws.ts';
import { PLAIN } from './plain-agent.ts';

const G = 262_144;
const rights = { read: true, write: true };

/** Guest memory of a few frames; everything else in `present` reads as zero. */
class Words implements PhysicalWords {
  readonly words = new Map<string, bigint>();
  readonly #first: number;
  readonly #frames: number;

  constructor(first: number, frames: number) {
    this.#first = first;
    this.#frames = frames;
  }

  contains(pfn: number): boolean {
    return pfn >= this.#first && pfn < this.#first + this.#frames;
  }

  loadWord(pfn: number, index: number): bigint {
    return this.words.get(`${pfn}.${index}`) ?? 0n;
  }

  storeWord(pfn: number, index: number, value: bigint): void {
    this.words.set(`${pfn}.${index}`, value);
  }
}

const noMemory = new Words(0, 0);

describe('with no large leaf covered in part', () => {
  it('does what unmap does', () => {
    fc.assert(
      fc.property(calls, fc.nat(20), fc.nat(20), fc.constantFrom(1, 512, G), (program, from, to, unit) => {
        const tables = [0, 1].map(() => {
          const table = new SecondStageTable({ memory: new TableMemory({ pages: 64 }) });
          const pair = new Pair(table);
          for (const call of program) pair.make(call);
          return table;
        });
        const [naive, sound] = tables as [SecondStageTable, SecondStageTable];
        const starts = [...sound.allLeaves()].map(({ page }) => page);
        const ends = [...sound.allLeaves()].map(({ page, level }) => page + 512 ** (level - 1));
        // Rounded out to whole tables: no leaf crosses such a boundary in part.
        const first = starts[from % starts.length] ?? 0;
        const page = first - (first % unit);
        const end = ends.filter((e) => e > page)[to % Math.max(1, ends.filter((e) => e > page).length)] ?? page + 1;
        const pages = Math.ceil((end - page) / unit) * unit;
        const gather = new InvalidationGather();
        const request = { page, pages, partialLeaf: 'linux-7.3', holes: 'skip' } as const;
        runToEnd(unmap(PLAIN, sound, request, gather));
        const report = runToEnd(naiveUnmap(PLAIN, naive, page, pages, noMemory));
        expect([report.mistaken, report.corrupted, report.badAddress]).toEqual([[], [], null]);
        expect([...naive.allLeaves()]).toEqual([...sound.allLeaves()]);
        expect([naive.leafCounts, naive.tablePages]).toEqual([sound.leafCounts, sound.tablePages]);
        expect([...report.freed].sort()).toEqual([...gather.freedTables].sort());
      }),
      { numRuns: 60 },
    );
  });
});

describe('with a 1G leaf covered in part', () => {
  const FRAME = 3 * G;
  /** A 1G leaf at page G that maps frame 3G; the guest wrote `words` into its own memory. */
  function setup(words: readonly [pfn: number, index: number, word: bigint][]) {
    const table = new SecondStageTable({ memory: new TableMemory({ pages: 16 }), reservePages: 0 });
    table.map({ page: G, frame: FRAME, pages: G, rights });
    const memory = new Words(FRAME, G);
    for (const [pfn, index, word] of words) memory.storeWord(pfn, index, word);
    const run = (page: number, pages: number) => runToEnd(naiveUnmap(PLAIN, table, page, pages, memory));
    const untouched = () => {
      expect([...table.allLeaves()]).toHaveLength(1);
      expect([table.frameAt(G + 5), table.leafCounts['1G'], table.tablePages]).toEqual([FRAME + 5, 1, 2]);
    };
    return { memory, run, untouched };
  }
  const pointer = (pfn: number) => (BigInt(pfn) << 12n) | 3n;

  it('reads the guest page at its start as a table, and finds nothing in zeroes', () => {
    const { run, untouched } = setup([]);
    const report = run(G + 512 * 7 + 9, 1);
    expect(report).toEqual({
      mistaken: [{ level: 2, pfn: FRAME, index: 7, word: 0n }],
      corrupted: [],
      freed: [],
      badAddress: null,
    });
    untouched();
  });
  it('follows a word that looks like a table, and clears the one that looks like the page', () => {
    const { memory, run, untouched } = setup([
      [FRAME, 7, pointer(FRAME + 100)],
      [FRAME + 100, 9, 0xdead_beef_0001n],
      [FRAME + 100, 10, 0x3n],
    ]);
    const report = run(G + 512 * 7 + 9, 1);
    const word = { level: 1, pfn: FRAME + 100, index: 9, word: 0xdead_beef_0001n };
    expect(report.mistaken).toEqual([{ level: 2, pfn: FRAME, index: 7, word: pointer(FRAME + 100) }, word]);
    expect([report.corrupted, report.freed, report.badAddress]).toEqual([[word], [], null]);
    expect([memory.loadWord(FRAME + 100, 9), memory.loadWord(FRAME + 100, 10)]).toEqual([0n, 3n]);
    untouched();
  });
  it('does not look at PS either in what it takes for an entry that the range covers in part', () => {
    const { run } = setup([[FRAME, 0, pointer(FRAME + 512) | 0x80n]]);
    expect(run(G + 1, 1).mistaken.map(({ level, pfn }) => [level, pfn])).toEqual([
      [2, FRAME],
      [1, FRAME + 512],
    ]);
  });
  it('puts what a covered word points to on the list of tables to free', () => {
    const { memory, run, untouched } = setup([
      [FRAME, 1, pointer(FRAME + 200)], // covered whole, looks like a table
      [FRAME, 2, pointer(FRAME + 300) | 0x80n], // covered whole, looks like a 2M leaf
      [FRAME, 3, pointer(FRAME + 400)], // not covered
    ]);
    const report = run(G + 512, 1024);
    expect(report.freed).toEqual([FRAME + 200]);
    expect(report.corrupted.map(({ pfn, index }) => [pfn, index])).toEqual([
      [FRAME, 1],
      [FRAME, 2],
    ]);
    expect([1, 2, 3].map((index) => memory.loadWord(FRAME, index))).toEqual([0n, 0n, pointer(FRAME + 400)]);
    untouched();
  });
  it('ends where a word leads to no memory', () => {
    const { memory, run, untouched } = setup([
      [FRAME, 0, pointer(0x12345)],
      [FRAME, 1, 0xabc3n],
    ]);
    const report = run(G + 3, 700);
    expect(report.badAddress).toEqual({ level: 1, pfn: 0x12345, index: 3, word: 0n });
    expect([report.corrupted, memory.loadWord(FRAME, 1)]).toEqual([[], 0xabc3n]);
    untouched();
  });
});

it('a 2M leaf covered in part is taken for a table of pages', () => {
  const table = new SecondStageTable({ memory: new TableMemory({ pages: 16 }) });
  table.map({ page: 512, frame: 1024, pages: 512, rights });
  const memory = new Words(1024, 512);
  memory.storeWord(1024, 5, 0x55n);
  const report = runToEnd(naiveUnmap(PLAIN, table, 517, 2, memory));
  expect(report.corrupted).toEqual([{ level: 1, pfn: 1024, index: 5, word: 0x55n }]);
  expect(report.mistaken).toHaveLength(2);
  expect([table.frameAt(517), table.leafCounts['2M']]).toEqual([1029, 1]);
});
