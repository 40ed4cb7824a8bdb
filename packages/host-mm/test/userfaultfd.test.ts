import { Agent, RandomStream, runToEnd, type Task, TaskRun } from '@faultline/sim';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type AddressSpace, type Backing, HostMemory, HostMemoryError, VmFault } from '../src/index.ts';
import { runShuffled } from './run.ts';

const cpu = new Agent('cpu');
const monitor = new Agent('monitor');

function setting(backing: Backing = '4K') {
  const host = new HostMemory({ frames: 4096, swapSlots: 64, pageCluster: 0 });
  const mm = host.createAddressSpace('vmm');
  mm.mmap({ startPage: 512, pages: 1024, backing });
  mm.mmap({ startPage: 4096, pages: 1024, backing });
  return { host, mm, uffd: mm.userfaultfd() };
}

const access = (mm: AddressSpace, agent: Agent, page: number, tagLo = 0): TaskRun<number> =>
  new TaskRun(agent, mm.cpuAccess(agent, page, { write: tagLo > 0, tagLo, tagHi: 0 }));

function advanceUntilBlocked(run: TaskRun<unknown>): void {
  while (!run.done && run.enabled) run.advance();
}

const refused = (task: Task<unknown>): string => {
  try {
    runToEnd(task);
  } catch (error) {
    if (error instanceof HostMemoryError) return error.code;
    throw error;
  }
  return 'done';
};

describe('userfaultfd', () => {
  it('reports a missing page, and the fault goes on when it is filled', () => {
    const { host, mm, uffd } = setting('thp-2M');
    runToEnd(uffd.register(monitor, 512, 512));
    const run = access(mm, cpu, 520, 7);
    advanceUntilBlocked(run);
    expect([run.done, uffd.pending, uffd.waiters, mm.mmapLock.held]).toEqual([false, 1, 1, false]);
    expect(runToEnd(uffd.read(monitor))).toEqual({ page: 520, write: true, wp: false });
    runToEnd(uffd.copy(monitor, 520, { tagLo: 5, tagHi: 0 }));
    expect(mm.cpuRead(520).tagLo).toBe(5);
    advanceUntilBlocked(run);
    expect([run.done, mm.cpuRead(520).tagLo, mm.leafPages(520), uffd.waiters]).toEqual([true, 7, 1, 0]);
    // The other half of the mapping is as before.
    expect(runToEnd(mm.cpuAccess(cpu, 1024, { write: false, tagLo: 0, tagHi: 0 }))).toBe(0);
    expect([mm.leafPages(1024), host.audit()]).toEqual([512, []]);
  });

  it('fills with zeros, and refuses what is there already, or not registered', () => {
    const { host, mm, uffd } = setting();
    runToEnd(uffd.register(monitor, 512, 8));
    runToEnd(uffd.zeropage(monitor, 512));
    expect([mm.isWriteable(512), mm.cpuRead(512).tagLo]).toEqual([true, 0]);
    expect(refused(uffd.copy(monitor, 512, { tagLo: 1, tagHi: 0 }))).toBe('EEXIST');
    expect(refused(uffd.copy(monitor, 520, { tagLo: 1, tagHi: 0 }))).toBe('ENOENT');
    expect(refused(uffd.copy(monitor, 513, { tagLo: 1, tagHi: 0, wp: true }))).toBe('EINVAL');
    runToEnd(mm.pageOut(cpu, 512));
    expect(refused(uffd.copy(monitor, 512, { tagLo: 1, tagHi: 0 }))).toBe('EEXIST');
    expect([host.allocator.allocatedFrames, host.audit()]).toEqual([0, []]);
  });

  it('refuses holes, memfds and hugetlb', () => {
    const { host, mm, uffd } = setting();
    host.setHugePages('2M', 1);
    mm.mmap({ startPage: 8192, pages: 512, backing: 'hugetlb-2M' });
    mm.mmap({ startPage: 9000, pages: 4, backing: '4K', file: { memfd: host.createMemfd('m', 4), offset: 0 } });
    for (const page of [100, 8192, 9000]) expect(refused(uffd.register(monitor, page, 4))).toBe('EINVAL');
    expect(refused(uffd.register(monitor, 512, 4, {}))).toBe('EINVAL');
  });

  it('who may not sleep gets SIGBUS; unregistering lets waiting faults go on', () => {
    const { mm, uffd } = setting();
    runToEnd(uffd.register(monitor, 512, 8));
    runToEnd(mm.mmapLock.acquireRead(cpu));
    expect(runToEnd(mm.handleMmFault(cpu, 512, { write: false }))).toBe(VmFault.SIGBUS);
    mm.mmapLock.releaseRead(cpu);
    const run = access(mm, cpu, 512, 3);
    advanceUntilBlocked(run);
    runToEnd(uffd.unregister(monitor, 512, 8));
    advanceUntilBlocked(run);
    expect([run.done, mm.cpuRead(512).tagLo]).toEqual([true, 3]);
  });

  it('exit ends the wait', () => {
    const { mm, uffd } = setting();
    runToEnd(uffd.register(monitor, 512, 8));
    const run = access(mm, cpu, 512, 3);
    advanceUntilBlocked(run);
    runToEnd(mm.exit(new Agent('exit')));
    advanceUntilBlocked(run);
    expect([run.done, (run.value ?? 0) & VmFault.SIGSEGV]).toEqual([true, VmFault.SIGSEGV]);
  });

  it('reports writes to write-protected pages only, in memory, in 2M leaves and in swap', () => {
    for (const backing of ['4K', 'thp-2M'] as const) {
      const { host, mm, uffd } = setting(backing);
      runToEnd(mm.populate(cpu, 512, 512));
      runToEnd(uffd.register(monitor, 512, 512, { wp: true }));
      runToEnd(uffd.writeProtect(monitor, 512, 512, true));
      if (backing === '4K') runToEnd(mm.pageOut(cpu, 515));
      expect([
        mm.isWriteable(515),
        runToEnd(mm.cpuAccess(cpu, 515, { write: false, tagLo: 0, tagHi: 0 })) & ~4,
      ]).toEqual([false, 0]);
      const run = access(mm, cpu, 515, 4);
      advanceUntilBlocked(run);
      expect(runToEnd(uffd.read(monitor))).toEqual({ page: 515, write: true, wp: true });
      runToEnd(uffd.writeProtect(monitor, 515, 1, false));
      advanceUntilBlocked(run);
      expect([run.done, mm.cpuRead(515).tagLo, mm.isWriteable(516)]).toEqual([true, 4, false]);
      expect(refused(uffd.writeProtect(monitor, 1024, 4, true))).toBe('ENOENT');
      runToEnd(uffd.unregister(monitor, 512, 512));
      expect([mm.isWriteable(516), host.audit()]).toEqual([true, []]);
    }
  });

  it('moves pages without a copy, present or in swap, and what reclaim needs with them', () => {
    const { host, mm, uffd } = setting();
    for (const page of [512, 513, 514]) runToEnd(mm.cpuAccess(cpu, page, { write: true, tagLo: page, tagHi: 0 }));
    runToEnd(mm.pageOut(cpu, 513));
    const frame = mm.lookup(512);
    runToEnd(uffd.register(monitor, 4096, 1024));
    runToEnd(uffd.move(monitor, { fromPage: 512, toPage: 4200, pages: 3 }));
    expect([mm.lookup(512), mm.lookup(4200), mm.isSwapped(4201)]).toEqual([-1, frame, true]);
    expect(host.audit()).toEqual([]);
    expect(runToEnd(host.reclaim(cpu, 2))).toBe(2);
    expect([mm.isSwapped(4200), mm.isSwapped(4202)]).toEqual([true, true]);
    for (const [at, tag] of [
      [4200, 512],
      [4201, 513],
      [4202, 514],
    ] as const) {
      runToEnd(mm.cpuAccess(cpu, at, { write: false, tagLo: 0, tagHi: 0 }));
      expect(mm.cpuRead(at).tagLo).toBe(tag);
    }
    expect(host.audit()).toEqual([]);
  });

  it('moves a 2M leaf whole, and splits one that moves in part', () => {
    const { host, mm, uffd } = setting('thp-2M');
    runToEnd(mm.cpuAccess(cpu, 515, { write: true, tagLo: 9, tagHi: 0 }));
    runToEnd(uffd.register(monitor, 4096, 1024));
    runToEnd(uffd.move(monitor, { fromPage: 512, toPage: 4096, pages: 512 }));
    expect([mm.leafPages(4099), mm.cpuRead(4099).tagLo, mm.leafPages(512)]).toEqual([512, 9, 0]);
    runToEnd(uffd.register(monitor, 1024, 8));
    runToEnd(uffd.move(monitor, { fromPage: 4099, toPage: 1030, pages: 1 }));
    expect([mm.cpuRead(1030).tagLo, mm.lookup(4099), mm.leafPages(4100)]).toEqual([9, -1, 1]);
    expect(host.audit()).toEqual([]);
  });

  it('does not move what is missing, taken, shared or pinned', () => {
    const { host, mm, uffd } = setting();
    runToEnd(uffd.register(monitor, 4096, 8));
    runToEnd(mm.cpuAccess(cpu, 512, { write: true, tagLo: 1, tagHi: 0 }));
    const move = (fromPage: number, toPage: number) => refused(uffd.move(monitor, { fromPage, toPage, pages: 1 }));
    expect([move(513, 4096), move(512, 4110), move(100, 4096)]).toEqual(['ENOENT', 'ENOENT', 'EINVAL']);
    runToEnd(uffd.zeropage(monitor, 4097));
    expect(move(512, 4097)).toBe('EEXIST');
    runToEnd(mm.pin(cpu, 512, 1));
    expect(move(512, 4096)).toBe('EBUSY');
    runToEnd(mm.unpin(cpu, 512, 1));
    const child = runToEnd(mm.fork(cpu, 'child'));
    expect(move(512, 4096)).toBe('EBUSY');
    runToEnd(child.exit(cpu));
    expect(host.audit()).toEqual([]);
  });

  it('post-copy: a monitor fills what several touch, in any order of steps, while pages go to swap', () => {
    fc.assert(
      fc.property(
        fc.array(fc.array(fc.nat(9), { maxLength: 12 }), { minLength: 1, maxLength: 3 }),
        fc.nat(),
        (lists, seed) => {
          const { host, mm, uffd } = setting();
          runToEnd(uffd.register(monitor, 512, 10));
          let running = lists.length;
          const filled = new Set<number>();
          const touch = function* (agent: Agent, pages: readonly number[]): Task<void> {
            for (const page of pages) {
              yield* mm.cpuAccess(agent, 512 + page, { write: false, tagLo: 0, tagHi: 0 });
              expect(mm.cpuRead(512 + page).tagLo).toBe(100 + page);
              yield* mm.pageOut(agent, 512 + page);
            }
            running--;
          };
          const fill = function* (agent: Agent): Task<void> {
            while (running > 0) {
              if (uffd.pending === 0) {
                yield agent.spends('poll', 0);
                continue;
              }
              const { page } = yield* uffd.read(agent);
              if (filled.has(page)) {
                uffd.wake(page, 1);
                continue;
              }
              filled.add(page);
              yield* uffd.copy(agent, page, { tagLo: 100 + page - 512, tagHi: 0 });
            }
          };
          const runs = lists.map((list, i) => {
            const agent = new Agent(`vcpu ${i}`);
            return new TaskRun<unknown>(agent, touch(agent, list));
          });
          const agent = new Agent('filler');
          runShuffled(new RandomStream(seed, 'order'), [...runs, new TaskRun<unknown>(agent, fill(agent))]);
          expect([...filled].sort()).toEqual([...new Set(lists.flat())].map((page) => 512 + page).sort());
          expect(host.audit()).toEqual([]);
        },
      ),
      { numRuns: 200 },
    );
  });
});
