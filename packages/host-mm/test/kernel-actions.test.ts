import { Agent, RandomStream, runToEnd, type Task, TaskRun, VirtualTime } from '@faultline/sim';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type AddressSpace, HostMemory, HostMemoryError, VM_FAULT_ERROR } from '../src/index.ts';
import { runShuffled, testProfile } from './run.ts';
import { SecondaryMmu } from './secondary-mmu.ts';

/** A few pages of each kind, so that agents meet on them. */
const PAGES = [16, 17, 18, 512, 513, 600, 1023] as const;
const MEMFD_PAGES = [2048, 2049] as const;

type Op =
  | {
      kind: 'cpuWrite' | 'dmaWrite' | 'pageOut' | 'migrate' | 'dontNeed' | 'pin' | 'memfdWrite' | 'memfdMigrate';
      page: number;
    }
  | { kind: 'collapse' | 'khugepaged' | 'compact' | 'reclaim' | 'failure' | 'reap' | 'exit' };

const page = fc.constantFrom(...PAGES);
const op: fc.Arbitrary<Op> = fc.oneof(
  { weight: 10, arbitrary: fc.record({ kind: fc.constantFrom('cpuWrite' as const, 'dmaWrite' as const), page }) },
  {
    weight: 8,
    arbitrary: fc.record({ kind: fc.constantFrom('pageOut' as const, 'migrate' as const, 'pin' as const), page }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('dontNeed' as const), page }) },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constantFrom('memfdWrite' as const, 'memfdMigrate' as const),
      page: fc.constantFrom(...MEMFD_PAGES),
    }),
  },
  {
    weight: 8,
    arbitrary: fc.record({
      kind: fc.constantFrom('collapse' as const, 'khugepaged' as const, 'compact' as const, 'reclaim' as const),
    }),
  },
);
const violent: fc.Arbitrary<Op> = fc.oneof(
  { weight: 20, arbitrary: op },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constantFrom('failure' as const, 'failure' as const, 'reap' as const) }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('exit' as const) }) },
);
const programs = (of: fc.Arbitrary<Op>) => fc.array(fc.array(of, { maxLength: 10 }), { minLength: 2, maxLength: 5 });
const setup = fc.record({
  frames: fc.oneof(fc.integer({ min: 8, max: 40 }), fc.integer({ min: 540, max: 620 }), fc.constant(2600)),
  swapSlots: fc.oneof(fc.integer({ min: 0, max: 6 }), fc.constant(2000)),
  lru: fc.constantFrom('classic' as const, 'mglru' as const),
  splitNotify: fc.constantFrom('none' as const, 'clear' as const),
  queued: fc.boolean(),
  seed: fc.nat(),
});
type Setup = typeof setup extends fc.Arbitrary<infer T> ? T : never;

class World {
  readonly host: HostMemory;
  readonly mm: AddressSpace;
  readonly other: AddressSpace;
  readonly dma: SecondaryMmu;
  readonly seen = { moved: 0, collapsed: 0, compacted: 0, broken: 0, retries: 0 };
  /** What was last written to each page. */
  readonly model = new Map<number, number>();
  /** Pages that may have lost their content to MADV_DONTNEED, a broken frame, or the reaper. */
  readonly lossy = new Set<number>();
  readonly #random: RandomStream;
  readonly #pinned = new Set<number>();
  #tag = 0;
  #exited = false;

  constructor(options: Setup) {
    this.host = new HostMemory({ ...options, pageCluster: 0 });
    this.#random = new RandomStream(options.seed, 'frames');
    this.mm = this.host.createAddressSpace('vmm');
    this.other = this.host.createAddressSpace('backend');
    this.mm.mmap({ startPage: 16, pages: 3, backing: '4K' });
    this.mm.mmap({ startPage: 512, pages: 512, backing: 'thp-2M' });
    const memfd = this.host.createMemfd('guest', 2);
    for (const mm of [this.mm, this.other])
      mm.mmap({ startPage: 2048, pages: 2, backing: '4K', file: { memfd, offset: 0 } });
    this.dma = new SecondaryMmu(this.mm, this.host.memory);
  }

  *run(agent: Agent, program: readonly Op[]): Task<void> {
    for (const each of program) {
      if (this.#exited) return;
      yield* this.#do(agent, each);
    }
  }

  *#do(agent: Agent, each: Op): Task<void> {
    const { host, mm } = this;
    if (each.kind === 'cpuWrite' || each.kind === 'dmaWrite')
      yield* this.#write(agent, mm, each.page, each.kind === 'dmaWrite');
    else if (each.kind === 'memfdWrite')
      yield* this.#write(agent, this.#random.below(2) === 0 ? mm : this.other, each.page, false);
    else if (each.kind === 'pageOut') yield* mm.pageOut(agent, each.page);
    else if (each.kind === 'migrate' || each.kind === 'memfdMigrate') yield* this.#migrate(agent, each.page);
    else if (each.kind === 'pin') yield* this.#pin(agent, each.page);
    else if (each.kind === 'dontNeed') {
      this.lossy.add(each.page);
      yield* mm.madviseDontNeed(agent, each.page, 1);
    } else if (each.kind === 'collapse') {
      if ((yield* mm.collapse(agent, 512)) === 'collapsed') this.seen.collapsed++;
    } else if (each.kind === 'khugepaged') this.seen.collapsed += yield* mm.khugepaged(agent);
    else if (each.kind === 'compact') {
      yield* host.compact(agent);
      this.seen.compacted++;
    } else if (each.kind === 'reclaim') yield* host.reclaim(agent, 4);
    else yield* this.#violence(agent, each.kind);
  }

  *#violence(agent: Agent, kind: Op['kind']): Task<void> {
    const { host, mm } = this;
    for (const each of [...PAGES, ...MEMFD_PAGES]) this.lossy.add(each);
    if (kind === 'failure') {
      const outcome = yield* host.memoryFailure(
        agent,
        host.allocator.firstPfn + this.#random.below(Math.min(host.allocator.frames, 530)),
      );
      if (outcome === 'recovered') this.seen.broken++;
    } else if (kind === 'reap') {
      yield* mm.oomReap(agent);
    } else if (!this.#exited) {
      this.#exited = true;
      yield* mm.exit(agent);
    }
  }

  *#migrate(agent: Agent, at: number): Task<void> {
    const pfn = this.mm.lookup(at);
    if (pfn >= 0 && (yield* this.host.migratePage(agent, pfn)) === 'moved') this.seen.moved++;
  }

  *#pin(agent: Agent, at: number): Task<void> {
    const { mm, host } = this;
    // Pins of one range are told apart by nothing: the newest goes first.
    if (this.#pinned.has(at)) return;
    this.#pinned.add(at);
    try {
      yield* mm.pin(agent, at, 1);
    } catch (error) {
      this.#pinned.delete(at);
      if (error instanceof HostMemoryError) return;
      throw error;
    }
    const pfns = mm.pinnedRuns(at, 1).map((run) => run.pfn);
    yield* host.migratePage(agent, pfns[0]!);
    for (const pfn of pfns) expect(host.allocator.isAllocated(pfn)).toBe(true);
    if (!this.lossy.has(at)) expect(mm.lookup(at)).toBe(pfns[0]);
    this.#pinned.delete(at);
    yield* mm.unpin(agent, at, 1);
  }

  *#write(agent: Agent, mm: AddressSpace, at: number, dma: boolean): Task<void> {
    const tag = ++this.#tag;
    const done = dma
      ? yield* this.dma.dmaWrite(agent, at, tag)
      : ((yield* mm.cpuAccess(agent, at, { write: true, tagLo: tag, tagHi: ~tag })) & VM_FAULT_ERROR) === 0;
    if (!done) return;
    this.model.set(at, tag);
    expect(mm.cpuRead(at).tagLo).toBe(tag);
    if (!this.#exited) this.checkContents();
  }

  /** Every page has what was written last, wherever it is; those that nobody may have dropped. Not while a collapse has emptied the table. */
  checkContents(atRest = false): void {
    for (const [at, tag] of this.model) {
      const isEmpty = this.mm.lookup(at) < 0 && at >= 512 && at < 1024;
      if (this.lossy.has(at) || (isEmpty && !atRest)) continue;
      expect(this.mm.cpuRead(at).tagLo, `page ${at}`).toBe(tag);
    }
  }

  checkEnd(): void {
    const { host, mm } = this;
    this.seen.retries = this.dma.retries;
    expect(host.audit()).toEqual([]);
    if (!this.#exited) {
      this.checkContents(true);
      for (const [at, tag] of this.model) expect([0, tag]).toContain(mm.cpuRead(at).tagLo);
      for (const [at, pfn] of this.dma.translations) expect(mm.lookup(at)).toBe(pfn);
      runToEnd(mm.exit(new Agent('exit')));
    }
    runToEnd(this.other.exit(new Agent('exit')));
    expect(host.audit()).toEqual([]);
    // The memfd lives on; so do frames that are broken, but nobody has them.
    expect(host.allocator.allocatedFrames - host.state.brokenFrames).toBeLessThanOrEqual(2);
    expect(host.swap.usedSlots).toBeLessThanOrEqual(2);
  }
}

function* worker(world: World, agent: Agent): Task<void> {
  yield* world.host.swapIo.worker(agent, world.host.swap.areas[0]!);
}

/** Runs the programs shuffled; a worker of the swap device goes on for ever, so it is only advanced as long as somebody else is at work. */
function shuffle(world: World, options: Setup, lists: readonly (readonly Op[])[]): void {
  const runs = lists.map((list, index) => {
    const agent = new Agent(`agent ${index}`);
    return new TaskRun<unknown>(agent, world.run(agent, list));
  });
  if (!options.queued || options.swapSlots === 0) {
    runShuffled(new RandomStream(options.seed, 'order'), runs);
    return;
  }
  const random = new RandomStream(options.seed, 'order');
  const device = new Agent('device');
  const io = new TaskRun<unknown>(device, worker(world, device));
  io.advance();
  for (let steps = 0; runs.some((run) => !run.done) || world.host.swapIo.inFlight > 0; steps++) {
    const enabled = [...runs, io].filter((run) => run.enabled);
    if (enabled.length === 0 || steps > 1e6)
      throw new Error(`deadlock: ${runs.map((run) => run.pending?.label).join('; ')}`);
    random.pick(enabled).advance();
  }
  io.cancel();
}

describe('what the kernel does on its own, against whoever uses the memory', () => {
  it('loses no content, no frame and no translation, whatever the order', () => {
    const seen = { moved: 0, collapsed: 0, compacted: 0, retries: 0, migrationSplits: 0, migrationFailures: 0 };
    fc.assert(
      fc.property(setup, programs(op), (options, lists) => {
        const world = new World(options);
        shuffle(world, options, lists);
        world.checkEnd();
        seen.moved += world.seen.moved;
        seen.collapsed += world.seen.collapsed;
        seen.compacted += world.seen.compacted;
        seen.retries += world.seen.retries;
        seen.migrationSplits += world.host.counters.thp_migration_split;
        seen.migrationFailures += world.host.counters.pgmigrate_fail;
      }),
      { numRuns: 250 },
    );
    for (const [name, count] of Object.entries(seen)) expect(count, name).toBeGreaterThan(0);
  });

  it('survives broken frames, the OOM reaper and the exit of the process at any time', () => {
    let broken = 0;
    fc.assert(
      fc.property(setup, programs(violent), (options, lists) => {
        const world = new World(options);
        shuffle(world, options, lists);
        world.checkEnd();
        broken += world.seen.broken;
      }),
      { numRuns: 250 },
    );
    expect(broken).toBeGreaterThan(0);
  });

  it('ends in virtual time, with nobody asleep', () => {
    const costs = fc.record({ swapWrite: fc.nat(300), swapRead: fc.nat(300), lock: fc.nat(9), pageCopy: fc.nat(5) });
    fc.assert(
      fc.property(setup, programs(violent), costs, (options, lists, ns) => {
        const world = new World(options);
        const time = new VirtualTime(testProfile(ns));
        for (const [index, list] of lists.entries()) {
          const agent = new Agent(`agent ${index}`);
          time.spawn(agent, world.run(agent, list));
        }
        expect(time.run(1e9)).toBe(true);
        world.checkEnd();
      }),
      { numRuns: 150 },
    );
  });
});
