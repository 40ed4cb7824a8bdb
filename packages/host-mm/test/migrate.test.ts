import { Agent, runToEnd, TaskRun } from '@faultline/sim';
import { describe, expect, it } from 'vitest';
import { type AddressSpace, type Backing, HostMemory, type HostMemoryOptions, VmFault } from '../src/index.ts';
import { Recorder } from './recorder.ts';

const agent = new Agent('agent');

function machine(backing: Backing, options: Partial<HostMemoryOptions> = {}) {
  const host = new HostMemory({ frames: 4096, swapSlots: 2000, pageCluster: 0, ...options });
  if (backing === 'hugetlb-2M') host.setHugePages('2M', 2);
  const mm = host.createAddressSpace('vmm');
  mm.mmap({ startPage: 512, pages: 512, backing });
  runToEnd(mm.populate(agent, 512, 512));
  for (let page = 512; page < 1024; page++) host.memory.writeTag(mm.lookup(page), page, 7);
  return { host, mm, recorder: new Recorder(mm) };
}

const write = (mm: AddressSpace, page: number, tag: number): number =>
  runToEnd(mm.cpuAccess(agent, page, { write: true, tagLo: tag, tagHi: 7 }));

function expectContent(mm: AddressSpace, pages = 512): void {
  for (let page = 512; page < 512 + pages; page++) expect(mm.cpuRead(page)).toMatchObject({ tagLo: page, tagHi: 7 });
}

describe('migration', () => {
  it('moves a 4K page to another frame: CLEAR over 4K, same rights, no fault afterwards', () => {
    const { host, mm, recorder } = machine('4K');
    const pfn = mm.lookup(515);
    expect(runToEnd(host.migratePage(agent, pfn))).toBe('moved');
    expect(recorder.take()).toEqual(['CLEAR 515+1']);
    expect(mm.lookup(515)).not.toBe(pfn);
    expect(mm.isWriteable(515)).toBe(true);
    expect(host.allocator.isAllocated(pfn)).toBe(false);
    expectContent(mm);
    const faults = host.counters.pgfault;
    expect(write(mm, 515, 1)).toBe(0);
    expect(host.counters.pgfault).toBe(faults);
    expect(host.counters.pgmigrate_success).toBe(1);
    expect(host.audit()).toEqual([]);
  });

  it('moves a 2M folio whole: CLEAR over 2M, a leaf again', () => {
    const { host, mm, recorder } = machine('thp-2M');
    const pfn = mm.lookup(512);
    expect(runToEnd(host.migratePage(agent, pfn + 77))).toBe('moved');
    expect(recorder.take()).toEqual(['CLEAR 512+512']);
    expect([mm.leafPages(600), mm.lookup(512) % 512]).toEqual([512, 0]);
    expect(mm.lookup(512)).not.toBe(pfn);
    expectContent(mm);
    expect(host.counters).toMatchObject({
      pgmigrate_success: 512,
      thp_migration_success: 1,
      thp_migration_split: 0,
      thp_deferred_split_page: 0,
    });
    expect(host.audit()).toEqual([]);
  });

  it('splits a 2M folio that is mapped in part before it moves what is left', () => {
    const { host, mm, recorder } = machine('thp-2M');
    runToEnd(mm.madviseDontNeed(agent, 512, 8));
    recorder.take();
    expect(runToEnd(host.migratePage(agent, mm.lookup(520)))).toBe('moved');
    const heard = recorder.take();
    expect(heard.slice(0, 3)).toEqual(['CLEAR 512+512', 'CLEAR 520+1', 'CLEAR 521+1']);
    expect(heard.length).toBe(1 + 504);
    for (let page = 520; page < 1024; page++) expect(mm.cpuRead(page).tagLo).toBe(page);
    expect(host.audit()).toEqual([]);
  });

  it('splits a 2M folio for which no 2M is free, and moves the pieces: CLEAR 2M, then 4K each', () => {
    const { host, mm, recorder } = machine('thp-2M', { frames: 512 + 100 });
    expect(runToEnd(host.migratePage(agent, mm.lookup(512)))).toBe('moved');
    const heard = recorder.take();
    expect(heard[0]).toBe('CLEAR 512+512');
    expect(heard.slice(1)).toEqual(Array.from({ length: 512 }, (_, i) => `CLEAR ${512 + i}+1`));
    expectContent(mm);
    expect(host.counters).toMatchObject({ pgmigrate_success: 512, thp_migration_fail: 1, thp_migration_split: 1 });
    expect(host.audit()).toEqual([]);
  });

  it('fails with ENOMEM where nothing is free, before anybody is told', () => {
    const { host, mm, recorder } = machine('4K', { frames: 512 });
    expect(runToEnd(host.migratePage(agent, mm.lookup(512)))).toBe('ENOMEM');
    expect(recorder.take()).toEqual([]);
    expect(host.counters.pgmigrate_fail).toBe(1);
    expect(host.audit()).toEqual([]);
  });

  it('leaves a pinned page where it is: EAGAIN, as if nothing had been, but for the CLEAR', () => {
    for (const backing of ['4K', 'thp-2M'] as const) {
      const { host, mm, recorder } = machine(backing);
      runToEnd(mm.pin(agent, 515, 1));
      const pfn = mm.lookup(515);
      expect(runToEnd(host.migratePage(agent, pfn))).toBe('EAGAIN');
      expect(recorder.take()).toEqual([backing === '4K' ? 'CLEAR 515+1' : 'CLEAR 512+512']);
      expect([mm.lookup(515), mm.isWriteable(515)]).toEqual([pfn, true]);
      expect(mm.leafPages(515)).toBe(backing === '4K' ? 1 : 512);
      expectContent(mm);
      runToEnd(mm.unpin(agent, 515, 1));
      expect(host.audit()).toEqual([]);
      expect(runToEnd(host.migratePage(agent, pfn))).toBe('moved');
      expectContent(mm);
    }
  });

  it('moves a huge page within its pool', () => {
    const { host, mm, recorder } = machine('hugetlb-2M');
    const pfn = mm.lookup(512);
    expect(runToEnd(host.migratePage(agent, pfn))).toBe('moved');
    expect(recorder.take()).toEqual(['CLEAR 512+512']);
    expect(mm.lookup(512)).not.toBe(pfn);
    expectContent(mm);
    expect(runToEnd(host.migratePage(agent, mm.lookup(512)))).toBe('moved');
    expect(mm.lookup(512)).toBe(pfn);
    expect(host.audit()).toEqual([]);
  });

  it('moves a page of a memfd for all who map it: CLEAR in each', () => {
    const host = new HostMemory({ frames: 64 });
    const memfd = host.createMemfd('guest', 8);
    const spaces = ['a', 'b'].map((name) => host.createAddressSpace(name));
    for (const mm of spaces) mm.mmap({ startPage: 0x100, pages: 8, backing: '4K', file: { memfd, offset: 0 } });
    for (const mm of spaces) write(mm, 0x103, 5);
    const recorders = spaces.map((mm) => new Recorder(mm));
    const pfn = spaces[0]!.lookup(0x103);
    expect(runToEnd(host.migratePage(agent, pfn))).toBe('moved');
    for (const recorder of recorders) expect(recorder.take()).toEqual([`CLEAR ${0x103}+1`]);
    expect(spaces[0]!.lookup(0x103)).toBe(spaces[1]!.lookup(0x103));
    expect(spaces[0]!.lookup(0x103)).not.toBe(pfn);
    write(spaces[1]!, 0x103, 9);
    expect(spaces[0]!.cpuRead(0x103).tagLo).toBe(9);
    expect(host.audit()).toEqual([]);
  });

  it('stays if a fault finds it in the page cache before it is copied: EAGAIN', () => {
    const host = new HostMemory({ frames: 64 });
    const memfd = host.createMemfd('guest', 8);
    const [a, b] = ['a', 'b'].map((name) => host.createAddressSpace(name));
    if (!a || !b) throw new Error('two address spaces');
    for (const mm of [a, b]) mm.mmap({ startPage: 0x100, pages: 8, backing: '4K', file: { memfd, offset: 0 } });
    write(a, 0x103, 5);
    const pfn = a.lookup(0x103);
    const run = new TaskRun(agent, host.migratePage(agent, pfn));
    while (run.pending?.label !== 'migrate: copy folio') run.advance();
    write(b, 0x103, 6);
    while (!run.done) run.advance();
    expect(run.value).toBe('EAGAIN');
    expect([a.lookup(0x103), b.lookup(0x103), a.cpuRead(0x103).tagLo]).toEqual([pfn, pfn, 6]);
    expect(host.audit()).toEqual([]);
  });

  it('moves a 2M folio that entries map with all its entries, and does not take it for one that is mapped in part', () => {
    const { host, mm, recorder } = machine('thp-2M');
    const pfn = mm.lookup(512);
    const reclaim = new TaskRun(agent, mm.madvise(agent, 512, 512, 'PAGEOUT'));
    while (mm.lookup(512) >= 0) reclaim.advance();
    for (let page = 512; page < 1024; page++)
      runToEnd(mm.cpuAccess(new Agent('cpu'), page, { write: true, tagLo: page, tagHi: 7 }), () => reclaim.advance());
    while (!reclaim.done) reclaim.advance();
    expect([mm.lookup(512), mm.leafPages(512)]).toEqual([pfn, 1]);
    recorder.take();
    const queued = host.counters.thp_deferred_split_page;
    expect(runToEnd(host.migratePage(agent, pfn))).toBe('moved');
    expect(recorder.take()).toEqual(['CLEAR 512+512']);
    expect(mm.lookup(512)).not.toBe(pfn);
    expect(host.counters).toMatchObject({ thp_migration_success: 1, thp_deferred_split_page: queued });
    expectContent(mm);
    expect(host.audit()).toEqual([]);
  });

  it('moves a page of the swap cache, which stays there', () => {
    const { host, mm, recorder } = machine('4K');
    runToEnd(mm.pageOut(agent, 520));
    expect(runToEnd(mm.cpuAccess(agent, 520, { write: false, tagLo: 0, tagHi: 0 }))).toBe(VmFault.MAJOR);
    recorder.take();
    expect(runToEnd(host.migratePage(agent, mm.lookup(520)))).toBe('moved');
    expect(host.audit()).toEqual([]);
    const writes = host.counters.swap.pswpout;
    expect(runToEnd(mm.pageOut(agent, 520))).toBe(true);
    expect(host.counters.swap.pswpout).toBe(writes);
    expectContent(mm);
  });

  it('says that a free frame is in no folio', () => {
    const { host } = machine('4K');
    expect(runToEnd(host.migratePage(agent, host.allocator.firstPfn + 4000))).toBe('ENOENT');
  });

  it('keeps a CPU write waiting while the page is on the move, and then lets it write to the new frame', () => {
    const { host, mm } = machine('4K');
    const pfn = mm.lookup(515);
    const migration = new TaskRun(new Agent('migration'), host.migratePage(new Agent('migration'), pfn));
    while (mm.lookup(515) >= 0) migration.advance();
    const cpu = new Agent('cpu');
    const writer = new TaskRun(cpu, mm.cpuAccess(cpu, 515, { write: true, tagLo: 99, tagHi: 7 }));
    while (writer.enabled) writer.advance();
    expect(writer.done).toBe(false);
    expect(mm.cpuRead(515).tagLo).toBe(515);
    while (!migration.done) migration.advance();
    expect(migration.value).toBe('moved');
    while (!writer.done) writer.advance();
    expect(writer.value).toBe(0);
    expect(mm.lookup(515)).not.toBe(pfn);
    expect(mm.cpuRead(515).tagLo).toBe(99);
    expect(host.audit()).toEqual([]);
  });

  it('survives the exit of the process before any of its steps', () => {
    for (const backing of ['4K', 'thp-2M', 'hugetlb-2M'] as const)
      for (let steps = 0; ; steps++) {
        const { host, mm } = machine(backing);
        const run = new TaskRun(agent, host.migratePage(agent, mm.lookup(512)));
        for (let i = 0; i < steps && !run.done; i++) run.advance();
        const inTime = !run.done;
        const exit = new TaskRun(new Agent('exit'), mm.exit(new Agent('exit')));
        while (!exit.done || !run.done) {
          if (!exit.done && exit.enabled) exit.advance();
          else run.advance();
        }
        expect(host.audit()).toEqual([]);
        expect(host.allocator.allocatedFrames).toBe(backing === 'hugetlb-2M' ? 1024 : 0);
        if (!inTime) break;
      }
  });
});
