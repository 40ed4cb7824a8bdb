import { Agent, TaskRun } from '@faultline/sim';
import type { InvalidationGather } from '@faultline/vtd-pagetable';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CompletionStatus, coverLog2, type Descriptor, Granularity, type VtdDomain } from '../src/index.ts';
import { iotlbDescriptor, RecordingEndpoint, UnitSetup } from './unit-setup.ts';

const SOURCE = 0x18;
const WITH_ATS = 0x20;

/** What an untranslated read of a page that is not there is answered. */
const NOT_PRESENT = { legacy: -6, scalable: -0x79 } as const;
type Mode = keyof typeof NOT_PRESENT;
const MODES: readonly Mode[] = ['legacy', 'scalable'];

function attached(mode: Mode = 'scalable'): {
  setup: UnitSetup;
  domain: VtdDomain;
  endpoint: RecordingEndpoint;
  freed: number[];
} {
  const setup = new UnitSetup({}, { mode });
  const freed: number[] = [];
  const domain = setup.domain({ onFreeTables: (tables) => freed.push(...tables) });
  const endpoint = new RecordingEndpoint();
  domain.attach(SOURCE, null);
  domain.attach(WITH_ATS, endpoint);
  return { setup, domain, endpoint, freed };
}

const map = (setup: UnitSetup, domain: VtdDomain, page: number, frame: number, pages: number) =>
  setup.run((agent) => domain.map(agent, { page, frame, pages, write: true }));

function flush(setup: UnitSetup, domain: VtdDomain, gather: InvalidationGather): Descriptor[] {
  setup.executed.length = 0;
  setup.run((agent) => domain.flush(agent, gather));
  return setup.executed;
}

describe.each(MODES)('invalidations in %s mode', (mode) => {
  const warm = () => {
    const both = attached(mode);
    const { setup, domain } = both;
    const other = setup.domain({ domainId: 2 });
    other.attach(0x28, null);
    map(setup, domain, 0, 0x80000, 16);
    map(setup, domain, 0x40000, 0x10_0000, 262144);
    map(setup, other, 0, 0x90000, 1);
    for (const page of [0, 5, 8, 0x40000]) setup.dma(SOURCE, page);
    setup.dma(0x28, 0);
    const cached = () => [...setup.unit.iotlb.entries()].map(({ did, iova }) => `${did}:${iova >> 12n}`).sort();
    expect(cached()).toEqual(['1:0', '1:262144', '1:5', '1:8', '2:0']);
    return { ...both, cached };
  };

  it('by page: exactly the aligned pages, of that domain; a large leaf only if covered whole', () => {
    const { setup, cached } = warm();
    setup.submit(iotlbDescriptor(Granularity.selective, { page: 7, addressMask: 2, leafOnly: true }));
    expect(cached()).toEqual(['1:0', '1:262144', '1:8', '2:0']);
    setup.submit(iotlbDescriptor(Granularity.selective, { page: 0x40123 }));
    expect(cached()).toContain('1:262144');
    setup.submit(iotlbDescriptor(Granularity.selective, { page: 0x40123, addressMask: 18 }));
    expect(cached()).toEqual(['1:0', '1:8', '2:0']);
  });

  it('by domain and global; IH keeps the paging-structure caches, the context cache needs its own', () => {
    const { setup, cached } = warm();
    const structures = setup.unit.pagingCache.size;
    setup.submit(iotlbDescriptor(Granularity.selective, { page: 0, addressMask: 9, leafOnly: true }));
    expect(setup.unit.pagingCache.size).toBe(structures);
    setup.submit(iotlbDescriptor(Granularity.selective, { page: 0, addressMask: 9 }));
    expect(setup.unit.pagingCache.size).toBeLessThan(structures);
    setup.submit(iotlbDescriptor(Granularity.domain));
    expect(cached()).toEqual(['2:0']);
    setup.submit(iotlbDescriptor(Granularity.global));
    const contexts = mode === 'legacy' ? setup.unit.contextCache : setup.unit.scalableContextCache;
    expect([cached(), setup.unit.pagingCache.size, contexts.size]).toEqual([[], 0, 2]);
    expect(setup.unit.pasidCache.size).toBe(mode === 'legacy' ? 0 : 2);
  });

  it('of the context cache: by device, by domain, global; a DID counts in legacy mode only', () => {
    const { setup } = warm();
    const { unit } = setup;
    const cache = mode === 'legacy' ? unit.contextCache : unit.scalableContextCache;
    const context = (granularity: 1 | 2 | 3, domainId: number, sourceId: number): number => {
      setup.submit({ type: 'contextCache', granularity, domainId, sourceId, functionMask: 0 });
      return cache.size;
    };
    if (mode === 'legacy') {
      expect(context(3, 2, SOURCE)).toBe(2); // another domain's
      expect(context(3, 1, SOURCE)).toBe(1);
      expect(context(2, 1, 0)).toBe(1);
      expect(context(2, 2, 0)).toBe(0);
    } else {
      expect(context(3, 2, SOURCE)).toBe(1);
      expect(context(2, 9, 0)).toBe(0);
    }
    setup.dma(SOURCE, 0x999); // a miss, so that the context is read
    expect([cache.size, context(1, 0, 0)]).toEqual([1, 0]);
    // To a device that is not there nothing happens; legacy mode has no page groups to answer.
    const answer = () => setup.submit({ type: 'pageGroupResponse', sourceId: 0x99, responseCode: 0, groupIndex: 0 });
    if (mode === 'legacy') expect(answer).toThrow('EINVAL');
    else answer();
  });
});

describe('invalidations of the PASID cache', () => {
  it('by PASID in its domain, by domain, global', () => {
    const { setup, domain } = attached();
    const other = setup.domain({ domainId: 2 });
    other.attach(0x28, null);
    map(setup, domain, 0, 0x80000, 1);
    const remaining = (granularity: 0 | 1 | 3, domainId: number, pasid: number): string[] => {
      for (const source of [SOURCE, 0x28]) setup.dma(source, 0x999);
      setup.submit({ type: 'pasidCache', granularity, domainId, pasid });
      return [...setup.unit.pasidCache.entries()].map((entry) => `${entry.sourceId}:${entry.pasid}`);
    };
    expect(remaining(1, 1, 5)).toEqual(['24:0', '40:0']);
    expect(remaining(1, 1, 0)).toEqual(['40:0']);
    expect(remaining(0, 2, 0)).toEqual(['24:0']);
    expect(remaining(3, 0, 0)).toEqual([]);
  });
});

describe('a flush', () => {
  it('covers any range by one aligned power of two, the smallest', () => {
    const page = fc.integer({ min: 0, max: 2 ** 40 });
    fc.assert(
      fc.property(page, page, (a, b) => {
        const [first, last] = a < b ? [a, b] : [b, a];
        const log2 = coverLog2(first, last);
        const block = (n: number, size: number) => Math.floor(n / 2 ** size);
        expect(block(first, log2)).toBe(block(last, log2));
        if (log2 > 0) expect(block(first, log2 - 1)).not.toBe(block(last, log2 - 1));
      }),
    );
  });

  it('is IOTLB first, then the device TLBs, with the same range, and a wait', () => {
    const { setup, domain, endpoint } = attached();
    endpoint.onInvalidate = () => expect(setup.unit.iotlb.size).toBe(0);
    map(setup, domain, 0x203, 0x80203, 3);
    setup.dma(SOURCE, 0x203);
    const gather = domain.gather();
    domain.table.unmap(0x203, 3, gather);
    const done = flush(setup, domain, gather);
    expect(done).toMatchObject([
      { type: 'iotlb', granularity: 3, domainId: 1, page: 0x200, addressMask: 3, leafOnly: true },
      { type: 'deviceTlb', sourceId: WITH_ATS, page: 0x200, sizeLog2: 3 },
    ]);
    expect(endpoint.invalidations).toEqual([{ page: 0x200, sizeLog2: 3 }]);
    expect(setup.unit.invalidationQueue.waits).toBe(1);
  });

  it('of nothing submits nothing', () => {
    const { setup, domain } = attached();
    expect(flush(setup, domain, domain.gather())).toEqual([]);
  });

  it('takes the whole domain when the range needs more than MAMV', () => {
    const { setup, domain } = attached();
    const gather = domain.gather();
    gather.add(0x3ffff, 2);
    expect(coverLog2(0x3ffff, 0x40000)).toBe(19);
    expect(flush(setup, domain, gather)).toMatchObject([
      { type: 'iotlb', granularity: 2 },
      { type: 'deviceTlb', page: 0, sizeLog2: 19 },
    ]);
    const whole = domain.gather();
    whole.add(0x40000, 262144);
    expect(flush(setup, domain, whole)[0]).toMatchObject({ granularity: 3, addressMask: 18 });
  });

  it('frees unlinked tables only after the wait, with IH=0', () => {
    const { setup, domain, freed } = attached();
    map(setup, domain, 0, 0x80000, 1);
    setup.dma(SOURCE, 0);
    const gather = domain.gather();
    setup.run((driver) =>
      domain.unmap(driver, { page: 0, pages: 512, partialLeaf: 'linux-7.3', holes: 'skip' }, gather),
    );
    expect(gather.freedTables).toHaveLength(1);
    const [table = -1] = gather.freedTables;
    const agent = new Agent('driver');
    const run = new TaskRun(agent, domain.flush(agent, gather));
    setup.executed.length = 0;
    while (run.enabled && !run.done) run.advance();
    expect([run.pending?.waitFor?.name, setup.memory.isAllocated(table)]).toEqual(['invalidation wait', true]);
    setup.time.run();
    while (!run.done) run.advance();
    expect([freed, setup.memory.isAllocated(table)]).toEqual([[table], false]);
    expect(setup.executed[0]).toMatchObject({ leafOnly: false, page: 0, addressMask: 9 });
    expect([...setup.unit.pagingCache.entries()].map((entry) => entry.tablePfn)).not.toContain(table);
  });
});

describe('map', () => {
  it('of pages that were not present submits nothing', () => {
    const { setup, domain } = attached();
    expect(map(setup, domain, 0, 0x80000, 512)).toBe(512);
    expect(setup.executed).toEqual([]);
    expect([domain.frameAt(3), domain.frameAt(512)]).toEqual([0x80003, -1]);
  });

  it('that replaces a vacant table flushes it, also when it throws afterwards', () => {
    const { setup, domain, freed } = attached();
    map(setup, domain, 3, 0x80003, 1);
    domain.table.unmap(3, 1, domain.gather()); // the empty table stays linked
    map(setup, domain, 512, 0x90000, 1); // in the way of the second half
    setup.executed.length = 0;
    expect(() => map(setup, domain, 0, 0x80000, 1024)).toThrow('EADDRINUSE');
    expect(setup.executed[0]).toMatchObject({ type: 'iotlb', page: 0, addressMask: 9, leafOnly: false });
    expect(freed).toHaveLength(1);
    expect(domain.frameAt(5)).toBe(0x80005);
  });

  it('says how much around a page is vacant', () => {
    const { setup, domain } = attached();
    expect(domain.vacantLevel(0)).toBe(4);
    map(setup, domain, 0, 0x80000, 1);
    expect([0, 1, 512, 262144, 2 ** 27].map((page) => domain.vacantLevel(page))).toEqual([0, 1, 2, 3, 4]);
  });

  it('cut and refill go through; the naive unmap needs the host’s memory', () => {
    const { setup, domain } = attached();
    map(setup, domain, 0, 0x80000, 512);
    const gather = domain.gather();
    expect(setup.run((agent) => domain.cut(agent, 7, 1, gather))).toMatchObject({ ok: true, installs: 1 });
    setup.run((agent) => domain.unmap(agent, { page: 7, pages: 1, partialLeaf: 'linux-7.3', holes: 'skip' }, gather));
    expect([gather.firstPage, gather.lastPage]).toEqual([0, 511]);
    setup.run((agent) => domain.refillReserve(agent));
    expect(domain.table.reserve.held).toBe(4);
    expect(() => domain.unmapWithoutSplit(new Agent('a'), 0, 1)).toThrow('needs `physical`');
  });
});

describe.each(MODES)('attach and detach in %s mode', (mode) => {
  it('give a function with a device TLB TT=1, and detach empties all its caches and tells the device', () => {
    const { setup, domain, endpoint } = attached(mode);
    map(setup, domain, 1, 0x80001, 1);
    expect([setup.ats(WITH_ATS, 1).frame, setup.dma(SOURCE, 1)]).toEqual([0x80001, 0x80001]);
    setup.run((agent) => domain.detach(agent, WITH_ATS));
    // In scalable mode the page requests are drained, which takes two invalidations more.
    const types = [
      'contextCache',
      ...(mode === 'legacy' ? [] : ['pasidCache', 'iotlb', 'deviceTlb']),
      'iotlb',
      'deviceTlb',
    ];
    expect(setup.executed.map((descriptor) => descriptor.type)).toEqual(types);
    expect(endpoint.invalidations).toEqual(Array(mode === 'legacy' ? 1 : 2).fill({ page: 0, sizeLog2: 52 }));
    const gone = { status: CompletionStatus.unsupportedRequest, reason: mode === 'legacy' ? 2 : 0x41 };
    expect(setup.ats(WITH_ATS, 1)).toMatchObject(gone);
    expect(setup.dma(SOURCE, 1)).toBe(0x80001);
    expect(() => setup.run((agent) => domain.detach(agent, WITH_ATS))).toThrow('device 0x20 is not attached');
    expect(() => domain.destroy()).toThrow('domain destroyed with a device attached');
    setup.run((agent) => domain.detach(agent, SOURCE));
    const used = setup.memory.used;
    domain.destroy();
    expect(setup.memory.used).toBeLessThan(used);
  });

  it('detach announces the context entry that it clears', () => {
    const { setup, domain } = attached(mode);
    const agent = new Agent('driver');
    const run = new TaskRun(agent, domain.detach(agent, SOURCE));
    run.advance();
    const { memory, rootPfn } = setup.unit;
    const table = Number(memory.load(rootPfn, 0) >> 12n);
    const slot = SOURCE * (mode === 'legacy' ? 2 : 4);
    expect([run.pending?.label, run.pending?.location]).toEqual(['clear context entry', memory.location(table, slot)]);
    expect(memory.load(table, slot) & 1n).toBe(1n);
  });

  it('two domains of one unit see nothing of each other', () => {
    const { setup, domain } = attached(mode);
    const other = setup.domain({ domainId: 2 });
    other.attach(0x28, null);
    map(setup, domain, 1, 0x80001, 1);
    expect([setup.dma(SOURCE, 1), setup.dma(0x28, 1)]).toEqual([0x80001, NOT_PRESENT[mode]]);
  });
});
