import { Agent, TaskRun } from '@faultline/sim';
import { describe, expect, it } from 'vitest';
import { DmaStatus } from '../src/index.ts';
import { DeviceSetup, SOURCE } from './device-setup.ts';

describe('a device that is unplugged', () => {
  it('at any step of a DMA: no access comes afterwards, the DMA ends, and its group is abandoned or answered', () => {
    let [abandoned, ignored, completed] = [0, 0, 0];
    for (let before = 0; ; before++) {
      const setup = new DeviceSetup();
      const endpoint = setup.endpoint();
      setup.handlePageRequests((page) => {
        setup.domain.table.map({ page, frame: 0x80000 + page, pages: 1, rights: { read: true, write: true } });
        return 0;
      });
      const agent = new Agent('device');
      const dma = new TaskRun(agent, endpoint.dmaPage(agent, 'write', 5, true, 1, 1));
      for (let steps = 0; steps < before && !dma.done; steps++) {
        if (!dma.enabled) setup.time.run();
        dma.advance();
      }
      if (dma.done) {
        expect(before).toBeGreaterThan(15);
        break;
      }
      endpoint.unplug();
      const accesses = setup.accesses.length;
      while (!dma.done) {
        setup.time.run();
        dma.advance();
      }
      setup.time.run();
      expect([dma.value, setup.accesses.length, endpoint.dead]).toEqual([DmaStatus.aborted, accesses, true]);
      const { pageRequests, responses, abandonedGroups, ignoredResponses, unexpectedResponses } = endpoint.counters;
      expect(responses.success + abandonedGroups).toBe(pageRequests);
      expect(ignoredResponses).toBeLessThanOrEqual(abandonedGroups);
      expect([endpoint.outstandingGroups, unexpectedResponses, setup.unit.inFlight.count]).toEqual([0, 0, 0]);
      abandoned += abandonedGroups;
      ignored += ignoredResponses;
      completed += responses.success;
    }
    expect(Math.min(abandoned, ignored, completed)).toBeGreaterThan(0);
  });

  it('neither fails nor holds up the driver: a flush, a drain and a detach go on without it', () => {
    for (const invalidationsAfterRemoval of ['timed-out', 'completed'] as const) {
      const setup = new DeviceSetup();
      const gone = setup.endpoint({ invalidationsAfterRemoval });
      const stays = setup.endpoint({ name: 'other', sourceId: 0x20 });
      setup.map(1, 0x80001, 2);
      for (const endpoint of [gone, stays]) setup.run((agent) => endpoint.dmaPage(agent, 'write', 1, true, 1, 1));
      gone.unplug();
      setup.run((agent) => setup.unmap(agent, 1, 1));
      expect(stays.deviceTlb?.size).toBe(0);
      setup.run((agent) => setup.domain.detach(agent, SOURCE));
      setup.run((agent) => setup.domain.detach(agent, 0x20));
      expect(setup.unit.faults.takeAll()).toEqual([]);
    }
  });

  it('while it is being asked to invalidate: the submission is made again without it', () => {
    for (let before = 1; ; before++) {
      const setup = new DeviceSetup();
      const endpoint = setup.endpoint();
      setup.map(1, 0x80001, 1);
      setup.run((agent) => endpoint.dmaPage(agent, 'write', 1, true, 1, 1));
      const agent = new Agent('driver');
      const unmapping = new TaskRun(agent, setup.unmap(agent, 1, 1));
      for (let steps = 0; steps < before && !unmapping.done; steps++) {
        if (!unmapping.enabled) setup.time.run();
        unmapping.advance();
      }
      if (unmapping.done) return expect(before).toBeGreaterThan(4);
      endpoint.unplug();
      while (!unmapping.done) {
        setup.time.run();
        unmapping.advance();
      }
    }
  });
});

describe('a virtual function', () => {
  it('shares the outstanding page requests of its physical function, and keeps its own group indices', () => {
    const setup = new DeviceSetup();
    const physical = setup.endpoint({ pageRequestCredits: 2 });
    const virtual = setup.endpoint({ name: 'vf', sourceId: 0x20, physicalFunction: physical });
    let most = 0;
    setup.handlePageRequests((page) => {
      most = Math.max(most, physical.outstandingGroups + virtual.outstandingGroups);
      setup.domain.table.map({ page, frame: 0x80000 + page, pages: 1, rights: { read: true, write: true } });
      return 0;
    });
    const runs = Array.from({ length: 12 }, (_, page) =>
      setup.spawn(`queue ${page}`, (agent) =>
        (page % 2 === 0 ? physical : virtual).dmaPage(agent, 'read', page, false, 0, 0),
      ),
    );
    setup.time.run();
    expect(runs.every((run) => run.value === DmaStatus.completed)).toBe(true);
    expect([most, physical.counters.pageRequests, virtual.counters.pageRequests]).toEqual([2, 6, 6]);
  });

  it('that is unplugged gives its credits back to the others', () => {
    const setup = new DeviceSetup();
    const physical = setup.endpoint({ pageRequestCredits: 1 });
    const virtual = setup.endpoint({ name: 'vf', sourceId: 0x20, physicalFunction: physical });
    const agent = new Agent('vf');
    const dma = new TaskRun(agent, virtual.dmaPage(agent, 'read', 5, false, 0, 0));
    while (dma.pending?.label !== 'page group response') dma.advance();
    const waiting = setup.spawn('pf', (other) => physical.dmaPage(other, 'read', 6, false, 0, 0), true);
    setup.time.run();
    expect(physical.outstandingGroups).toBe(0);
    virtual.unplug();
    setup.time.run();
    expect([physical.outstandingGroups, waiting.done]).toEqual([1, false]);
  });

  it('has no credits of its own', () => {
    const setup = new DeviceSetup();
    const physicalFunction = setup.endpoint();
    expect(() => setup.endpoint({ name: 'vf', sourceId: 0x20, physicalFunction, pageRequestCredits: 4 })).toThrow(
      'pageRequestCredits: vf is a virtual function, and uses those of device',
    );
  });
});

it('the target learns which path an access was of', () => {
  const setup = new DeviceSetup();
  const paths: string[] = [];
  const target = { access: (...args: unknown[]) => paths.push(String(args[6])), missing() {}, answered() {} };
  const endpoint = setup.endpoint({ target });
  setup.map(1, 0x80001, 1);
  setup.run((agent) => endpoint.dmaPage(agent, 'descriptor', 1, false, 0, 0));
  setup.run((agent) => endpoint.dmaPage(agent, 'completion', 1, true, 0, 0));
  expect(paths).toEqual(['descriptor', 'completion']);
});
