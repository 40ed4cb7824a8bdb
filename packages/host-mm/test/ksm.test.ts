import { Agent, runToEnd, TaskRun } from '@faultline/sim';
import { describe, expect, it } from 'vitest';
import { type AddressSpace, type Backing, HostMemory } from '../src/index.ts';
import { finish, runUntil } from './run.ts';

const cpu = new Agent('cpu');
const ksmd = new Agent('ksmd');

function write(mm: AddressSpace, page: number, tagLo: number): void {
  runToEnd(mm.cpuAccess(cpu, page, { write: true, tagLo, tagHi: 0 }));
}

const read = (mm: AddressSpace, page: number): number => {
  runToEnd(mm.cpuAccess(cpu, page, { write: false, tagLo: 0, tagHi: 0 }));
  return mm.cpuRead(page).tagLo;
};

/** Two address spaces; page 512 of one and page 700 of the other have equal content. */
function pair(options: { backing?: Backing; swapSlots?: number } = {}) {
  const { backing = '4K', swapSlots = 64 } = options;
  const host = new HostMemory({ frames: 4096, swapSlots, pageCluster: 0 });
  const one = host.createAddressSpace('one');
  const two = host.createAddressSpace('two');
  for (const mm of [one, two]) mm.mmap({ startPage: 512, pages: 512, backing });
  write(one, 512, 5);
  write(two, 700, 5);
  const merge = (agent = ksmd) => host.ksmMerge(agent, { mm: one, page: 512 }, { mm: two, page: 700 });
  return { host, one, two, merge };
}

describe('KSM', () => {
  it('makes equal pages one, which is copied for who writes and never reused', () => {
    const { host, one, two, merge } = pair();
    expect(host.allocator.allocatedFrames).toBe(2);
    expect(runToEnd(merge())).toBe(true);
    expect([host.allocator.allocatedFrames, host.ksm]).toEqual([1, { pagesShared: 1, pagesSharing: 1 }]);
    expect([one.lookup(512), one.isWriteable(512), two.isWriteable(700)]).toEqual([two.lookup(700), false, false]);
    expect(runToEnd(merge())).toBe(true);
    write(two, 700, 6);
    expect([read(one, 512), read(two, 700), host.counters.cow_ksm]).toEqual([5, 6, 1]);
    const frame = one.lookup(512);
    write(one, 512, 7);
    expect([one.lookup(512) === frame, host.counters.cow_ksm, host.ksm.pagesShared]).toEqual([false, 2, 0]);
    expect([host.allocator.allocatedFrames, host.audit()]).toEqual([2, []]);
  });

  it('merges a third page into a KSM page, whichever comes first', () => {
    const { host, one, two, merge } = pair();
    runToEnd(merge());
    write(one, 513, 5);
    write(two, 514, 5);
    expect(runToEnd(host.ksmMerge(ksmd, { mm: one, page: 513 }, { mm: two, page: 700 }))).toBe(true);
    expect(runToEnd(host.ksmMerge(ksmd, { mm: one, page: 512 }, { mm: two, page: 514 }))).toBe(true);
    expect([host.ksm, host.allocator.allocatedFrames]).toEqual([{ pagesShared: 1, pagesSharing: 3 }, 1]);
    expect(host.audit()).toEqual([]);
  });

  it('leaves alone what differs, is missing, shared memory, or what a fork shares', () => {
    const { host, one, two, merge } = pair();
    const memfd = host.createMemfd('memfd', 4);
    one.mmap({ startPage: 2048, pages: 4, backing: '4K', file: { memfd, offset: 0 } });
    write(one, 2048, 5);
    expect(runToEnd(host.ksmMerge(ksmd, { mm: one, page: 2048 }, { mm: two, page: 700 }))).toBe(false);
    expect(runToEnd(host.ksmMerge(ksmd, { mm: one, page: 600 }, { mm: two, page: 700 }))).toBe(false);
    const child = runToEnd(one.fork(cpu, 'child'));
    expect(runToEnd(host.ksmMerge(ksmd, { mm: one, page: 512 }, { mm: child, page: 512 }))).toBe(false);
    write(two, 700, 6);
    expect(runToEnd(merge())).toBe(false);
    expect([host.ksm.pagesShared, host.audit()]).toEqual([0, []]);
  });

  it('refuses pages that are pinned: a device may write to them', () => {
    for (const pinned of [0, 1]) {
      const { host, one, two, merge } = pair();
      const [mm, page] = pinned === 0 ? [one, 512] : [two, 700];
      runToEnd(mm.pin(cpu, page, 1));
      expect(runToEnd(merge())).toBe(false);
      expect([mm.isWriteable(page), host.ksm.pagesSharing]).toEqual([true, 0]);
      const [run] = mm.pinnedRuns(page, 1);
      host.memory.writeTag(run?.pfn ?? -1, 9, 0);
      expect([read(mm, page), read(mm === one ? two : one, mm === one ? 700 : 512)]).toEqual([9, 5]);
      runToEnd(mm.unpin(cpu, page, 1));
      // What had become a KSM page for nothing was made an ordinary one again.
      expect([host.ksm.pagesShared, host.audit()]).toEqual([0, []]);
    }
  });

  it('pins get a page of their own', () => {
    const { host, one, two, merge } = pair();
    runToEnd(merge());
    runToEnd(one.pin(cpu, 512, 1, false));
    expect([one.lookup(512) === two.lookup(700), host.counters.cow_ksm, one.isWriteable(512)]).toEqual([
      false,
      1,
      false,
    ]);
    runToEnd(one.unpin(cpu, 512, 1));
    expect(host.audit()).toEqual([]);
  });

  it('splits a large folio first', () => {
    const { host, one, two, merge } = pair({ backing: 'thp-2M' });
    expect(runToEnd(merge())).toBe(true);
    expect([one.leafPages(512), two.leafPages(700), one.lookup(512)]).toEqual([1, 1, two.lookup(700)]);
    expect([host.counters.folioSplits['2M->4K'], host.allocator.allocatedFrames, host.audit()]).toEqual([2, 1023, []]);
  });

  it('splits a large folio that has both pages, and merges them the next time', () => {
    const { host, one } = pair({ backing: 'thp-2M' });
    write(one, 600, 5);
    const both = () => runToEnd(host.ksmMerge(ksmd, { mm: one, page: 512 }, { mm: one, page: 600 }));
    expect([both(), host.counters.folioSplits['2M->4K'], host.ksm.pagesShared]).toEqual([false, 1, 0]);
    expect([both(), one.lookup(512) === one.lookup(600), host.audit()]).toEqual([true, true, []]);
  });

  it('a write between the comparison and the replacement wins', () => {
    const { host, one, two, merge } = pair();
    const run = new TaskRun(ksmd, merge());
    runUntil(run, 'KSM: replace page');
    write(two, 700, 6);
    expect(finish(run)).toBe(false);
    expect([read(one, 512), read(two, 700), host.ksm.pagesShared, host.audit()]).toEqual([5, 6, 0, []]);
  });

  it('swaps a KSM page out by all its places; whoever has it back first has an ordinary page, a stranger a copy', () => {
    const { host, one, two, merge } = pair();
    runToEnd(merge());
    expect(runToEnd(host.reclaim(cpu, 1))).toBe(1);
    expect([one.isSwapped(512), two.isSwapped(700), host.swap.usedSlots, host.allocator.allocatedFrames]).toEqual([
      true,
      true,
      1,
      0,
    ]);
    expect([read(one, 512), host.ksm.pagesShared, host.counters.ksm_swpin_copy]).toEqual([5, 0, 0]);
    expect(host.audit()).toEqual([]);
    expect([read(two, 700), host.counters.ksm_swpin_copy, host.allocator.allocatedFrames]).toEqual([5, 1, 2]);
    expect([host.audit(), two.lookup(700) === one.lookup(512)]).toEqual([[], false]);
    write(one, 512, 6);
    write(two, 700, 7);
    expect([read(one, 512), read(two, 700), host.swap.usedSlots, host.audit()]).toEqual([6, 7, 0, []]);
  });

  it('a KSM page that is still in the swap cache comes back as one', () => {
    const { host, one, two, merge } = pair();
    runToEnd(merge());
    const run = new TaskRun<unknown>(cpu, host.reclaim(cpu, 1));
    runUntil(run, 'leave the swap cache');
    // It waits for the folio's lock, and its reference keeps the folio in the swap cache.
    const vcpu = new Agent('vcpu');
    const fault = new TaskRun<unknown>(vcpu, two.cpuAccess(vcpu, 700, { write: false, tagLo: 0, tagHi: 0 }));
    while (fault.enabled) fault.advance();
    finish(run);
    finish(fault);
    expect([host.ksm, two.isWriteable(700), one.isSwapped(512)]).toEqual([
      { pagesShared: 1, pagesSharing: 0 },
      false,
      true,
    ]);
    expect([read(one, 512), one.lookup(512), host.ksm.pagesSharing]).toEqual([5, two.lookup(700), 1]);
    expect(host.audit()).toEqual([]);
  });

  it('its places follow fork, munmap, mremap, migration and exit', () => {
    const { host, one, two, merge } = pair();
    runToEnd(merge());
    const child = runToEnd(one.fork(cpu, 'child'));
    expect(host.ksm.pagesSharing).toBe(2);
    runToEnd(host.migratePage(cpu, child.lookup(512)));
    expect([child.lookup(512), one.lookup(512), host.audit()]).toEqual([two.lookup(700), two.lookup(700), []]);
    runToEnd(two.mremap(cpu, 512, 4096));
    expect([two.cpuRead(4284).tagLo, two.lookup(4284) === one.lookup(512), host.ksm.pagesSharing]).toEqual([
      5,
      false,
      1,
    ]);
    runToEnd(one.munmap(cpu, 512, 8));
    expect([host.ksm.pagesSharing, host.audit()]).toEqual([0, []]);
    write(child, 512, 9);
    expect([host.ksm.pagesShared, host.counters.cow_ksm, host.audit()]).toEqual([0, 2, []]);
    for (const mm of [one, two, child]) runToEnd(mm.exit(cpu));
    expect([host.allocator.allocatedFrames, host.audit()]).toEqual([0, []]);
  });

  it('a page that a fork shares becomes a KSM page of both', () => {
    const { host, one, two, merge } = pair();
    const child = runToEnd(one.fork(cpu, 'child'));
    expect(runToEnd(merge())).toBe(true);
    expect([host.ksm, child.lookup(512), host.audit()]).toEqual([
      { pagesShared: 1, pagesSharing: 2 },
      two.lookup(700),
      [],
    ]);
  });
});
