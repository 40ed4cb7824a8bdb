import { Agent, runToEnd, type Task, TaskRun, VirtualTime } from '@faultline/sim';
import { describe, expect, it } from 'vitest';
import {
  type AddressSpace,
  HostMemory,
  type HostMemoryOptions,
  linuxWatermarks,
  NotifierEvent,
  VmFault,
} from '../src/index.ts';
import { finish, runUntil, testProfile } from './run.ts';
import { SecondaryMmu } from './secondary-mmu.ts';

const GIG = 1 << 18;
const agent = new Agent('agent');
const write = (tagLo: number) => ({ write: true, tagLo, tagHi: ~tagLo });
const read = { write: false, tagLo: 0, tagHi: 0 };

function small(options: Partial<HostMemoryOptions> & { pages?: number } = {}) {
  const { pages = 128, ...rest } = options;
  const host = new HostMemory({ frames: 256, swapSlots: 256, ...rest });
  const mm = host.createAddressSpace('vmm');
  mm.mmap({ startPage: 0, pages, backing: '4K' });
  return { host, mm };
}

/** A host whose 2M folio at page 512 is full of content. */
function huge(options: Partial<HostMemoryOptions> = {}) {
  const host = new HostMemory({ frames: 4096, swapSlots: 1024, ...options });
  const mm = host.createAddressSpace('vmm');
  mm.mmap({ startPage: 512, pages: 512, backing: 'thp-2M' });
  for (let page = 512; page < 1024; page++) runToEnd(mm.cpuAccess(agent, page, write(page)));
  return { host, mm };
}

const swapped = (mm: AddressSpace, pages: number): number[] =>
  Array.from({ length: pages }, (_, page) => page).filter((page) => mm.isSwapped(page));
const upTo = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, i) => from + i);

describe('a reclaim run', () => {
  it('aims at 32 pages at least, takes the oldest, and scans no more than it must', () => {
    const { host, mm } = small({ pageCluster: 0 });
    for (let page = 0; page < 100; page++) runToEnd(mm.cpuAccess(agent, page, write(page + 1)));
    // 60 / 200 of 1/16, 1/8, 1/4 and 1/2 of the list are 1 + 3 + 7 + 15 pages, whose accessed bits go; the last round looks at all: the
    // other 74 have their second chance, and the 26 go.
    expect(runToEnd(host.reclaim(agent, 1))).toBe(26);
    expect(swapped(mm, 100)).toEqual(upTo(0, 26));
    expect(host.counters.pgscan_proactive).toBe(26 + 100);
    // Nothing is young any more: shares of the 74, 73, 71 and 66 pages that are left, and then a batch of 32.
    expect(runToEnd(host.reclaim(agent, 1))).toBe(1 + 2 + 5 + 9 + 32);
    expect(swapped(mm, 100)).toEqual(upTo(0, 26 + 49));
    expect(host.counters.pgscan_proactive).toBe(126 + 49);
    expect(host.audit()).toEqual([]);
  });

  it('keeps what was accessed once since the last scan, and activates what was accessed twice', () => {
    const { host, mm } = small({ pageCluster: 0 });
    for (let page = 0; page < 100; page++) runToEnd(mm.cpuAccess(agent, page, write(page + 1)));
    runToEnd(host.reclaim(agent, 1));
    // The rest has been seen accessed once (PG_referenced). Accessed again, it becomes active and outlives what comes now.
    for (let page = 30; page < 40; page++) mm.markYoung(page);
    for (let page = 100; page < 120; page++) runToEnd(mm.cpuAccess(agent, page, write(page + 1)));
    runToEnd(host.reclaim(agent, 60));
    expect(host.counters.pgactivate).toBe(10);
    expect(swapped(mm, 120)).toEqual([...upTo(0, 30), ...upTo(40, 100)]);
    expect(host.audit()).toEqual([]);
  });

  it('leaves pinned folios alone, and takes them when they are unpinned', () => {
    const { host, mm } = small();
    for (let page = 0; page < 4; page++) runToEnd(mm.cpuAccess(agent, page, write(page + 1)));
    runToEnd(mm.pin(agent, 0, 3));
    runToEnd(host.reclaim(agent, 4));
    expect(swapped(mm, 4)).toEqual([3]);
    expect(host.audit()).toEqual([]);
    runToEnd(mm.unpin(agent, 0, 3));
    runToEnd(host.reclaim(agent, 4));
    runToEnd(host.reclaim(agent, 4));
    expect(swapped(mm, 4)).toEqual([0, 1, 2, 3]);
  });

  it('looks at no page of other folios to page one out', () => {
    const { host, mm } = huge();
    const split = host.state.folios.live;
    expect(runToEnd(mm.pageOut(agent, 600))).toBe(true);
    expect([split, host.state.folios.live]).toEqual([1, 511]);
    expect(host.counters.pgscan_direct + host.counters.pgscan_proactive).toBe(0);
  });
});

describe('transparent huge pages', () => {
  it('go to swap whole when a cluster is free: one range of 2M, and one command', () => {
    const { host, mm } = huge();
    const dma = new SecondaryMmu(mm, host.memory);
    expect(runToEnd(host.reclaim(agent, 1))).toBe(512);
    expect(dma.starts.map(({ startPage, pages, event }) => [startPage, pages, event])).toEqual([
      [512, 512, NotifierEvent.CLEAR],
    ]);
    expect(host.counters).toMatchObject({ thp_split_pmd: 1, thp_split_page: 0, thp_swpout_fallback: 0 });
    expect(host.counters.swap).toMatchObject({ thp_swpout: 1, pswpout: 512 });
    expect([mm.swappedBytes, mm.residentBytes, host.allocator.allocatedFrames]).toEqual([2 ** 21, 0, 0]);
    // They come back one by one, with read-ahead: no huge page any more.
    for (let page = 512; page < 1024; page++) {
      runToEnd(mm.cpuAccess(agent, page, read));
      expect(host.memory.tagLo(mm.lookup(page))).toBe(page);
    }
    expect(mm.anonHugeBytes).toBe(0);
    expect(host.audit()).toEqual([]);
  });

  it('are split when no 512 slots are in a row, and their pieces go one by one', () => {
    // 511 slots beside the header: no free cluster, and never room for all.
    const { host, mm } = huge({ swap: [{ slots: 512, header: true }] });
    runToEnd(host.reclaim(agent, 1));
    expect(host.counters).toMatchObject({ thp_swpout_fallback: 1, thp_split_page: 1, folioSplits: { '2M->4K': 1 } });
    expect(host.counters.swap).toMatchObject({ thp_swpout: 0, pswpout: 511 });
    expect(mm.residentBytes).toBe(4096);
    for (let page = 512; page < 1024; page++) expect(mm.cpuRead(page).tagLo).toBe(page);
    expect(host.audit()).toEqual([]);
  });

  it('mapped in part are queued to be split, and a run under pressure frees what nobody maps', () => {
    const { host, mm } = huge();
    runToEnd(mm.madviseDontNeed(agent, 512, 500));
    expect(host.counters).toMatchObject({ thp_deferred_split_page: 1, thp_split_page: 0, thp_split_pmd: 1 });
    expect(host.allocator.allocatedFrames).toBe(512);
    expect(runToEnd(host.reclaim(agent, 1))).toBeGreaterThanOrEqual(500);
    expect(host.counters.thp_split_page).toBe(1);
    for (let page = 1012; page < 1024; page++) expect(mm.cpuRead(page).tagLo).toBe(page);
    expect(host.audit()).toEqual([]);
  });

  it('of another cgroup stay whole when one is over its limit', () => {
    const host = new HostMemory({ frames: 4096, swapSlots: 2048 });
    const [a, b] = ['a', 'b'].map((name) => host.createMemoryCgroup({ name }));
    const spaces = [a, b].map((memcg, i) => host.createAddressSpace(`mm ${i}`, memcg));
    for (const mm of spaces) {
      mm.mmap({ startPage: 0, pages: 512, backing: 'thp-2M' });
      runToEnd(mm.populate(agent, 0, 512));
      runToEnd(mm.madviseDontNeed(agent, 0, 1));
    }
    runToEnd(host.reclaim(agent, 1, a));
    expect(a?.usedPages).toBeLessThan(512);
    expect([b?.usedPages, host.counters.thp_split_page]).toEqual([512, 1]);
  });

  it('1G are hypothetical: one page of it goes by 512 + 512 folios and no more', () => {
    const host = new HostMemory({ frames: GIG, swapSlots: 16 });
    const mm = host.createAddressSpace('vmm');
    mm.mmap({ startPage: 0, pages: GIG, backing: 'pud-thp' });
    runToEnd(mm.populate(agent, 0, GIG));
    expect(runToEnd(mm.pageOut(agent, 777))).toBe(true);
    expect(host.counters.folioSplits).toEqual({ '1G->2M': 1, '2M->4K': 1 });
    expect(host.state.folios.live).toBe(511 + 511);
    expect([mm.swappedBytes, mm.residentBytes]).toEqual([4096, 2 ** 30 - 4096]);
    expect(host.audit()).toEqual([]);
  });

  it('of a contiguous run are split where one page goes, and the page comes back to its frame', () => {
    const host = new HostMemory({ frames: 2 * GIG, swapSlots: 16, pageCluster: 0 });
    const mm = host.createAddressSpace('vmm');
    mm.mmap({ startPage: GIG, pages: GIG, backing: 'contiguous' });
    runToEnd(mm.populate(agent, GIG, GIG));
    const out = { startPage: 0, pages: 0, pfn: 0 };
    mm.contiguousRun(GIG, 0, 2 ** 45 - 1, out);
    expect(out.pages).toBe(GIG);
    runToEnd(mm.cpuAccess(agent, GIG + 777, write(7)));
    const pfn = mm.lookup(GIG + 777);
    expect(runToEnd(mm.pageOut(agent, GIG + 777))).toBe(true);
    expect(host.counters.folioSplits).toEqual({ '1G->2M': 0, '2M->4K': 1 });
    expect(host.state.folios.live).toBe(511 + 511);
    expect(runToEnd(mm.cpuAccess(agent, GIG + 777, read))).toBe(VmFault.MAJOR);
    expect(mm.lookup(GIG + 777)).toBe(pfn);
    mm.contiguousRun(GIG, 0, 2 ** 45 - 1, out);
    expect(out.pages).toBe(GIG);
    expect(host.audit()).toEqual([]);
  });
});

describe('advice', () => {
  it('MADV_COLD makes pages the next to go', () => {
    const { host, mm } = small({ pageCluster: 0 });
    for (let page = 0; page < 100; page++) runToEnd(mm.cpuAccess(agent, page, write(page + 1)));
    runToEnd(mm.madvise(agent, 60, 40, 'COLD'));
    runToEnd(host.reclaim(agent, 32));
    // The first 26 lose their accessed bits in the small rounds; those up to 60 have their second chance, and the cold ones none.
    const gone = swapped(mm, 100);
    expect(gone.filter((page) => page >= 26)).toEqual(upTo(60, 100));
  });

  it('MADV_FREE lets clean pages go without a write, and keeps those that are written to again', () => {
    const { host, mm } = small();
    for (let page = 0; page < 40; page++) runToEnd(mm.cpuAccess(agent, page, write(page + 1)));
    runToEnd(mm.madvise(agent, 0, 40, 'FREE'));
    runToEnd(mm.cpuAccess(agent, 5, write(99)));
    runToEnd(host.reclaim(agent, 39));
    expect(host.counters).toMatchObject({ pglazyfree: 40, pglazyfreed: 39 });
    expect(host.counters.swap.pswpout).toBe(0);
    expect([mm.cpuRead(4).tagLo, mm.cpuRead(5).tagLo, mm.swappedBytes]).toEqual([0, 99, 0]);
    expect(host.audit()).toEqual([]);
    // The first try finds it dirty and makes it a page like others.
    expect(runToEnd(mm.pageOut(agent, 5))).toBe(false);
    expect(runToEnd(mm.pageOut(agent, 5))).toBe(true);
    expect([mm.isSwapped(5), mm.cpuRead(5).tagLo]).toEqual([true, 99]);
  });

  it('MADV_PAGEOUT takes what is young too', () => {
    const { mm } = small();
    for (let page = 0; page < 8; page++) runToEnd(mm.cpuAccess(agent, page, write(page + 1)));
    runToEnd(mm.madvise(agent, 2, 3, 'PAGEOUT'));
    expect(swapped(mm, 8)).toEqual([2, 3, 4]);
  });
});

describe('hugetlb', () => {
  const host = () => new HostMemory({ frames: 4096, swapSlots: 4096 });

  it('is reserved at mmap, or refused with ENOMEM', () => {
    const machine = host();
    const mm = machine.createAddressSpace('vmm');
    expect(() => mm.mmap({ startPage: 0, pages: 512, backing: 'hugetlb-2M' })).toThrow(
      expect.objectContaining({ code: 'ENOMEM' }),
    );
    expect(mm.vmas).toEqual([]);
    expect(machine.setHugePages('2M', 2)).toBe(2);
    mm.mmap({ startPage: 0, pages: 1024, backing: 'hugetlb-2M' });
    expect(machine.state.hugePages.counts(9)).toEqual({ total: 2, free: 2, reserved: 2 });
    expect(() => mm.mmap({ startPage: 1024, pages: 512, backing: 'hugetlb-2M' })).toThrow(/ENOMEM/);
    runToEnd(mm.cpuAccess(agent, 3, write(1)));
    expect(machine.state.hugePages.counts(9)).toEqual({ total: 2, free: 1, reserved: 1 });
    runToEnd(mm.munmap(agent, 0, 512));
    expect(machine.state.hugePages.counts(9)).toEqual({ total: 2, free: 2, reserved: 1 });
  });

  it('is never reclaimed, and not charged', () => {
    const machine = host();
    const memcg = machine.createMemoryCgroup({ name: 'guest', max: 4096 });
    const mm = machine.createAddressSpace('vmm', memcg);
    machine.setHugePages('2M', 2);
    mm.mmap({ startPage: 0, pages: 1024, backing: 'hugetlb-2M' });
    for (const page of [3, 600]) runToEnd(mm.cpuAccess(agent, page, write(page)));
    expect(runToEnd(machine.reclaim(agent, 512))).toBe(0);
    runToEnd(mm.madvise(agent, 0, 1024, 'PAGEOUT'));
    expect([mm.leafPages(3), mm.residentBytes, memcg.usedPages]).toEqual([512, 2 ** 22, 0]);
    expect(machine.audit()).toEqual([]);
  });

  it('gets its reservation back when MADV_DONTNEED drops a page; in the middle of one it is EINVAL', () => {
    const machine = host();
    const mm = machine.createAddressSpace('vmm');
    machine.setHugePages('2M', 2);
    mm.mmap({ startPage: 0, pages: 1024, backing: 'hugetlb-2M' });
    for (const page of [3, 600]) runToEnd(mm.cpuAccess(agent, page, write(page)));
    runToEnd(mm.madviseDontNeed(agent, 0, 1000));
    expect(machine.state.hugePages.counts(9)).toEqual({ total: 2, free: 1, reserved: 1 });
    expect([mm.cpuRead(3).tagLo, mm.cpuRead(600).tagLo]).toEqual([0, 600]);
    expect(() => runToEnd(mm.madviseDontNeed(agent, 1, 600))).toThrow(/startPage: 0x1 .*EINVAL/);
    expect(runToEnd(mm.cpuAccess(agent, 3, write(4)))).toBe(0);
    runToEnd(mm.exit(agent));
    expect(machine.state.hugePages.counts(9)).toEqual({ total: 2, free: 2, reserved: 0 });
    expect(machine.audit()).toEqual([]);
  });
});

describe('watermarks', () => {
  it('are those of Linux', () => {
    // 16 GiB: min_free_kbytes = sqrt(16 * 2^24) = 16384; 0.1 % of the zone is 4194 pages, more than min / 4.
    expect(linuxWatermarks(2 ** 22)).toEqual({ min: 4096, low: 4096 + 4194, high: 4096 + 8388 });
    // 64 MiB: sqrt(16 * 65536) = 1024 kB; min / 4 is the larger step.
    expect(linuxWatermarks(2 ** 14)).toEqual({ min: 256, low: 320, high: 384 });
    // The bounds: 128 kB and 256 MiB.
    expect(linuxWatermarks(64).min).toBe(32);
    expect(linuxWatermarks(2 ** 32 - 1).min).toBe(65536);
    expect(linuxWatermarks(2 ** 22, 100)).toEqual({ min: 4096, low: 4096 + 41943, high: 4096 + 83886 });
  });

  it('wake kswapd below low, which reclaims up to high; nobody stalls', () => {
    const { host, mm } = small({
      frames: 512,
      swapSlots: 1024,
      pages: 1000,
      watermarks: { min: 8, low: 32, high: 64 },
    });
    const time = new VirtualTime(testProfile());
    const daemon = new Agent('kswapd');
    time.spawn(daemon, host.kswapd(daemon), { daemon: true });
    time.spawn(
      agent,
      (function* fill(): Task<void> {
        for (let page = 0; page < 470; page++) yield* mm.cpuAccess(agent, page, write(page + 1));
      })(),
    );
    expect(time.run(1e9)).toBe(true);
    expect(host.counters.pgsteal_kswapd).toBe(0);
    time.spawn(
      agent,
      (function* fill(): Task<void> {
        for (let page = 470; page < 490; page++) yield* mm.cpuAccess(agent, page, write(page + 1));
      })(),
    );
    expect(time.run(1e9)).toBe(true);
    expect(host.allocator.freeFrames).toBeGreaterThanOrEqual(64 - 20);
    expect(host.counters.pgsteal_kswapd).toBeGreaterThan(0);
    expect([host.counters.allocstall, host.counters.pgsteal_direct]).toEqual([0, 0]);
    for (let page = 0; page < 490; page++) expect(mm.cpuRead(page).tagLo).toBe(page + 1);
    expect(host.audit()).toEqual([]);
  });

  it('below min, an allocation reclaims itself', () => {
    const { host, mm } = small({
      frames: 100,
      swapSlots: 1024,
      pages: 300,
      watermarks: { min: 20, low: 24, high: 28 },
    });
    for (let page = 0; page < 300; page++) expect(runToEnd(mm.cpuAccess(agent, page, write(page + 1)))).toBe(0);
    expect(host.allocator.freeFrames).toBeGreaterThanOrEqual(20);
    expect(host.counters.allocstall).toBeGreaterThan(0);
    expect(host.counters.pgsteal_direct).toBeGreaterThanOrEqual(220);
    for (let page = 0; page < 300; page++) expect(mm.cpuRead(page).tagLo).toBe(page + 1);
  });
});

describe('shortage', () => {
  it('direct reclaim makes room while swap lasts, then the fault is OOM and changes nothing', () => {
    const { host, mm } = small({ frames: 4, swapSlots: 3 });
    for (let page = 0; page < 7; page++) expect(runToEnd(mm.cpuAccess(agent, page, write(page + 1)))).toBe(0);
    expect(host.swap.freeSlots).toBe(0);
    expect(runToEnd(mm.cpuAccess(agent, 7, write(8)))).toBe(VmFault.OOM);
    expect(mm.lookup(7)).toBe(-1);
    for (let page = 0; page < 7; page++) expect(mm.cpuRead(page).tagLo).toBe(page + 1);
    expect(host.audit()).toEqual([]);
    expect(() => runToEnd(mm.populate(agent, 7, 2))).toThrow(expect.objectContaining({ code: 'ENOMEM', page: 7 }));
    expect(mm.mmapLock.held).toBe(false);
  });

  it('a pin that does not fit is undone', () => {
    const { host, mm } = small({ frames: 4, swapSlots: 8, pages: 64 });
    expect(() => runToEnd(mm.pin(agent, 0, 5))).toThrow(expect.objectContaining({ code: 'ENOMEM', page: 4 }));
    expect([mm.pinnedBytes, mm.accountedPinBytes]).toEqual([0, 0]);
    expect(() => runToEnd(mm.pin(agent, 63, 2))).toThrow(expect.objectContaining({ code: 'EFAULT', page: 64 }));
    expect(mm.pinnedBytes).toBe(0);
    expect(host.audit()).toEqual([]);
  });

  it('waits for what another reclaimer is about to free instead of giving up', () => {
    const { host, mm } = small({ frames: 1, swapSlots: 4 });
    runToEnd(mm.cpuAccess(agent, 0, write(1)));
    const reclaimer = new Agent('reclaimer');
    const run = new TaskRun(reclaimer, mm.pageOut(reclaimer, 0));
    runUntil(run, 'write page to swap');
    const cpu = new Agent('cpu');
    const fault = new TaskRun(cpu, mm.cpuAccess(cpu, 1, write(2)));
    while (fault.enabled && !fault.done) fault.advance();
    expect(fault.pending?.label).toBe('wait for swap I/O to end');
    expect(finish(run)).toBe(true);
    expect(finish(fault)).toBe(0);
    expect([mm.cpuRead(0).tagLo, mm.cpuRead(1).tagLo]).toEqual([1, 2]);
    expect(host.audit()).toEqual([]);
  });

  it('does not split 1G when there is no swap to write to', () => {
    const host = new HostMemory({ frames: GIG, swapSlots: 0 });
    const mm = host.createAddressSpace('vmm');
    mm.mmap({ startPage: 0, pages: GIG, backing: 'pud-thp' });
    runToEnd(mm.populate(agent, 0, GIG));
    expect(runToEnd(host.reclaim(agent, 1))).toBe(0);
    expect(mm.leafPages(7)).toBe(GIG);
  });
});
