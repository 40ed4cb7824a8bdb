import { Agent, runToEnd, type Task, TaskRun } from '@faultline/sim';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type AddressSpace,
  HmmPfn,
  type HmmRange,
  HostMemory,
  type MmuIntervalNotifier,
  VmFault,
} from '../src/index.ts';

const agent = new Agent('agent');
const { VALID, WRITE, ERROR, REQ_FAULT, REQ_WRITE } = HmmPfn;

class Interval implements MmuIntervalNotifier {
  readonly startPage = 0;
  readonly pages = 4096;
  readonly #mm: AddressSpace;
  constructor(mm: AddressSpace) {
    this.#mm = mm;
    mm.intervals.insert(this);
  }
  *invalidate(by: Agent, _range: unknown, sequence: number): Task<boolean> {
    yield by.spends('callback', 0);
    this.#mm.intervals.setSequence(this, sequence);
    return true;
  }
}

/** Pages 16..32 of 4K; 512..1024 of 2M; 1024..1032 read-only; 1040..1048 of a memfd; the rest is not mapped. */
function machine(frames = 2048) {
  const host = new HostMemory({ frames, swapSlots: 2000, pageCluster: 0 });
  const mm = host.createAddressSpace('vmm');
  mm.mmap({ startPage: 16, pages: 16, backing: '4K' });
  mm.mmap({ startPage: 512, pages: 512, backing: 'thp-2M' });
  mm.mmap({ startPage: 1024, pages: 8, backing: '4K', readOnly: true });
  mm.mmap({ startPage: 1040, pages: 8, backing: '4K', file: { memfd: host.createMemfd('guest', 8), offset: 0 } });
  return { host, mm, notifier: new Interval(mm) };
}

function* lookUp(by: Agent, mm: AddressSpace, range: HmmRange): Task<void> {
  yield* mm.mmapLock.acquireRead(by);
  try {
    yield* mm.hmmRangeFault(by, range);
  } finally {
    mm.mmapLock.releaseRead(by);
  }
}

function rangeOf(
  mm: AddressSpace,
  notifier: Interval,
  startPage: number,
  pages: number,
  defaultFlags: number,
): HmmRange {
  const sequence = runToEnd(mm.intervals.readBegin(agent, notifier));
  return {
    ...{ startPage, pages, notifier, sequence, defaultFlags },
    ...{
      pfns: new Int32Array(pages).fill(-7),
      flags: new Uint8Array(pages).fill(99),
      orders: new Uint8Array(pages).fill(99),
    },
  };
}

function run(world: ReturnType<typeof machine>, startPage: number, pages: number, defaultFlags = 0): HmmRange {
  const range = rangeOf(world.mm, world.notifier, startPage, pages, defaultFlags);
  runToEnd(lookUp(agent, world.mm, range));
  return range;
}

const touch = (mm: AddressSpace, page: number, write: boolean): number =>
  runToEnd(mm.cpuAccess(agent, page, { write, tagLo: page, tagHi: 1 }));

/** What a reader of one page after the other would find. */
function expectPageByPage(mm: AddressSpace, range: HmmRange): void {
  for (let i = 0; i < range.pages; i++) {
    const page = range.startPage + i;
    const isMapped = mm.vmas.some((vma) => page >= vma.startPage && page < vma.startPage + vma.pages);
    const pfn = mm.lookup(page);
    const flags = !isMapped ? ERROR : pfn < 0 ? 0 : VALID | (mm.isWriteable(page) ? WRITE : 0);
    const order = pfn < 0 ? 0 : Math.log2(mm.leafPages(page));
    expect([page, range.pfns[i], range.flags[i], range.orders[i]]).toEqual([page, pfn, flags, order]);
  }
}

describe('hmm_range_fault', () => {
  it('only looks if nothing is asked for: no fault, no change', () => {
    const world = machine();
    touch(world.mm, 17, true);
    const faults = world.host.counters.pgfault;
    const range = run(world, 15, 3);
    expect([...range.flags]).toEqual([ERROR, 0, VALID | WRITE]);
    expect([...range.pfns]).toEqual([-1, -1, world.mm.lookup(17)]);
    expect(world.host.counters.pgfault).toBe(faults);
  });

  it('tells the order of the leaf that maps each page', () => {
    const world = machine();
    touch(world.mm, 700, true);
    touch(world.mm, 31, true);
    const range = run(world, 510, 600);
    expect([range.orders[0], range.orders[1], range.orders[2], range.orders[513], range.orders[514]]).toEqual([
      0, 0, 9, 9, 0,
    ]);
    expect(range.pfns[2 + 188]).toBe(world.mm.lookup(700));
    expectPageByPage(world.mm, range);
  });

  it('faults what is asked for, with the right that is asked for', () => {
    const world = machine();
    const read = run(world, 1040, 8, REQ_FAULT);
    expect([...read.flags]).toEqual(new Array(8).fill(VALID));
    const write = run(world, 1040, 8, REQ_FAULT | REQ_WRITE);
    expect([...write.flags]).toEqual(new Array(8).fill(VALID | WRITE));
    expect(run(world, 512, 512, REQ_FAULT | REQ_WRITE).orders[0]).toBe(9);
    touch(world.mm, 20, true);
    runToEnd(world.mm.pageOut(agent, 20));
    expect([...run(world, 20, 1).flags]).toEqual([0]);
    expect([...run(world, 20, 1, REQ_FAULT).flags]).toEqual([VALID | WRITE]);
    expect(world.host.counters.pgmajfault).toBe(1);
  });

  it('fails with EFAULT outside mappings, EPERM for a write to read-only memory, ENOMEM without a frame', () => {
    const world = machine();
    const error = (what: () => unknown): unknown => {
      try {
        return what();
      } catch (thrown) {
        return thrown;
      }
    };
    expect(error(() => run(world, 30, 4, REQ_FAULT))).toMatchObject({ code: 'EFAULT', page: 32 });
    expect(error(() => run(world, 1023, 2, REQ_FAULT | REQ_WRITE))).toMatchObject({ code: 'EPERM', page: 1024 });
    expect([...run(world, 1024, 1, REQ_FAULT).flags]).toEqual([VALID]);
    expect(world.mm.mmapLock.held).toBe(false);
    const poor = machine(2);
    runToEnd(poor.mm.pin(agent, 16, 2));
    expect(error(() => run(poor, 16, 4, REQ_FAULT))).toMatchObject({ code: 'ENOMEM', page: 18 });
  });

  it('fails with EFAULT where the memory is broken', () => {
    const world = machine();
    touch(world.mm, 20, true);
    runToEnd(world.host.memoryFailure(agent, world.mm.lookup(20)));
    expect(touch(world.mm, 20, false)).toBe(VmFault.HWPOISON);
    expect([...run(world, 20, 1).flags]).toEqual([0]);
    expect(() => run(world, 20, 1, REQ_FAULT)).toThrow('EFAULT: hmm_range_fault: page 0x14 cannot be read');
  });

  it('fails with EBUSY if the range was invalidated meanwhile, at whatever step', () => {
    let busy = 0;
    for (let steps = 0; ; steps++) {
      const world = machine();
      for (const page of [16, 17, 18]) touch(world.mm, page, true);
      const range = rangeOf(world.mm, world.notifier, 16, 6, REQ_FAULT);
      const by = new Agent('reader');
      const reader = new TaskRun(by, lookUp(by, world.mm, range));
      for (let i = 0; i < steps && !reader.done; i++) reader.advance();
      if (reader.done) break;
      runToEnd(world.mm.madviseDontNeed(new Agent('owner'), 17, 1));
      expect(() => {
        while (!reader.done) reader.advance();
      }).toThrow('EBUSY: hmm_range_fault: the range was invalidated meanwhile');
      expect(world.mm.mmapLock.held).toBe(false);
      busy++;
    }
    expect(busy).toBeGreaterThan(8);
  });

  it('finds what a page-by-page reading finds', () => {
    const page = fc.oneof(
      fc.integer({ min: 14, max: 34 }),
      fc.integer({ min: 508, max: 530 }),
      fc.integer({ min: 1000, max: 1050 }),
    );
    const op = fc.record({
      kind: fc.constantFrom('read' as const, 'write' as const, 'pageOut' as const, 'drop' as const),
      page,
    });
    const flags = fc.constantFrom(0, 0, REQ_FAULT, REQ_FAULT | REQ_WRITE);
    let done = 0;
    fc.assert(
      fc.property(
        fc.array(op, { maxLength: 20 }),
        page,
        fc.integer({ min: 1, max: 600 }),
        flags,
        (ops, start, pages, wanted) => {
          const world = machine();
          for (const each of ops) {
            if (each.kind === 'read' || each.kind === 'write') touch(world.mm, each.page, each.kind === 'write');
            else if (each.kind === 'pageOut') runToEnd(world.mm.pageOut(agent, each.page));
            else runToEnd(world.mm.madviseDontNeed(agent, each.page, 3));
          }
          const range = rangeOf(world.mm, world.notifier, start, pages, wanted);
          try {
            runToEnd(lookUp(agent, world.mm, range));
          } catch (error) {
            expect(wanted).not.toBe(0);
            expect(error).toMatchObject({ code: expect.stringMatching(/^(EFAULT|EPERM)$/) });
            return;
          }
          done++;
          expectPageByPage(world.mm, range);
          if ((wanted & REQ_FAULT) !== 0) for (const each of range.flags) expect(each & VALID).toBe(VALID);
          if ((wanted & REQ_WRITE) !== 0) for (const each of range.flags) expect(each & WRITE).toBe(WRITE);
          expect(world.host.audit()).toEqual([]);
        },
      ),
      { numRuns: 300 },
    );
    expect(done).toBeGreaterThan(100);
  });
});
