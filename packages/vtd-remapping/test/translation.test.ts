import { Agent, runToEnd, TaskRun } from '@faultline/sim';
import {
  encodeLeaf,
  encodeTable,
  FaultReason,
  SS_READ,
  SS_WRITE,
  TranslationType,
  writeContext,
} from '@faultline/vtd-pagetable';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CompletionStatus, MISS, type VtdDomain, VtdDriver } from '../src/index.ts';
import { iotlbDescriptor, RecordingEndpoint, requestFor, UnitSetup } from './unit-setup.ts';

const SOURCE = 0x18;
const device = new Agent('device');

/** Legacy mode with every width of table. */
const legacySetup = (): UnitSetup => new UnitSetup({ capabilities: { levels: [3, 4, 5] } }, { mode: 'legacy' });

function attached(levels: 3 | 4 | 5 = 4): { setup: UnitSetup; domain: VtdDomain } {
  const setup = legacySetup();
  const domain = setup.domain({ levels });
  domain.attach(SOURCE, null);
  return { setup, domain };
}

const map = (setup: UnitSetup, domain: VtdDomain, page: number, frame: number, pages: number, write = true) =>
  setup.run((agent) => domain.map(agent, { page, frame, pages, write }));

/** Changes a context entry by hand: which quadword, and the bits to turn. */
function flipContext(setup: UnitSetup, high: 0 | 1, bits: bigint): void {
  const { memory, rootPfn } = setup.driver;
  const table = Number(memory.load(rootPfn, 0) >> 12n);
  memory.store(table, SOURCE * 2 + high, memory.load(table, SOURCE * 2 + high) ^ bits);
}

describe('translation', () => {
  it('refuses an access that no DMA makes, and records nothing', () => {
    const { setup, domain } = attached();
    map(setup, domain, 0x10, 0x500, 1);
    for (const access of [-1, 4, 0.5])
      expect(() => runToEnd(setup.unit.translateMiss(device, { ...requestFor(SOURCE, 0x10, false), access }))).toThrow(
        `access: ${access} is not one of 0, 1, 2, 3`,
      );
    expect(setup.unit.faults.takeAll()).toEqual([]);
  });

  it('gives what the table maps, for any maps and both kinds of access, hit or miss', () => {
    const run = fc.record({
      // On both sides of FEEx_xxxxh, where a request is no DMA.
      page: fc.oneof(fc.nat(0xe_ffff), fc.integer({ min: 0x10_0000, max: 0x18_0000 })),
      order: fc.constantFrom(0, 0, 3, 9, 10, 18),
      frame: fc.integer({ min: 0x10_0000, max: 0x20_0000 }),
      write: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(run, { maxLength: 6 }), fc.constantFrom<3 | 4 | 5>(3, 4, 5), (runs, levels) => {
        const { setup, domain } = attached(levels);
        for (const { page, order, frame, write } of runs) {
          const size = 2 ** order;
          try {
            map(setup, domain, page - (page % size), frame - (frame % size), size, write);
          } catch {} // in the way of an earlier one: it stays as far as it got
        }
        for (const { page } of runs)
          for (const probe of [page, page + 1, Math.max(0, page - 1), page ^ 0x1ff])
            for (const write of [true, false, true]) {
              const leaf = domain.table.leafAt(probe);
              const allowed = leaf !== null && (leaf.rights & (write ? 2 : 1)) !== 0;
              const expected = allowed ? domain.table.frameAt(probe) : write ? -5 : -6;
              expect(setup.dma(SOURCE, probe, write)).toBe(expected);
            }
      }),
      { numRuns: 60 },
    );
  });

  it('walks once, then hits; a read-only entry does not answer a write', () => {
    const { setup, domain } = attached();
    map(setup, domain, 0x40000, 0x80000, 512, false);
    expect(setup.unit.translate(SOURCE, 0, 0x4000_0000, 0)).toBe(MISS);
    expect(setup.dma(SOURCE, 0x40000)).toBe(0x80000);
    const reads = setup.unit.walkReads;
    expect(setup.dma(SOURCE, 0x401ff)).toBe(0x801ff);
    expect(setup.unit.walkReads).toBe(reads);
    expect(setup.dma(SOURCE, 0x40000, true)).toBe(-FaultReason.writeNotAllowed);
    expect(setup.unit.walkReads).toBeGreaterThan(reads);
  });

  it('goes on from the paging-structure caches', () => {
    const { setup, domain } = attached();
    map(setup, domain, 1, 0x80001, 1);
    map(setup, domain, 2, 0x90002, 1);
    setup.dma(SOURCE, 1);
    const reads = setup.unit.walkReads;
    expect(setup.dma(SOURCE, 2)).toBe(0x90002);
    expect([setup.unit.walkReads - reads, setup.unit.pagingCacheHits]).toEqual([1, 1]);
  });

  it('passes through with TT=2 and caches nothing but the context', () => {
    const setup = legacySetup();
    const context = { faultProcessingDisabled: false, tablePfn: 1, addressWidth: 2, domainId: 9 };
    writeContext(setup.memory, setup.driver.rootPfn, SOURCE, {
      ...context,
      translationType: TranslationType.passThrough,
    });
    expect(setup.dma(SOURCE, 0x12345678, true)).toBe(0x12345678);
    expect([setup.unit.iotlb.size, setup.unit.contextCache.size]).toEqual([0, 1]);
  });

  it('needs a page for its root table', () => {
    const { setup } = attached();
    while (setup.memory.allocate() >= 0);
    expect(() => new VtdDriver({ unit: setup.unit })).toThrow('memory: no page for the root table');
  });
});

describe('fault reasons, as QEMU gives them', () => {
  const fault = (setup: UnitSetup, page: number, write = false) => {
    const reason = -setup.dma(SOURCE, page, write);
    expect(setup.unit.faults.takeAll()).toEqual([{ sourceId: SOURCE, page, reason, write }]);
    return reason;
  };

  it('1, 2: root or context entry not present', () => {
    const setup = legacySetup();
    expect(fault(setup, 1)).toBe(1);
    setup.domain().attach(SOURCE + 1, null);
    expect(fault(setup, 1)).toBe(2);
  });

  it('3: AW that the unit lacks, TT=3, top table outside memory', () => {
    for (const [high, bits] of [
      [1, 0x2n], // AW 0
      [1, 0x5n], // AW 7
      [1, 0x1n], // AW 3: 5 levels, of which this unit has none
      [0, 0xcn], // TT 3
      [0, 1n << 40n], // SSPTPTR outside memory
    ] as const) {
      const setup = new UnitSetup({ capabilities: { levels: [3, 4] } }, { mode: 'legacy' });
      setup.domain().attach(SOURCE, null);
      flipContext(setup, high, bits);
      expect(fault(setup, 1)).toBe(3);
    }
  });

  it('4: beyond the width of the domain', () => {
    for (const [levels, bits] of [
      [3, 39],
      [4, 48],
      [5, 57],
    ] as const) {
      const { setup, domain } = attached(levels);
      map(setup, domain, 2 ** (bits - 12) - 1, 0x80000, 1);
      expect(setup.dma(SOURCE, 2 ** (bits - 12) - 1)).toBe(0x80000);
      expect(fault(setup, 2 ** (bits - 12))).toBe(4);
    }
  });

  it('5, 6: not present, or without the right at any level', () => {
    const { setup, domain } = attached();
    expect(fault(setup, 7, true)).toBe(5);
    expect(fault(setup, 7)).toBe(6);
    map(setup, domain, 1, 0x80001, 1, true);
    const root = domain.table.rootPfn;
    const entry = setup.memory.load(root, 0);
    setup.memory.store(root, 0, entry & ~SS_WRITE);
    expect(fault(setup, 1, true)).toBe(5);
    setup.memory.store(root, 0, entry & ~SS_READ);
    expect(fault(setup, 1)).toBe(6);
    expect(setup.dma(SOURCE, 1, true)).toBe(0x80001);
  });

  it('7: a table pointer in the middle outside memory; 9: a context-table pointer', () => {
    const { setup, domain } = attached();
    setup.memory.store(domain.table.rootPfn, 0, encodeTable(0x7000_0000));
    expect(fault(setup, 1)).toBe(7);
    setup.memory.store(setup.driver.rootPfn, 1 * 2, (0x7000_0000n << 12n) | 1n);
    expect(setup.dma(0x118, 1)).toBe(-9);
  });

  it('10, 11: reserved bits in root and context entry', () => {
    for (const [index, bits] of [
      [0, 2n],
      [1, 1n],
    ] as const) {
      const { setup } = attached();
      const { memory, rootPfn } = setup.driver;
      memory.store(rootPfn, index, memory.load(rootPfn, index) | bits);
      expect(fault(setup, 1)).toBe(10);
    }
    for (const [high, bits] of [
      [0, 1n << 4n],
      [1, 1n << 7n],
      [1, 1n << 24n],
    ] as const) {
      const { setup } = attached();
      flipContext(setup, high, bits);
      expect(fault(setup, 1)).toBe(11);
    }
  });

  it('12: reserved bits in paging entries; other junk is ignored', () => {
    const { setup, domain } = attached();
    map(setup, domain, 0, 0x80000, 1);
    const leaf = (value: bigint): void => {
      let table = domain.table.rootPfn;
      for (let level = 4; level > 1; level--) table = Number(setup.memory.load(table, 0) >> 12n);
      setup.memory.store(table, 0, value);
      setup.submit(iotlbDescriptor(1));
    };
    const sound = encodeLeaf(1, 0x80000, 3);
    for (const bit of [11n, 62n, 46n, 51n]) {
      leaf(sound | (1n << bit));
      expect(fault(setup, 0)).toBe(12);
    }
    for (const bit of [2n, 6n, 7n, 8n, 9n, 10n, 52n, 61n, 63n]) {
      leaf(sound | (1n << bit));
      expect(setup.dma(SOURCE, 0)).toBe(0x80000);
    }
    leaf(0x8000_0000n | (1n << 62n)); // R=W=0 with junk is just not present
    expect(fault(setup, 0)).toBe(6);
    const root = domain.table.rootPfn;
    setup.memory.store(root, 0, setup.memory.load(root, 0) | 0x80n); // PS in an SS-PML4E
    setup.submit(iotlbDescriptor(1));
    expect(fault(setup, 0)).toBe(12);
  });

  it('13: a translation request with TT=0 is blocked and recorded; a page that is not there is not', () => {
    const { setup, domain } = attached();
    map(setup, domain, 1, 0x80001, 1);
    const { unsupportedRequest, success } = CompletionStatus;
    const reason = FaultReason.translationTypeBlocked;
    expect(setup.ats(SOURCE, 1)).toMatchObject({ status: unsupportedRequest, frame: -1, reason });
    expect(setup.unit.faults.takeAll()).toEqual([{ sourceId: SOURCE, page: 1, reason, write: false, addressType: 1 }]);
    domain.attach(SOURCE + 8, new RecordingEndpoint());
    expect(setup.ats(SOURCE + 8, 1)).toMatchObject({ status: success, frame: 0x80001, rights: 1, level: 1 });
    expect(setup.ats(SOURCE + 8, 1, true)).toMatchObject({ status: success, frame: 0x80001, rights: 3 });
    expect(setup.ats(SOURCE + 8, 2)).toMatchObject({ status: success, frame: -1, rights: 0, reason: 6 });
    expect(setup.unit.faults.takeAll()).toEqual([]);
  });

  it('FPD keeps faults from being recorded, those of an absent or invalid context entry too', () => {
    const { setup } = attached();
    flipContext(setup, 0, 2n);
    expect(setup.dma(SOURCE, 1)).toBe(-6);
    setup.unit.contextCache.invalidateGlobal();
    flipContext(setup, 0, 1n); // P=0
    expect(setup.dma(SOURCE, 1)).toBe(-2);
    flipContext(setup, 0, 1n | 0xcn); // TT=3
    expect(setup.dma(SOURCE, 1)).toBe(-3);
    expect(setup.unit.faults.status & 0xff).toBe(0);
    flipContext(setup, 0, 1n << 4n);
    expect(setup.dma(SOURCE, 1)).toBe(-11);
    expect(setup.unit.faults.takeAll()).toEqual([]);
  });

  it('FPD did not concern a reserved bit in a context entry before Rev 5.10, and does not in QEMU', () => {
    const setup = new UnitSetup({ capabilities: { levels: [4], specRevision: '3.x' } }, { mode: 'legacy' });
    setup.domain().attach(SOURCE, null);
    flipContext(setup, 0, 2n | (1n << 4n));
    expect(setup.dma(SOURCE, 1)).toBe(-11);
    expect(setup.unit.faults.takeAll()).toHaveLength(1);
  });
});

describe('a walk that an invalidation overtakes', () => {
  it('fills nothing from before, at whichever of its steps the invalidation comes', () => {
    for (let before = 1; ; before++) {
      const { setup, domain } = attached();
      map(setup, domain, 1, 0x80001, 1);
      const walk = new TaskRun(device, setup.unit.translateMiss(device, requestFor(SOURCE, 1, false)));
      for (let steps = 0; steps < before && !walk.done; steps++) walk.advance();
      if (walk.done) {
        expect(before).toBeGreaterThan(6);
        return;
      }
      // The driver unmaps and invalidates between two steps of the walk.
      const gather = domain.gather();
      domain.table.unmap(1, 1, gather);
      setup.run((agent) => domain.flush(agent, gather));
      while (!walk.done) walk.advance();
      expect(walk.value).toBe(-6);
      expect(setup.unit.iotlb.size).toBe(0);
      expect([...setup.unit.pagingCache.entries()].every((entry) => setup.memory.isAllocated(entry.tablePfn))).toBe(
        true,
      );
      expect(setup.dma(SOURCE, 1)).toBe(-6);
    }
  });

  it('a context entry that changes under the walk is read again', () => {
    const { setup, domain } = attached();
    const other = setup.domain({ domainId: 2 });
    map(setup, domain, 1, 0x80001, 1);
    map(setup, other, 1, 0x90001, 1);
    const walk = new TaskRun(device, setup.unit.translateMiss(device, requestFor(SOURCE, 1, false)));
    while (walk.pending?.label !== 'read SS-PTE') walk.advance();
    setup.run((agent) => domain.detach(agent, SOURCE));
    other.attach(SOURCE, null);
    while (!walk.done) walk.advance();
    expect(walk.value).toBe(0x90001);
  });

  it('its walker registers go back when it is given up', () => {
    const { setup, domain } = attached();
    map(setup, domain, 1, 0x80001, 1);
    const walk = new TaskRun(device, setup.unit.translateMiss(device, requestFor(SOURCE, 1, false)));
    walk.advance();
    walk.cancel();
    expect(runToEnd(setup.unit.translateMiss(device, requestFor(SOURCE, 1, false)))).toBe(0x80001);
  });
});
