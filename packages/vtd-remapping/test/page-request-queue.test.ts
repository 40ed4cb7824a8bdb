import { Agent, runToEnd, TaskRun } from '@faultline/sim';
import { TableMemory } from '@faultline/vtd-pagetable';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type PageRequestPort, PageRequestStatus, Register, RemappingUnit, VtdDriver } from '../src/index.ts';
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

  it('wakes its reader for a request', () => {
    const { port, queue } = pages();
    const waits = new TaskRun(agent, port.take(agent));
    waits.advance();
    expect(waits.enabled).toBe(false);
    queue.write(request(0));
    expect(waits.enabled).toBe(true);
    runToEnd(port.take(agent));
    expect(queue.interrupt.ready()).toBe(false);
  });

  it('raises its event only while PPR and PRO are both clear (7.5)', () => {
    const { setup, port, queue } = pages();
    for (let i = 0; i < 127; i++) queue.write(request(i));
    queue.acknowledge();
    queue.write(request(127)); // PRO beside PPR
    expect([queue.status, queue.interrupt.ready()]).toEqual([3, false]);
    setup.unit.registers.write32(Register.PRS, PageRequestStatus.pending | PageRequestStatus.overflow);
    queue.write(request(127)); // PRO alone
    expect([queue.status, queue.interrupt.ready()]).toEqual([PageRequestStatus.overflow, true]);
    runToEnd(port.take(agent));
    queue.write(request(128));
    expect([queue.status, queue.interrupt.ready()]).toEqual([PageRequestStatus.overflow, false]);
    port.clearOverflow();
    queue.write(request(129));
    expect(queue.interrupt.ready()).toBe(true);
  });

  it('interrupts again for a request that comes while its reader is at work, wherever that is', () => {
    const labels = ['clear PPR', 'read PQT', 'write PQH'];
    for (const label of labels) {
      const { port, queue } = pages();
      queue.write(request(0));
      const taking = new TaskRun(agent, port.take(agent));
      taking.advance();
      while (taking.pending?.label !== label) taking.advance();
      queue.write(request(1));
      while (!taking.done) taking.advance();
      const taken = taking.value?.requests.length;
      expect([label, taken]).toEqual([label, label === 'write PQH' ? 1 : 2]);
      if (taken === 1) expect(queue.interrupt.ready()).toBe(true);
    }
  });

  it('has a number of entries that PQS can say', () => {
    const { setup } = pages();
    for (const pageRequestEntries of [0, 64, 129, 32768])
      expect(() => new VtdDriver({ unit: setup.unit, pageRequestEntries })).toThrow(
        `entries: ${pageRequestEntries} is not a power of two in 128..16384`,
      );
  });
});

describe('the page request registers', () => {
  const at = (setup: UnitSetup) => setup.unit.registers;

  it('keep a head and a tail as written, and clear PPR and PRO each by its bit', () => {
    const { setup, queue } = pages();
    at(setup).write64(Register.PQH, 0xffff_ffff_ffff_ffffn);
    at(setup).write64(Register.PQT, 0x1_0020n);
    expect([at(setup).read64(Register.PQH), at(setup).read64(Register.PQT)]).toEqual([0x7_ffe0n, 0x1_0020n]);
    at(setup).write64(Register.PQH, 0n);
    at(setup).write64(Register.PQT, 0n);
    for (let i = 0; i < 128; i++) queue.write(request(i));
    expect(at(setup).read32(Register.PRS)).toBe(3);
    at(setup).write32(Register.PRS, 0);
    at(setup).write32(Register.PRS, 0xffff_fffc | 0);
    expect(at(setup).read32(Register.PRS)).toBe(3);
    at(setup).write32(Register.PRS, 1);
    expect(at(setup).read32(Register.PRS)).toBe(2);
    at(setup).write32(Register.PRS, 2);
    expect(at(setup).read32(Register.PRS)).toBe(0);
  });

  it('give one event until PPR and PRO are both clear; masked it is pending, and settled with them', () => {
    const sent: number[] = [];
    const setup = new UnitSetup({ onInterrupt: (_, data) => sent.push(data) }, { pageRequestEntries: 128 });
    const queue = setup.unit.pageRequestQueue;
    at(setup).write32(Register.PEDATA, 0x41);
    const control = () => at(setup).read32(Register.PECTL);
    queue.write(request(0));
    expect([control(), sent]).toEqual([0xc000_0000, []]);
    at(setup).write32(Register.PECTL, 0);
    expect([control(), sent]).toEqual([0, [0x41]]);
    for (let i = 1; i < 128; i++) queue.write(request(i)); // up to the overflow
    expect(sent).toHaveLength(1);
    at(setup).write32(Register.PRS, 1);
    at(setup).write64(Register.PQH, at(setup).read64(Register.PQT));
    queue.write(request(1)); // PRO is still set, and nothing is recorded
    expect([queue.requests, sent.length]).toEqual([127, 1]);
    at(setup).write32(Register.PRS, 2);
    queue.write(request(2));
    expect(sent).toHaveLength(2);
    at(setup).write32(Register.PECTL, 0x8000_0000 | 0);
    at(setup).write32(Register.PRS, 3);
    queue.write(request(3));
    expect(control()).toBe(0xc000_0000);
    at(setup).write32(Register.PRS, 1);
    expect(control()).toBe(0x8000_0000);
    // An overflow alone is an event too.
    at(setup).write64(Register.PQH, at(setup).read64(Register.PQT) + 32n);
    queue.write(request(4));
    expect([control(), at(setup).read32(Register.PRS)]).toEqual([0xc000_0000, 2]);
    // IP stays while either of the two is set.
    at(setup).write32(Register.PRS, 1);
    expect(control()).toBe(0xc000_0000);
  });

  it('lead no write outside of the ring, whatever is in them', () => {
    const offset = fc.bigInt({ min: 0n, max: 0x7_ffffn });
    const sizes = fc.array(fc.integer({ min: 0, max: 7 }), { minLength: 1, maxLength: 3 });
    fc.assert(
      fc.property(sizes, offset, offset, fc.integer({ min: 1, max: 200 }), (queueSizes, head, tail, count) => {
        const memory = new TableMemory({ pages: 192 });
        const { registers, pageRequestQueue } = new RemappingUnit({ memory });
        const first = memory.allocateContiguous(128);
        const after = memory.allocateContiguous(16);
        registers.write64(Register.PQH, head);
        registers.write64(Register.PQT, tail);
        for (const size of queueSizes) {
          registers.write64(Register.PQA, (BigInt(first) << 12n) | BigInt(size));
          for (let i = 0; i < count; i++) pageRequestQueue.write(request(i % 512));
          registers.write32(Register.PRS, 3);
        }
        const largest = first + 2 ** Math.max(...queueSizes);
        for (let pfn = largest; pfn < after + 16; pfn++) expect(memory.load(pfn, 0) | memory.load(pfn, 509)).toBe(0n);
        expect(pageRequestQueue.requests).toBeLessThanOrEqual(queueSizes.length * count);
      }),
    );
  });

  it('let a ring outside memory lose what is written, and go on', () => {
    const { setup, queue } = pages();
    at(setup).write64(Register.PQA, 0xffff_ffff_ffff_f000n);
    expect(queue.write(request(1))).toBe('queued');
    expect([at(setup).read64(Register.PQT), at(setup).read32(Register.PRS)]).toEqual([32n, 1]);
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

  it('a stop marker that finds no room, or tables that refuse it, is dropped in silence (ECAP.SMS)', () => {
    const { unit, endpoint } = mapped();
    const marker = { ...request(0), read: false };
    const sendMarker = (sourceId: number) => runToEnd(unit.pageRequest(new Agent('device'), { ...marker, sourceId }));
    sendMarker(0x18);
    expect([unit.pageRequestQueue.requests, unit.pageRequestQueue.overflows]).toEqual([1, 0]);
    sendMarker(0x18);
    expect([unit.pageRequestQueue.requests, unit.pageRequestQueue.overflows]).toEqual([1, 1]);
    unit.connect(0x99, endpoint);
    sendMarker(0x99);
    send(unit, 3);
    expect(endpoint.responses).toEqual([{ groupIndex: 3, responseCode: 0 }]);
  });

  it('a request that the tables refuse is recorded, answered Invalid Request if it is the last, and written nowhere', () => {
    const { unit } = mapped();
    const stranger = new RecordingEndpoint();
    unit.connect(0x99, stranger);
    for (const last of [false, true])
      runToEnd(unit.pageRequest(new Agent('device'), { ...request(4, last), sourceId: 0x99, page: 0x40123 }));
    expect(stranger.responses).toEqual([{ groupIndex: 4, responseCode: 1 }]);
    expect(unit.pageRequestQueue.requests).toBe(0);
    expect(unit.faults.takeAll()).toMatchObject([{ sourceId: 0x99, page: 0x40123, pageRequest: true }]);
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
