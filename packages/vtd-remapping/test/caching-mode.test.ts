import { encodeTable, FaultReason } from '@faultline/vtd-pagetable';
import { describe, expect, it } from 'vitest';
import { Granularity, type VtdDomain } from '../src/index.ts';
import { iotlbDescriptor, RecordingEndpoint, UnitSetup } from './unit-setup.ts';

const SOURCE = 0x18;
const WITH_ATS = 0x20;

function attached(mode: 'legacy' | 'scalable', cachingMode: boolean): { setup: UnitSetup; domain: VtdDomain } {
  const setup = new UnitSetup({ capabilities: { cachingMode } }, { mode });
  const domain = setup.domain();
  domain.attach(SOURCE, null);
  return { setup, domain };
}

describe.each([
  ['legacy', FaultReason.writeNotAllowed, FaultReason.readNotAllowed, FaultReason.pagingReserved],
  [
    'scalable',
    FaultReason.secondStageNoPermission,
    FaultReason.secondStageNoPermission,
    FaultReason.secondStageReserved,
  ],
] as const)('caching mode (CAP.CM) in %s mode', (mode, absentWrite, absentRead, reserved) => {
  const mapped = { page: 5, frame: 0x80005, pages: 1, rights: { read: true, write: true } };

  it('keeps a page that is not there until an invalidation; without it the next request finds what was mapped', () => {
    for (const cachingMode of [true, false]) {
      const { setup, domain } = attached(mode, cachingMode);
      expect([setup.dma(SOURCE, 5, true), setup.dma(SOURCE, 5)]).toEqual([-absentWrite, -absentRead]);
      domain.attach(WITH_ATS, new RecordingEndpoint());
      expect(setup.unit.iotlb.size).toBe(cachingMode ? 1 : 0);
      expect(setup.ats(WITH_ATS, 5, true).rights).toBe(0);
      domain.table.map(mapped); // behind the driver's back
      expect(setup.dma(SOURCE, 5, true)).toBe(cachingMode ? -absentWrite : 0x80005);
      expect(setup.dma(SOURCE, 5)).toBe(cachingMode ? -absentRead : 0x80005);
      expect(setup.ats(WITH_ATS, 5, true).rights).toBe(cachingMode ? 0 : 3);
      setup.submit(iotlbDescriptor(Granularity.selective, { page: 5 }));
      expect([setup.dma(SOURCE, 5, true), setup.dma(SOURCE, 5)]).toEqual([0x80005, 0x80005]);
    }
  });

  it('keeps an erroneous entry, and answers it again with its reason', () => {
    for (const cachingMode of [true, false]) {
      const { setup, domain } = attached(mode, cachingMode);
      domain.table.map(mapped);
      const { memory } = setup;
      const root = domain.table.rootPfn;
      const sound = memory.load(root, 0);
      memory.store(root, 0, sound | 0x80n);
      expect(setup.dma(SOURCE, 5)).toBe(-reserved);
      memory.store(root, 0, sound);
      expect(setup.dma(SOURCE, 5)).toBe(cachingMode ? -reserved : 0x80005);
      expect(setup.unit.faults.takeAll()).toMatchObject([{ reason: reserved, page: 5 }]);
      setup.submit(iotlbDescriptor(Granularity.domain));
      expect(setup.dma(SOURCE, 5)).toBe(0x80005);
      memory.store(root, 0, encodeTable(0x700_0000));
      setup.submit(iotlbDescriptor(Granularity.domain));
      expect(setup.dma(SOURCE, 5)).toBe(mode === 'legacy' ? -7 : -0x78);
    }
  });

  it('a right that is missing from a page that is there is not kept', () => {
    const { setup, domain } = attached(mode, true);
    domain.table.map({ ...mapped, rights: { read: true, write: false } });
    expect(setup.dma(SOURCE, 5, true)).toBeLessThan(0);
    domain.table.unmap(5, 1, domain.gather());
    domain.table.map(mapped);
    expect(setup.dma(SOURCE, 5, true)).toBe(0x80005);
  });

  it('map of a domain flushes what it mapped, with IH=0, and then it is found', () => {
    for (const cachingMode of [true, false]) {
      const { setup, domain } = attached(mode, cachingMode);
      for (const page of [4, 5, 6, 7]) setup.dma(SOURCE, page);
      setup.executed.length = 0;
      setup.run((agent) => domain.map(agent, { page: 4, frame: 0x80004, pages: 4, write: true }));
      const flush = { type: 'iotlb', granularity: 3, page: 4, addressMask: 2, leafOnly: false };
      expect(setup.executed).toMatchObject(cachingMode ? [flush] : []);
      expect([4, 5, 6, 7].map((page) => setup.dma(SOURCE, page, true))).toEqual([0x80004, 0x80005, 0x80006, 0x80007]);
    }
  });
});
