import { Agent, runToEnd, TaskRun } from '@faultline/sim';
import { describe, expect, it } from 'vitest';
import { type AddressSpace, HostMemory, type HostMemoryOptions } from '../src/index.ts';
import { Entry } from '../src/mm/entry-table.ts';
import { Recorder } from './recorder.ts';

const agent = new Agent('agent');
const write = (mm: AddressSpace, page: number): number =>
  runToEnd(mm.cpuAccess(agent, page, { write: true, tagLo: page, tagHi: 7 }));

/** A 2M range in 4K folios: no 2M was free when its pages were touched. */
function machine(touched = 512, options: Partial<HostMemoryOptions> = {}) {
  let scarce = true;
  const host = new HostMemory({
    frames: 2048,
    swapSlots: 1000,
    pageCluster: 0,
    injection: { allocationFails: (_n, order) => scarce && order > 0 },
    ...options,
  });
  const mm = host.createAddressSpace('vmm');
  mm.mmap({ startPage: 512, pages: 1024, backing: 'thp-2M' });
  for (let page = 512; page < 512 + touched; page++) write(mm, page);
  scarce = false;
  return { host, mm, recorder: new Recorder(mm) };
}

/** Clears the accessed bits of all pages, without reclaiming any. */
function makeCold(mm: AddressSpace): void {
  runToEnd(mm.madvise(agent, 512, 512, 'COLD'));
}

/** A CPU read that lets the reclaimer go on while it waits. */
function faultIn(mm: AddressSpace, page: number, meanwhile: TaskRun): void {
  const cpu = new Agent('cpu');
  runToEnd(mm.cpuAccess(cpu, page, { write: true, tagLo: page, tagHi: 7 }), () => meanwhile.advance());
}

function expectContent(mm: AddressSpace, touched = 512): void {
  for (let page = 512; page < 1024; page++) expect(mm.cpuRead(page).tagLo).toBe(page < 512 + touched ? page : 0);
}

describe('collapse', () => {
  it('makes 512 pages one folio with one leaf: CLEAR over 2M, once', () => {
    const { host, mm, recorder } = machine();
    expect(mm.leafPages(512)).toBe(1);
    expect(runToEnd(mm.collapse(agent, 700))).toBe('collapsed');
    expect(recorder.take()).toEqual(['CLEAR 512+512']);
    expect([mm.leafPages(512), mm.lookup(512) % 512, mm.isWriteable(1023)]).toEqual([512, 0, true]);
    expect(mm.residentBytes).toBe(512 * 4096);
    expect(mm.anonHugeBytes).toBe(512 * 4096);
    expect(host.allocator.allocatedFrames).toBe(512);
    expectContent(mm);
    expect(host.counters.thp_collapse_alloc).toBe(1);
    expect(host.audit()).toEqual([]);
    expect(runToEnd(mm.collapse(agent, 700))).toBe('mapped');
    expect(recorder.take()).toEqual([]);
  });

  it('fills what was never touched with zeros, and reads what is in swap', () => {
    const { host, mm, recorder } = machine(40);
    for (let page = 520; page < 530; page++) runToEnd(mm.pageOut(agent, page));
    recorder.take();
    expect(runToEnd(mm.collapse(agent, 512))).toBe('collapsed');
    expect(recorder.take()).toEqual(['CLEAR 512+512']);
    expect(mm.residentBytes).toBe(512 * 4096);
    expect([mm.swappedBytes, host.swap.usedSlots, host.counters.swap.pswpin]).toEqual([0, 0, 10]);
    expectContent(mm, 40);
    expect(host.audit()).toEqual([]);
  });

  it('refuses pinned pages, and gives everything back as it was', () => {
    const { host, mm, recorder } = machine();
    runToEnd(mm.pin(agent, 600, 1));
    const pfns = Array.from({ length: 512 }, (_, i) => mm.lookup(512 + i));
    expect(runToEnd(mm.collapse(agent, 512))).toBe('busy');
    expect(recorder.take()).toEqual([]);
    expect(Array.from({ length: 512 }, (_, i) => mm.lookup(512 + i))).toEqual(pfns);
    runToEnd(mm.unpin(agent, 600, 1));
    expect(host.audit()).toEqual([]);
  });

  it('refuses a page that is pinned between the look and the lock: nobody is told, no frame is lost', () => {
    const { host, mm } = machine();
    const run = new TaskRun(agent, mm.collapse(agent, 512));
    while (host.counters.thp_collapse_alloc === 0) run.advance();
    runToEnd(mm.pin(new Agent('vfio'), 600, 1));
    while (!run.done) run.advance();
    expect(run.value).toBe('busy');
    expectContent(mm);
    runToEnd(mm.unpin(agent, 600, 1));
    expect(host.audit()).toEqual([]);
    expect(host.allocator.allocatedFrames).toBe(512);
  });

  it('brings back the leaf of a folio that is mapped by entries, in place: CLEAR over 2M', () => {
    const host = new HostMemory({ frames: 600, swapSlots: 1024 });
    const mm = host.createAddressSpace('vmm');
    mm.mmap({ startPage: 512, pages: 512, backing: 'thp-2M' });
    runToEnd(mm.populate(agent, 512, 512));
    for (let page = 512; page < 1024; page++) write(mm, page);
    const pfn = mm.lookup(512);
    // Reclaim splits the leaf, and swaps the folio out whole; a fault finds all of it in the swap cache while it is written.
    const reclaim = new TaskRun(agent, mm.madvise(agent, 512, 512, 'PAGEOUT'));
    while (mm.lookup(512) >= 0) reclaim.advance();
    for (let page = 512; page < 1024; page++) faultIn(mm, page, reclaim);
    while (!reclaim.done) reclaim.advance();
    expect([mm.leafPages(512), mm.lookup(512)]).toEqual([1, pfn]);
    const recorder = new Recorder(mm);
    expect(runToEnd(mm.collapse(agent, 512))).toBe('collapsed');
    expect(recorder.take()).toEqual(['CLEAR 512+512']);
    expect([mm.leafPages(512), mm.lookup(512), host.counters.thp_collapse_alloc]).toEqual([512, pfn, 0]);
    expect(mm.anonHugeBytes).toBe(512 * 4096);
    expectContent(mm);
    expect(host.audit()).toEqual([]);
  });

  it('says why not: not in such a mapping, nothing there, no 2M free', () => {
    const { host, mm } = machine();
    expect(runToEnd(mm.collapse(agent, 0))).toBe('vma');
    expect(runToEnd(mm.collapse(agent, 1024))).toBe('none');
    const small = machine(512, { frames: 600 });
    expect(runToEnd(small.mm.collapse(agent, 512))).toBe('no-memory');
    expect(small.host.counters.thp_collapse_alloc_failed).toBe(1);
    expect([host.audit(), small.host.audit()]).toEqual([[], []]);
  });

  it('keeps a CPU write waiting while the pages are copied, and lets it write to the new folio', () => {
    const { host, mm } = machine();
    const run = new TaskRun(agent, mm.collapse(agent, 512));
    while (mm.lookup(512) >= 0) run.advance();
    const cpu = new Agent('cpu');
    const writer = new TaskRun(cpu, mm.cpuAccess(cpu, 600, { write: true, tagLo: 99, tagHi: 7 }));
    while (writer.enabled) writer.advance();
    expect(writer.done).toBe(false);
    while (!run.done) run.advance();
    while (!writer.done) writer.advance();
    expect([mm.leafPages(600), mm.cpuRead(600).tagLo]).toEqual([512, 99]);
    expect(host.audit()).toEqual([]);
  });

  it('survives the exit of the process before any of its steps', () => {
    for (let steps = 0; ; steps++) {
      const { host, mm } = machine(20);
      runToEnd(mm.pageOut(agent, 515));
      const run = new TaskRun(agent, mm.collapse(agent, 512));
      for (let i = 0; i < steps && !run.done; i++) run.advance();
      const inTime = !run.done;
      const exit = new TaskRun(new Agent('exit'), mm.exit(new Agent('exit')));
      while (!exit.done || !run.done) {
        if (!exit.done && exit.enabled) exit.advance();
        else run.advance();
      }
      expect(host.audit()).toEqual([]);
      expect([host.allocator.allocatedFrames, host.swap.usedSlots]).toEqual([0, 0]);
      if (!inTime) {
        expect(steps).toBeGreaterThan(10);
        return;
      }
    }
  });
});

describe('khugepaged', () => {
  it('collapses what is within Linux’s limits: 511 none, 64 in swap', () => {
    const { host, mm, recorder } = machine(1);
    expect(runToEnd(mm.khugepaged(agent))).toBe(1);
    expect(recorder.take()).toEqual(['CLEAR 512+512']);
    expect(host.audit()).toEqual([]);
    const swapped = machine();
    for (let page = 512; page < 512 + 65; page++) runToEnd(swapped.mm.pageOut(agent, page));
    swapped.recorder.take();
    expect(runToEnd(swapped.mm.khugepaged(agent))).toBe(0);
    expect(swapped.recorder.take()).toEqual([]);
    write(swapped.mm, 512);
    expect(runToEnd(swapped.mm.khugepaged(agent))).toBe(1);
    expectContent(swapped.mm);
    expect(swapped.host.audit()).toEqual([]);
  });

  it('obeys max_ptes_none', () => {
    const { mm } = machine(500);
    expect(runToEnd(mm.khugepaged(agent, { maxPtesNone: 11 }))).toBe(0);
    expect(runToEnd(mm.khugepaged(agent, { maxPtesNone: 12 }))).toBe(1);
    expect(() => runToEnd(mm.khugepaged(agent, { maxPtesNone: 512 }))).toThrow('maxPtesNone: 0x200');
  });

  it('obeys max_ptes_shared, 256 in Linux; MADV_COLLAPSE copies what is shared', () => {
    const { host, mm, recorder } = machine();
    // As fork leaves entries of which the other side is gone.
    const share = (page: number): void =>
      mm.state.table.setFlags(page, mm.state.table.flags(page) & ~(Entry.EXCLUSIVE | Entry.WRITE));
    for (let page = 512; page < 512 + 256; page++) share(page);
    expect(runToEnd(mm.khugepaged(agent, { maxPtesShared: 255 }))).toBe(0);
    share(1000);
    expect(runToEnd(mm.khugepaged(agent))).toBe(0);
    expect(recorder.take()).toEqual([]);
    expect(runToEnd(mm.collapse(agent, 512))).toBe('collapsed');
    expectContent(mm);
    expect(mm.isWriteable(1000)).toBe(true);
    expect(host.audit()).toEqual([]);
  });

  it('leaves cold ranges alone, unless a notifier knows of an access', () => {
    const { mm, recorder } = machine();
    makeCold(mm);
    expect(runToEnd(mm.khugepaged(agent))).toBe(0);
    recorder.young.add(777);
    expect(runToEnd(mm.khugepaged(agent))).toBe(1);
  });
});
