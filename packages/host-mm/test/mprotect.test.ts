import { Agent, runToEnd, TaskRun } from '@faultline/sim';
import { describe, expect, it } from 'vitest';
import { type AddressSpace, type Backing, HostMemory, VmFault } from '../src/index.ts';
import { finish, runUntil } from './run.ts';

const cpu = new Agent('cpu');
const NONE = { readable: false, writeable: false };
const READ = { readable: true, writeable: false };
const WRITE = { readable: true, writeable: true };

function setting(backing: Backing = '4K') {
  const host = new HostMemory({ frames: 4096, swapSlots: 64, pageCluster: 0 });
  host.setHugePages('2M', backing === 'hugetlb-2M' ? 2 : 0);
  const mm = host.createAddressSpace('vmm');
  mm.mmap({ startPage: 512, pages: 1024, backing });
  return { host, mm };
}

const access = (mm: AddressSpace, page: number, tagLo = 0): number =>
  runToEnd(mm.cpuAccess(cpu, page, { write: tagLo > 0, tagLo, tagHi: 0 }));

const rights = (mm: AddressSpace) =>
  mm.vmas.map(({ startPage, pages, readable, writeable }) => [startPage, pages, Number(readable), Number(writeable)]);

describe('mprotect', () => {
  it('splits mappings, takes rights away and gives them back without a fault', () => {
    const { host, mm } = setting();
    for (const page of [600, 601]) access(mm, page, page);
    runToEnd(mm.mprotect(cpu, 600, 100, READ));
    expect(rights(mm)).toEqual([
      [512, 88, 1, 1],
      [600, 100, 1, 0],
      [700, 836, 1, 1],
    ]);
    expect([mm.isWriteable(600), access(mm, 600), access(mm, 600, 1)]).toEqual([false, 0, VmFault.SIGSEGV]);
    runToEnd(mm.mprotect(cpu, 600, 100, NONE));
    expect([access(mm, 600), mm.lookup(600) >= 0, mm.cpuRead(600).tagLo]).toEqual([VmFault.SIGSEGV, true, 600]);
    const run = { startPage: 0, pages: 0, pfn: 0 };
    expect(mm.contiguousRun(600, 600, 601, run)).toBe(false);
    runToEnd(mm.mprotect(cpu, 600, 100, WRITE));
    const faults = host.counters.pgfault;
    expect([mm.isWriteable(600), access(mm, 600, 3), host.counters.pgfault - faults]).toEqual([true, 0, 0]);
    expect(host.audit()).toEqual([]);
  });

  it('gives no right to write to what is shared', () => {
    const { host, mm } = setting();
    access(mm, 600, 1);
    const child = runToEnd(mm.fork(cpu, 'child'));
    runToEnd(mm.mprotect(cpu, 600, 1, READ));
    runToEnd(mm.mprotect(cpu, 600, 1, WRITE));
    expect(mm.isWriteable(600)).toBe(false);
    access(mm, 600, 2);
    expect([child.cpuRead(600).tagLo, mm.cpuRead(600).tagLo, host.audit()]).toEqual([1, 2, []]);
  });

  it('of a memfd gives it back where a write was seen before', () => {
    const { host, mm } = setting();
    const memfd = host.createMemfd('memfd', 8);
    mm.mmap({ startPage: 4096, pages: 8, backing: '4K', file: { memfd, offset: 0 } });
    access(mm, 4096);
    access(mm, 4097, 1);
    runToEnd(mm.mprotect(cpu, 4096, 8, READ));
    runToEnd(mm.mprotect(cpu, 4096, 8, WRITE));
    expect([mm.isWriteable(4096), mm.isWriteable(4097)]).toEqual([false, true]);
  });

  it('goes for pages that come back from swap', () => {
    const { host, mm } = setting();
    access(mm, 600, 1);
    runToEnd(mm.pageOut(cpu, 600));
    runToEnd(mm.mprotect(cpu, 600, 1, READ));
    expect([access(mm, 600), mm.isWriteable(600)]).toEqual([VmFault.MAJOR, false]);
    runToEnd(mm.mprotect(cpu, 600, 1, WRITE));
    expect([mm.isWriteable(600), host.audit()]).toEqual([true, []]);
  });

  it('keeps leaves within the range whole', () => {
    const { host, mm } = setting('thp-2M');
    runToEnd(mm.populate(cpu, 512, 1024));
    runToEnd(mm.mprotect(cpu, 512, 600, READ));
    expect([mm.leafPages(512), mm.leafPages(1024), mm.isWriteable(1111), mm.isWriteable(1112)]).toEqual([
      512,
      1,
      false,
      true,
    ]);
    expect(host.audit()).toEqual([]);
  });

  it('changes what lies before a hole, and says ENOMEM', () => {
    const { mm } = setting();
    runToEnd(mm.munmap(cpu, 700, 1));
    const enomem = expect.objectContaining({ code: 'ENOMEM', page: 700 });
    expect(() => runToEnd(mm.mprotect(cpu, 690, 20, READ))).toThrow(enomem);
    expect(rights(mm)).toEqual([
      [512, 178, 1, 1],
      [690, 10, 1, 0],
      [701, 835, 1, 1],
    ]);
    expect(() => runToEnd(mm.mprotect(cpu, 700, 2, READ))).toThrow(enomem);
    expect(mm.mmapLock.held).toBe(false);
  });

  it('does not cut a huge page', () => {
    const { mm } = setting('hugetlb-2M');
    expect(() => runToEnd(mm.mprotect(cpu, 512, 100, READ))).toThrow('0x264 is not between two pages');
    access(mm, 512, 1);
    runToEnd(mm.mprotect(cpu, 512, 512, READ));
    expect([mm.isWriteable(512), access(mm, 512, 1)]).toEqual([false, VmFault.SIGSEGV]);
  });
});

describe('NUMA hints', () => {
  it('make the next access fault once, and leave alone what is pinned, shared or merged', () => {
    const { host, mm } = setting();
    for (const page of [600, 601, 602]) access(mm, page, 1);
    runToEnd(mm.pin(cpu, 601, 1));
    expect(runToEnd(mm.changeProtNuma(cpu, 512, 1024))).toBe(2);
    expect(runToEnd(mm.changeProtNuma(cpu, 512, 1024))).toBe(0);
    expect([mm.isWriteable(600), mm.isWriteable(601), mm.lookup(600) >= 0]).toEqual([false, true, true]);
    expect([access(mm, 600, 2), access(mm, 600, 3), host.counters.numa_hint_faults]).toEqual([0, 0, 1]);
    expect([host.counters.numa_pte_updates, mm.cpuRead(600).tagLo]).toEqual([2, 3]);
    runToEnd(mm.unpin(cpu, 601, 1));
    runToEnd(mm.fork(cpu, 'child'));
    expect(runToEnd(mm.changeProtNuma(cpu, 512, 1024))).toBe(0);
    expect(host.audit()).toEqual([]);
  });
});

describe('soft-dirty', () => {
  it('tells what was written to since, with no copy', () => {
    const { host, mm } = setting();
    for (const page of [600, 601, 602]) access(mm, page, 1);
    const frame = mm.lookup(600);
    runToEnd(mm.pageOut(cpu, 602));
    runToEnd(mm.clearSoftDirty(cpu));
    expect([600, 601, 602].map((page) => mm.softDirty(page))).toEqual([false, false, false]);
    access(mm, 600, 2);
    access(mm, 601);
    access(mm, 602);
    expect([600, 601, 602].map((page) => mm.softDirty(page))).toEqual([true, false, false]);
    // A page that comes back from swap is write-protected too, so that a device's mapping asks first.
    expect([mm.lookup(600), mm.isWriteable(601), mm.isWriteable(602)]).toEqual([frame, false, false]);
    access(mm, 602, 2);
    mm.mmap({ startPage: 4096, pages: 8, backing: '4K' });
    expect([mm.softDirty(602), mm.softDirty(4096), host.audit()]).toEqual([true, true, []]);
  });

  it('mprotect does not give the right to write back before the write is seen', () => {
    const { mm } = setting();
    access(mm, 600, 1);
    runToEnd(mm.clearSoftDirty(cpu));
    runToEnd(mm.mprotect(cpu, 600, 1, READ));
    runToEnd(mm.mprotect(cpu, 600, 1, WRITE));
    expect([mm.isWriteable(600), mm.softDirty(600)]).toEqual([false, false]);
    access(mm, 600, 1);
    expect(mm.softDirty(600)).toBe(true);
  });
});

describe('a memfd', () => {
  it('loses what a hole takes, in memory and in swap, but no private copy', () => {
    const { host, mm } = setting();
    const memfd = host.createMemfd('memfd', 8);
    mm.mmap({ startPage: 4096, pages: 8, backing: '4K', file: { memfd, offset: 0 } });
    mm.mmap({ startPage: 8192, pages: 8, backing: '4K', file: { memfd, offset: 0, private: true } });
    for (let i = 0; i < 8; i++) access(mm, 4096 + i, 10 + i);
    access(mm, 8194, 99);
    access(mm, 8193);
    expect(runToEnd(host.reclaim(cpu, 3))).toBeGreaterThan(0);
    const swapped = memfd.swappedBytes / 4096;
    expect(swapped).toBeGreaterThan(0);
    runToEnd(memfd.punchHole(cpu, 0, 4));
    expect(host.audit()).toEqual([]);
    for (let i = 0; i < 8; i++) expect(mm.cpuRead(4096 + i).tagLo).toBe(i < 4 ? 0 : 10 + i);
    expect([mm.cpuRead(8194).tagLo, mm.cpuRead(8193).tagLo]).toEqual([99, 0]);
    expect([memfd.residentBytes + memfd.swappedBytes]).toEqual([4 * 4096]);
    runToEnd(memfd.truncate(cpu, 0));
    expect([memfd.residentBytes, memfd.swappedBytes, mm.memcg.swappedPages]).toEqual([0, 0, 0]);
    expect([access(mm, 4096), access(mm, 8194), host.allocator.allocatedFrames, host.swap.usedSlots]).toEqual([
      2, 2, 0, 0,
    ]);
    expect(host.audit()).toEqual([]);
  });

  it('keeps a pinned page for its pinner only', () => {
    const { host, mm } = setting();
    const memfd = host.createMemfd('memfd', 8);
    mm.mmap({ startPage: 4096, pages: 8, backing: '4K', file: { memfd, offset: 0 } });
    access(mm, 4096, 1);
    runToEnd(mm.pin(cpu, 4096, 1));
    const [run] = mm.pinnedRuns(4096, 1);
    runToEnd(memfd.punchHole(cpu, 0, 8));
    expect([mm.lookup(4096), host.allocator.allocatedFrames, host.audit()]).toEqual([-1, 1, []]);
    access(mm, 4096, 2);
    expect(mm.lookup(4096)).not.toBe(run?.pfn);
    runToEnd(host.reclaim(cpu, 4));
    expect(host.allocator.isAllocated(run?.pfn ?? -1)).toBe(true);
    runToEnd(mm.unpin(cpu, 4096, 1));
    runToEnd(memfd.truncate(cpu, 0));
    expect([host.allocator.allocatedFrames, host.swap.usedSlots, host.audit()]).toEqual([0, 0, []]);
  });
});

it('a leaf that somebody empties while its split is announced is passed over', () => {
  const host = new HostMemory({ frames: 4096, swapSlots: 64, splitNotify: 'clear' });
  const mm = host.createAddressSpace('vmm');
  mm.mmap({ startPage: 512, pages: 512, backing: 'thp-2M' });
  access(mm, 512, 1);
  const scanner = new Agent('numa');
  const scan = new TaskRun(scanner, mm.changeProtNuma(scanner, 600, 1));
  runUntil(scan, 'split large leaf');
  runToEnd(mm.madviseDontNeed(cpu, 512, 512));
  expect([finish(scan), mm.residentBytes, host.audit()]).toEqual([0, 0, []]);
});
