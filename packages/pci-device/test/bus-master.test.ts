import { Agent, Cost } from '@faultline/sim';
import { describe, expect, it } from 'vitest';
import { DeviceSetup } from './device-setup.ts';

/** An endpoint that writes page after page, and the moment at which each write reached memory. */
function writer(setup: DeviceSetup, pages: number) {
  const endpoint = setup.endpoint();
  const run = setup.spawn('dma', function* (agent) {
    for (let i = 0; i < pages; i++) yield* endpoint.dmaPage(agent, 'write', 16 + (i % 8), true, i, 0);
  });
  return { endpoint, run };
}

describe('bus master enable', () => {
  it('off: what is under way ends first, and nothing reaches memory until it is on again', () => {
    const setup = new DeviceSetup();
    setup.map(16, 0x100, 8);
    const { endpoint, run } = writer(setup, 100);
    const agent = new Agent('driver');
    let before = 0;
    setup.time.spawn(
      agent,
      (function* () {
        yield agent.spends('some time', Cost.nanosecond, 400);
        yield* endpoint.disableBusMaster(agent);
        before = setup.accesses.length;
        expect(before).toBeGreaterThan(3);
        yield agent.spends('a long time', Cost.nanosecond, 100_000);
        expect(setup.accesses.length).toBe(before);
        endpoint.enableBusMaster();
      })(),
    );
    setup.time.run();
    expect([run.done, setup.accesses.length, endpoint.counters.aborted]).toEqual([true, 100, 0]);
  });

  it('off: DMA that waits for a page keeps its request, and goes on with the answer once it is on', () => {
    const setup = new DeviceSetup();
    const { endpoint, run } = writer(setup, 1);
    const agent = new Agent('driver');
    setup.time.spawn(
      agent,
      (function* () {
        yield agent.spends('some time', Cost.nanosecond, 2000);
        expect(endpoint.outstandingGroups).toBe(1);
        yield* endpoint.disableBusMaster(agent);
        yield* setup.domain.map(agent, { page: 16, frame: 0x100, pages: 8, write: true });
        setup.handlePageRequests(() => 0);
        yield agent.spends('a long time', Cost.nanosecond, 100_000);
        expect([endpoint.outstandingGroups, setup.accesses.length]).toEqual([0, 0]);
        endpoint.enableBusMaster();
      })(),
    );
    setup.time.run();
    expect([run.done, setup.accesses.length]).toEqual([true, 1]);
  });

  it('off, then unplugged: whoever waits gives up', () => {
    const setup = new DeviceSetup();
    setup.map(16, 0x100, 8);
    const endpoint = setup.endpoint();
    setup.run((agent) => endpoint.disableBusMaster(agent));
    const run = setup.spawn('dma', (agent) => endpoint.dmaPage(agent, 'write', 16, true, 0, 0));
    setup.run(function* (agent) {
      yield agent.spends('some time', Cost.nanosecond, 5000);
      expect(run.done).toBe(false);
      endpoint.unplug();
    });
    expect([run.done, setup.accesses.length, endpoint.counters.aborted]).toEqual([true, 0, 1]);
  });
});
