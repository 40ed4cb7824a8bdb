import { Agent, runToEnd, TaskRun } from '@faultline/sim';
import { describe, expect, it } from 'vitest';
import { PageRequestPort, PageRequestQueue } from '../src/index.ts';
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

describe('the page request queue', () => {
  it('keeps requests in order, over the end of the ring too', () => {
    const queue = new PageRequestQueue(4, 0);
    for (let round = 0; round < 5; round++) {
      const sent = [0, 1, 2].map((i) => request(round * 3 + i));
      for (const each of sent) expect(queue.write(each)).toBe('queued');
      expect(runToEnd(queue.take(agent))).toEqual({ requests: sent, overflowed: false });
    }
    expect([queue.requests, queue.overflows]).toEqual([15, 0]);
  });

  it('overflows with one slot left: LPIG is answered success, the rest dropped, and nothing is recorded until cleared', () => {
    const queue = new PageRequestQueue(4, 0);
    for (const i of [0, 1, 2]) queue.write(request(i));
    expect(queue.write(request(3, false))).toBe('dropped');
    expect(queue.overflowed).toBe(true);
    expect(queue.write(request(4))).toBe('answered-success');
    expect(queue.clearOverflow()).toBe(false); // not with requests in it
    const { requests, overflowed } = runToEnd(queue.take(agent));
    expect([requests.length, overflowed]).toEqual([3, true]);
    // Room again, but PRO is still set.
    expect(queue.write(request(5))).toBe('answered-success');
    expect(queue.overflows).toBe(1);
    expect(queue.clearOverflow()).toBe(true);
    expect(queue.write(request(6))).toBe('queued');
  });

  it('wakes its reader for a request, and for an overflow alone', () => {
    const queue = new PageRequestQueue(2, 0);
    const waits = new TaskRun(agent, queue.take(agent));
    waits.advance();
    expect(waits.enabled).toBe(false);
    queue.write(request(0));
    expect(waits.enabled).toBe(true);
    runToEnd(queue.take(agent));
    queue.write(request(1));
    queue.write(request(2));
    runToEnd(queue.take(agent));
    expect(queue.pending.ready()).toBe(true);
  });

  it('has a power of two of entries', () => {
    for (const entries of [0, 1, 3, 2.5])
      expect(() => new PageRequestQueue(entries, 0)).toThrow(`entries: ${entries} is not a power of two`);
  });
});

describe('the unit and page requests', () => {
  const mapped = () => {
    const setup = new UnitSetup({ pageRequestEntries: 2 });
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
    const port = new PageRequestPort(unit);
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
