import { Agent, RandomStream, runToEnd, type Task, TaskRun } from '@faultline/sim';
import { describe, expect, it } from 'vitest';
import { type AddressSpace, HostMemory, VmFault } from '../src/index.ts';

const GIG = 1 << 18;
const agent = new Agent('agent');
const write = (tagLo: number) => ({ write: true, tagLo, tagHi: ~tagLo });

function small(options: { frames?: number; swapSlots?: number; pages?: number } = {}) {
  const host = new HostMemory({ frames: options.frames ?? 64, swapSlots: options.swapSlots ?? 64 });
  const mm = host.createAddressSpace('vmm');
  mm.mmap({ startPage: 0, pages: options.pages ?? 64, backing: '4K' });
  return { host, mm };
}

/** Runs until the step with that label is announced, and not performed. */
function runUntil<T>(run: TaskRun<T>, label: string): void {
  do {
    if (run.done) throw new Error(`ended before "${label}"`);
    run.advance();
  } while (run.pending?.label !== label);
}

function finish<T>(run: TaskRun<T>): T | undefined {
  while (!run.done) {
    if (!run.enabled) throw new Error('waits');
    run.advance();
  }
  return run.value;
}

const swapped = (mm: AddressSpace, pages: number): number[] =>
  Array.from({ length: pages }, (_, page) => page).filter((page) => mm.isSwapped(page));

describe('LRU order', () => {
  it('takes the oldest that are not young, and gives the young a second chance in order', () => {
    const { host, mm } = small();
    runToEnd(mm.populate(agent, 0, 8));
    // All are young at first: one round clears that, then they go oldest first.
    expect(runToEnd(host.reclaim(agent, 2))).toBe(2);
    expect(swapped(mm, 8)).toEqual([0, 1]);
    expect(host.counters.reclaimScanned).toBe(8 + 2);
    mm.markYoung(2);
    runToEnd(mm.cpuAccess(agent, 4, { write: false, tagLo: 0, tagHi: 0 }));
    runToEnd(host.reclaim(agent, 3));
    expect(swapped(mm, 8)).toEqual([0, 1, 3, 5, 6]);
    runToEnd(host.reclaim(agent, 2));
    expect(swapped(mm, 8)).toEqual([0, 1, 2, 3, 5, 6, 7]);
  });

  it('skips pinned folios and stops when nothing else is left', () => {
    const { host, mm } = small();
    runToEnd(mm.populate(agent, 0, 4));
    runToEnd(mm.pin(agent, 0, 3));
    expect(runToEnd(host.reclaim(agent, 4))).toBe(1);
    expect(swapped(mm, 4)).toEqual([3]);
    runToEnd(mm.unpin(agent, 0, 3));
    expect(runToEnd(host.reclaim(agent, 4))).toBe(3);
    expect(runToEnd(host.reclaim(agent, 4))).toBe(0);
  });
});

describe('splitting', () => {
  const large = (seed: number) => {
    const host = new HostMemory({ frames: GIG, swapSlots: 4096, random: new RandomStream(seed, 'reclaim') });
    const mm = host.createAddressSpace('vmm');
    mm.mmap({ startPage: GIG, pages: GIG, backing: 'pud-thp' });
    runToEnd(mm.populate(agent, GIG, GIG));
    return { host, mm };
  };
  const victim = (mm: AddressSpace): number => {
    let page = GIG;
    while (!mm.isSwapped(page)) page += mm.leafPages(page);
    return page;
  };

  it('takes 4K out of 1G by two splits; the rest keeps its frames in the largest leaves', () => {
    const { host, mm } = large(1);
    expect(runToEnd(host.reclaim(agent, 1))).toBe(1);
    expect(host.counters.folioSplits).toEqual({ '1G->2M': 1, '2M->4K': 1 });
    const page = victim(mm);
    const base = mm.lookup(page === GIG ? GIG + 1 : GIG) - (page === GIG ? 1 : 0);
    let leaves = 0;
    for (let at = GIG; at < 2 * GIG; at += Math.max(1, mm.leafPages(at))) {
      if (at === page) continue;
      expect(mm.lookup(at)).toBe(base + at - GIG);
      leaves++;
    }
    expect(leaves).toBe(511 + 511);
    expect(host.audit()).toEqual([]);
  });

  it('picks the page by the random stream', () => {
    const victims = [1, 2, 3, 1].map((seed) => {
      const { host, mm } = large(seed);
      runToEnd(host.reclaim(agent, 1));
      return victim(mm);
    });
    expect(new Set(victims).size).toBe(3);
    expect(victims[3]).toBe(victims[0]);
  });

  it('puts the other pieces at the head in address order: they are taken lowest first', () => {
    const { host, mm } = large(1);
    runToEnd(host.reclaim(agent, 1));
    const page = victim(mm);
    const in2M = Math.floor(page / 512) * 512;
    const first2M = in2M === GIG ? GIG + 512 : GIG;
    // The tail is now the lowest other 2M piece; a page of it goes next.
    runToEnd(host.reclaim(agent, 1));
    expect(mm.leafPages(first2M)).toBeLessThan(512);
    expect(host.counters.folioSplits).toEqual({ '1G->2M': 1, '2M->4K': 2 });
    expect(mm.swappedBytes).toBe(2 * 4096);
  });

  it('does not split when there is no swap to write to', () => {
    const host = new HostMemory({ frames: GIG, swapSlots: 0 });
    const mm = host.createAddressSpace('vmm');
    mm.mmap({ startPage: 0, pages: GIG, backing: 'pud-thp' });
    runToEnd(mm.populate(agent, 0, GIG));
    expect(runToEnd(host.reclaim(agent, 1))).toBe(0);
    expect(runToEnd(mm.pageOut(agent, 7))).toBe(false);
    expect(mm.leafPages(7)).toBe(GIG);
  });

  it('MADV_DONTNEED splits at its edges only, and the hole is filled with the largest folios that fit', () => {
    const { host, mm } = large(1);
    runToEnd(mm.cpuAccess(agent, GIG + 511, write(5)));
    runToEnd(mm.madviseDontNeed(agent, GIG + 512, 1024));
    expect(host.counters.folioSplits).toEqual({ '1G->2M': 1, '2M->4K': 0 });
    expect([mm.leafPages(GIG), mm.leafPages(GIG + 512), mm.leafPages(GIG + 1536)]).toEqual([512, 0, 512]);
    expect(host.allocator.freeFrames).toBe(1024);
    runToEnd(mm.cpuAccess(agent, GIG + 600, write(6)));
    expect(mm.leafPages(GIG + 600)).toBe(512);
    runToEnd(mm.madviseDontNeed(agent, GIG + 510, 4));
    expect(host.counters.folioSplits).toEqual({ '1G->2M': 1, '2M->4K': 2 });
    expect([mm.lookup(GIG + 509) >= 0, mm.lookup(GIG + 510), mm.lookup(GIG + 513)]).toEqual([true, -1, -1]);
    expect(mm.cpuRead(GIG + 511).tagLo).toBe(0);
    expect(mm.cpuRead(GIG + 600).tagLo).toBe(6);
    expect(host.audit()).toEqual([]);
  });
});

describe('MADV_DONTNEED against faults', () => {
  it('splits a large leaf that a fault has put around the place it has reached', () => {
    const host = new HostMemory({ frames: 4096, swapSlots: 8 });
    const mm = host.createAddressSpace('vmm');
    mm.mmap({ startPage: 0, pages: 1024, backing: 'thp-2M' });
    runToEnd(mm.populate(agent, 0, 1024));
    runToEnd(mm.madviseDontNeed(agent, 0, 512));
    // Only page 700 of the second 2M block is left, in a table of its own.
    runToEnd(mm.madviseDontNeed(agent, 512, 188));
    runToEnd(mm.madviseDontNeed(agent, 701, 323));
    const zapper = new Agent('zapper');
    const run = new TaskRun(zapper, mm.madviseDontNeed(zapper, 0, 1024));
    runUntil(run, 'zap entries');
    runToEnd(mm.madviseDontNeed(agent, 700, 1));
    runToEnd(mm.cpuAccess(agent, 800, write(1)));
    expect(mm.leafPages(512)).toBe(512);
    finish(run);
    // What was installed behind it stays; what lies ahead is gone.
    expect([mm.lookup(699) >= 0, mm.lookup(700), mm.lookup(800)]).toEqual([true, -1, -1]);
    expect(host.audit()).toEqual([]);
  });
});

describe('what a split passes on', () => {
  it('a young 2M folio has young pieces, and a pin that comes before the split prevents it', () => {
    const host = new HostMemory({ frames: 1024, swapSlots: 8, splitNotify: 'clear' });
    const mm = host.createAddressSpace('vmm');
    mm.mmap({ startPage: 0, pages: 512, backing: 'thp-2M' });
    runToEnd(mm.populate(agent, 0, 512));
    const reclaimer = new Agent('reclaimer');
    const run = new TaskRun(reclaimer, mm.pageOut(reclaimer, 5));
    runUntil(run, 'split large leaf');
    runToEnd(mm.pin(agent, 9, 1));
    expect(finish(run)).toBe(false);
    expect(mm.leafPages(5)).toBe(512);
    runToEnd(mm.unpin(agent, 9, 1));
    runToEnd(mm.madviseDontNeed(agent, 0, 1));
    // Every one of the 511 pieces has its second chance before the first goes.
    const scanned = host.counters.reclaimScanned;
    expect(runToEnd(host.reclaim(agent, 1))).toBe(1);
    expect(host.counters.reclaimScanned - scanned).toBe(511 + 1);
    expect(mm.isSwapped(1)).toBe(true);
  });
});

describe('the swap cache window', () => {
  it('a fault during the write maps the same frame back, with no I/O, and reclaim keeps it', () => {
    const { host, mm } = small();
    runToEnd(mm.cpuAccess(agent, 3, write(7)));
    const pfn = mm.lookup(3);
    const reclaimer = new Agent('reclaimer');
    const run = new TaskRun(reclaimer, mm.pageOut(reclaimer, 3));
    runUntil(run, 'write page to swap');
    expect(mm.lookup(3)).toBe(-1);
    expect(mm.cpuRead(3).tagLo).toBe(7);
    expect(runToEnd(mm.cpuAccess(agent, 3, write(8)))).toBe(0);
    expect(mm.lookup(3)).toBe(pfn);
    expect(finish(run)).toBe(false);
    expect(mm.cpuRead(3).tagLo).toBe(8);
    expect(host.counters).toMatchObject({ swapCacheHits: 1, swapOut: 0, swapIn: 0, majorFaults: 0 });
    expect(host.swap.usedSlots).toBe(0);
    expect(host.audit()).toEqual([]);
  });

  it('a fault while the page is being unmapped waits for the page lock only', () => {
    const { mm } = small();
    runToEnd(mm.cpuAccess(agent, 3, write(7)));
    const reclaimer = new Agent('reclaimer');
    const run = new TaskRun(reclaimer, mm.pageOut(reclaimer, 3));
    runUntil(run, 'notifier: range ends');
    const cpu = new Agent('cpu');
    const fault = new TaskRun(cpu, mm.cpuAccess(cpu, 3, write(8)));
    while (fault.enabled && !fault.done) fault.advance();
    expect(fault.pending?.label).toBe('lock page');
    run.advance();
    expect(finish(fault)).toBe(0);
    expect(finish(run)).toBe(false);
    expect(mm.cpuRead(3).tagLo).toBe(8);
  });

  it('a page dropped during the write leaves neither frame nor slot', () => {
    const { host, mm } = small();
    runToEnd(mm.cpuAccess(agent, 3, write(7)));
    const reclaimer = new Agent('reclaimer');
    const run = new TaskRun(reclaimer, mm.pageOut(reclaimer, 3));
    runUntil(run, 'write page to swap');
    runToEnd(mm.madviseDontNeed(agent, 3, 1));
    expect(mm.swappedBytes).toBe(0);
    finish(run);
    expect([host.allocator.allocatedFrames, host.swap.usedSlots]).toEqual([0, 0]);
    expect(host.audit()).toEqual([]);
  });

  it('after the write the page comes back from the slot: major, another frame, same content', () => {
    const { host, mm } = small();
    runToEnd(mm.cpuAccess(agent, 3, write(7)));
    host.memory.storeWord(mm.lookup(3), 17, 99n);
    const { tagLo } = mm.cpuRead(3);
    expect(runToEnd(mm.pageOut(agent, 3))).toBe(true);
    expect(host.allocator.allocatedFrames).toBe(0);
    expect(mm.cpuRead(3).words?.[17]).toBe(99n);
    expect(runToEnd(mm.cpuAccess(agent, 3, { ...write(0), write: false }))).toBe(VmFault.MAJOR);
    expect(mm.cpuRead(3).tagLo).toBe(tagLo);
    expect(host.memory.loadWord(mm.lookup(3), 17)).toBe(99n);
    expect(host.counters).toMatchObject({ swapOut: 1, swapIn: 1, majorFaults: 1, minorFaults: 1 });
    expect(host.swap.usedSlots).toBe(0);
  });

  it('a pin that comes before the entry changes wins', () => {
    const { host, mm } = small();
    runToEnd(mm.cpuAccess(agent, 3, write(7)));
    const reclaimer = new Agent('reclaimer');
    const run = new TaskRun<unknown>(reclaimer, host.reclaim(reclaimer, 1) as Task<unknown>);
    runUntil(run, 'entry becomes a swap entry');
    runToEnd(mm.pin(agent, 3, 1));
    const pfn = mm.lookup(3);
    expect(finish(run)).toBe(0);
    expect(mm.lookup(3)).toBe(pfn);
    runToEnd(mm.unpin(agent, 3, 1));
    expect(host.audit()).toEqual([]);
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
    const { host, mm } = small({ frames: 4, swapSlots: 8 });
    expect(() => runToEnd(mm.pin(agent, 0, 5))).toThrow(expect.objectContaining({ code: 'ENOMEM', page: 4 }));
    expect([mm.pinnedBytes, mm.accountedPinBytes]).toEqual([0, 0]);
    expect(() => runToEnd(mm.pin(agent, 63, 2))).toThrow(expect.objectContaining({ code: 'EFAULT', page: 64 }));
    expect(mm.pinnedBytes).toBe(0);
    expect(host.audit()).toEqual([]);
  });

  it('falls back to smaller folios when no large one is free', () => {
    const host = new HostMemory({ frames: 512 + 40, swapSlots: 10 });
    const mm = host.createAddressSpace('vmm');
    mm.mmap({ startPage: 0, pages: 1024, backing: 'thp-2M' });
    runToEnd(mm.populate(agent, 0, 512));
    expect(mm.leafPages(0)).toBe(512);
    expect(runToEnd(mm.cpuAccess(agent, 600, write(1)))).toBe(0);
    expect(mm.leafPages(600)).toBe(1);
    expect(() => runToEnd(mm.populate(agent, 512, 512))).toThrow(/ENOMEM/);
    expect(host.swap.freeSlots).toBe(0);
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
    expect(fault.pending?.label).toBe('wait for reclaim in progress');
    expect(finish(run)).toBe(true);
    expect(finish(fault)).toBe(0);
    expect([mm.cpuRead(0).tagLo, mm.cpuRead(1).tagLo]).toEqual([1, 2]);
    expect(host.audit()).toEqual([]);
  });
});
