import { Agent, RandomStream, runToEnd, type Task, TaskRun, VirtualTime } from '@faultline/sim';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type AddressSpace, HostMemory, type SplitNotify, VM_FAULT_ERROR } from '../src/index.ts';
import { runShuffled, testProfile } from './run.ts';
import { SecondaryMmu } from './secondary-mmu.ts';

const AGENTS = 4;
/** Pages that every agent touches, in a 4K mapping. */
const SHARED = { start: 0x1000, pages: 24 };
/** Pages of one agent each, that it also drops: one 2M folio. */
const OWN_START = 0x200000;

type Op =
  | { kind: 'cpuWrite' | 'dmaWrite' | 'read' | 'pageOut'; own: boolean; page: number }
  | { kind: 'dontNeed'; page: number; pages: number }
  | { kind: 'reclaim'; pages: number }
  | { kind: 'pin'; page: number; pages: number };

const touch = fc.record({
  kind: fc.constantFrom('cpuWrite' as const, 'dmaWrite' as const, 'read' as const, 'pageOut' as const),
  own: fc.boolean(),
  page: fc.nat(SHARED.pages - 1),
});
const op: fc.Arbitrary<Op> = fc.oneof(
  { weight: 8, arbitrary: touch },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('dontNeed' as const),
      page: fc.nat(40),
      pages: fc.integer({ min: 1, max: 512 }),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constant('reclaim' as const), pages: fc.integer({ min: 1, max: 40 }) }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('pin' as const),
      page: fc.nat(20),
      pages: fc.integer({ min: 1, max: 4 }),
    }),
  },
);
const programs = fc.array(fc.array(op, { maxLength: 25 }), { minLength: AGENTS, maxLength: AGENTS });

class World {
  readonly host: HostMemory;
  readonly mm: AddressSpace;
  readonly dma: SecondaryMmu;
  /** The naive model: what was last written to each page. */
  readonly model = new Map<number, number>();
  #tag = 0;

  constructor(options: {
    frames: number;
    swapSlots: number;
    splitNotify: SplitNotify;
    lru: 'classic' | 'mglru';
    seed: number;
  }) {
    this.host = new HostMemory(options);
    this.mm = this.host.createAddressSpace('vmm');
    this.mm.mmap({ startPage: SHARED.start, pages: SHARED.pages, backing: '4K' });
    this.mm.mmap({ startPage: OWN_START, pages: AGENTS * 512, backing: 'thp-2M' });
    this.dma = new SecondaryMmu(this.mm, this.host.memory);
  }

  *run(agent: Agent, index: number, program: readonly Op[]): Task<void> {
    for (const each of program) yield* this.#do(agent, OWN_START + index * 512, each);
  }

  *#do(agent: Agent, ownStart: number, each: Op): Task<void> {
    const { mm, host } = this;
    if (each.kind === 'reclaim') {
      yield* host.reclaim(agent, each.pages);
    } else if (each.kind === 'dontNeed') {
      const pages = Math.min(each.pages, 512 - each.page);
      yield* mm.madviseDontNeed(agent, ownStart + each.page, pages);
      for (let page = 0; page < pages; page++) this.model.delete(ownStart + each.page + page);
    } else if (each.kind === 'pin') {
      yield* this.#pinned(agent, SHARED.start + each.page, each.pages);
    } else {
      yield* this.#touch(agent, (each.own ? ownStart : SHARED.start) + each.page, each.kind);
    }
  }

  *#pinned(agent: Agent, page: number, pages: number): Task<void> {
    try {
      yield* this.mm.pin(agent, page, pages);
    } catch (error) {
      expect(error).toMatchObject({ code: 'ENOMEM' });
      return;
    }
    const pfn = this.mm.lookup(page);
    yield* this.host.reclaim(agent, 8);
    // The frame of a pinned page stays.
    expect(this.mm.lookup(page)).toBe(pfn);
    yield* this.mm.unpin(agent, page, pages);
  }

  *#touch(agent: Agent, page: number, kind: 'cpuWrite' | 'dmaWrite' | 'read' | 'pageOut'): Task<void> {
    const { mm } = this;
    if (kind === 'pageOut') {
      yield* mm.pageOut(agent, page);
    } else if (kind === 'dmaWrite') {
      const tag = ++this.#tag;
      if (yield* this.dma.dmaWrite(agent, page, tag)) this.model.set(page, tag);
    } else {
      const write = kind === 'cpuWrite';
      const tag = ++this.#tag;
      const bits = yield* mm.cpuAccess(agent, page, { write, tagLo: tag, tagHi: ~tag });
      if ((bits & VM_FAULT_ERROR) === 0 && write) this.model.set(page, tag);
    }
    this.checkPage(page);
  }

  checkPage(page: number): void {
    const tag = this.model.get(page);
    expect(this.mm.cpuRead(page)).toMatchObject({ tagLo: tag ?? 0, tagHi: tag === undefined ? 0 : ~tag });
  }

  checkEnd(): void {
    const { host, mm } = this;
    for (const page of this.model.keys()) this.checkPage(page);
    expect(host.audit()).toEqual([]);
    // Beside what is mapped, the swap cache may hold pages and slots.
    expect(mm.residentBytes).toBeLessThanOrEqual(host.allocator.allocatedFrames * 4096);
    expect(mm.swappedBytes).toBeLessThanOrEqual(host.swap.usedSlots * 4096);
    expect(mm.pinnedBytes).toBe(0);
    runToEnd(mm.exit(new Agent('exit')));
    expect(this.dma.released).toBe(true);
    expect(host.audit()).toEqual([]);
    expect(host.allocator.allocatedFrames).toBe(0);
    expect(host.swap.freeSlots).toBe(host.swap.slots);
  }
}

const setup = fc.record({
  frames: fc.integer({ min: 3, max: 1600 }),
  swapSlots: fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 20 }), fc.constant(5000)),
  splitNotify: fc.constantFrom<SplitNotify>('none', 'clear'),
  lru: fc.constantFrom('classic' as const, 'mglru' as const),
  seed: fc.nat(),
});

describe('random programs of several agents', () => {
  it('lose no content and no frame when their steps are shuffled', () => {
    const seen = { swapIn: 0, swapCacheHits: 0, retries: 0, splits: 0 };
    fc.assert(
      fc.property(setup, programs, (options, lists) => {
        const world = new World(options);
        const runs = lists.map((list, index) => {
          const agent = new Agent(`agent ${index}`);
          return new TaskRun<unknown>(agent, world.run(agent, index, list));
        });
        runShuffled(new RandomStream(options.seed, 'order'), runs);
        seen.swapIn += world.host.counters.swap.pswpin;
        seen.swapCacheHits += world.host.counters.swapCacheHits;
        seen.splits += world.host.counters.folioSplits['2M->4K'];
        seen.retries += world.dma.retries;
        world.checkEnd();
      }),
      { numRuns: 80 },
    );
    for (const [name, count] of Object.entries(seen)) expect(count, name).toBeGreaterThan(0);
  });

  it('lose no content and no frame in virtual time', () => {
    const costs = fc.record({ swapWrite: fc.nat(500), swapRead: fc.nat(500), lock: fc.nat(9), entryWrite: fc.nat(20) });
    fc.assert(
      fc.property(setup, programs, costs, (options, lists, ns) => {
        const world = new World(options);
        const time = new VirtualTime(testProfile({ ...ns, pageCopy: 1 }));
        for (const [index, list] of lists.entries()) {
          const agent = new Agent(`agent ${index}`);
          time.spawn(agent, world.run(agent, index, list));
        }
        expect(time.run(1e9)).toBe(true);
        world.checkEnd();
      }),
      { numRuns: 40 },
    );
  });
});
