import { Agent, Cost, RandomStream, runToEnd, type Task, TaskRun, VirtualTime } from '@faultline/sim';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PhysicalMemory } from '../src/frame/physical-memory.ts';
import type { FrameSource } from '../src/swap/compressed-pool.ts';
import { type CompressionModel, compressedBytes, DEFAULT_COMPRESSION } from '../src/swap/compression-model.ts';
import { SwapArea, type SwapModel } from '../src/swap/swap-area.ts';
import type { SwapOrder } from '../src/swap/swap-cluster.ts';
import { SwapIo } from '../src/swap/swap-io.ts';
import { SwapSpace } from '../src/swap/swap-space.ts';
import type { ZswapOptions } from '../src/swap/zswap.ts';
import { testProfile } from './run.ts';

const FRAMES = 4096;

/** Frames as a list; each is out once at most. */
class FrameList implements FrameSource {
  readonly #free: number[];
  readonly frames: number;

  constructor(frames: number) {
    this.frames = frames;
    this.#free = Array.from({ length: frames }, (_, i) => FRAMES - 1 - i);
  }

  get taken(): number {
    return this.frames - this.#free.length;
  }

  take(): number {
    return this.#free.pop() ?? -1;
  }

  give(pfn: number): void {
    if (this.#free.includes(pfn)) throw new Error(`frame ${pfn} given back twice`);
    this.#free.push(pfn);
  }
}

interface HostOptions {
  readonly model?: SwapModel;
  readonly slots?: number;
  readonly zswap?: Omit<ZswapOptions, 'frames' | 'totalFrames'> & { totalFrames?: number };
  readonly frames?: number;
}

function host({ model, slots = 8192, zswap, frames = 1000 }: HostOptions = {}) {
  const memory = new PhysicalMemory({ firstPfn: 0, frames: FRAMES });
  const space = new SwapSpace();
  const list = new FrameList(frames);
  const area = new SwapArea({ name: 'nvme0n1', slots, model: model ?? { kind: 'block', queueDepth: 2 } });
  space.swapon(area);
  const io = new SwapIo({
    ...{ space, memory },
    ...(zswap ? { zswap: { totalFrames: 1000, ...zswap, frames: list } } : {}),
  });
  return { memory, space, area, io, list, agent: new Agent('kswapd') };
}

/** A host with the pages of one kind of swap behind it. */
const KINDS = ['block', 'zram', 'zswap', 'small zswap', 'zswap before zram'] as const;
function hostOf(kind: (typeof KINDS)[number]) {
  if (kind === 'block') return { ...host(), zramFrames: null };
  const zramFrames = new FrameList(1000);
  const zram = { kind: 'zram', frames: zramFrames } as const;
  if (kind === 'zram') return { ...host({ model: zram }), zramFrames };
  const zswap = { totalFrames: kind === 'zswap' ? 5000 : 20 };
  return kind === 'zswap before zram'
    ? { ...host({ zswap, model: zram }), zramFrames }
    : { ...host({ zswap }), zramFrames: null };
}

type Host = ReturnType<typeof host>;

function write({ io, agent }: Host, entry: number, pfn: number, pages = 1): boolean | 'queued' {
  let ended: boolean | 'queued' = 'queued';
  const result = runToEnd(
    io.writeFolio(agent, { entry, pfn, pages }, (failed) => {
      ended = failed;
    }),
  );
  expect(result).toBe(ended === 'queued' ? 'queued' : 'done');
  return ended;
}

const tags = ({ memory }: Host, pfn: number) => [memory.tagLo(pfn), memory.tagHi(pfn)];
const releaseAll = ({ space }: Host, entry: number, pages: number): void => space.setCached(entry, pages, false);

describe.each(KINDS)('content through %s', (kind) => {
  it('survives, in any order of slots', () => {
    const folios = fc.array(
      fc.record({ order: fc.integer({ min: 0, max: 5 }), tag: fc.nat({ max: 400 }), keep: fc.boolean() }),
      { minLength: 1, maxLength: 40 },
    );
    fc.assert(
      fc.property(folios, fc.integer(), (list, seed) => {
        const it = hostOf(kind);
        const written: { entry: number; tag: number }[] = [];
        for (const { order, tag, keep } of list) {
          const entry = it.space.allocate(order as SwapOrder);
          expect(entry).toBeGreaterThan(0);
          // Every third page is zeros, some with words of their own.
          for (let i = 0; i < 2 ** order; i++) {
            const own = (tag + i) % 3 === 0 ? 0 : tag + i;
            it.memory.writeTag(i, own, own);
            if (own % 5 === 1) it.memory.storeWord(i, 3, 77n);
          }
          expect(write(it, entry, 0, 2 ** order)).toBe(false);
          for (let i = 0; i < 2 ** order; i++) {
            expect(it.io.readContent(entry + i)).toEqual(it.memory.readContent(i));
            if (keep) written.push({ entry: entry + i, tag: tag + i });
            else releaseAll(it, entry + i, 1);
          }
        }
        const random = new RandomStream(seed, 'order');
        while (written.length > 0) {
          const [page] = written.splice(random.below(written.length), 1) as [{ entry: number; tag: number }];
          it.memory.writeTag(9, 1, 2);
          const before = it.io.readContent(page.entry);
          expect(runToEnd(it.io.readPages(it.agent, { entry: page.entry, pfn: 9, pages: 1 }))).toBe(true);
          expect(it.memory.readContent(9)).toEqual(before);
          const own = page.tag % 3 === 0 ? 0 : page.tag;
          if (own % 5 !== 1) expect(tags(it, 9)).toEqual([own, own]);
          else expect(it.memory.loadWord(9, 3)).toBe(77n);
          releaseAll(it, page.entry, 1);
        }
        expect([it.space.usedSlots, it.io.inFlight, it.list.taken]).toEqual([0, 0, 0]);
        expect(it.zramFrames?.taken ?? 0).toBe(0);
        if (it.io.zswap) expect([it.io.zswap.stored_pages, it.io.zswap.storedBytes]).toEqual([0, 0]);
        if (it.area.zram) expect([it.area.zram.orig_data_size, it.area.zram.compr_data_size]).toEqual([0, 0]);
      }),
      { numRuns: 40 },
    );
  });
});

describe('a run of pages', () => {
  it('is one command for the device, split where zeros or zswap have a page', () => {
    const it = host();
    const entry = it.space.allocate(3);
    for (const i of [0, 1, 2, 3, 5, 6, 7]) it.memory.writeTag(i, i + 1, 0);
    expect(write(it, entry, 0, 4)).toBe(false);
    expect(write(it, entry + 4, 4)).toBe(false);
    expect(write(it, entry + 5, 5, 3)).toBe(false);
    expect(it.io.counters).toMatchObject({ pswpout: 7, swpout_zero: 1 });
    const commands: number[] = [];
    it.area.faults.failReads = ({ pages }) => commands.push(pages) < 0;
    expect(runToEnd(it.io.readPages(it.agent, { entry, pfn: 100, pages: 8 }))).toBe(true);
    expect(commands).toEqual([4, 3]);
    expect(Array.from({ length: 8 }, (_, i) => it.memory.tagLo(100 + i))).toEqual([1, 2, 3, 4, 0, 6, 7, 8]);
    expect(it.io.counters).toMatchObject({ pswpin: 7, swpin_zero: 1 });
  });
  it('of 512 is a THP written whole', () => {
    const it = host();
    const entry = it.space.allocate(9);
    for (let i = 0; i < 512; i++) it.memory.writeTag(i, i + 1, 0);
    expect(write(it, entry, 0, 512)).toBe(false);
    expect(it.io.counters).toMatchObject({ pswpout: 512, thp_swpout: 1 });
    expect(it.io.readContent(entry + 511).tagLo).toBe(512);
  });
  it('stays within one area, and its entries are in use', () => {
    const it = host({ slots: 512 });
    const entry = it.space.allocate(0);
    expect(() => write(it, entry, 0, 513)).toThrow('pages: 0x201');
    expect(() => write(it, entry, 0, 2)).toThrow('swap entry 0x201 is not in use');
    expect(() => write(it, 3, 0)).toThrow('0x3 is no swap entry');
    expect(() => new SwapIo({ space: it.space, memory: it.memory })).toThrow('something else does its I/O');
  });
});

describe('an entry that is written again', () => {
  it.each(KINDS)('holds the new content and no more memory, through %s', (kind) => {
    const it = hostOf(kind);
    const entry = it.space.allocate(0);
    for (const tag of [5, 0, 6, 7, 0, 8]) {
      it.memory.writeTag(0, tag, 0);
      expect(write(it, entry, 0)).toBe(false);
      expect(runToEnd(it.io.readPages(it.agent, { entry, pfn: 1, pages: 1 }))).toBe(true);
      expect([it.memory.tagLo(1), it.io.readContent(entry).tagLo]).toEqual([tag, tag]);
    }
    expect(it.list.taken + (it.zramFrames?.taken ?? 0)).toBeLessThanOrEqual(1);
    expect(it.area.zram?.orig_data_size ?? 4096).toBeLessThanOrEqual(4096);
    releaseAll(it, entry, 1);
    expect(it.list.taken + (it.zramFrames?.taken ?? 0)).toBe(0);
  });
});

describe('errors on purpose', () => {
  it.each(['block', 'zram'] as const)('fail the n-th command of %s and are counted', (kind) => {
    const it = hostOf(kind);
    const entry = it.space.allocate(1);
    it.memory.writeTag(0, 7, 0);
    it.memory.writeTag(1, 8, 0);
    it.area.faults.failWrites = 2;
    expect([write(it, entry, 0), write(it, entry + 1, 1), write(it, entry + 1, 1)]).toEqual([false, true, false]);
    it.area.faults.failReads = ({ slot, pages }) => slot <= 1 && slot + pages > 1;
    const read = (at: number, pages: number) => runToEnd(it.io.readPages(it.agent, { entry: at, pfn: 50, pages }));
    expect([read(entry, 1), read(entry + 1, 1), read(entry, 2)]).toEqual([true, false, false]);
    it.area.faults.failReads = null;
    expect([read(entry, 2), it.memory.tagLo(51)]).toEqual([true, 8]);
    expect(it.area.faults).toMatchObject({ injectedWriteErrors: 1, injectedReadErrors: 2 });
    expect(it.io.inFlight).toBe(0);
    expect(() => {
      it.area.faults.failReads = 0;
    }).toThrow('failReads: 0x0');
  });
  it('are met by zram when no frame is left, and nothing leaks', () => {
    const frames = new FrameList(2);
    const it = host({
      model: { kind: 'zram', frames, compression: { ...DEFAULT_COMPRESSION, incompressibleShare: 1 } },
    });
    const entry = it.space.allocate(2);
    for (let i = 0; i < 4; i++) it.memory.writeTag(i, i + 1, 0);
    expect(write(it, entry, 0, 4)).toBe(true);
    expect(it.area.zram).toMatchObject({
      failed_writes: 1,
      huge_pages: 2,
      compr_data_size: 8192,
      mem_used_total: 8192,
    });
    releaseAll(it, entry, 4);
    expect(frames.taken).toBe(0);
    expect(write(it, it.space.allocate(1), 0, 2)).toBe(false);
  });
  it('slow a device down by a factor that may change', () => {
    const it = host();
    const time = new VirtualTime(testProfile({ swapWrite: 1000, swapPage: 10 }));
    const entry = it.space.allocate(2);
    it.memory.writeTag(0, 1, 0);
    const took = (): number => {
      const from = time.nowNs;
      time.spawn(
        it.agent,
        it.io.writeFolio(it.agent, { entry, pfn: 0, pages: 4 }, () => undefined),
      );
      expect(time.run()).toBe(true);
      return time.nowNs - from;
    };
    expect(took()).toBe(1030);
    it.area.faults.slowFactor = 7;
    expect(took()).toBe(7210);
    expect(() => {
      it.area.faults.slowFactor = 0.5;
    }).toThrow('slowFactor: 0.5');
  });
});

describe('a queue', () => {
  const profile = testProfile({ swapWrite: 1000, swapRead: 5000, swapPage: 100 });
  it('takes writes at once, lets reads wait, and overlaps as many commands as it is deep', () => {
    const it = host();
    const time = new VirtualTime(profile);
    for (const name of ['nvme 0', 'nvme 1']) {
      const agent = new Agent(name);
      time.spawn(agent, it.io.worker(agent, it.area), { daemon: true });
    }
    expect(() => it.io.worker(new Agent('nvme 2'), it.area)).toThrow('as many as its queue is deep');
    const entry = it.space.allocate(2);
    const log: string[] = [];
    function* swapOut(): Task<void> {
      for (let i = 0; i < 4; i++) {
        it.memory.writeTag(i, 10 + i, 0);
        const end = yield* it.io.writeFolio(it.agent, { entry: entry + i, pfn: i, pages: 1 }, (failed) =>
          log.push(`${time.nowNs} written ${i} ${failed}`),
        );
        log.push(`${time.nowNs} ${end} ${it.io.inFlightOf(it.area)}`);
      }
      expect(yield* it.io.readPages(it.agent, { entry: entry + 3, pfn: 20, pages: 1 })).toBe(true);
      log.push(`${time.nowNs} read ${it.memory.tagLo(20)}`);
    }
    time.spawn(it.agent, swapOut());
    expect(time.run()).toBe(true);
    expect(log).toEqual([
      ...['0 queued 1', '0 queued 2', '0 queued 3', '0 queued 4'],
      ...['1000 written 0 false', '1000 written 1 false', '2000 written 2 false', '2000 written 3 false'],
      '7000 read 13',
    ]);
    expect(it.io.inFlight).toBe(0);
  });
  it('is served by whoever swaps again when its workers have been cancelled', () => {
    const it = host();
    const agent = new Agent('nvme');
    const worker = new TaskRun(agent, it.io.worker(agent, it.area));
    worker.advance();
    const [first, second] = [it.space.allocate(0), it.space.allocate(0)];
    it.memory.writeTag(0, 4, 4);
    expect(write(it, first, 0)).toBe('queued');
    for (let i = 0; i < 2; i++) worker.advance();
    expect([it.io.inFlight, it.io.readContent(first).tagLo]).toEqual([0, 4]);
    worker.cancel();
    expect(write(it, second, 0)).toBe(false);
  });
  it('belongs to disks only', () => {
    expect(() => hostOf('zram').io.worker(new Agent('w'), hostOf('zram').area)).toThrow('is zram, which has no queue');
  });
});

/** One swapper: pages of its own go out, come back under another frame, and must be what they were; errors are tried again. */
function* swapper(it: Host, agent: Agent, base: number, rounds: number, random: RandomStream): Task<void> {
  for (let round = 0; round < rounds; round++) {
    const order = random.below(3) as SwapOrder;
    const pages = 2 ** order;
    yield agent.spends('allocate', Cost.free);
    const entry = it.space.allocate(order);
    if (entry < 0) continue;
    for (let i = 0; i < pages; i++) it.memory.writeTag(base + i, random.below(50), round);
    const before = Array.from({ length: pages }, (_, i) => it.memory.readContent(base + i));
    for (let failed = true; failed; ) {
      let ended = false;
      const end = yield* it.io.writeFolio(agent, { entry, pfn: base, pages }, (result) => {
        ended = true;
        failed = result;
      });
      expect(ended || end === 'queued').toBe(true);
      while (!ended) yield agent.spends('writeback', Cost.nanosecond, 50);
    }
    for (let i = 0; i < pages; i++) it.space.duplicate(entry + i);
    it.space.setCached(entry, pages, false);
    yield agent.spends('think', Cost.nanosecond, random.below(200));
    it.space.setCached(entry, pages, true);
    const dirty = new Set<number>();
    const read = { entry, pfn: base + 8, pages, markDirty: (i: number) => dirty.add(i) };
    while (!(yield* it.io.readPages(agent, read)));
    for (let i = 0; i < pages; i++) {
      expect(it.memory.readContent(base + 8 + i)).toEqual(before[i]);
      if (!dirty.has(i)) expect(it.io.readContent(entry + i)).toEqual(before[i]);
      it.space.freeReference(entry + i);
    }
    it.space.setCached(entry, pages, false);
  }
}

describe.each(KINDS)('several swappers on %s', (kind) => {
  const start = (seed: number) => {
    const it = hostOf(kind);
    const random = new RandomStream(seed, kind);
    it.area.faults.failWrites = () => random.chance(0.1);
    it.area.faults.failReads = () => random.chance(0.1);
    const daemons: [Agent, Task<void>][] = [];
    const daemon = (name: string, task: (agent: Agent) => Task<void>): void => {
      const agent = new Agent(name);
      daemons.push([agent, task(agent)]);
    };
    if (it.area.model.kind === 'block' && random.chance(0.8))
      for (let i = 0; i < 2; i++) daemon(`nvme ${i}`, (agent) => it.io.worker(agent, it.area));
    if (it.io.zswap && random.chance(0.5)) daemon('zswap-shrink', (agent) => it.io.shrinkWorker(agent));
    const swappers = [0, 1, 2, 3].map((i): [Agent, Task<void>] => {
      const agent = new Agent(`swapper ${i}`);
      return [agent, swapper(it, agent, i * 16, 25, new RandomStream(seed, `swapper ${i}`))];
    });
    return { it, daemons, swappers, random };
  };
  const balanced = ({ it }: ReturnType<typeof start>): void => {
    expect([it.space.usedSlots, it.list.taken, it.zramFrames?.taken ?? 0]).toEqual([0, 0, 0]);
    const { zswpwb, zswpout } = it.io.counters;
    expect(zswpwb).toBe(it.io.zswap?.written_back_pages ?? 0);
    expect(zswpwb).toBeLessThanOrEqual(zswpout);
    const { pswpin, pswpout, zswpin } = it.io.counters;
    if (kind !== 'zswap') expect(Math.min(pswpin, pswpout)).toBeGreaterThan(0);
    if (kind.includes('zswap')) expect(zswpin).toBeGreaterThan(0);
    if (kind.startsWith('small')) expect(zswpwb).toBeGreaterThan(0);
  };
  it('get their contents back in virtual time', () => {
    for (let seed = 0; seed < 8; seed++) {
      const run = start(seed);
      const time = new VirtualTime(testProfile({ swapRead: 300, swapWrite: 100 }));
      for (const [agent, task] of run.daemons) time.spawn(agent, task, { daemon: true });
      const swappers = run.swappers.map(([agent, task]) => time.spawn(agent, task));
      expect(time.run()).toBe(true);
      expect(swappers.every((one) => one.done)).toBe(true);
      balanced(run);
      expect(run.it.io.inFlight).toBe(0);
    }
  });
  it('get their contents back in any order of steps', () => {
    for (let seed = 0; seed < 15; seed++) {
      const run = start(seed);
      const daemons = run.daemons.map(([agent, task]) => new TaskRun(agent, task));
      const swappers = run.swappers.map(([agent, task]) => new TaskRun(agent, task));
      shuffleUntilDone(run.random, swappers, daemons);
      balanced(run);
      for (const daemon of daemons) daemon.cancel();
    }
  });
});

/** Steps in a random order, with daemons that need not end. */
function shuffleUntilDone(random: RandomStream, runs: readonly TaskRun[], daemons: readonly TaskRun[]): void {
  for (let steps = 0; runs.some((run) => !run.done); steps++) {
    const enabled = [...runs, ...daemons].filter((run) => run.enabled);
    if (steps > 1e6 || enabled.length === 0)
      throw new Error(`no end in sight: ${runs.map((run) => run.pending?.label)}`);
    random.pick(enabled).advance();
  }
}

describe('zswap', () => {
  const sizes: CompressionModel = { ...DEFAULT_COMPRESSION, incompressibleShare: 1 };
  const fill = (it: Host, pages: number): number[] =>
    Array.from({ length: pages }, (_, i) => {
      const entry = it.space.allocate(0);
      it.memory.writeTag(0, i + 1, 5);
      expect(write(it, entry, 0)).toBe(false);
      return entry;
    });
  it('refuses when full, writes the oldest back, and accepts again below its threshold', () => {
    // 10 % of 200 frames, and each page takes a whole one.
    const it = host({
      zswap: { totalFrames: 200, maxPoolPercent: 10, acceptThresholdPercent: 50, compression: sizes },
    });
    const entries = fill(it, 20);
    const zswap = it.io.zswap;
    expect(zswap).toMatchObject({ frames: 20, maxFrames: 20, acceptFrames: 10, stored_incompressible_pages: 20 });
    expect(it.io.counters).toMatchObject({ zswpout: 20, pswpout: 0, zswpwb: 0 });
    const [refused] = fill(it, 1) as [number];
    expect(zswap).toMatchObject({ frames: 10, reachedFull: true, pool_limit_hit: 1, written_back_pages: 10 });
    expect(it.io.counters).toMatchObject({ zswpout: 20, pswpout: 11, zswpwb: 10 });
    expect([...entries, refused].map((entry) => zswap?.has(entry))).toEqual([
      ...new Array<boolean>(10).fill(false),
      ...new Array<boolean>(10).fill(true),
      false,
    ]);
    for (const [i, entry] of entries.entries())
      expect(it.io.readContent(entry)).toMatchObject({ tagLo: i + 1, tagHi: 5 });
    fill(it, 1);
    expect(zswap).toMatchObject({ frames: 11, reachedFull: false });
  });
  it('that met its limit refuses until it is down at its threshold, not before', () => {
    const it = host({
      zswap: { totalFrames: 200, maxPoolPercent: 10, acceptThresholdPercent: 50, compression: sizes },
    });
    const entries = fill(it, 20);
    it.area.faults.failWrites = ({ slot }) => slot < 20;
    fill(it, 1);
    for (const entry of entries.slice(0, 5)) releaseAll(it, entry, 1);
    expect(it.io.zswap).toMatchObject({ frames: 15, reachedFull: true });
    fill(it, 1);
    expect(it.io.zswap).toMatchObject({ frames: 15, reachedFull: true, pool_limit_hit: 1 });
    for (const entry of entries.slice(5, 10)) releaseAll(it, entry, 1);
    fill(it, 1);
    expect(it.io.zswap).toMatchObject({ frames: 11, reachedFull: false });
  });
  it('keeps a page that took the place of one whose write-back is on its way', () => {
    const it = host({ zswap: { totalFrames: 100, maxPoolPercent: 1, acceptThresholdPercent: 0, compression: sizes } });
    const [entry] = fill(it, 1) as [number];
    const shrinker = new Agent('zswap-shrink');
    const shrink = new TaskRun(shrinker, it.io.shrinkWorker(shrinker));
    shrink.advance();
    const [refused] = fill(it, 1) as [number];
    while (shrink.pending?.label !== 'write page to swap') shrink.advance();
    expect(it.io.inFlight).toBe(1);
    releaseAll(it, entry, 1);
    // The entry comes back when all others are taken.
    while (it.space.allocate(0) >= 0);
    expect(it.space.isUsed(entry)).toBe(true);
    it.memory.writeTag(0, 99, 99);
    expect(write(it, entry, 0)).toBe(false);
    expect(it.io.zswap?.has(entry)).toBe(true);
    shrink.advance();
    expect([it.io.zswap?.has(entry), it.io.readContent(entry).tagLo, it.io.counters.zswpwb]).toEqual([true, 99, 0]);
    expect(it.io.readContent(refused).tagLo).toBe(1);
    shrink.cancel();
  });
  it('keeps what the device fails to take', () => {
    const it = host({ zswap: { totalFrames: 40, maxPoolPercent: 10, acceptThresholdPercent: 50, compression: sizes } });
    const entries = fill(it, 4);
    it.area.faults.failWrites = ({ slot }) => slot < 4;
    fill(it, 1);
    expect(it.io.zswap).toMatchObject({ frames: 4, reject_reclaim_fail: 16, written_back_pages: 0 });
    for (const [i, entry] of entries.entries()) expect(it.io.readContent(entry).tagLo).toBe(i + 1);
  });
  it('takes a folio whole or not at all', () => {
    const it = host({ frames: 2, zswap: { compression: sizes } });
    const entry = it.space.allocate(2);
    for (let i = 0; i < 4; i++) it.memory.writeTag(i, i + 1, 0);
    expect(write(it, entry, 0, 4)).toBe(false);
    expect(it.io.zswap).toMatchObject({ stored_pages: 0, frames: 0, reject_alloc_fail: 1 });
    expect(it.io.counters).toMatchObject({ zswpout: 0, pswpout: 4 });
    expect(it.list.taken).toBe(0);
    expect(it.io.readContent(entry + 2).tagLo).toBe(3);
  });
  it('gives a page up to the swap cache, dirty, and keeps it for a read past the cache', () => {
    const it = host({ zswap: {} });
    const [entry] = fill(it, 1) as [number];
    expect(runToEnd(it.io.readPages(it.agent, { entry, pfn: 3, pages: 1 }))).toBe(true);
    expect(it.io.zswap?.has(entry)).toBe(true);
    const dirty: number[] = [];
    const markDirty = (index: number) => dirty.push(index);
    expect(runToEnd(it.io.readPages(it.agent, { entry, pfn: 3, pages: 1, markDirty }))).toBe(true);
    expect([dirty, it.io.zswap?.has(entry), it.list.taken]).toEqual([[0], false, 0]);
    expect(it.io.counters).toMatchObject({ zswpin: 2, pswpin: 0 });
  });
  it('forgets an older content that zeros or the device replace', () => {
    const it = host({ zswap: {} });
    const [entry] = fill(it, 1) as [number];
    it.memory.zeroFrame(0);
    expect(write(it, entry, 0)).toBe(false);
    expect([it.io.zswap?.has(entry), it.io.readContent(entry).tagLo]).toEqual([false, 0]);
  });
});

describe('sizes of compressed pages', () => {
  it('follow from the content, with the mean and the share that the model says', () => {
    const random = new RandomStream(3, 'tags');
    let compressible = 0;
    let bytes = 0;
    const pages = 40_000;
    for (let i = 0; i < pages; i++) {
      const [lo, hi] = [random.bits32(), random.bits32()];
      const size = compressedBytes(DEFAULT_COMPRESSION, lo, hi);
      expect(size).toBe(compressedBytes(DEFAULT_COMPRESSION, lo, hi));
      if (size < 4096) {
        compressible++;
        bytes += size;
      }
    }
    expect(1 - compressible / pages).toBeCloseTo(0.3, 1);
    expect((4096 * compressible) / bytes).toBeCloseTo(3, 1);
    // Tags that count up, as tests and guests write them, are no special case.
    const small = Array.from({ length: 3000 }, (_, i) => compressedBytes(DEFAULT_COMPRESSION, i + 1, 0));
    expect(small.filter((size) => size === 4096).length / 3000).toBeCloseTo(0.3, 1);
    expect(compressedBytes(DEFAULT_COMPRESSION, 0, 0)).toBe(0);
  });
  it('keep whole frames for what reaches the huge class', () => {
    const model = { ...DEFAULT_COMPRESSION, meanRatio: 1, incompressibleShare: 0 };
    const sizes = Array.from({ length: 500 }, (_, i) => compressedBytes(model, i + 1, 1));
    expect(sizes.every((size) => size < 3072 || size === 4096)).toBe(true);
    expect(sizes.some((size) => size < 3072) && sizes.includes(4096)).toBe(true);
  });
  it('refuse a model that makes no sense', () => {
    const make = (compression: CompressionModel) => host({ zswap: { compression } });
    expect(() => make({ ...DEFAULT_COMPRESSION, meanRatio: 0.5 })).toThrow('meanRatio: 0.5');
    expect(() => make({ ...DEFAULT_COMPRESSION, incompressibleShare: 1.5 })).toThrow('incompressibleShare: 1.5');
    expect(() => make({ ...DEFAULT_COMPRESSION, hugeClassBytes: 5000 })).toThrow('hugeClassBytes');
    expect(() => host({ zswap: { maxPoolPercent: 101 } })).toThrow('maxPoolPercent');
  });
});
