import { Agent, runToEnd, TaskRun } from '@faultline/sim';
import { describe, expect, it } from 'vitest';
import { type AddressSpace, type Backing, HostMemory, type HostMemoryOptions, VmFault } from '../src/index.ts';
import { Recorder } from './recorder.ts';

const agent = new Agent('agent');

function machine(backing: Backing, options: Partial<HostMemoryOptions> = {}) {
  const host = new HostMemory({ frames: 2048, swapSlots: 1000, pageCluster: 0, ...options });
  if (backing === 'hugetlb-2M') host.setHugePages('2M', 2);
  const mm = host.createAddressSpace('vmm');
  mm.mmap({ startPage: 512, pages: 512, backing });
  runToEnd(mm.populate(agent, 512, 512));
  for (let page = 512; page < 1024; page++) host.memory.writeTag(mm.lookup(page), page, 7);
  return { host, mm, recorder: new Recorder(mm) };
}

const read = (mm: AddressSpace, page: number): number =>
  runToEnd(mm.cpuAccess(agent, page, { write: false, tagLo: 0, tagHi: 0 }));

/** Frees everything and takes every frame: those that are broken are not among them. */
function expectNeverUsedAgain(host: HostMemory, mm: AddressSpace, broken: readonly number[]): void {
  runToEnd(mm.exit(agent));
  expect(host.audit()).toEqual([]);
  const taken = new Set<number>();
  for (let pfn = host.allocator.allocate(0); pfn >= 0; pfn = host.allocator.allocate(0)) taken.add(pfn);
  expect(taken.size).toBe(host.allocator.frames - broken.length);
  for (const pfn of broken) expect(taken.has(pfn)).toBe(false);
}

describe('memory failure', () => {
  it('takes a free frame out of use, telling nobody', () => {
    const { host, mm, recorder } = machine('4K');
    const pfn = host.allocator.firstPfn + 2000;
    expect(runToEnd(host.memoryFailure(agent, pfn))).toBe('recovered');
    expect(runToEnd(host.memoryFailure(agent, pfn))).toBe('EHWPOISON');
    expect(recorder.take()).toEqual([]);
    expectNeverUsedAgain(host, mm, [pfn]);
  });

  it('poisons the entry of a page: CLEAR over 4K, and later faults and pins fail', () => {
    const { host, mm, recorder } = machine('4K');
    const pfn = mm.lookup(600);
    expect(runToEnd(host.memoryFailure(agent, pfn))).toBe('recovered');
    expect(recorder.take()).toEqual(['CLEAR 600+1']);
    expect(read(mm, 600)).toBe(VmFault.HWPOISON);
    expect(() => runToEnd(mm.pin(agent, 599, 3))).toThrow('EHWPOISON: pin: the memory of page 0x258 is broken');
    expect(read(mm, 601)).toBe(0);
    expect(mm.cpuRead(601).tagLo).toBe(601);
    expect(host.audit()).toEqual([]);
    // Who drops the page gets a new one.
    runToEnd(mm.madviseDontNeed(agent, 600, 1));
    expect(read(mm, 600)).toBe(0);
    expectNeverUsedAgain(host, mm, [pfn]);
  });

  it('splits a 2M folio first, and loses 4K of it: CLEAR over 2M, then 4K', () => {
    const { host, mm, recorder } = machine('thp-2M');
    const pfn = mm.lookup(600);
    expect(runToEnd(host.memoryFailure(agent, pfn))).toBe('recovered');
    expect(recorder.take()).toEqual(['CLEAR 512+512', 'CLEAR 600+1']);
    for (let page = 512; page < 1024; page++)
      if (page === 600) expect(read(mm, page)).toBe(VmFault.HWPOISON);
      else expect([read(mm, page), mm.cpuRead(page).tagLo]).toEqual([0, page]);
    expect(host.audit()).toEqual([]);
    expectNeverUsedAgain(host, mm, [pfn]);
  });

  it('cannot split a pinned 2M folio: EBUSY, and the frame goes when the folio does', () => {
    const { host, mm } = machine('thp-2M');
    const pfn = mm.lookup(600);
    runToEnd(mm.pin(agent, 512, 1));
    expect(runToEnd(host.memoryFailure(agent, pfn))).toBe('EBUSY');
    expect(mm.leafPages(600)).toBe(512);
    runToEnd(mm.unpin(agent, 512, 1));
    expectNeverUsedAgain(host, mm, [pfn]);
  });

  it('takes a pinned 4K page from the CPU, but not from who pinned it: EBUSY', () => {
    const { host, mm, recorder } = machine('4K');
    const pfn = mm.lookup(600);
    runToEnd(mm.pin(agent, 600, 1));
    expect(runToEnd(host.memoryFailure(agent, pfn))).toBe('EBUSY');
    expect(recorder.take()).toEqual(['CLEAR 600+1']);
    expect(read(mm, 600)).toBe(VmFault.HWPOISON);
    expect(mm.pinnedRuns(600, 1)).toEqual([{ startPage: 600, pages: 1, pfn }]);
    expect(host.audit()).toEqual([]);
    runToEnd(mm.unpin(agent, 600, 1));
    expectNeverUsedAgain(host, mm, [pfn]);
  });

  it('drops a clean page of the swap cache, which is read again: nothing is lost', () => {
    const { host, mm, recorder } = machine('4K');
    runToEnd(mm.pageOut(agent, 600));
    expect(read(mm, 600)).toBe(VmFault.MAJOR);
    const pfn = mm.lookup(600);
    recorder.take();
    expect(runToEnd(host.memoryFailure(agent, pfn))).toBe('recovered');
    expect(recorder.take()).toEqual(['CLEAR 600+1']);
    expect(mm.isSwapped(600)).toBe(true);
    expect(read(mm, 600)).toBe(VmFault.MAJOR);
    expect(mm.cpuRead(600).tagLo).toBe(600);
    expect(mm.lookup(600)).not.toBe(pfn);
    expectNeverUsedAgain(host, mm, [pfn]);
  });

  it('keeps a dirty page of the swap cache for the next fault to find: delayed', () => {
    const { host, mm } = machine('4K');
    runToEnd(mm.pageOut(agent, 600));
    read(mm, 600);
    const pfn = mm.lookup(600);
    mm.markDirty(600, 1);
    expect(runToEnd(host.memoryFailure(agent, pfn))).toBe('delayed');
    expect(read(mm, 600)).toBe(VmFault.HWPOISON);
    expect(host.audit()).toEqual([]);
    runToEnd(host.reclaim(agent, 2000));
    expect(read(mm, 600)).toBe(VmFault.HWPOISON);
    expectNeverUsedAgain(host, mm, [pfn]);
  });

  it('splits a folio that is in the swap cache only, and leaves none of the pieces behind that nobody wants', () => {
    const { host, mm } = machine('thp-2M', { swap: [{ slots: 1024, queueDepth: 1 }] });
    const device = new Agent('device');
    const worker = new TaskRun(device, host.swapIo.worker(device, host.swap.areas[0]!));
    worker.advance();
    const pfn = mm.lookup(600);
    runToEnd(mm.madvise(agent, 512, 512, 'PAGEOUT'));
    runToEnd(mm.madviseDontNeed(agent, 1023, 1));
    while (host.swapIo.inFlight > 0) worker.advance();
    worker.cancel();
    expect(runToEnd(host.memoryFailure(agent, pfn))).toBe('recovered');
    expect(host.allocator.isAllocated(pfn + 423)).toBe(false);
    expect([read(mm, 600), mm.cpuRead(600).tagLo]).toEqual([VmFault.MAJOR, 600]);
    expect(host.swap.usedSlots).toBe(511);
    expectNeverUsedAgain(host, mm, [pfn]);
  });

  it('takes a huge page as a whole, and gives what is good of it to the host: HWPOISON_LARGE', () => {
    const { host, mm, recorder } = machine('hugetlb-2M');
    const pfn = mm.lookup(600);
    expect(runToEnd(host.memoryFailure(agent, pfn))).toBe('recovered');
    expect(recorder.take()).toEqual(['CLEAR 512+512']);
    for (const page of [512, 600, 1023]) expect(read(mm, page)).toBe(VmFault.HWPOISON_LARGE);
    expect(host.setHugePages('2M', 1)).toBe(1);
    expect(host.allocator.allocatedFrames).toBe(512 + 1);
    expect(host.audit()).toEqual([]);
    host.setHugePages('2M', 0);
    expectNeverUsedAgain(host, mm, [pfn]);
  });

  it('makes a free huge page of the pool small frames', () => {
    const { host, mm } = machine('hugetlb-2M');
    const used = mm.lookup(512);
    let pfn = host.allocator.firstPfn;
    while (!host.allocator.isAllocated(pfn) || (pfn >= used && pfn < used + 512)) pfn++;
    expect(runToEnd(host.memoryFailure(agent, pfn + 3))).toBe('recovered');
    expect(host.allocator.allocatedFrames).toBe(513);
    host.setHugePages('2M', 0);
    expect(host.audit()).toEqual([]);
    runToEnd(mm.munmap(agent, 512, 512));
    host.setHugePages('2M', 0);
    expectNeverUsedAgain(host, mm, [pfn + 3]);
  });

  it('poisons the page cache of a memfd for all who map it', () => {
    const host = new HostMemory({ frames: 64 });
    const memfd = host.createMemfd('guest', 8);
    const spaces = ['a', 'b', 'c'].map((name) => host.createAddressSpace(name));
    for (const mm of spaces) mm.mmap({ startPage: 256, pages: 8, backing: '4K', file: { memfd, offset: 0 } });
    const [a, b, c] = spaces as [AddressSpace, AddressSpace, AddressSpace];
    for (const mm of [a, b]) read(mm, 259);
    const recorders = spaces.map((mm) => new Recorder(mm));
    const pfn = a.lookup(259);
    expect(runToEnd(host.memoryFailure(agent, pfn))).toBe('recovered');
    expect(recorders.map((recorder) => recorder.take())).toEqual([['CLEAR 259+1'], ['CLEAR 259+1'], []]);
    for (const mm of [a, b, c]) expect(read(mm, 259)).toBe(VmFault.HWPOISON);
    expect(read(c, 260)).toBe(0);
    expect(host.audit()).toEqual([]);
    expect(host.allocator.isAllocated(pfn)).toBe(true);
  });

  it('unmaps a page of a memfd again that a fault has mapped meanwhile', () => {
    const host = new HostMemory({ frames: 64 });
    const memfd = host.createMemfd('guest', 8);
    const mm = host.createAddressSpace('a');
    mm.mmap({ startPage: 256, pages: 8, backing: '4K', file: { memfd, offset: 0 } });
    read(mm, 259);
    const run = new TaskRun(agent, host.memoryFailure(agent, mm.lookup(259)));
    while (run.pending?.label !== 'memory failure: give the folio up') run.advance();
    const other = host.createAddressSpace('b');
    other.mmap({ startPage: 256, pages: 8, backing: '4K', file: { memfd, offset: 0 } });
    expect(read(other, 259)).toBe(0);
    while (!run.done) run.advance();
    expect(run.value).toBe('recovered');
    expect([read(mm, 259), read(other, 259)]).toEqual([VmFault.HWPOISON, VmFault.HWPOISON]);
    expect(host.audit()).toEqual([]);
  });

  it('waits for a write-back, after which the page is clean and nothing is lost', () => {
    const { host, mm } = machine('4K', { swap: [{ slots: 64, queueDepth: 1 }] });
    const device = new Agent('device');
    const worker = new TaskRun(device, host.swapIo.worker(device, host.swap.areas[0]!));
    worker.advance();
    const pfn = mm.lookup(600);
    runToEnd(mm.pageOut(agent, 600));
    expect(host.swapIo.inFlight).toBe(1);
    const run = new TaskRun(agent, host.memoryFailure(agent, pfn));
    while (run.enabled && !run.done) run.advance();
    expect(run.done).toBe(false);
    while (host.swapIo.inFlight > 0) worker.advance();
    worker.cancel();
    while (!run.done) run.advance();
    expect(run.value).toBe('recovered');
    expect([read(mm, 600), mm.cpuRead(600).tagLo]).toEqual([VmFault.MAJOR, 600]);
    expectNeverUsedAgain(host, mm, [pfn]);
  });

  it('refuses a frame that is none', () => {
    const { host } = machine('4K');
    expect(() => runToEnd(host.memoryFailure(agent, 3))).toThrow('pfn: there is no frame 0x3');
  });

  it('survives the exit of the process before any of its steps', () => {
    for (const backing of ['4K', 'thp-2M', 'hugetlb-2M'] as const)
      for (let steps = 0; ; steps++) {
        const { host, mm } = machine(backing);
        const pfn = mm.lookup(600);
        const run = new TaskRun(agent, host.memoryFailure(agent, pfn));
        for (let i = 0; i < steps && !run.done; i++) run.advance();
        const inTime = !run.done;
        const exit = new TaskRun(new Agent('exit'), mm.exit(new Agent('exit')));
        while (!exit.done || !run.done) {
          if (!exit.done && exit.enabled) exit.advance();
          else run.advance();
        }
        expect(host.audit()).toEqual([]);
        expect(host.state.brokenFrames).toBe(1);
        if (!inTime) break;
      }
  });
});
