import { Agent, runToEnd, TaskRun } from '@faultline/sim';
import { clearScalableContext, FaultReason, SS_WRITE } from '@faultline/vtd-pagetable';
import { describe, expect, it } from 'vitest';
import { type PageRequest, ResponseCode } from '../src/index.ts';
import { RecordingEndpoint, UnitSetup } from './unit-setup.ts';

const SOURCE = 0x20;
const device = new Agent('device');

function attached(options: { pageRequestLimit?: number } = {}) {
  const setup = new UnitSetup(options);
  const domain = setup.domain();
  const endpoint = new RecordingEndpoint();
  domain.attach(SOURCE, endpoint);
  return { setup, domain, endpoint, ...sender(setup) };
}

const sender = (setup: UnitSetup) => ({
  send: (request: Partial<PageRequest>) =>
    runToEnd(
      setup.unit.pageRequest(device, {
        sourceId: SOURCE,
        page: 7,
        read: true,
        write: true,
        last: true,
        groupIndex: 3,
        ...request,
      }),
    ),
});

const invalid = { groupIndex: 3, responseCode: ResponseCode.invalid };

describe('a page request', () => {
  it('that the structures do not allow is answered Invalid Request, recorded as such, and not queued', () => {
    const { setup, send, endpoint } = attached();
    const plain = new RecordingEndpoint();
    setup.domain({ domainId: 2 }).attach(SOURCE + 8, null);
    setup.unit.connect(SOURCE + 8, plain);
    send({ sourceId: SOURCE + 8 });
    expect(plain.responses).toEqual([invalid]);
    send({ pasid: 5 });
    expect(endpoint.responses).toEqual([invalid]);
    const common = { page: 7, write: false, pageRequest: true };
    expect(setup.unit.faults.takeAll()).toEqual([
      { ...common, sourceId: SOURCE + 8, reason: FaultReason.pageRequestDisabled },
      { ...common, sourceId: SOURCE, reason: FaultReason.pasidDisabled, pasid: 5 },
    ]);
    expect(setup.unit.pageRequestQueue.requests).toBe(0);
  });

  it('has an answer only if it is the last of its group, and a stop marker has none', () => {
    const { setup, send, endpoint } = attached();
    send({ pasid: 5, last: false });
    send({ pasid: 5, read: false, write: false });
    expect(endpoint.responses).toEqual([]);
    expect(setup.unit.faults.takeAll()).toHaveLength(1); // the second collapses into the first
  });

  it('that no message can carry is a mistake of the caller, and nothing has happened', () => {
    const { setup, send, endpoint } = attached();
    for (const wrong of [{ groupIndex: 0x200 }, { page: 2 ** 52 }, { sourceId: 0x10000 }, { pasid: -1 }])
      expect(() => send(wrong)).toThrow(new RegExp(`^${Object.keys(wrong)[0]}: `));
    expect(endpoint.responses).toEqual([]);
    expect(setup.unit.faults.takeAll()).toEqual([]);
    expect(setup.unit.receivedRequests.count).toBe(0);
    send({});
    expect(setup.unit.pageRequestQueue.requests).toBe(1);
  });

  it('has no place in legacy mode', () => {
    const setup = new UnitSetup({}, { mode: 'legacy' });
    const endpoint = new RecordingEndpoint();
    setup.domain().attach(SOURCE, endpoint);
    sender(setup).send({});
    expect(endpoint.responses).toEqual([invalid]);
    const reason = FaultReason.legacyModePageRequest;
    expect(setup.unit.faults.takeAll()).toEqual([
      { sourceId: SOURCE, page: 7, reason, write: false, pageRequest: true },
    ]);
  });

  it('needs no second stage: what is wrong there shows when the device tries again', () => {
    const { setup, domain, send, endpoint } = attached();
    setup.memory.store(domain.table.rootPfn, 0, 0xffff_ffff_ffff_ffffn);
    send({});
    expect([endpoint.responses, setup.unit.pageRequestQueue.requests]).toEqual([[], 1]);
  });

  it.each([
    ['4K', 7, 1],
    ['2M', 512, 512],
    ['1G', 0x40000, 0x40000],
  ] as const)('drops what serves its page, a %s entry whole, and nothing else', (_, page, pages) => {
    const { setup, domain, send } = attached();
    setup.run((agent) => domain.map(agent, { page, frame: 0x10_0000 + page, pages, write: true }));
    setup.run((agent) => domain.map(agent, { page: 1, frame: 0x80001, pages: 1, write: true }));
    const within = page + (pages >> 1);
    for (const each of [1, within]) setup.dma(SOURCE, each);
    const cached = () =>
      [...setup.unit.iotlb.entries()].map((entry) => Number(entry.iova >> 12n)).sort((a, b) => a - b);
    expect(cached()).toEqual([1, page]);
    send({ page: page + pages - 1 });
    expect(cached()).toEqual([1]);
  });

  it('lets the device see an upgrade of rights above the leaf that nobody invalidated (6.5.3.1)', () => {
    const { setup, domain, send } = attached();
    setup.run((agent) => domain.map(agent, { page: 7, frame: 0x80007, pages: 1, write: true }));
    const { memory } = setup;
    const root = domain.table.rootPfn;
    const entry = memory.load(root, 0);
    memory.store(root, 0, entry & ~SS_WRITE);
    expect(setup.dma(SOURCE, 7)).toBe(0x80007);
    memory.store(root, 0, entry);
    expect(setup.ats(SOURCE, 7, true).rights).toBe(1);
    send({});
    expect(setup.ats(SOURCE, 7, true).rights).toBe(3);
  });

  it('that finds no room drops nothing from the caches', () => {
    const { setup, domain, send } = attached({ pageRequestLimit: 2 });
    setup.run((agent) => domain.map(agent, { page: 7, frame: 0x80007, pages: 1, write: true }));
    send({ page: 100 });
    setup.dma(SOURCE, 7);
    send({});
    expect([setup.unit.iotlb.size, setup.unit.pageRequestQueue.requests]).toEqual([1, 1]);
  });

  it('looks its context up again if an invalidation overtakes it', () => {
    const { setup, endpoint } = attached();
    const request = { sourceId: SOURCE, page: 7, read: true, write: true, last: true, groupIndex: 3 };
    const run = new TaskRun(device, setup.unit.pageRequest(device, request));
    while (run.pending?.label !== 'send page request') run.advance();
    clearScalableContext(setup.memory, setup.unit.rootPfn, SOURCE);
    setup.submit({ type: 'contextCache', granularity: 1, domainId: 0, sourceId: 0, functionMask: 0 });
    while (!run.done) run.advance();
    expect([endpoint.responses, setup.unit.pageRequestQueue.requests]).toEqual([[invalid], 0]);
    expect(setup.unit.faults.takeAll()).toMatchObject([{ reason: FaultReason.scalableContextNotPresent }]);
  });
});
