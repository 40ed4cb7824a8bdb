import { Agent, runToEnd, TaskRun } from '@faultline/sim';
import { describe, expect, it } from 'vitest';
import { type PageRequestPort, PageRequestStatus, VtdDriver } from '../src/index.ts';
import { RecordingEndpoint, UnitSetup } from './unit-setup.ts';

const agent = new Agent('driver');
const request = (groupIndex: number, last = true) => ({
  sourceId: 0x18,
  page: groupIndex,
  read: true,
  write: false,
  last,
  groupIndex,
});

const pages = () => {
  const setup = new UnitSetup({}, { pageRequestEntries: 128 });
  const port = setup.driver.pageRequests as PageRequestPort;
  return { setup, port, queue: setup.unit.pageRequestQueue };
};

describe('the page request queue', () => {
  it('keeps requests in order, over the end of the ring too', () => {
    const { port, queue } = pages();
    for (let round = 0; round < 5; round++) {
      const sent = Array.from({ length: 50 }, (_, i) => request((round * 50 + i) % 512));
      for (const each of sent) expect(queue.write(each)).toBe('queued');
      expect(runToEnd(port.take(agent))).toEqual({ requests: sent, overflowed: false });
    }
    expect([queue.requests, queue.overflows, queue.entries]).toEqual([250, 0, 128]);
  });

  it('overflows with one slot left: LPIG is answered success, the rest dropped, and nothing is recorded until cleared', () => {
    const { port, queue } = pages();
    for (let i = 0; i < 127; i++) expect(queue.write(request(i))).toBe('queued');
    expect(queue.write(request(127, false))).toBe('dropped');
    expect(queue.status).toBe(PageRequestStatus.pending | PageRequestStatus.overflow);
    expect(queue.write(request(128))).toBe('answered-success');
    expect(port.clearOverflow()).toBe(false); // not with requests in it
    const { requests, overflowed } = runToEnd(port.take(agent));
    expect([requests.length, overflowed]).toEqual([127, true]);
    // Room again, but PRO is still set.
    expect(queue.write(request(5))).toBe('answered-success');
    expect(queue.overflows).toBe(1);
    expect(port.clearOverflow()).toBe(true);
    expect(queue.write(request(6))).toBe('queued');
  });

  it('wakes its reader for a request, and for an overflow alone', () => {
    const { port, queue } = pages();
    const waits = new TaskRun(agent, port.take(agent));
    waits.advance();
    expect(waits.enabled).toBe(false);
    queue.write(request(0));
    expect(waits.enabled).toBe(true);
    runToEnd(port.take(agent));
    expect(queue.pending.ready()).toBe(false);
    for (let i = 0; i < 128; i++) queue.write(request(i));
    runToEnd(port.take(agent));
    expect([queue.status, queue.pending.ready()]).toEqual([PageRequestStatus.overflow, true]);
  });

  it('has a number of entries that PQS can say', () => {
    const { setup } = pages();
    for (const pageRequestEntries of [0, 64, 129, 32768])
      expect(() => new VtdDriver({ unit: setup.unit, pageRequestEntries })).toThrow(
        `entries: ${pageRequestEntries} is not a power of two in 128..16384`,
      );
  });
});

describe('the unit and page requests', () => {
  const mapped = () => {
    const setup = new UnitSetup({ pageRequestLimit: 2 });
    const endpoint = new RecordingEndpoint();
    const domain = setup.domain();
    domain.attach(0x18, endpoint);
    setup.run((driver) => domain.map(driver, { page: 1, frame: 0x80001, pages: 1, write: false }));
    expect(setup.dma(0x18, 1)).toBe(0x80001);
    return { setup, endpoint, unit: setup.unit };
  };
  const send = (unit: UnitSetup['unit'], index: number, last = true) =>
    runToEnd(unit.pageRequest(new Agent('device'), { ...request(index, last), page: 1 }));

  it('a recorded request drops the cached translation of its page', () => {
    const { unit } = mapped();
    expect(unit.iotlb.size).toBe(1);
    send(unit, 0);
    expect(unit.iotlb.size).toBe(0);
  });

  it('a request that finds no room drops nothing, and with LPIG is answered by the unit itself', () => {
    const { unit, endpoint, setup } = mapped();
    send(unit, 0);
    setup.dma(0x18, 1);
    send(unit, 1);
    send(unit, 2, false);
    expect(unit.iotlb.size).toBe(1);
    expect(endpoint.responses).toEqual([{ groupIndex: 1, responseCode: 0 }]);
  });

  it('the driver answers through the invalidation queue, a failure with 0xf and not with 2', () => {
    const { unit, endpoint, setup } = mapped();
    const port = setup.driver.pageRequests as PageRequestPort;
    send(unit, 7);
    expect(setup.run((driver) => port.take(driver)).requests).toHaveLength(1);
    for (const outcome of [0, 1, 2] as const) setup.run((driver) => port.respond(driver, 0x18, 7 + outcome, outcome));
    expect(endpoint.responses).toEqual([
      { groupIndex: 7, responseCode: 0x0 },
      { groupIndex: 8, responseCode: 0x1 },
      { groupIndex: 9, responseCode: 0xf },
    ]);
    expect(port.clearOverflow()).toBe(true);
  });
});
