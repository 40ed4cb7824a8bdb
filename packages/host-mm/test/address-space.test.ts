import { Agent, runToEnd, TaskRun } from '@faultline/sim';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { HostMemory, type PageRun, VM_FAULT_ERROR, VmFault } from '../src/index.ts';

const GIG = 1 << 18;
const agent = new Agent('agent');
const write = (tagLo: number) => ({ write: true, tagLo, tagHi: 0 });

describe('mmap', () => {
  const mm = new HostMemory({ frames: 64, swapSlots: 0 }).createAddressSpace('vmm');
  mm.mmap({ startPage: 1024, pages: 512, backing: 'thp-2M' });

  it.each([
    [{ startPage: 513, pages: 512, backing: 'thp-2M' }, /startPage: 0x201 is not aligned to thp-2M/],
    [{ startPage: 512, pages: 511, backing: 'thp-2M' }, /pages: 0x1ff is not a multiple of thp-2M/],
    [{ startPage: 512, pages: GIG, backing: 'pud-thp' }, /startPage: 0x200 is not aligned to pud-thp/],
    [{ startPage: 1030, pages: 1, backing: '4K' }, /startPage: 0x406 lies in the mapping at 0x400/],
    [{ startPage: 1023, pages: 2, backing: '4K' }, /pages: 0x2 reach into the mapping at 0x400/],
    [{ startPage: 0, pages: 0, backing: '4K' }, /pages/],
    [{ startPage: 2 ** 45, pages: 1, backing: '4K' }, /startPage: 0x200000000000/],
    [{ startPage: 2 ** 45 - 1, pages: 2, backing: '4K' }, /pages/],
    [{ startPage: 0.5, pages: 1, backing: '4K' }, /startPage: 0.5/],
  ] as const)('refuses %o', (vma, message) => {
    expect(() => mm.mmap(vma)).toThrow(RangeError);
    expect(() => mm.mmap(vma)).toThrow(message);
  });

  it('keeps mappings sorted', () => {
    mm.mmap({ startPage: 4096, pages: 1, backing: '4K' });
    mm.mmap({ startPage: 0, pages: 1024, backing: '4K' });
    mm.mmap({ startPage: 2 ** 45 - 1, pages: 1, backing: '4K' });
    expect(mm.vmas.map((vma) => vma.startPage)).toEqual([0, 1024, 4096, 2 ** 45 - 1]);
  });
});

describe('handleMmFault', () => {
  it('has the numbers of Linux', () => {
    expect(VmFault).toMatchObject({ OOM: 1, SIGBUS: 2, MAJOR: 4, SIGSEGV: 0x40, NOPAGE: 0x100, RETRY: 0x400 });
    expect(VM_FAULT_ERROR).toBe(0x873);
  });

  it('needs mmap_lock, a mapping, and then makes the page present at the largest size', () => {
    const host = new HostMemory({ frames: 2 * GIG, swapSlots: 0 });
    const mm = host.createAddressSpace('vmm');
    mm.mmap({ startPage: GIG, pages: GIG, backing: 'pud-thp' });
    expect(() => runToEnd(mm.handleMmFault(agent, GIG, { write: true }))).toThrow(/without vmm mmap_lock/);
    runToEnd(mm.mmapLock.acquireRead(agent));
    expect(runToEnd(mm.handleMmFault(agent, GIG - 1, { write: true }))).toBe(VmFault.SIGSEGV);
    expect(runToEnd(mm.handleMmFault(agent, GIG + 5, { write: true }))).toBe(0);
    expect(runToEnd(mm.handleMmFault(agent, GIG + 5, { write: false }))).toBe(0);
    mm.mmapLock.releaseRead(agent);
    expect(mm.leafPages(2 * GIG - 1)).toBe(GIG);
    expect(mm.lookup(2 * GIG - 1) - mm.lookup(GIG)).toBe(GIG - 1);
    expect(host.counters.minorFaults).toBe(2);
    expect(runToEnd(mm.cpuAccess(agent, 0, write(1)))).toBe(VmFault.SIGSEGV);
  });

  it('lets two faults on one page map one folio, and frees the other', () => {
    const host = new HostMemory({ frames: 4096, swapSlots: 8 });
    const mm = host.createAddressSpace('vmm');
    mm.mmap({ startPage: 0, pages: 512, backing: 'thp-2M' });
    const runs = [1, 2].map((tag) => {
      const cpu = new Agent(`cpu ${tag}`);
      return new TaskRun(cpu, mm.cpuAccess(cpu, 100 * tag, write(tag)));
    });
    while (runs.some((run) => !run.done)) for (const run of runs) if (run.enabled) run.advance();
    expect([host.allocator.allocatedFrames, host.state.folios.live]).toEqual([512, 1]);
    expect([mm.cpuRead(100).tagLo, mm.cpuRead(200).tagLo]).toEqual([1, 2]);
  });

  it('swaps two pages of one 1G block in side by side', () => {
    const host = new HostMemory({ frames: GIG, swapSlots: 8, pageCluster: 0 });
    const mm = host.createAddressSpace('vmm');
    mm.mmap({ startPage: 0, pages: GIG, backing: 'pud-thp' });
    runToEnd(mm.populate(agent, 0, GIG));
    for (const page of [1, 2]) {
      runToEnd(mm.cpuAccess(agent, page, write(9)));
      runToEnd(mm.pageOut(agent, page));
    }
    const runs = [1, 2].map((page) => {
      const cpu = new Agent(`cpu ${page}`);
      return new TaskRun(cpu, mm.cpuAccess(cpu, page, write(page)));
    });
    for (const run of runs) while (run.pending?.label !== 'read page from swap') run.advance();
    for (const run of runs) while (!run.done) run.advance();
    expect(runs.map((run) => run.value)).toEqual([VmFault.MAJOR, VmFault.MAJOR]);
    expect(host.audit()).toEqual([]);
  });
});

describe('contiguousRun', () => {
  it('joins leaves of all sizes as far as frames follow on, within the bounds and the 1G block', () => {
    const host = new HostMemory({ frames: 3 * GIG, swapSlots: 8 });
    const mm = host.createAddressSpace('vmm');
    mm.mmap({ startPage: GIG, pages: 2 * GIG, backing: 'pud-thp' });
    runToEnd(mm.populate(agent, GIG, 2 * GIG));
    const out: PageRun = { startPage: 0, pages: 0, pfn: 0 };
    expect(mm.contiguousRun(GIG + 5, 0, 2 ** 45, out)).toBe(true);
    expect(out).toEqual({ startPage: GIG, pages: GIG, pfn: mm.lookup(GIG) });
    mm.contiguousRun(GIG + 5, GIG + 3, GIG + 9, out);
    expect(out).toEqual({ startPage: GIG + 3, pages: 7, pfn: mm.lookup(GIG + 3) });
    runToEnd(mm.pageOut(agent, GIG + 1000));
    expect(mm.contiguousRun(GIG + 1000, 0, 2 ** 45, out)).toBe(false);
    expect(out).toEqual({ startPage: GIG + 1000, pages: 0, pfn: -1 });
    mm.contiguousRun(GIG + 999, 0, 2 ** 45, out);
    expect(out).toEqual({ startPage: GIG, pages: 1000, pfn: mm.lookup(GIG) });
    mm.contiguousRun(GIG + 5000, 0, 2 ** 45, out);
    expect(out).toEqual({ startPage: GIG + 1001, pages: GIG - 1001, pfn: mm.lookup(GIG + 1001) });
  });

  it('agrees with a page-by-page search', () => {
    const actions = fc.array(
      fc.record({ page: fc.nat(1535), pages: fc.integer({ min: 1, max: 600 }), drop: fc.boolean() }),
      {
        maxLength: 12,
      },
    );
    const query = fc.record({ page: fc.nat(1535), before: fc.nat(1535), after: fc.nat(1535) });
    fc.assert(
      fc.property(actions, fc.array(query, { minLength: 5, maxLength: 5 }), (list, queries) => {
        const host = new HostMemory({ frames: 4096, swapSlots: 64 });
        const mm = host.createAddressSpace('vmm');
        mm.mmap({ startPage: 512, pages: 1536, backing: 'thp-2M' });
        runToEnd(mm.populate(agent, 512, 1536));
        for (const { page, pages, drop } of list) {
          const count = Math.min(pages, 1536 - page);
          if (drop) runToEnd(mm.madviseDontNeed(agent, 512 + page, count));
          else runToEnd(mm.populate(agent, 512 + page, count));
        }
        for (const { page, before, after } of queries) {
          const at = 512 + page;
          const [first, last] = [at - before, at + after];
          const out: PageRun = { startPage: 0, pages: 0, pfn: 0 };
          const pfn = mm.lookup(at);
          expect(mm.contiguousRun(at, first, last, out)).toBe(pfn >= 0);
          if (pfn < 0) continue;
          let [low, high] = [at, at];
          while (low > first && mm.lookup(low - 1) === mm.lookup(low) - 1) low--;
          while (high < last && mm.lookup(high + 1) === mm.lookup(high) + 1) high++;
          expect(out).toEqual({ startPage: low, pages: high - low + 1, pfn: mm.lookup(low) });
        }
      }),
      { numRuns: 40 },
    );
  });
});

describe('pins', () => {
  const pinned = () => {
    const host = new HostMemory({ frames: GIG, swapSlots: 8 });
    const mm = host.createAddressSpace('vmm');
    mm.mmap({ startPage: 0, pages: GIG, backing: 'pud-thp' });
    return { host, mm };
  };

  it('count folios once however often, and calls by their pages', () => {
    const { mm } = pinned();
    runToEnd(mm.pin(agent, 5, 3));
    runToEnd(mm.pin(agent, 5, 3));
    runToEnd(mm.pin(agent, 5, 4));
    expect([mm.pinnedBytes, mm.accountedPinBytes]).toEqual([2 ** 30, 10 * 4096]);
    expect(mm.pinnedRuns(5, 4)).toEqual([{ startPage: 5, pages: 4, pfn: mm.lookup(5) }]);
    expect(() => mm.pinnedRuns(5, 2)).toThrow(RangeError);
    expect(() => runToEnd(mm.unpin(agent, 5, 2))).toThrow(/startPage: 0x5 with 0x2 pages was not pinned/);
    runToEnd(mm.unpin(agent, 5, 3));
    runToEnd(mm.unpin(agent, 5, 4));
    expect(mm.pinnedBytes).toBe(2 ** 30);
    expect(runToEnd(mm.pageOut(agent, 100))).toBe(false);
    runToEnd(mm.unpin(agent, 5, 3));
    expect([mm.pinnedBytes, mm.accountedPinBytes]).toEqual([0, 0]);
    expect(() => runToEnd(mm.unpin(agent, 5, 3))).toThrow(RangeError);
  });

  it('keep frames alive through MADV_DONTNEED and exit, until the last one goes', () => {
    const { host, mm } = pinned();
    runToEnd(mm.pin(agent, 0, 1));
    const pfn = mm.lookup(700);
    runToEnd(mm.cpuAccess(agent, 700, write(3)));
    runToEnd(mm.madviseDontNeed(agent, 600, 200));
    expect(mm.lookup(700)).toBe(-1);
    expect(host.memory.tagLo(pfn)).toBe(3);
    expect([host.allocator.freeFrames, mm.pinnedBytes, mm.residentBytes]).toEqual([0, 2 ** 30, 2 ** 30 - 200 * 4096]);
    expect(runToEnd(mm.cpuAccess(agent, 700, write(4)))).toBe(VmFault.OOM);
    runToEnd(mm.pin(agent, 0, 1));
    runToEnd(mm.unpin(agent, 0, 1));
    expect(host.audit()).toEqual([]);
    runToEnd(mm.exit(agent));
    expect([host.allocator.freeFrames, mm.residentBytes]).toEqual([0, 0]);
    runToEnd(mm.unpin(agent, 0, 1));
    expect([host.allocator.allocatedFrames, mm.pinnedBytes]).toEqual([0, 0]);
    expect(host.audit()).toEqual([]);
    expect(host.allocator.allocate(18)).toBe(host.allocator.firstPfn);
  });
});
