import { Agent, runToEnd, type Task, TaskRun, VirtualTime } from '@faultline/sim';
import { describe, expect, it } from 'vitest';
import { type AddressSpace, HostMemory, type HostMemoryOptions, VmFault } from '../src/index.ts';
import { finish, runUntil, testProfile } from './run.ts';

const agent = new Agent('agent');
const write = (tagLo: number) => ({ write: true, tagLo, tagHi: ~tagLo });
const read = { write: false, tagLo: 0, tagHi: 0 };
const upTo = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, i) => from + i);

function machine(options: Partial<HostMemoryOptions> = {}, pages = 64) {
  const host = new HostMemory({ frames: 256, swapSlots: 256, pageCluster: 0, ...options });
  const mm = host.createAddressSpace('vmm');
  mm.mmap({ startPage: 0, pages: 64, backing: '4K' });
  for (let page = 0; page < pages; page++) runToEnd(mm.cpuAccess(agent, page, write(page + 1)));
  return { host, mm };
}

describe('the swap cache', () => {
  it('gives a page back during its write: the same frame, no I/O read', () => {
    const { host, mm } = machine({}, 4);
    const pfn = mm.lookup(3);
    const reclaimer = new Agent('reclaimer');
    const run = new TaskRun(reclaimer, mm.pageOut(reclaimer, 3));
    runUntil(run, 'write page to swap');
    expect(mm.lookup(3)).toBe(-1);
    expect(mm.cpuRead(3).tagLo).toBe(4);
    expect(runToEnd(mm.cpuAccess(agent, 3, write(8)))).toBe(0);
    expect(mm.lookup(3)).toBe(pfn);
    expect(finish(run)).toBe(false);
    expect(mm.cpuRead(3).tagLo).toBe(8);
    expect(host.counters).toMatchObject({ swapCacheHits: 1, pgmajfault: 0 });
    expect(host.counters.swap).toMatchObject({ pswpout: 1, pswpin: 0 });
    expect(host.audit()).toEqual([]);
  });

  it('keeps the slot of a page that was read: it goes again without a write', () => {
    const { host, mm } = machine({}, 4);
    runToEnd(mm.pageOut(agent, 3));
    expect(runToEnd(mm.cpuAccess(agent, 3, read))).toBe(VmFault.MAJOR);
    expect([host.swap.usedSlots, host.state.swapCache.pages]).toEqual([1, 1]);
    expect(runToEnd(mm.pageOut(agent, 3))).toBe(true);
    expect(host.counters.swap.pswpout).toBe(1);
    expect(mm.cpuRead(3).tagLo).toBe(4);
    // A write fault gives the slot back; then it must be written again.
    expect(runToEnd(mm.cpuAccess(agent, 3, write(9)))).toBe(VmFault.MAJOR);
    expect(host.swap.usedSlots).toBe(0);
    runToEnd(mm.pageOut(agent, 3));
    expect([host.counters.swap.pswpout, mm.cpuRead(3).tagLo]).toEqual([2, 9]);
    expect(host.audit()).toEqual([]);
  });

  it('writes again what was written to after a read brought it back', () => {
    const { host, mm } = machine({}, 4);
    runToEnd(mm.pageOut(agent, 3));
    runToEnd(mm.cpuAccess(agent, 3, read));
    expect(runToEnd(mm.cpuAccess(agent, 3, write(9)))).toBe(0);
    runToEnd(mm.pageOut(agent, 3));
    expect([host.counters.swap.pswpout, mm.cpuRead(3).tagLo]).toEqual([2, 9]);
  });

  it('gives slots back at once when more than half of swap is in use', () => {
    const { host, mm } = machine({ swapSlots: 10 }, 8);
    for (const page of upTo(0, 5)) runToEnd(mm.pageOut(agent, page));
    expect(host.swap.full).toBe(false);
    runToEnd(mm.cpuAccess(agent, 0, read));
    expect(host.swap.usedSlots).toBe(5);
    runToEnd(mm.pageOut(agent, 5));
    expect(host.swap.full).toBe(true);
    runToEnd(mm.cpuAccess(agent, 1, read));
    expect(host.swap.usedSlots).toBe(5);
    expect(host.audit()).toEqual([]);
  });
});

describe('read-ahead', () => {
  /** Everything swapped out. @returns the pages that a fault at `page` brings into memory */
  const fault = (host: HostMemory, mm: AddressSpace, page: number): number => {
    const before = host.counters.swap.pswpin;
    runToEnd(mm.cpuAccess(agent, page, read));
    return host.counters.swap.pswpin - before;
  };
  const swappedOut = (pageCluster: number) => {
    const { host, mm } = machine({ pageCluster });
    runToEnd(mm.madvise(agent, 0, 64, 'PAGEOUT'));
    expect(mm.swappedBytes).toBe(64 * 4096);
    return { host, mm };
  };

  it('is off with page-cluster 0', () => {
    const { host, mm } = swappedOut(0);
    for (let page = 0; page < 64; page++) expect(fault(host, mm, page)).toBe(1);
    expect(host.counters).toMatchObject({ swap_ra: 0, pgmajfault: 64 });
  });

  it('grows with its hits ahead of a sequential reader', () => {
    const { host, mm } = swappedOut(3);
    const reads = upTo(0, 64).map((page) => fault(host, mm, page));
    // The first window assumes 4 hits, which make 8 pages around page 0: 0 to 4. All further ones are 8 pages ahead.
    expect(reads.filter((pages) => pages > 0)).toEqual([5, 8, 8, 8, 8, 8, 8, 8, 3]);
    expect(host.counters.swap_ra).toBe(host.counters.swap_ra_hit);
    expect(host.counters.pgmajfault).toBe(9);
    expect(host.audit()).toEqual([]);
  });

  it('shrinks for a random reader: half of the last window, down to the page alone', () => {
    const { host, mm } = swappedOut(3);
    expect([
      fault(host, mm, 10),
      fault(host, mm, 50),
      fault(host, mm, 30),
      fault(host, mm, 20),
      fault(host, mm, 61),
    ]).toEqual([8, 4, 2, 1, 1]);
    expect(host.counters.swap_ra_hit).toBe(0);
  });
});

describe('queued write-back', () => {
  function withWorkers(options: Partial<HostMemoryOptions> = {}, workers = 1) {
    const { host, mm } = machine({ swap: [{ slots: 256, queueDepth: workers }], ...options });
    const time = new VirtualTime(testProfile({ swapWrite: 1e6, swapRead: 1e6 }));
    const area = host.swap.areas[0]!;
    for (let i = 0; i < workers; i++) {
      const worker = new Agent(`worker ${i}`);
      time.spawn(worker, host.swapIo.worker(worker, area), { daemon: true });
    }
    return { host, mm, time, area };
  }
  const reclaimTask = (host: HostMemory, by: Agent, pages: number): Task<number> => host.reclaim(by, pages);

  it('frees at the end of the I/O, from the tail of the list to where folios are rotated', () => {
    const { host, mm, time } = withWorkers();
    const run = time.spawn(agent, mm.madvise(agent, 0, 8, 'PAGEOUT'));
    time.run(time.nowNs + 1e5);
    expect(run.done).toBe(true);
    expect([mm.swappedBytes, host.swapIo.inFlight, host.state.folios.live]).toEqual([8 * 4096, 8, 64]);
    time.run();
    expect([host.swapIo.inFlight, host.counters.pgrotated, host.state.folios.live]).toEqual([0, 8, 64]);
    // They are clean now, and the first that the next run takes, without I/O.
    const next = time.spawn(agent, reclaimTask(host, agent, 1));
    time.run();
    expect(next.value).toBeGreaterThanOrEqual(8);
    for (const page of upTo(0, 8)) expect(mm.cpuRead(page).tagLo).toBe(page + 1);
    expect(host.audit()).toEqual([]);
  });

  it('makes a run start more writes than it is asked for while the device works', () => {
    const { host, mm, time } = withWorkers();
    const run = time.spawn(agent, reclaimTask(host, agent, 32));
    time.run();
    expect(run.value).toBeGreaterThanOrEqual(32);
    expect(host.counters.swap.pswpout).toBeGreaterThan(32);
    for (const page of upTo(0, 64)) expect(mm.cpuRead(page).tagLo).toBe(page + 1);
    expect(host.audit()).toEqual([]);
  });

  it('answers RETRY to a fault on a page that is being read, and mmap_lock is free then', () => {
    const { host, mm, time } = withWorkers();
    time.spawn(agent, mm.madvise(agent, 3, 1, 'PAGEOUT'));
    time.run();
    time.spawn(agent, reclaimTask(host, agent, 1));
    time.run();
    expect(mm.isSwapped(3)).toBe(true);
    const [a, b] = ['a', 'b'].map((name) => new Agent(name));
    const fault = function* (by: Agent): Task<number> {
      yield* mm.mmapLock.acquireRead(by);
      const bits = yield* mm.handleMmFault(by, 3, { write: false, allowRetry: true });
      if ((bits & VmFault.RETRY) === 0) mm.mmapLock.releaseRead(by);
      return bits;
    };
    const first = time.spawn(a!, fault(a!));
    time.run(time.nowNs + 1e4);
    expect(host.swapIo.inFlight).toBe(1);
    const second = time.spawn(b!, fault(b!));
    time.run(time.nowNs + 1e4);
    const writer = new Agent('writer');
    time.run();
    expect([first.done, second.done]).toEqual([true, true]);
    expect((second.value ?? 0) & VmFault.RETRY).toBe(VmFault.RETRY);
    expect(runToEnd(mm.mmapLock.acquireWrite(writer))).toBe(undefined);
    mm.mmapLock.releaseWrite(writer);
    expect(host.counters.swap.pswpin).toBe(1);
    expect(host.audit()).toEqual([]);
  });
});

describe('errors of the device', () => {
  it('a write error leaves the page in memory, dirty, with its content', () => {
    const { host, mm } = machine({}, 4);
    const area = host.swap.areas[0]!;
    area.faults.failWrites = 1;
    expect(runToEnd(mm.pageOut(agent, 3))).toBe(false);
    expect(host.counters.swapWriteErrors).toBe(1);
    expect(mm.cpuRead(3).tagLo).toBe(4);
    // A fault finds it in the swap cache, and the next try succeeds.
    expect(runToEnd(mm.cpuAccess(agent, 3, read))).toBe(0);
    expect(runToEnd(mm.pageOut(agent, 3))).toBe(true);
    expect([mm.cpuRead(3).tagLo, host.allocator.allocatedFrames]).toEqual([4, 3]);
    expect(host.audit()).toEqual([]);
  });

  it('a read error is SIGBUS, and when reads work again nothing is lost', () => {
    const { host, mm } = machine({ pageCluster: 3 }, 16);
    runToEnd(mm.madvise(agent, 0, 16, 'PAGEOUT'));
    const area = host.swap.areas[0]!;
    area.faults.failReads = () => true;
    expect(runToEnd(mm.cpuAccess(agent, 5, read)) & VmFault.SIGBUS).toBe(VmFault.SIGBUS);
    expect(mm.isSwapped(5)).toBe(true);
    area.faults.failReads = null;
    // The folio that could not be read is in the swap cache until reclaim drops it, and only then is the slot read again.
    expect(runToEnd(mm.cpuAccess(agent, 5, read)) & VmFault.SIGBUS).toBe(VmFault.SIGBUS);
    runToEnd(host.reclaim(agent, 16));
    for (const page of upTo(0, 16)) {
      expect(runToEnd(mm.cpuAccess(agent, page, read)) & VmFault.SIGBUS).toBe(0);
      expect(host.memory.tagLo(mm.lookup(page))).toBe(page + 1);
    }
    expect(host.audit()).toEqual([]);
  });
});

describe('compressed memory', () => {
  it.each([
    ['zram', { swap: [{ slots: 256, kind: 'zram' as const }] }],
    ['zswap', { swapSlots: 256, zswap: { maxPoolPercent: 50 } }],
  ])('%s takes frames for what it holds and gives it back', (kind, options) => {
    const { host, mm } = machine(options);
    runToEnd(mm.madvise(agent, 0, 64, 'PAGEOUT'));
    expect(mm.swappedBytes).toBe(64 * 4096);
    const held = kind === 'zram' ? host.swap.areas[0]?.zram?.mem_used_total : host.swapIo.zswap?.pool_total_size;
    expect(held).toBeGreaterThan(0);
    expect(held).toBeLessThan(64 * 4096);
    expect(host.allocator.allocatedFrames * 4096).toBe(held);
    expect(host.audit()).toEqual([]);
    for (const page of upTo(0, 64)) {
      runToEnd(mm.cpuAccess(agent, page, read));
      expect(host.memory.tagLo(mm.lookup(page))).toBe(page + 1);
    }
    runToEnd(mm.exit(agent));
    expect([host.allocator.allocatedFrames, host.swap.usedSlots]).toEqual([0, 0]);
    expect(host.audit()).toEqual([]);
  });
});

describe('a memfd', () => {
  it('is shared by two address spaces, through swap too', () => {
    const host = new HostMemory({ frames: 64, swapSlots: 64 });
    const memfd = host.createMemfd('guest', 16);
    const [a, b] = ['a', 'b'].map((name) => host.createAddressSpace(name));
    a!.mmap({ startPage: 0, pages: 16, backing: '4K', file: { memfd, offset: 0 } });
    b!.mmap({ startPage: 100, pages: 8, backing: '4K', file: { memfd, offset: 8 } });
    for (const page of upTo(0, 16)) expect(runToEnd(a!.cpuAccess(agent, page, write(page + 1)))).toBe(0);
    for (const page of upTo(0, 8)) {
      expect(runToEnd(b!.cpuAccess(agent, 100 + page, read))).toBe(0);
      expect(b!.lookup(100 + page)).toBe(a!.lookup(8 + page));
    }
    runToEnd(host.reclaim(agent, 16));
    expect([memfd.residentBytes, memfd.swappedBytes, a!.residentBytes, b!.residentBytes]).toEqual([0, 16 * 4096, 0, 0]);
    expect(host.audit()).toEqual([]);
    expect(runToEnd(b!.cpuAccess(agent, 103, write(77)))).toBe(VmFault.MAJOR);
    expect(runToEnd(a!.cpuAccess(agent, 11, read))).toBe(0);
    expect(host.memory.tagLo(a!.lookup(11))).toBe(77);
    expect(host.counters.pgmajfault).toBe(1);
    expect(host.audit()).toEqual([]);
  });

  it('answers COMPLETED to the first shared write, and no more', () => {
    const host = new HostMemory({ frames: 64, swapSlots: 64 });
    const memfd = host.createMemfd('guest', 16);
    const mm = host.createAddressSpace('vmm');
    mm.mmap({ startPage: 0, pages: 16, backing: '4K', file: { memfd, offset: 0 } });
    const fault = (allowRetry: boolean, page: number): number => {
      runToEnd(mm.mmapLock.acquireRead(agent));
      const bits = runToEnd(mm.handleMmFault(agent, page, { write: true, allowRetry }));
      expect(mm.mmapLock.held).toBe(bits !== VmFault.COMPLETED);
      if (bits !== VmFault.COMPLETED) mm.mmapLock.releaseRead(agent);
      return bits;
    };
    expect([fault(true, 3), fault(true, 3), fault(false, 4)]).toEqual([VmFault.COMPLETED, 0, 0]);
  });

  it('private pages are copied at the first write, without a word to the notifiers if nothing was mapped', () => {
    const host = new HostMemory({ frames: 64, swapSlots: 64 });
    const memfd = host.createMemfd('guest', 16);
    const [a, b] = ['a', 'b'].map((name) => host.createAddressSpace(name));
    a!.mmap({ startPage: 0, pages: 16, backing: '4K', file: { memfd, offset: 0 } });
    b!.mmap({ startPage: 0, pages: 16, backing: '4K', file: { memfd, offset: 0, private: true } });
    runToEnd(a!.cpuAccess(agent, 3, write(4)));
    runToEnd(b!.cpuAccess(agent, 3, write(5)));
    expect(host.counters.notifierRanges).toBe(0);
    runToEnd(b!.cpuAccess(agent, 4, read));
    runToEnd(b!.cpuAccess(agent, 4, write(6)));
    expect(host.counters.notifierRanges).toBe(1);
    expect([a!.cpuRead(3).tagLo, b!.cpuRead(3).tagLo, a!.cpuRead(4).tagLo, b!.cpuRead(4).tagLo]).toEqual([4, 5, 0, 6]);
    expect(host.audit()).toEqual([]);
  });
});
