import { Agent, RandomStream, runToEnd, type Task, TaskRun } from '@faultline/sim';
import { describe, expect, it } from 'vitest';
import {
  type AddressSpace,
  HostMemory,
  HostMemoryError,
  type HostMemoryOptions,
  type MmuNotifier,
  NotifierEvent,
  VM_FAULT_ERROR,
} from '../src/index.ts';
import { runShuffled } from './run.ts';

const SMALL = 0;
const LARGE = 512;
const PAGES = 60;
const SETUPS: readonly [string, Partial<HostMemoryOptions>][] = [
  ['disk, classic', { swapSlots: 2048, lru: 'classic' }],
  ['disk, mglru', { swapSlots: 2048, lru: 'mglru' }],
  ['no whole swap-out', { swapSlots: 2048, thpSwap: false }],
  ['zram', { swap: [{ slots: 2048, kind: 'zram' }] }],
  ['zswap', { swapSlots: 2048, zswap: { maxPoolPercent: 40 } }],
];

/** A process that fills memory twice, drops, pins and reclaims; what it wrote is in the model. */
class Program {
  readonly host: HostMemory;
  readonly mm: AddressSpace;
  readonly agent = new Agent('program');
  readonly model = new Map<number, number>();
  failures = 0;
  #tag = 0;

  constructor(options: Partial<HostMemoryOptions>) {
    this.host = new HostMemory({ frames: 600, ...options });
    const memcg = this.host.createMemoryCgroup({ name: 'guest', max: 560 * 4096 });
    this.mm = this.host.createAddressSpace('vmm', memcg);
    this.mm.mmap({ startPage: SMALL, pages: PAGES, backing: '4K' });
    this.mm.mmap({ startPage: LARGE, pages: 512, backing: 'thp-2M' });
  }

  *run(agent: Agent): Task<void> {
    const { mm, host } = this;
    for (let page = 0; page < PAGES; page++) yield* this.touch(agent, SMALL + page, true);
    for (let page = 0; page < 24; page++) yield* this.touch(agent, LARGE + page * 7, true);
    yield* mm.madvise(agent, SMALL, 20, 'PAGEOUT');
    for (let page = 0; page < 20; page++) yield* this.touch(agent, SMALL + page, page % 3 === 0);
    yield* this.pinned(agent, SMALL + 30, 4);
    yield* host.reclaim(agent, 200);
    yield* mm.madviseDontNeed(agent, LARGE + 7, 7);
    this.model.delete(LARGE + 7);
    for (let page = 0; page < 24; page++) yield* this.touch(agent, LARGE + page * 7, page % 2 === 0);
    for (let page = 0; page < PAGES; page++) yield* this.touch(agent, SMALL + page, page % 5 === 0);
  }

  *touch(agent: Agent, page: number, write: boolean): Task<void> {
    if (this.mm.vmas.length === 0) return;
    const tag = ++this.#tag;
    const bits = yield* this.mm.cpuAccess(agent, page, { write, tagLo: tag, tagHi: ~tag });
    if ((bits & VM_FAULT_ERROR) !== 0) this.failures++;
    else if (write) this.model.set(page, tag);
  }

  *pinned(agent: Agent, page: number, pages: number): Task<void> {
    try {
      yield* this.mm.pin(agent, page, pages);
    } catch (error) {
      if (!(error instanceof HostMemoryError)) throw error;
      this.failures++;
      return;
    }
    yield* this.mm.unpin(agent, page, pages);
  }

  /** What was written is there, without touching anything. */
  checkContent(): void {
    for (const [page, tag] of this.model) expect(this.mm.cpuRead(page)).toMatchObject({ tagLo: tag, tagHi: ~tag });
    expect(this.host.audit()).toEqual([]);
  }

  /** Everything can be read by the CPU, now that nothing fails any more. */
  checkReadable(): void {
    // Drops what could not be read from the swap cache.
    runToEnd(this.host.reclaim(this.agent, 600));
    for (const [page, tag] of this.model) {
      const bits = runToEnd(this.mm.cpuAccess(this.agent, page, { write: false, tagLo: 0, tagHi: 0 }));
      expect(bits & VM_FAULT_ERROR).toBe(0);
      expect(this.host.memory.tagLo(this.mm.lookup(page))).toBe(tag);
    }
  }

  checkFree(): void {
    runToEnd(this.mm.exit(this.agent));
    this.checkGone();
  }

  checkGone(): void {
    expect(this.host.audit()).toEqual([]);
    expect([this.host.allocator.allocatedFrames, this.host.swap.usedSlots]).toEqual([0, 0]);
    expect([this.mm.residentBytes, this.mm.swappedBytes, this.mm.pinnedBytes]).toEqual([0, 0, 0]);
  }
}

describe.each(SETUPS)('%s', (_name, options) => {
  it('an allocation failure at any point loses nothing', () => {
    let n = 1;
    let failures = 0;
    for (; ; n++) {
      const program = new Program({ ...options, injection: { allocationFails: (at) => at === n } });
      runToEnd(program.run(program.agent));
      program.checkContent();
      failures += program.failures;
      if (program.host.counters.injectedAllocationFailures === 0) break;
      program.checkReadable();
      program.checkFree();
    }
    expect(n).toBeGreaterThan(100);
    expect(failures).toBeGreaterThan(50);
  });

  it('a write error at any point loses nothing', () => {
    for (let n = 1; ; n++) {
      const program = new Program(options);
      const { faults } = program.host.swap.areas[0]!;
      faults.failWrites = n;
      runToEnd(program.run(program.agent));
      program.checkContent();
      if (faults.injectedWriteErrors === 0) break;
      faults.failWrites = null;
      program.checkReadable();
      program.checkFree();
    }
  });

  it('a read error at any point loses nothing', () => {
    for (let n = 1; ; n++) {
      const program = new Program(options);
      const { faults } = program.host.swap.areas[0]!;
      faults.failReads = n;
      runToEnd(program.run(program.agent));
      program.checkContent();
      if (faults.injectedReadErrors === 0) break;
      faults.failReads = null;
      program.checkReadable();
      program.checkFree();
    }
  });

  it('a device that always fails loses nothing either', () => {
    const program = new Program(options);
    const { faults } = program.host.swap.areas[0]!;
    faults.failWrites = (command) => command.slot % 3 !== 0;
    faults.failReads = (command) => command.slot % 2 === 0;
    faults.slowFactor = 1000;
    runToEnd(program.run(program.agent));
    program.checkContent();
    faults.failWrites = null;
    faults.failReads = null;
    program.checkReadable();
    program.checkFree();
  });

  it('the end of the process in the middle leaves nothing behind', () => {
    const steps = stepsOf(options);
    for (let start = 0; start < steps; start += Math.max(1, Math.floor(steps / 150))) {
      const program = new Program(options);
      const [a, b, c] = ['a', 'b', 'exit'].map((name) => new Agent(name));
      const runs = [new TaskRun<unknown>(a!, program.run(a!)), new TaskRun<unknown>(b!, reclaiming(program, b!))];
      const random = new RandomStream(start, 'order');
      for (let i = 0; i < start; i++) {
        const enabled = runs.filter((run) => run.enabled && !run.done);
        if (enabled.length === 0) break;
        random.pick(enabled).advance();
      }
      runShuffled(random, [...runs.filter((run) => !run.done), new TaskRun<unknown>(c!, program.mm.exit(c!))]);
      program.checkGone();
    }
  });
});

function* reclaiming({ host }: Program, agent: Agent): Task<void> {
  for (let i = 0; i < 6; i++) yield* host.reclaim(agent, 40);
}

function stepsOf(options: Partial<HostMemoryOptions>): number {
  const program = new Program(options);
  const run = new TaskRun(program.agent, program.run(program.agent));
  let steps = 0;
  for (; !run.done; steps++) run.advance();
  return steps;
}

describe('a notifier that would have to block', () => {
  it('in a range that is not blockable says so, and the range ends as usual', () => {
    const program = new Program({ swapSlots: 64 });
    const { mm, agent } = program;
    let asked = 0;
    const notifier: MmuNotifier = {
      // biome-ignore lint/correctness/useYield: it answers at once.
      *invalidateRangeStart(_agent, range): Task<boolean> {
        asked++;
        return range.blockable;
      },
    };
    runToEnd(program.run(agent));
    mm.registerNotifier(notifier);
    const range = { startPage: 0, pages: 4, event: NotifierEvent.UNMAP, blockable: false };
    expect(runToEnd(mm.invalidateRangeStart(agent, range))).toBe(false);
    expect(agent.maySleep).toBe(true);
    runToEnd(mm.invalidateRangeEnd(agent, range));
    expect([asked, mm.invalidationsInProgress]).toEqual([1, 0]);
    runToEnd(mm.madvise(agent, 0, 20, 'PAGEOUT'));
    expect(asked).toBeGreaterThan(1);
    program.checkContent();
    program.checkFree();
  });
});
