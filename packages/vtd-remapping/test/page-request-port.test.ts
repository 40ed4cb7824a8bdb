import { type Agent, Cost, type Task } from '@faultline/sim';
import { describe, expect, it } from 'vitest';
import {
  type PageRequest,
  type PageRequestPort,
  PageRequestStatus,
  Register,
  type RemappingUnitOptions,
} from '../src/index.ts';
import { RecordingEndpoint, UnitSetup } from './unit-setup.ts';

const SOURCE = 0x18;
const OTHER = 0x20;

const requestOf = (groupIndex: number, more: Partial<PageRequest> = {}): PageRequest => ({
  sourceId: SOURCE,
  page: groupIndex,
  read: true,
  write: false,
  last: true,
  groupIndex,
  ...more,
});

/** Two functions with ATS and PRI in one domain, and a driver whose reader can be started. */
class PortSetup extends UnitSetup {
  readonly endpoint = new RecordingEndpoint();
  readonly other = new RecordingEndpoint();
  readonly port: PageRequestPort;
  readonly taken: number[] = [];

  constructor(options: Partial<RemappingUnitOptions> = {}) {
    super(options, { pageRequestEntries: 128 });
    const domain = this.domain();
    domain.attach(SOURCE, this.endpoint);
    domain.attach(OTHER, this.other);
    this.port = this.driver.pageRequests as PageRequestPort;
  }

  send(...requests: PageRequest[]): void {
    const { unit } = this;
    this.run(function* (device) {
      for (const request of requests) yield* unit.pageRequest(device, request);
    });
  }

  /** The reader, as Linux's thread: takes, answers, and clears an overflow. */
  startReader(delayNs = 0): void {
    const { port, taken } = this;
    this.spawn(
      'reader',
      function* (agent): Task<void> {
        for (;;) {
          const { requests, overflowed } = yield* port.take(agent);
          yield agent.spends('handle', Cost.nanosecond, delayNs);
          for (const { groupIndex, sourceId, last } of requests) {
            taken.push(groupIndex);
            if (last) yield* port.respond(agent, sourceId, groupIndex, 0);
          }
          if (overflowed) port.clearOverflow();
        }
      },
      { daemon: true },
    );
  }

  /** @returns what `check` says when the drain returns */
  drain<T>(check: () => T): { value: T | undefined } {
    const outcome: { value: T | undefined } = { value: undefined };
    const { port } = this;
    this.spawn(
      'drain',
      function* (agent: Agent): Task<void> {
        yield* port.drain(agent, { sourceId: SOURCE, domainId: 1 });
        outcome.value = check();
      },
      { daemon: true },
    );
    return outcome;
  }

  get overflowed(): boolean {
    return (this.unit.registers.read32(Register.PRS) & PageRequestStatus.overflow) !== 0;
  }
}

describe('taking page requests', () => {
  it('keeps PASID, group and the other fields', () => {
    const setup = new PortSetup();
    const sent = [
      requestOf(511, { page: 2 ** 43, write: true, last: false }),
      requestOf(511, { read: false, write: true }),
    ];
    setup.send(...sent);
    expect(setup.run((agent) => setup.port.take(agent)).requests).toEqual(sent);
    // With a PASID the tables of this driver refuse it, so it is put into the queue as the hardware would.
    const tagged = requestOf(7, { pasid: 0xabcde });
    setup.unit.pageRequestQueue.write(tagged);
    expect(setup.run((agent) => setup.port.take(agent)).requests).toEqual([tagged]);
  });

  it('gives stop markers to nobody and answers none', () => {
    const setup = new PortSetup();
    setup.send(requestOf(1), requestOf(0, { read: false }), requestOf(2));
    expect(setup.unit.pageRequestQueue.requests).toBe(3);
    const { requests } = setup.run((agent) => setup.port.take(agent));
    expect(requests.map(({ groupIndex }) => groupIndex)).toEqual([1, 2]);
    expect(setup.endpoint.responses).toEqual([]);
  });

  it('refuses what Linux refuses, with Invalid Request for the last of a group and no answer for others', () => {
    const setup = new PortSetup();
    setup.send(
      requestOf(1, { page: 2 ** 44 }),
      requestOf(2, { page: 2 ** 52 - 2 ** 44 - 1 }),
      requestOf(3, { page: 2 ** 44, last: false }),
      requestOf(4, { privileged: true }),
      requestOf(5, { execute: true }),
      requestOf(6, { execute: true, read: false, write: true }),
      requestOf(7, { page: 2 ** 52 - 2 ** 44 }),
      requestOf(8, { page: 2 ** 44 - 1 }),
    );
    const { requests } = setup.run((agent) => setup.port.take(agent));
    expect(requests.map(({ groupIndex }) => groupIndex)).toEqual([6, 7, 8]);
    expect(setup.endpoint.responses).toEqual([1, 2, 4, 5].map((groupIndex) => ({ groupIndex, responseCode: 1 })));
  });

  it('is not led astray by a head or a tail beyond the ring', () => {
    const setup = new PortSetup();
    const { registers } = setup.unit;
    registers.write64(Register.PQH, 130n * 32n);
    registers.write64(Register.PQT, 0x7_ffe0n);
    setup.send(requestOf(1));
    const { requests } = setup.run((agent) => setup.port.take(agent));
    expect(requests.map(({ groupIndex }) => groupIndex)).toEqual([1]);
    expect([registers.read64(Register.PQH), registers.read64(Register.PQT)]).toEqual([0n, 0n]);
  });
});

describe('recovery from an overflow, as Linux does it', () => {
  it('clears PRO only with an empty queue; what was lost comes again', () => {
    const setup = new PortSetup({ pageRequestLimit: 4 });
    setup.send(requestOf(1), requestOf(2), requestOf(3), requestOf(4, { last: false }), requestOf(4));
    expect(setup.overflowed).toBe(true);
    // The unit answered the last of the group that it lost; nobody answers the one before.
    expect(setup.endpoint.responses).toEqual([{ groupIndex: 4, responseCode: 0 }]);
    expect(setup.port.clearOverflow()).toBe(false);
    setup.startReader();
    setup.time.run();
    expect([setup.taken, setup.overflowed]).toEqual([[1, 2, 3], false]);
    setup.send(requestOf(4, { last: false }), requestOf(4));
    expect(setup.taken).toEqual([1, 2, 3, 4, 4]);
    expect(setup.endpoint.responses.map(({ groupIndex }) => groupIndex)).toEqual([4, 1, 2, 3, 4]);
  });
});

describe('drain (7.10)', () => {
  it('submits a fence, IOTLB, device TLB, and a wait with PD', () => {
    const setup = new PortSetup();
    const { memory, unit } = setup;
    setup.executed.length = 0;
    const before = Number(unit.registers.read64(Register.IQT));
    const done = setup.drain(() => true);
    setup.time.run();
    expect(done.value).toBe(true);
    expect(setup.executed).toMatchObject([
      { type: 'iotlb', granularity: 2, domainId: 1 },
      { type: 'deviceTlb', sourceId: SOURCE, page: 0, sizeLog2: 52 },
    ]);
    const ring = Number(unit.registers.read64(Register.IQA) >> 12n);
    const low = (slot: number) => memory.load(ring + ((before + slot * 32) >> 12), ((before + slot * 32) % 4096) / 8);
    expect([low(0) & 0xffn, low(3) & 0xffn]).toEqual([0x45n, 0xa5n]);
    expect(unit.registers.read64(Register.IQT)).toBe(BigInt(before + 128));
  });

  it('waits until nothing of the function is queued, and not for others', () => {
    const setup = new PortSetup();
    setup.send(requestOf(1), requestOf(2, { sourceId: OTHER }));
    setup.executed.length = 0;
    const done = setup.drain(() => setup.port.holds(SOURCE));
    setup.time.run();
    expect([done.value, setup.executed]).toEqual([undefined, []]);
    setup.startReader(100);
    setup.time.run();
    expect([done.value, setup.taken]).toEqual([false, [1, 2]]);
    const others = new PortSetup();
    others.send(requestOf(2, { sourceId: OTHER }));
    const second = others.drain(() => others.port.holds(OTHER));
    others.time.run();
    expect(second.value).toBe(true);
  });

  it('brings in what was under way when the device saw the invalidation, and waits until it is taken', () => {
    const setup = new PortSetup();
    const { unit } = setup;
    setup.startReader(1000);
    // Dispatched ahead of the invalidation's completion (7.7); the unit reads its structures while the device answers.
    setup.endpoint.onInvalidate = () => {
      setup.spawn('device', (agent) => unit.pageRequest(agent, requestOf(9)));
    };
    const done = setup.drain(() => [unit.pageRequestQueue.requests, setup.port.holds(SOURCE)]);
    setup.time.run();
    expect(done.value).toEqual([1, false]);
    expect(setup.taken).toEqual([9]);
    expect(setup.endpoint.responses).toEqual([{ groupIndex: 9, responseCode: 0 }]);
  });

  it('waits for the reader to take what it brought in', () => {
    const setup = new PortSetup();
    setup.endpoint.onInvalidate = () => setup.unit.pageRequestQueue.write(requestOf(9));
    const done = setup.drain(() => true);
    setup.time.run();
    expect([done.value, setup.endpoint.invalidations.length]).toEqual([undefined, 1]);
    setup.startReader();
    setup.time.run();
    expect([done.value, setup.taken]).toEqual([true, [9]]);
  });

  it('is done again after an overflow, once that is cleared, so that answers by the unit are over too', () => {
    const setup = new PortSetup({ pageRequestLimit: 2 });
    setup.startReader(1000);
    setup.endpoint.onInvalidate = () => {
      if (setup.endpoint.invalidations.length > 0) return;
      for (const group of [1, 2, 3]) setup.unit.pageRequestQueue.write(requestOf(group, { sourceId: OTHER }));
    };
    const done = setup.drain(() => [setup.overflowed, setup.endpoint.invalidations.length]);
    setup.time.run();
    expect(done.value).toEqual([false, 2]);
    const ring = Number(setup.unit.registers.read64(Register.IQA) >> 12n);
    const drains = Array.from({ length: 128 }, (_, slot) => setup.memory.load(ring, slot * 4) & 0xffn);
    expect(drains.filter((low) => low === 0xa5n)).toHaveLength(2); // SW and PD
  });

  it('of a function that is gone is given up as its invalidations are', () => {
    const setup = new PortSetup();
    setup.unit.disconnect(SOURCE);
    expect(() => setup.run((agent) => setup.port.drain(agent, { sourceId: SOURCE, domainId: 1 }))).toThrow(
      'ETIMEDOUT: device 0x18',
    );
  });

  it('needs ECAP.PDS', () => {
    const setup = new PortSetup({ capabilities: { pageRequestDrain: false } });
    expect(() => setup.run((agent) => setup.port.drain(agent, { sourceId: SOURCE, domainId: 1 }))).toThrow(
      'EINVAL: the unit has no page request drain (ECAP.PDS)',
    );
  });
});
