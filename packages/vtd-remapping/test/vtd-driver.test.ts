import { describe, expect, it } from 'vitest';
import { PageRequestStatus, VtdDomain, VtdDriver } from '../src/index.ts';
import { RecordingEndpoint, UnitSetup } from './unit-setup.ts';

const SOURCE = 0x18;

function mapped(setup: UnitSetup): VtdDomain {
  const domain = setup.domain();
  setup.run((agent) => domain.map(agent, { page: 1, frame: 0x80001, pages: 1, write: true }));
  return domain;
}

describe('a driver that takes over a unit', () => {
  for (const mode of ['legacy', 'scalable'] as const)
    for (const enhancedSetRootTable of [false, true])
      it(`leaves no translation of the one before it: ${mode}, ESRTPS ${enhancedSetRootTable}`, () => {
        const setup = new UnitSetup({ capabilities: { enhancedSetRootTable } }, { mode });
        mapped(setup).attach(SOURCE, null);
        expect(setup.dma(SOURCE, 1)).toBe(0x80001);
        const before = setup.unit.invalidationQueue.executed;
        const next = new VtdDriver({ unit: setup.unit, mode });
        // The unit is without ESRTPS: the driver's own invalidations did it.
        const own = mode === 'legacy' ? 2 : 3;
        expect(setup.unit.invalidationQueue.executed - before).toBe(enhancedSetRootTable ? 0 : own);
        expect(setup.dma(SOURCE, 1)).toBeLessThan(0);
        expect(next.isAttached(SOURCE)).toBe(false);
        const domain = new VtdDomain({ driver: next, domainId: 1 });
        setup.run((agent) => domain.map(agent, { page: 1, frame: 0x90001, pages: 1, write: true }));
        domain.attach(SOURCE, null);
        expect(setup.dma(SOURCE, 1)).toBe(0x90001);
      });
});

describe('detach', () => {
  it('waits until the page requests of the function have been taken', () => {
    const setup = new UnitSetup();
    const { unit, driver } = setup;
    const domain = mapped(setup);
    domain.attach(SOURCE, new RecordingEndpoint());
    const request = { sourceId: SOURCE, page: 9, read: true, write: false, last: true, groupIndex: 4 };
    setup.run((agent) => unit.pageRequest(agent, request));
    expect(unit.pageRequestQueue.status & PageRequestStatus.pending).toBe(PageRequestStatus.pending);
    const detaching = setup.spawn('detach', (agent) => domain.detach(agent, SOURCE));
    setup.spawn('reader', (agent) => driver.pageRequests!.take(agent));
    setup.time.run();
    expect([detaching.done, driver.pageRequests!.holds(SOURCE), unit.endpoints.has(SOURCE)]).toEqual([
      true,
      false,
      false,
    ]);
  });
});
