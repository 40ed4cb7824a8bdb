import { Agent, runToEnd, TaskRun } from '@faultline/sim';
import { describe, expect, it } from 'vitest';
import { HostMemory } from '../src/index.ts';

const agent = new Agent('agent');
const write = (tagLo: number) => ({ write: true, tagLo, tagHi: 0 });

describe('pins that the pinner keeps', () => {
  it('tell two pins of one range apart, and go back in parts', () => {
    const host = new HostMemory({ frames: 64, swapSlots: 8 });
    const mm = host.createAddressSpace('owner');
    mm.mmap({ startPage: 16, pages: 8, backing: '4K' });
    const old = runToEnd(mm.pinUserPages(agent, 16, 4, true));
    runToEnd(mm.madviseDontNeed(agent, 16, 4));
    const fresh = runToEnd(mm.pinUserPages(agent, 16, 4, true));
    expect(fresh.map(({ pfn }) => pfn)).toEqual([16, 17, 18, 19].map((page) => mm.lookup(page)));
    expect(old.some(({ pfn }) => fresh.some((run) => run.pfn === pfn))).toBe(false);
    expect([mm.accountedPinBytes, host.audit()]).toEqual([8 * 4096, []]);
    runToEnd(mm.unpinUserPages(agent, fresh.slice(1, 3)));
    expect([17, 16].map((page) => runToEnd(mm.pageOut(agent, page)))).toEqual([true, false]);
    runToEnd(mm.unpinUserPages(agent, old)); // nobody maps them any more: freed
    expect([mm.accountedPinBytes, mm.pinnedBytes, host.audit()]).toEqual([2 * 4096, 2 * 4096, []]);
    runToEnd(mm.exit(agent));
    runToEnd(mm.unpinUserPages(agent, [fresh[0]!, fresh[3]!]));
    expect([host.allocator.allocatedFrames, host.audit()]).toEqual([0, []]);
  });

  it('of a large folio go back page by page', () => {
    const host = new HostMemory({ frames: 512, swapSlots: 512 });
    const mm = host.createAddressSpace('owner');
    mm.mmap({ startPage: 512, pages: 512, backing: 'thp-2M' });
    const [run] = runToEnd(mm.pinUserPages(agent, 512, 512, true));
    expect([run!.pages, mm.pinnedBytes]).toEqual([512, 2 ** 21]);
    for (let page = 0; page < 512; page++) {
      expect(mm.pinnedBytes).toBe(2 ** 21);
      runToEnd(mm.unpinUserPages(agent, [{ startPage: 512 + page, pages: 1, pfn: run!.pfn + page }]));
    }
    expect([mm.pinnedBytes, mm.accountedPinBytes, host.audit()]).toEqual([0, 0, []]);
  });

  it('that fail leave nothing pinned', () => {
    const host = new HostMemory({ frames: 64, swapSlots: 8 });
    const mm = host.createAddressSpace('owner');
    mm.mmap({ startPage: 16, pages: 4, backing: '4K' });
    expect(() => runToEnd(mm.pinUserPages(agent, 16, 8, true))).toThrow('EFAULT: pin: page 0x14');
    expect([mm.accountedPinBytes, mm.pinnedBytes, host.audit()]).toEqual([0, 0, []]);
  });
});

describe('pins of a memfd', () => {
  function machine() {
    const host = new HostMemory({ frames: 64, swapSlots: 64, pageCluster: 0 });
    const memfd = host.createMemfd('guest', 4);
    const mm = host.createAddressSpace('a');
    mm.mmap({ startPage: 16, pages: 4, backing: '4K', file: { memfd, offset: 0 } });
    return { host, memfd, mm };
  }

  it('hold its pages, mapped or not, new or from swap', () => {
    const { host, memfd, mm } = machine();
    runToEnd(mm.cpuAccess(agent, 17, write(5)));
    for (let round = 0; round < 2; round++) runToEnd(host.reclaim(agent, 1));
    expect(memfd.swappedBytes).toBe(4096);
    const runs = runToEnd(memfd.pinPages(agent, 0, 3));
    expect(runs.map(({ startPage, pages }) => [startPage, pages])).toEqual([
      [0, 1],
      [1, 1],
      [2, 1],
    ]);
    expect(host.memory.tagLo(runs[1]!.pfn)).toBe(5);
    runToEnd(mm.cpuAccess(agent, 17, { write: false, tagLo: 0, tagHi: 0 }));
    expect([mm.lookup(17), memfd.residentBytes, memfd.swappedBytes]).toEqual([runs[1]!.pfn, 3 * 4096, 0]);
    for (let round = 0; round < 4; round++) runToEnd(host.reclaim(agent, 3));
    expect([memfd.residentBytes, host.audit()]).toEqual([3 * 4096, []]);
    runToEnd(memfd.punchHole(agent, 1, 1));
    expect([host.memory.tagLo(runs[1]!.pfn), host.audit()]).toEqual([5, []]); // the pin keeps its frame
    runToEnd(memfd.unpinPages(agent, runs.slice(1)));
    expect(host.audit()).toEqual([]);
    runToEnd(memfd.unpinPages(agent, runs.slice(0, 1)));
    for (let round = 0; round < 4; round++) runToEnd(host.reclaim(agent, 3));
    expect([memfd.residentBytes, host.audit()]).toEqual([0, []]);
  });

  it('beyond its end are EINVAL, and without a frame ENOMEM, with nothing pinned', () => {
    const { host, memfd } = machine();
    expect(() => runToEnd(memfd.pinPages(agent, 3, 2))).toThrow('EINVAL: pin: page 0x4 is beyond the end of guest');
    const small = new HostMemory({ frames: 2, swapSlots: 0 });
    const file = small.createMemfd('small', 4);
    expect(() => runToEnd(file.pinPages(agent, 0, 4))).toThrow('ENOMEM: pin of small');
    expect([host.audit(), small.audit()]).toEqual([[], []]);
  });

  it('are of the page that the file has, also if a hole is punched at any step in between', () => {
    for (let before = 0; ; before++) {
      const { host, memfd, mm } = machine();
      runToEnd(mm.cpuAccess(agent, 16, write(5)));
      const pinner = new Agent('pinner');
      const pin = new TaskRun(pinner, memfd.pinPages(pinner, 0, 2));
      for (let steps = 0; steps < before && !pin.done; steps++) pin.advance();
      if (pin.done) {
        expect(before).toBeGreaterThan(3);
        return;
      }
      runToEnd(memfd.punchHole(agent, 0, 1));
      while (!pin.done) pin.advance();
      const runs = pin.value ?? [];
      expect([runs.length, host.audit()]).toEqual([2, []]);
      runToEnd(memfd.unpinPages(agent, runs));
      runToEnd(memfd.punchHole(agent, 0, 4));
      runToEnd(mm.exit(agent));
      expect([host.allocator.allocatedFrames, host.audit()]).toEqual([0, []]);
    }
  });
});
