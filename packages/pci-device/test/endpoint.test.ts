import { Agent, TaskRun } from '@faultline/sim';
import { describe, expect, it } from 'vitest';
import { DmaStatus, LEGACY_FAULTS, NIC_FAULTS } from '../src/index.ts';
import { DeviceSetup, SOURCE } from './device-setup.ts';

const SUCCESS = 0;
const INVALID = 1;
const FAILURE = 0xf;

describe('DMA that finds its page', () => {
  it('with no ATS goes through the unit, by walk and then by hit', () => {
    const setup = new DeviceSetup();
    const endpoint = setup.endpoint({ faults: LEGACY_FAULTS }, false);
    setup.map(0x40000, 0x80000, 512);
    expect(setup.run((agent) => endpoint.dmaPage(agent, 'write', 0x40007, true, 1, 2))).toBe(DmaStatus.completed);
    const reads = setup.unit.walkReads;
    expect(setup.run((agent) => endpoint.dmaPage(agent, 'read', 0x40008, false, 0, 0))).toBe(DmaStatus.completed);
    expect(setup.unit.walkReads).toBe(reads);
    expect(setup.accesses).toEqual([
      { page: 0x40007, frame: 0x80007, write: true, tagLo: 1, tagHi: 2 },
      { page: 0x40008, frame: 0x80008, write: false, tagLo: 0, tagHi: 0 },
    ]);
    expect([endpoint.counters.completed, setup.unit.inFlight.count]).toEqual([2, 0]);
  });

  it('with ATS fills the device TLB with the whole leaf, and a read-only one does not serve a write', () => {
    const setup = new DeviceSetup();
    const endpoint = setup.endpoint();
    setup.map(0x40000, 0x80000, 512, false);
    setup.run((agent) => endpoint.dmaPage(agent, 'read', 0x40007, false, 0, 0));
    expect([...(endpoint.deviceTlb?.entries() ?? [])]).toMatchObject([{ level: 2, pfn: 0x80000, rights: 1 }]);
    const lookups = setup.unit.iotlb.counters.lookups;
    setup.run((agent) => endpoint.dmaPage(agent, 'read', 0x401ff, false, 0, 0));
    expect(setup.unit.iotlb.counters.lookups).toBe(lookups);
    setup.handlePageRequests(() => INVALID);
    expect(setup.run((agent) => endpoint.dmaPage(agent, 'write', 0x40007, true, 1, 1))).toBe(DmaStatus.aborted);
    expect(setup.missed).toEqual([{ path: 'write', page: 0x40007, reason: 0x85 }]);
    // A translation request records no fault.
    expect(setup.unit.faults.takeAll()).toEqual([]);
  });

  it('with ATS also works when the unit has no room for entries of the leaf’s size', () => {
    const none = { sets: 1, ways: 0 };
    const setup = new DeviceSetup({ iotlb: { geometry: { '4K': { sets: 1, ways: 4 }, '2M': none, '1G': none } } });
    const endpoint = setup.endpoint();
    setup.map(0x40000, 0x80000, 512);
    expect(setup.run((agent) => endpoint.dmaPage(agent, 'write', 0x40007, true, 1, 2))).toBe(DmaStatus.completed);
    expect(setup.accesses[0]?.frame).toBe(0x80007);
    // The completion says all that the device TLB needs.
    expect([setup.unit.iotlb.size, endpoint.deviceTlb?.size]).toEqual([0, 1]);
  });
});

describe('a device-TLB invalidation', () => {
  it('at any step of a DMA: a completion from before is asked for again, and no access comes after the flush', () => {
    for (let before = 1; ; before++) {
      const setup = new DeviceSetup();
      const endpoint = setup.endpoint({ faults: { ...NIC_FAULTS, write: { whenMissing: 'drop' } } });
      setup.map(1, 0x80001, 1);
      const agent = new Agent('device');
      const dma = new TaskRun(agent, endpoint.dmaPage(agent, 'write', 1, true, 1, 1));
      for (let steps = 0; steps < before && !dma.done; steps++) dma.advance();
      if (dma.done) {
        expect(before).toBeGreaterThan(8);
        return;
      }
      const unmapping = setup.spawn('driver', (driver) => setup.unmap(driver, 1, 1), true);
      setup.time.run();
      const [flushed, accesses] = [unmapping.done, setup.accesses.length];
      while (!dma.done) dma.advance();
      setup.time.run();
      expect(unmapping.done).toBe(true);
      // Either the flush had to wait for this DMA, or the DMA found the page gone.
      if (flushed) expect([setup.accesses.length, dma.value]).toEqual([accesses, DmaStatus.dropped]);
      else expect(dma.value).toBe(DmaStatus.completed);
      expect(endpoint.deviceTlb?.size).toBe(0);
    }
  });

  it('drops what its range covers, and of the device alone', () => {
    const setup = new DeviceSetup();
    const endpoint = setup.endpoint();
    setup.map(0x40000, 0x80000, 512);
    setup.map(8, 0x90008, 8);
    for (const page of [8, 15, 0x40000]) setup.run((agent) => endpoint.dmaPage(agent, 'read', page, false, 0, 0));
    const pages = () => [...(endpoint.deviceTlb?.entries() ?? [])].map(({ iova }) => Number(iova >> 12n));
    const invalidate = (page: number, sizeLog2: number) =>
      setup.run((agent) => endpoint.invalidateDeviceTlb(agent, page, sizeLog2, {}));
    invalidate(8, 2);
    expect(pages()).toEqual([15, 0x40000]);
    invalidate(0x40123, 0); // not sure to reach a large one
    expect(pages()).toEqual([15, 0x40000]);
    invalidate(0x40000, 9);
    expect(pages()).toEqual([15]);
    invalidate(0, 52);
    expect(pages()).toEqual([]);
  });
});

describe('a missing page', () => {
  it('on a path that stalls is asked for, and the DMA tried again after success', () => {
    const setup = new DeviceSetup();
    const endpoint = setup.endpoint();
    let asked = 0;
    setup.handlePageRequests((page) => {
      // The first answer comes although nothing was mapped: the device just asks again.
      if (++asked === 2)
        setup.domain.table.map({ page, frame: 0x80005, pages: 1, rights: { read: true, write: true } });
      return SUCCESS;
    });
    expect(setup.run((agent) => endpoint.dmaPage(agent, 'write', 5, true, 7, 8))).toBe(DmaStatus.completed);
    expect(setup.accesses).toEqual([{ page: 5, frame: 0x80005, write: true, tagLo: 7, tagHi: 8 }]);
    expect(setup.answers).toEqual([SUCCESS, SUCCESS]);
    const { faulted, pageRequests, responses, unexpectedResponses } = endpoint.counters;
    expect({ faulted, pageRequests, unexpectedResponses }).toEqual({
      faulted: 1,
      pageRequests: 2,
      unexpectedResponses: 0,
    });
    expect(responses).toEqual({ success: 2, invalid: 0, failure: 0 });
    expect(endpoint.outstandingGroups).toBe(0);
  });

  it('the device announces that it looks into its device TLB again after the answer', () => {
    const setup = new DeviceSetup();
    const endpoint = setup.endpoint();
    const agent = new Agent('device');
    const dma = new TaskRun(agent, endpoint.dmaPage(agent, 'read', 5, false, 0, 0));
    dma.advance();
    const first = dma.pending?.location;
    while (dma.pending?.label !== 'page group response') dma.advance();
    endpoint.pageGroupResponse(0, SUCCESS);
    dma.advance();
    expect([dma.pending?.label, dma.pending?.location]).toEqual(['translate again', first]);
  });

  it('is given up after any answer but success; the device lives on', () => {
    for (const [code, kind] of [
      [INVALID, 'invalid'],
      [FAILURE, 'failure'],
      [2, 'failure'],
    ] as const) {
      const setup = new DeviceSetup();
      const endpoint = setup.endpoint();
      setup.handlePageRequests(() => code);
      expect(setup.run((agent) => endpoint.dmaPage(agent, 'read', 5, false, 0, 0))).toBe(DmaStatus.aborted);
      expect(endpoint.counters.responses[kind]).toBe(1);
      expect([endpoint.dead, endpoint.counters.aborted]).toEqual([false, 1]);
    }
  });

  it('is dropped on a path that drops, and kills the device on one that is fatal', () => {
    const setup = new DeviceSetup();
    const endpoint = setup.endpoint({ faults: NIC_FAULTS });
    expect(setup.run((agent) => endpoint.dmaPage(agent, 'write', 5, true, 0, 0))).toBe(DmaStatus.dropped);
    expect(endpoint.dead).toBe(false);
    expect(setup.run((agent) => endpoint.dmaPage(agent, 'descriptor', 5, false, 0, 0))).toBe(DmaStatus.aborted);
    expect(endpoint.dead).toBe(true);
    setup.map(5, 0x80005, 1);
    expect(setup.run((agent) => endpoint.dmaPage(agent, 'read', 5, false, 0, 0))).toBe(DmaStatus.aborted);
    expect(setup.accesses).toEqual([]);
    expect(endpoint.counters).toMatchObject({ completed: 0, dropped: 1, aborted: 2, faulted: 2, pageRequests: 0 });
  });

  it('a DMA that waits for its page when the device dies ends too', () => {
    const setup = new DeviceSetup();
    const endpoint = setup.endpoint({ faults: NIC_FAULTS });
    setup.handlePageRequests(() => SUCCESS);
    const waiting = setup.spawn('transmit', (agent) => endpoint.dmaPage(agent, 'read', 5, false, 0, 0));
    setup.spawn('ring', (agent) => endpoint.dmaPage(agent, 'completion', 6, true, 0, 0));
    setup.time.run();
    expect(waiting.value).toBe(DmaStatus.aborted);
  });
});

describe('page groups', () => {
  it('are never more than the credits, and every DMA gets its turn', () => {
    const setup = new DeviceSetup();
    const endpoint = setup.endpoint({ pageRequestCredits: 2 });
    let most = 0;
    setup.handlePageRequests((page) => {
      most = Math.max(most, endpoint.outstandingGroups);
      setup.domain.table.map({ page, frame: 0x80000 + page, pages: 1, rights: { read: true, write: true } });
      return SUCCESS;
    });
    const runs = Array.from({ length: 9 }, (_, page) =>
      setup.spawn(`queue ${page}`, (agent) => endpoint.dmaPage(agent, 'read', page, false, 0, 0)),
    );
    setup.time.run();
    expect(runs.every((run) => run.value === DmaStatus.completed)).toBe(true);
    expect([most, endpoint.outstandingGroups]).toEqual([2, 0]);
  });

  it('get an index that no outstanding group has, also after 512 of them', () => {
    const setup = new DeviceSetup();
    const endpoint = setup.endpoint();
    const agent = new Agent('held');
    const held = new TaskRun(agent, endpoint.dmaPage(agent, 'read', 9999, false, 0, 0));
    while (held.pending?.label !== 'page group response') held.advance(); // index 0, never answered
    const used: number[] = [];
    for (let page = 0; page < 520; page++) {
      const other = new Agent('other');
      const dma = new TaskRun(other, endpoint.dmaPage(other, 'read', page, false, 0, 0));
      while (dma.pending?.label !== 'page group response') dma.advance();
      for (const index of Array.from({ length: 512 }, (_, i) => (i + page) % 512).slice(1)) {
        if (index === 0) continue;
        const before = endpoint.outstandingGroups;
        endpoint.pageGroupResponse(index, INVALID);
        if (endpoint.outstandingGroups === before) continue;
        used.push(index);
        break;
      }
      while (!dma.done) dma.advance();
    }
    expect(used).not.toContain(0);
    expect(new Set(used).size).toBe(511);
    expect(endpoint.outstandingGroups).toBe(1);
  });

  it('an answer to no group is counted and does nothing', () => {
    const setup = new DeviceSetup();
    const endpoint = setup.endpoint();
    endpoint.pageGroupResponse(3, SUCCESS);
    expect(endpoint.counters.unexpectedResponses).toBe(1);
    expect(endpoint.counters.responses.success).toBe(0);
  });

  it('an overflowing queue costs repeated requests, and every DMA ends', () => {
    const setup = new DeviceSetup({ pageRequestLimit: 2 });
    const endpoint = setup.endpoint();
    setup.handlePageRequests((page) => {
      setup.domain.table.map({ page, frame: 0x80000 + page, pages: 1, rights: { read: true, write: true } });
      return SUCCESS;
    });
    const runs = Array.from({ length: 8 }, (_, page) =>
      setup.spawn(`queue ${page}`, (agent) => endpoint.dmaPage(agent, 'read', page, false, 0, 0)),
    );
    setup.time.run();
    expect(setup.unit.pageRequestQueue.overflows).toBeGreaterThan(0);
    expect(runs.every((run) => run.value === DmaStatus.completed)).toBe(true);
    expect(endpoint.counters.responses.success).toBe(endpoint.counters.pageRequests);
  });
});

describe('an endpoint', () => {
  it('cannot stall without ATS, and has 1 to 512 credits', () => {
    const setup = new DeviceSetup();
    expect(() => setup.endpoint({}, false)).toThrow(
      'faults: descriptor, read, write, completion stall on a missing page, which needs ATS and PRI (deviceTlb)',
    );
    for (const pageRequestCredits of [0, 513, 1.5])
      expect(() => setup.endpoint({ pageRequestCredits })).toThrow(
        `pageRequestCredits: ${pageRequestCredits} is not in 1..512`,
      );
    expect(setup.endpoint({ pageRequestCredits: 512, sourceId: SOURCE }).deviceTlb).not.toBe(null);
  });
});
