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

it('a driver knows two modes', () => {
  const { unit } = new UnitSetup();
  expect(() => new VtdDriver({ unit, mode: 'abort' as 'legacy' })).toThrow(
    'mode: abort is not one of legacy, scalable',
  );
});

describe('attach', () => {
  for (const mode of ['legacy', 'scalable'] as const)
    it(`refuses what the structures or the unit cannot hold, and writes nothing: ${mode}`, () => {
      const setup = new UnitSetup({ capabilities: { domainIdBits: 8 } }, { mode });
      const { memory } = setup.driver;
      const target = { domainId: 1, tablePfn: memory.allocate(), levels: 4, endpoint: null };
      const before = memory.halves.slice();
      for (const wrong of [0x1_0000, -1, 0.5]) expect(() => setup.driver.attach(wrong, target)).toThrow(/^sourceId: /);
      // A domain-id of more bits than CAP.ND loses them in invalidations, which then miss what is cached under it.
      for (const domainId of [0x100, -1])
        expect(() => setup.driver.attach(SOURCE, { ...target, domainId })).toThrow(/^domainId: .* 0x0..0xff$/);
      for (const levels of [3, 6])
        expect(() => setup.driver.attach(SOURCE, { ...target, levels })).toThrow(
          `levels: the unit walks no tables of ${levels} levels (CAP.SAGAW)`,
        );
      expect(memory.halves).toEqual(before);
      setup.driver.attach(0xffff, { ...target, domainId: 0xff });
    });

  it('refuses a domain-id that stands for another table', () => {
    const { driver } = new UnitSetup();
    const target = { domainId: 1, tablePfn: driver.memory.allocate(), levels: 4, endpoint: null };
    const other = { ...target, tablePfn: driver.memory.allocate() };
    driver.attach(SOURCE, target);
    expect(() => driver.attach(SOURCE + 1, other)).toThrow(
      /^domainId: 0x1 is the domain of the table at 0x\w+ already, not/,
    );
    driver.attach(SOURCE + 1, target);
    driver.attach(SOURCE + 2, { ...other, domainId: 2 });
  });

  it.each(['legacy', 'scalable'] as const)('loses no page when memory is short: %s', (mode) => {
    const { driver } = new UnitSetup({}, { mode });
    const { memory } = driver;
    const target = { domainId: 1, tablePfn: memory.allocate(), levels: 4, endpoint: null };
    const pages: number[] = [];
    for (let pfn = memory.allocate(); pfn >= 0; pfn = memory.allocate()) pages.push(pfn);
    // The context table; in scalable mode a PASID directory and a PASID table before it.
    const needed = mode === 'legacy' ? 1 : 3;
    for (let given = 0; given < needed; given++) {
      const { used } = memory;
      expect(() => driver.attach(SOURCE, target)).toThrow(/^memory: no page for /);
      expect([memory.used, driver.isAttached(SOURCE)]).toEqual([used, false]);
      memory.free(pages.pop()!);
    }
    driver.attach(SOURCE, target);
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
