import { Agent, RandomStream, runToEnd, type Task, TaskRun, VirtualTime } from '@faultline/sim';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type AddressSpace, HostMemory, HostMemoryError, type SplitNotify } from '../src/index.ts';
import { runShuffled, testProfile } from './run.ts';
import { SecondaryMmu } from './secondary-mmu.ts';

/** Few pages, so that agents meet on them: page 0 to 3 of a 4K mapping, and of a 2M folio at 512. */
type Op =
  | { kind: 'cpuWrite' | 'dmaWrite' | 'pageOut' | 'populate'; page: number }
  | { kind: 'dontNeed' | 'pin'; page: number; pages: number }
  | { kind: 'reclaim'; pages: number };

const page = fc.constantFrom(0, 1, 2, 512, 513, 514, 1023);
const op: fc.Arbitrary<Op> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ kind: fc.constantFrom('cpuWrite' as const, 'dmaWrite' as const), page }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constantFrom('pageOut' as const, 'populate' as const), page }) },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constantFrom('dontNeed' as const, 'pin' as const),
      page,
      pages: fc.constantFrom(1, 2, 512, 1024),
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('reclaim' as const), pages: fc.integer({ min: 1, max: 4 }) }) },
);
const programs = fc.array(fc.array(op, { maxLength: 14 }), { minLength: 2, maxLength: 5 });
const setup = fc.record({
  frames: fc.oneof(fc.integer({ min: 1, max: 8 }), fc.integer({ min: 512, max: 530 }), fc.constant(2048)),
  swapSlots: fc.oneof(fc.integer({ min: 0, max: 6 }), fc.constant(2000)),
  splitNotify: fc.constantFrom<SplitNotify>('none', 'clear'),
  seed: fc.nat(),
});

/** Runs a task that may fail for want of frames. @returns whether it succeeded */
function* orNoMemory(task: Task<void>): Task<boolean> {
  try {
    yield* task;
    return true;
  } catch (error) {
    if (error instanceof HostMemoryError && error.code === 'ENOMEM') return false;
    throw error;
  }
}

class World {
  readonly host: HostMemory;
  readonly mm: AddressSpace;
  readonly dma: SecondaryMmu;
  readonly last = new Map<number, number>();
  readonly #pinned = new Set<string>();
  #tag = 0;

  constructor(options: { frames: number; swapSlots: number; splitNotify: SplitNotify; seed: number }) {
    const firstPfn = 0x40000;
    this.host = new HostMemory({ ...options, firstPfn });
    this.mm = this.host.createAddressSpace('vmm');
    this.mm.mmap({ startPage: 0, pages: 4, backing: '4K' });
    this.mm.mmap({ startPage: 512, pages: 512, backing: 'thp-2M' });
    this.dma = new SecondaryMmu(this.mm, this.host.memory);
  }

  *run(agent: Agent, program: readonly Op[]): Task<void> {
    for (const each of program) yield* this.#do(agent, each);
  }

  *#do(agent: Agent, each: Op): Task<void> {
    const { mm, host } = this;
    if (each.kind === 'reclaim') yield* host.reclaim(agent, each.pages);
    else if (each.kind === 'dontNeed') yield* mm.madviseDontNeed(agent, each.page, each.pages);
    else if (each.kind === 'pageOut') yield* mm.pageOut(agent, each.page);
    else if (each.kind === 'pin') yield* this.#pin(agent, each.page, each.pages);
    else if (each.kind === 'populate') yield* orNoMemory(mm.populate(agent, each.page, 1));
    else yield* this.#write(agent, each.page, each.kind === 'dmaWrite');
  }

  *#pin(agent: Agent, at: number, count: number): Task<void> {
    const { mm, host } = this;
    const pages = Math.min(count, at < 512 ? 4 - at : 1024 - at);
    // Pins of one range are told apart by nothing: the newest goes first.
    const range = `${at}+${pages}`;
    if (this.#pinned.has(range)) return;
    this.#pinned.add(range);
    if (!(yield* orNoMemory(mm.pin(agent, at, pages)))) {
      this.#pinned.delete(range);
      return;
    }
    const runs = mm.pinnedRuns(at, pages);
    expect(runs.reduce((sum, run) => sum + run.pages, 0)).toBe(pages);
    yield* host.reclaim(agent, 2);
    for (const { pfn } of runs) expect(host.allocator.isAllocated(pfn)).toBe(true);
    this.#pinned.delete(range);
    yield* mm.unpin(agent, at, pages);
  }

  *#write(agent: Agent, at: number, dma: boolean): Task<void> {
    const tag = ++this.#tag;
    const done = dma
      ? yield* this.dma.dmaWrite(agent, at, tag)
      : ((yield* this.mm.cpuAccess(agent, at, { write: true, tagLo: tag, tagHi: ~tag })) & 1) === 0;
    if (!done) return;
    this.last.set(at, tag);
    expect(this.mm.cpuRead(at).tagLo).toBe(tag);
  }

  checkEnd(): void {
    const { host, mm } = this;
    expect(host.audit()).toEqual([]);
    for (const [at, tag] of this.last) expect([0, tag]).toContain(mm.cpuRead(at).tagLo);
    runToEnd(mm.exit(new Agent('exit')));
    expect(host.audit()).toEqual([]);
    expect([host.allocator.allocatedFrames, host.swap.usedSlots]).toEqual([0, 0]);
  }
}

describe('agents that all write, drop, pin and reclaim the same few pages', () => {
  it('leave a consistent host, whatever the order', { timeout: 90_000 }, () => {
    fc.assert(
      fc.property(setup, programs, (options, lists) => {
        const world = new World(options);
        const runs = lists.map((list, index) => {
          const agent = new Agent(`agent ${index}`);
          return new TaskRun<unknown>(agent, world.run(agent, list));
        });
        runShuffled(new RandomStream(options.seed, 'order'), runs);
        world.checkEnd();
      }),
      { numRuns: 200 },
    );
  });

  it('leave a consistent host in virtual time, and nobody asleep', { timeout: 90_000 }, () => {
    const costs = fc.record({
      swapWrite: fc.nat(300),
      swapRead: fc.nat(300),
      lock: fc.nat(9),
      notifierCall: fc.nat(90),
    });
    fc.assert(
      fc.property(setup, programs, costs, (options, lists, ns) => {
        const world = new World(options);
        const time = new VirtualTime(testProfile({ ...ns, pageCopy: 1 }));
        for (const [index, list] of lists.entries()) {
          const agent = new Agent(`agent ${index}`);
          time.spawn(agent, world.run(agent, list));
        }
        expect(time.run(1e9)).toBe(true);
        world.checkEnd();
      }),
      { numRuns: 120 },
    );
  });
});
