import { Agent, TaskRun } from '@faultline/sim';
import { FaultReason } from '@faultline/vtd-pagetable';
import { AddressType } from '@faultline/vtd-remapping';
import { describe, expect, it } from 'vitest';
import { DmaStatus, type Endpoint } from '../src/index.ts';
import { DeviceSetup, SOURCE } from './device-setup.ts';

const TIMEOUT_NS = 500;

/** A device that leaves so many device-TLB invalidations without an answer. */
function silentFor(setup: DeviceSetup, times: number, asked = { count: 0 }): Endpoint {
  return setup.endpoint({ unansweredNs: () => (asked.count++ < times ? TIMEOUT_NS : 0) });
}

const write = (endpoint: Endpoint) => (agent: Agent) => endpoint.dmaPage(agent, 'write', 1, true, 1, 1);

describe('a device that does not answer a device-TLB invalidation', () => {
  it('is asked again, four times in all, each after the unit’s time-out, and works on if it answers', () => {
    for (const times of [1, 2, 3]) {
      const setup = new DeviceSetup();
      const asked = { count: 0 };
      const endpoint = silentFor(setup, times, asked);
      setup.map(1, 0x80001, 1);
      setup.run(write(endpoint));
      const startNs = setup.time.nowNs;
      setup.run((agent) => setup.unmap(agent, 1, 1));
      expect([asked.count, endpoint.deviceTlb?.size, setup.driver.isIsolated(SOURCE)]).toEqual([times + 1, 0, false]);
      expect(setup.time.nowNs - startNs).toBeGreaterThan(times * TIMEOUT_NS);
      setup.map(1, 0x80002, 1);
      expect(setup.run(write(endpoint))).toBe(DmaStatus.completed);
      expect(setup.accesses.at(-1)?.frame).toBe(0x80002);
    }
  });

  it('for ever is isolated before the flush returns: what it has cached is refused and recorded', () => {
    const setup = new DeviceSetup();
    const endpoint = silentFor(setup, Number.POSITIVE_INFINITY);
    setup.map(1, 0x80001, 2);
    setup.run(write(endpoint));
    setup.run((agent) => setup.unmap(agent, 1, 1));
    expect([setup.driver.isIsolated(SOURCE), endpoint.deviceTlb?.size, setup.accesses.length]).toEqual([true, 1, 1]);
    expect(setup.run(write(endpoint))).toBe(DmaStatus.aborted);
    expect([setup.accesses.length, endpoint.dead]).toEqual([1, true]);
    // The context entry is not present any more.
    expect(setup.unit.faults.takeAll()).toMatchObject([
      {
        sourceId: SOURCE,
        page: 0x80001,
        write: true,
        addressType: AddressType.translated,
        reason: FaultReason.scalableContextNotPresent,
      },
    ]);
  });

  it('for ever, with DMA at any step: none reaches memory once the flush has returned', () => {
    for (let before = 1; ; before++) {
      const setup = new DeviceSetup();
      const endpoint = silentFor(setup, Number.POSITIVE_INFINITY);
      setup.map(1, 0x80001, 1);
      setup.run(write(endpoint));
      const agent = new Agent('device');
      const dma = new TaskRun(agent, write(endpoint)(agent));
      for (let steps = 0; steps < before && !dma.done; steps++) dma.advance();
      if (dma.done) return expect(before).toBeGreaterThan(2);
      setup.run((driver) => setup.unmap(driver, 1, 1));
      while (!dma.done) dma.advance();
      expect([setup.accesses.length, dma.value]).toEqual([1, DmaStatus.aborted]);
    }
  });

  it('makes nobody else fail: others’ waits that its time-outs abort are made again', () => {
    const setup = new DeviceSetup();
    silentFor(setup, Number.POSITIVE_INFINITY);
    const other = setup.endpoint({ name: 'other', sourceId: 0x20 });
    setup.map(1, 0x80001, 8);
    setup.run(write(other));
    const runs = [1, 2, 3, 4].map((page) => setup.spawn(`driver ${page}`, (agent) => setup.unmap(agent, page, 1)));
    setup.time.run();
    expect(runs.every(({ done }) => done)).toBe(true);
    expect([setup.driver.isIsolated(SOURCE), setup.driver.isIsolated(0x20)]).toEqual([true, false]);
    expect(other.deviceTlb?.size).toBe(0);
  });

  it('is let in again only after a reset', () => {
    const setup = new DeviceSetup();
    const endpoint = silentFor(setup, 4);
    setup.map(1, 0x80001, 2);
    setup.run((agent) => setup.unmap(agent, 1, 1));
    setup.run((agent) => setup.domain.detach(agent, SOURCE));
    expect(() => setup.domain.attach(SOURCE, endpoint)).toThrow(
      'sourceId: device 0x18 is isolated, since it did not answer an invalidation; reset it first',
    );
    setup.driver.deviceWasReset(SOURCE);
    setup.domain.attach(SOURCE, endpoint);
    expect(setup.run((agent) => endpoint.dmaPage(agent, 'read', 2, false, 0, 0))).toBe(DmaStatus.completed);
  });

  it('while it is detached does not keep the detach from its end', () => {
    const setup = new DeviceSetup();
    silentFor(setup, Number.POSITIVE_INFINITY);
    setup.run((agent) => setup.domain.detach(agent, SOURCE));
    expect([setup.driver.isAttached(SOURCE), setup.driver.isIsolated(SOURCE)]).toEqual([false, true]);
  });
});
