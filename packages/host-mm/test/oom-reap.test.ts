import { Agent, runToEnd, type Task, TaskRun } from '@faultline/sim';
import { describe, expect, it } from 'vitest';
import { HostMemory, type MmuIntervalNotifier, type MmuNotifier, type NotifierRange, VmFault } from '../src/index.ts';
import { Recorder } from './recorder.ts';

const agent = new Agent('agent');

/** A subscriber that may refuse; such a one has no end. */
class Refuser implements MmuNotifier {
  refuse = (_range: NotifierRange): boolean => true;
  readonly heard: NotifierRange[] = [];
  *invalidateRangeStart(by: Agent, range: NotifierRange): Task<boolean> {
    expect(by.maySleep).toBe(range.blockable);
    this.heard.push(range);
    yield by.spends('callback', 0);
    return range.blockable || !this.refuse(range);
  }
}

function machine() {
  const host = new HostMemory({ frames: 4096, swapSlots: 100, pageCluster: 0 });
  host.setHugePages('2M', 1);
  const memfd = host.createMemfd('guest', 8);
  const mm = host.createAddressSpace('victim');
  mm.mmap({ startPage: 16, pages: 16, backing: '4K' });
  mm.mmap({ startPage: 512, pages: 512, backing: 'thp-2M' });
  mm.mmap({ startPage: 1024, pages: 512, backing: 'hugetlb-2M' });
  mm.mmap({ startPage: 2048, pages: 8, backing: '4K', file: { memfd, offset: 0 } });
  for (const [start, pages] of [
    [16, 16],
    [512, 512],
    [1024, 512],
    [2048, 8],
  ] as const)
    runToEnd(mm.populate(agent, start, pages));
  for (const page of [16, 512, 1024, 2048]) runToEnd(mm.cpuAccess(agent, page, { write: true, tagLo: page, tagHi: 0 }));
  runToEnd(mm.pageOut(agent, 17));
  return { host, mm };
}

const fault = (mm: ReturnType<typeof machine>['mm'], page: number): number =>
  runToEnd(mm.cpuAccess(agent, page, { write: false, tagLo: 0, tagHi: 0 }));

describe('the OOM reaper', () => {
  it('frees private memory: CLEAR over each mapping, not blockable; huge pages and shared memory stay', () => {
    const { host, mm } = machine();
    const recorder = new Recorder(mm);
    const listener = new Refuser();
    listener.refuse = () => false;
    mm.registerNotifier(listener);
    expect(runToEnd(mm.oomReap(agent))).toBe(true);
    expect(recorder.take()).toEqual(['CLEAR 16+16', 'CLEAR 512+512']);
    expect(listener.heard.map((range) => range.blockable)).toEqual([false, false]);
    expect(agent.maySleep).toBe(true);
    expect([mm.lookup(16), mm.lookup(512), mm.swappedBytes]).toEqual([-1, -1, 0]);
    expect([mm.cpuRead(1024).tagLo, mm.cpuRead(2048).tagLo]).toEqual([1024, 2048]);
    // Its content is gone, and nobody is to take zeros for it.
    expect([fault(mm, 16), fault(mm, 17), fault(mm, 600)]).toEqual([VmFault.SIGBUS, VmFault.SIGBUS, VmFault.SIGBUS]);
    expect([fault(mm, 1030), fault(mm, 2050)]).toEqual([0, 0]);
    expect(host.audit()).toEqual([]);
  });

  it('leaves a mapping for which a notifier would have to sleep; all of the others', () => {
    const { host, mm } = machine();
    const recorder = new Recorder(mm);
    const refuser = new Refuser();
    refuser.refuse = (range) => range.startPage === 512;
    mm.registerNotifier(refuser);
    const after = new Recorder(mm);
    expect(runToEnd(mm.oomReap(agent))).toBe(false);
    // All hear start and end, also those behind the one that refuses.
    for (const each of [recorder, after]) expect(each.take()).toEqual(['CLEAR 16+16', 'CLEAR 512+512']);
    expect([mm.lookup(16), mm.leafPages(512), mm.cpuRead(512).tagLo]).toEqual([-1, 512, 512]);
    expect([mm.invalidationsInProgress, agent.maySleep]).toEqual([0, true]);
    expect(host.audit()).toEqual([]);
  });

  it('tells the others nothing when an interval notifier refuses, and ends the range for its readers', () => {
    const { host, mm } = machine();
    const recorder = new Recorder(mm);
    const interval: MmuIntervalNotifier = {
      startPage: 600,
      pages: 10,
      *invalidate(by, range) {
        yield by.spends('callback', 0);
        return range.blockable;
      },
    };
    mm.intervals.insert(interval);
    expect(runToEnd(mm.oomReap(agent))).toBe(false);
    expect(recorder.take()).toEqual(['CLEAR 16+16']);
    expect(mm.intervals.sequence % 2).toBe(0);
    runToEnd(mm.intervals.readBegin(agent, interval));
    expect(mm.leafPages(600)).toBe(512);
    expect(host.audit()).toEqual([]);
  });

  it('keeps frames that are pinned', () => {
    const { host, mm } = machine();
    runToEnd(mm.pin(agent, 20, 2));
    const runs = mm.pinnedRuns(20, 2);
    expect(runToEnd(mm.oomReap(agent))).toBe(true);
    for (const { pfn } of runs) expect(host.allocator.isAllocated(pfn)).toBe(true);
    runToEnd(mm.unpin(agent, 20, 2));
    expect(host.audit()).toEqual([]);
  });

  it('survives the exit of the process before any of its steps', () => {
    for (let steps = 0; ; steps++) {
      const { host, mm } = machine();
      const run = new TaskRun(agent, mm.oomReap(agent));
      for (let i = 0; i < steps && !run.done; i++) run.advance();
      const inTime = !run.done;
      const exit = new TaskRun(new Agent('exit'), mm.exit(new Agent('exit')));
      while (!exit.done || !run.done) {
        if (!exit.done && exit.enabled) exit.advance();
        else run.advance();
      }
      expect(host.audit()).toEqual([]);
      // The page cache of the memfd, and the pool.
      expect(host.allocator.allocatedFrames).toBe(8 + 512);
      if (!inTime) return;
    }
  });
});
