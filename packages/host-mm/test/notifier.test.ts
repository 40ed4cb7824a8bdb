import { Agent, Mutex, runToEnd, type Task, TaskRun } from '@faultline/sim';
import { describe, expect, it } from 'vitest';
import { type AddressSpace, HostMemory, type MmuNotifier, NotifierEvent, type NotifierRange } from '../src/index.ts';

class Recorder implements MmuNotifier {
  readonly log: string[] = [];
  readonly mm: AddressSpace;
  constructor(mm: AddressSpace) {
    this.mm = mm;
    mm.registerNotifier(this);
  }
  *invalidateRangeStart(agent: Agent, range: NotifierRange): Task<void> {
    const state = this.mm.lookup(range.startPage) >= 0 ? 'present' : 'absent';
    this.log.push(`start ${range.event} ${range.startPage}+${range.pages} ${state}`);
    yield agent.spends('callback', 0);
  }
  invalidateRangeEnd(_agent: Agent, range: NotifierRange): void {
    const state = this.mm.lookup(range.startPage) >= 0 ? 'present' : 'absent';
    this.log.push(`end ${range.event} ${range.startPage}+${range.pages} ${state}`);
  }
  *release(agent: Agent): Task<void> {
    this.log.push('release');
    yield agent.spends('callback', 0);
  }
}

function machine(backing: '4K' | 'thp-2M', splitNotify: 'none' | 'clear' = 'none') {
  const host = new HostMemory({ frames: 4096, swapSlots: 100, splitNotify });
  const mm = host.createAddressSpace('vmm');
  const agent = new Agent('agent');
  mm.mmap({ startPage: 512, pages: 512, backing });
  runToEnd(mm.populate(agent, 512, 512));
  return { host, mm, agent, recorder: new Recorder(mm) };
}

describe('who is told what', () => {
  it('has the numbers of Linux', () => {
    expect(Object.values(NotifierEvent)).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
  });

  it('swap-out of a 4K page: CLEAR of the page, present at start and gone at end', () => {
    const { mm, agent, recorder, host } = machine('4K');
    expect(runToEnd(mm.pageOut(agent, 600))).toBe(true);
    expect(recorder.log).toEqual(['start 1 600+1 present', 'end 1 600+1 absent']);
    expect(host.counters.notifierRanges).toBe(1);
  });

  it('a split moves nothing and tells nobody', () => {
    const { mm, agent, recorder } = machine('thp-2M');
    runToEnd(mm.pageOut(agent, 600));
    expect(recorder.log).toEqual(['start 1 600+1 present', 'end 1 600+1 absent']);
  });

  it('a split fires CLEAR over the leaf first with splitNotify clear', () => {
    const { mm, agent, recorder } = machine('thp-2M', 'clear');
    runToEnd(mm.pageOut(agent, 600));
    expect(recorder.log).toEqual([
      'start 1 512+512 present',
      'end 1 512+512 present',
      'start 1 600+1 present',
      'end 1 600+1 absent',
    ]);
  });

  it('MADV_DONTNEED is one range however much is in it', () => {
    const { mm, agent, recorder } = machine('thp-2M');
    runToEnd(mm.pageOut(agent, 600));
    recorder.log.length = 0;
    runToEnd(mm.madviseDontNeed(agent, 590, 20));
    expect(recorder.log).toEqual(['start 1 590+20 present', 'end 1 590+20 absent']);
  });

  it('faults, swap-in and pins tell nobody', () => {
    const { mm, agent, recorder } = machine('4K');
    runToEnd(mm.pageOut(agent, 600));
    recorder.log.length = 0;
    expect(runToEnd(mm.cpuAccess(agent, 600, { write: true, tagLo: 1, tagHi: 0 }))).toBe(4);
    runToEnd(mm.pin(agent, 512, 512));
    expect(recorder.log).toEqual([]);
    runToEnd(mm.unpin(agent, 512, 512));
  });

  it('exit releases first, and then has nobody to tell', () => {
    const { mm, agent, recorder, host } = machine('4K');
    runToEnd(mm.exit(agent));
    expect(recorder.log).toEqual(['release']);
    expect(host.allocator.allocatedFrames).toBe(0);
    expect(() => mm.registerNotifier(recorder)).toThrow(/exited/);
    expect(() => mm.mmap({ startPage: 0, pages: 1, backing: '4K' })).toThrow(/exited/);
  });

  it('a notifier that leaves inside a range hears its end; one that comes inside does not', () => {
    const { mm, agent, recorder } = machine('4K');
    const range: NotifierRange = { startPage: 512, pages: 1, event: NotifierEvent.MIGRATE, blockable: true };
    runToEnd(mm.invalidateRangeStart(agent, range));
    mm.unregisterNotifier(recorder);
    const late = new Recorder(mm);
    runToEnd(mm.invalidateRangeEnd(agent, range));
    expect(recorder.log).toEqual(['start 6 512+1 present', 'end 6 512+1 present']);
    expect(late.log).toEqual([]);
    expect(() => mm.unregisterNotifier(recorder)).toThrow(RangeError);
    expect(() => mm.registerNotifier(late)).toThrow(RangeError);
  });

  it('callbacks of a range that is not blockable must not sleep', () => {
    const { mm, agent } = machine('4K');
    const lock = new Mutex('lock of the notifier');
    runToEnd(lock.acquire(new Agent('somebody')));
    mm.registerNotifier({
      *invalidateRangeStart(by: Agent): Task<void> {
        yield* lock.acquire(by);
      },
      invalidateRangeEnd: () => undefined,
    });
    const range = { startPage: 512, pages: 1, event: NotifierEvent.UNMAP, blockable: false };
    expect(() => runToEnd(mm.invalidateRangeStart(agent, range))).toThrow(/would sleep on lock of the notifier/);
    expect(agent.maySleep).toBe(true);
  });
});

describe('the sequence', () => {
  const range: NotifierRange = { startPage: 512, pages: 4, event: NotifierEvent.CLEAR, blockable: true };

  it('asks for a retry while a range covers the page, and once any range has ended', () => {
    const { mm, agent } = machine('4K');
    const seq = runToEnd(mm.notifierReadBegin(agent, 513));
    expect(mm.notifierReadRetry(513, seq)).toBe(false);
    runToEnd(mm.invalidateRangeStart(agent, range));
    expect(mm.invalidationsInProgress).toBe(1);
    expect(mm.notifierReadRetry(513, seq)).toBe(true);
    expect(mm.notifierReadRetry(515, seq)).toBe(true);
    expect(mm.notifierReadRetry(516, seq)).toBe(false);
    expect(mm.notifierReadRetry(511, seq)).toBe(false);
    runToEnd(mm.invalidateRangeEnd(agent, range));
    expect(mm.notifierReadRetry(513, seq)).toBe(true);
    expect(mm.notifierReadRetry(516, seq)).toBe(true);
    expect(mm.notifierReadRetry(513, runToEnd(mm.notifierReadBegin(agent, 513)))).toBe(false);
    expect(() => runToEnd(mm.invalidateRangeEnd(agent, range))).toThrow(/assertion failed/);
  });

  it('lets a reader wait for the ranges that cover its page, and for no other', () => {
    const { mm, agent } = machine('4K');
    const again: NotifierRange = { ...range, pages: 2 };
    runToEnd(mm.invalidateRangeStart(agent, range));
    runToEnd(mm.invalidateRangeStart(agent, again));
    expect(runToEnd(mm.notifierReadBegin(new Agent('elsewhere'), 516))).toBe(0);
    const reader = new Agent('reader');
    const run = new TaskRun(reader, mm.notifierReadBegin(reader, 513));
    run.advance();
    run.advance();
    expect(run.pending?.waitFor).toBeInstanceOf(Object);
    expect(run.enabled).toBe(false);
    runToEnd(mm.invalidateRangeEnd(agent, range));
    expect(run.enabled).toBe(false);
    let woken = 0;
    run.pending?.waitFor?.park({ unpark: () => woken++ });
    runToEnd(mm.invalidateRangeEnd(agent, again));
    expect([run.enabled, woken]).toEqual([true, 1]);
    while (!run.done) run.advance();
    expect(run.value).toBe(2);
  });

  it('moves at the end of a swap-out', () => {
    const { mm, agent } = machine('4K');
    const seq = runToEnd(mm.notifierReadBegin(agent, 600));
    runToEnd(mm.pageOut(agent, 700));
    expect(mm.notifierReadRetry(600, seq)).toBe(true);
  });
});
