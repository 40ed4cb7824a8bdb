import { Agent, runToEnd } from '@faultline/sim';
import { describe, expect, it } from 'vitest';
import { type AddressSpace, HostMemory, type MmuNotifier, VmFault } from '../src/index.ts';

const agent = new Agent('agent');
const write = (tagLo: number) => ({ write: true, tagLo, tagHi: ~tagLo });
const resident = (mm: AddressSpace, from: number, to: number): number => {
  let pages = 0;
  for (let page = from; page < to; page++) if (mm.lookup(page) >= 0) pages++;
  return pages;
};

describe('a memory cgroup', () => {
  const two = (swapSlots = 1024) => {
    const host = new HostMemory({ frames: 1024, swapSlots });
    const limited = host.createMemoryCgroup({ name: 'limited', max: 64 * 4096 });
    const free = host.createMemoryCgroup({ name: 'free' });
    const [a, b] = [limited, free].map((memcg) => host.createAddressSpace(memcg.name, memcg));
    for (const mm of [a!, b!]) mm.mmap({ startPage: 0, pages: 512, backing: '4K' });
    return { host, limited, free, a: a!, b: b! };
  };

  it('over its limit reclaims from itself alone', () => {
    const { host, limited, free, a, b } = two();
    for (let page = 0; page < 200; page++) runToEnd(b.cpuAccess(agent, page, write(page + 1)));
    for (let page = 0; page < 200; page++) {
      expect(runToEnd(a.cpuAccess(agent, page, write(page + 1)))).toBe(0);
      expect(limited.usedPages).toBeLessThanOrEqual(64);
    }
    expect([b.swappedBytes, free.usedPages, limited.swappedPages]).toEqual([0, 200, a.swappedBytes / 4096]);
    expect(a.swappedBytes).toBeGreaterThanOrEqual((200 - 64) * 4096);
    expect(limited.events.max).toBeGreaterThan(0);
    expect([limited.events.oom, free.events.max]).toEqual([0, 0]);
    for (let page = 0; page < 200; page++) expect(a.cpuRead(page).tagLo).toBe(page + 1);
    expect(host.audit()).toEqual([]);
  });

  it('without swap is OOM at its limit', () => {
    const { host, limited, a } = two(0);
    for (let page = 0; page < 64; page++) expect(runToEnd(a.cpuAccess(agent, page, write(1)))).toBe(0);
    expect(runToEnd(a.cpuAccess(agent, 64, write(1)))).toBe(VmFault.OOM);
    expect([limited.usedPages, limited.events.oom]).toEqual([64, 1]);
    expect(host.audit()).toEqual([]);
  });

  it('whose limit is lowered gives back what is above, if it can', () => {
    const { host, limited, a } = two(30);
    for (let page = 0; page < 60; page++) runToEnd(a.cpuAccess(agent, page, write(page + 1)));
    expect(runToEnd(host.setMemoryMax(agent, limited, 40 * 4096))).toBe(true);
    expect(limited.usedPages).toBeLessThanOrEqual(40);
    expect(runToEnd(host.setMemoryMax(agent, limited, 10 * 4096))).toBe(false);
    expect([limited.usedPages, host.swap.freeSlots, limited.events.oom]).toEqual([30, 0, 1]);
    for (let page = 0; page < 60; page++) expect(a.cpuRead(page).tagLo).toBe(page + 1);
    expect(() => limited.setMax(-1)).toThrow(/max: -1/);
    expect(host.audit()).toEqual([]);
  });

  it('smaller than the run of a contiguous backing gets single folios', () => {
    const host = new HostMemory({ frames: 4096, swapSlots: 64 });
    const memcg = host.createMemoryCgroup({ name: 'small', max: 100 * 4096 });
    const mm = host.createAddressSpace('vmm', memcg);
    mm.mmap({ startPage: 0, pages: 1024, backing: 'contiguous' });
    expect(runToEnd(mm.cpuAccess(agent, 3, write(1)))).toBe(0);
    expect([mm.leafPages(3), memcg.usedPages]).toEqual([1, 1]);
  });

  it('a contiguous mapping that was cut has leaves of 4K where 2M do not fit', () => {
    const host = new HostMemory({ frames: 4096, swapSlots: 64 });
    const mm = host.createAddressSpace('vmm');
    mm.mmap({ startPage: 0, pages: 1024, backing: 'contiguous' });
    runToEnd(mm.munmap(agent, 64, 4));
    for (const page of [3, 70, 600]) expect(runToEnd(mm.cpuAccess(agent, page, write(page)))).toBe(0);
    expect([mm.leafPages(3), mm.leafPages(70), mm.leafPages(600)]).toEqual([1, 1, 512]);
    expect(host.audit()).toEqual([]);
  });
});

/** A secondary MMU that maps the first pages; with accessed bits, or without. */
class Mapper implements MmuNotifier {
  young = new Set<number>();
  constructor(mm: AddressSpace) {
    mm.registerNotifier(this);
  }
  *invalidateRangeStart() {}
  clearYoung = (_agent: Agent, startPage: number, pages: number): boolean => {
    let found = false;
    for (let page = startPage; page < startPage + pages; page++) found = this.young.delete(page) || found;
    return found;
  };
  // biome-ignore lint/correctness/useYield: it answers at once.
  *clearFlushYoung(by: Agent, startPage: number, pages: number) {
    return this.clearYoung(by, startPage, pages);
  }
}

describe.each(['mglru', 'classic'] as const)('%s', (lru) => {
  const machine = () => {
    const host = new HostMemory({ frames: 512, swapSlots: 1024, lru, pageCluster: 0 });
    const mm = host.createAddressSpace('vmm');
    mm.mmap({ startPage: 0, pages: 256, backing: '4K' });
    for (let page = 0; page < 256; page++) runToEnd(mm.cpuAccess(agent, page, write(page + 1)));
    return { host, mm };
  };

  it('keeps what is accessed longer than what is not', () => {
    const { host, mm } = machine();
    for (let round = 0; round < 4; round++) {
      for (let page = 100; page < 140; page++) mm.markYoung(page);
      runToEnd(host.reclaim(agent, 32));
    }
    expect(resident(mm, 100, 140)).toBe(40);
    expect(resident(mm, 0, 256)).toBeLessThanOrEqual(256 - 4 * 32);
    for (let page = 0; page < 256; page++) expect(mm.cpuRead(page).tagLo).toBe(page + 1);
    expect(host.audit()).toEqual([]);
  });

  it('begins no further run once a signal waits for who asked (EINTR)', () => {
    const { host, mm } = machine();
    let asked = 0;
    const freed = runToEnd(host.reclaim(agent, 200, null, () => asked++ > 0));
    expect([asked, resident(mm, 0, 256)]).toEqual([2, 256 - freed]);
    expect(freed).toBeGreaterThan(0);
    expect(freed).toBeLessThan(200);
    expect(runToEnd(host.reclaim(agent, 200, null, () => true))).toBe(0);
    expect(runToEnd(host.reclaim(agent, 100))).toBeGreaterThanOrEqual(100);
  });

  it.each([true, false])(
    'knows what a secondary MMU accesses if that has accessed bits (%s); without, it looks cold',
    (hasBits) => {
      const { host, mm } = machine();
      const mapper = hasBits ? new Mapper(mm) : null;
      for (let round = 0; round < 4; round++) {
        for (let page = 100; page < 140; page++) mapper?.young.add(page);
        runToEnd(host.reclaim(agent, 32));
      }
      if (hasBits) expect(resident(mm, 100, 140)).toBe(40);
      else expect(resident(mm, 100, 140)).toBeLessThan(20);
      expect(host.audit()).toEqual([]);
    },
  );
});
