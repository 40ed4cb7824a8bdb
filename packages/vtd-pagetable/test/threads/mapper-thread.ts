import { InvalidationGather, SecondStageTable, TableMemory } from '../../src/index.ts';
import { SharedHistory } from './shared-history.ts';
import { Control, firstFrame, type ThreadReport, type ThreadTask, watchedPages } from './thread-plan.ts';
import { TornMemory } from './torn-memory.ts';

const G = 262_144;
const rights = { read: true, write: true };

/**
 * Changes two GiB of a table over and over: cut, unmap, map again, collapse, change rights. Every operation on a range
 * announces it in the history first.
 */
export function runMapper(task: ThreadTask): ThreadReport {
  const mapper = new MapperThread(task);
  return mapper.run();
}

class MapperThread {
  readonly #task: ThreadTask;
  readonly #table: SecondStageTable;
  readonly #history: SharedHistory;
  readonly #control: Int32Array;
  readonly #kinds: Record<string, number> = {};
  readonly #wrong: string[] = [];
  #random: number;
  #count = 0;

  constructor(task: ThreadTask) {
    this.#task = task;
    this.#random = task.seed | 1;
    this.#control = new Int32Array(task.control);
    this.#history = new SharedHistory(watchedPages, task.history);
    const Memory = task.defect === 'torn-install' ? TornMemory : TableMemory;
    this.#table = new SecondStageTable({
      memory: new Memory({ pages: task.tablePages }, task.memory),
      accessedDirty: true,
    });
  }

  run(): ThreadReport {
    if (this.#table.rootPfn !== this.#task.rootPfn) throw new Error('the root is not where the walkers look');
    this.#map(0, 2 * G);
    while (Atomics.load(this.#control, Control.stop) === 0) this.#round();
    return { role: 'mapper', count: this.#count, unjudged: 0, kinds: this.#kinds, wrong: this.#wrong };
  }

  /** Takes a few pages out of one GiB, puts them back, and puts the large leaves back. */
  #round(): void {
    const base = this.#pick(2) * G;
    const taken: [number, number][] = [];
    for (let times = 1 + this.#pick(3); times > 0; times--) {
      const watched = watchedPages.filter((page) => page >= base && page < base + G);
      const page = watched[this.#pick(watched.length)] as number;
      const pages = this.#pick(4) === 0 ? Math.min(600, base + G - page) : 1;
      if (taken.some(([from, count]) => page < from + count && from < page + pages)) continue;
      this.#cut(page, pages);
      if (this.#pick(3) === 0) this.#protect(page, pages);
      this.#unmap(page, pages);
      taken.push([page, pages]);
    }
    for (const [page, pages] of taken) this.#map(page, pages);
    if (this.#pick(4) === 0) {
      this.#unmap(base, G);
      this.#map(base, G);
    } else {
      this.#collapse(base, G);
    }
  }

  #pick(count: number): number {
    this.#random = (Math.imul(this.#random, 1_103_515_245) + 12_345) | 0;
    return (this.#random >>> 16) % count;
  }

  #cut(page: number, pages: number): void {
    const gather = new InvalidationGather();
    const { ok, retries } = this.#table.cut(page, pages, gather, { installs: this.#pick(2) === 0 ? 'one' : 'two' });
    if (!ok) this.#wrong.push('a cut found no table page');
    this.#kinds.retry = (this.#kinds.retry ?? 0) + retries;
    this.#flush(gather, 'cut');
  }

  #unmap(page: number, pages: number): void {
    this.#change(
      page,
      pages,
      () => 0,
      (gather) => {
        const done = this.#table.unmap(page, pages, gather);
        if (done !== pages) this.#wrong.push(`unmap of ${pages} pages at ${page} did ${done}`);
      },
      'unmap',
    );
  }

  #map(page: number, pages: number): void {
    this.#change(
      page,
      pages,
      (watched) => (firstFrame + watched) * 4 + 3,
      (gather) => {
        this.#table.map({ page, frame: firstFrame + page, pages, rights }, gather);
      },
      'map',
    );
  }

  #protect(page: number, pages: number): void {
    this.#change(
      page,
      pages,
      (watched) => (firstFrame + watched) * 4 + 1,
      (gather) => {
        this.#table.protectRange(BigInt(page) * 4096n, BigInt(pages) * 4096n, { read: true, write: false }, gather);
      },
      'protect',
    );
  }

  #collapse(page: number, pages: number): void {
    const gather = new InvalidationGather();
    const { leaves } = this.#table.collapse(page, pages, gather);
    if (leaves['1G'] === 0 && this.#table.leafAt(page)?.level !== 3) this.#wrong.push(`no 1G leaf at ${page} again`);
    this.#flush(gather, 'collapse');
  }

  #change(
    page: number,
    pages: number,
    valueAt: (watched: number) => number,
    act: (gather: InvalidationGather) => void,
    kind: string,
  ): void {
    const touched = watchedPages.flatMap((watched, nth) => (watched >= page && watched < page + pages ? [nth] : []));
    for (const nth of touched) this.#history.begin(nth, valueAt(watchedPages[nth] as number));
    const gather = new InvalidationGather();
    act(gather);
    this.#flush(gather, kind);
    for (const nth of touched) this.#history.end(nth);
  }

  /** An invalidation's wait: every walk that is under way ends. Only then are table pages freed (I5). */
  #flush(gather: InvalidationGather, kind: string): void {
    if (this.#task.defect !== 'no-wait-before-free') this.#waitForWalks();
    this.#table.settle(gather);
    this.#count++;
    this.#kinds[kind] = (this.#kinds[kind] ?? 0) + 1;
  }

  #waitForWalks(): void {
    for (let nth = 0; nth < this.#task.walkers; nth++) {
      const clock = Control.walkers + nth * Control.wordsPerWalker;
      const seen = Atomics.load(this.#control, clock);
      while (seen % 2 !== 0 && Atomics.load(this.#control, clock) === seen)
        // Gives the processor away if the walker has been preempted: nobody wakes this up but the time.
        Atomics.wait(this.#control, clock, seen, 0.05);
    }
  }
}
