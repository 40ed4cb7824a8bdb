import { Agent, TaskRun } from '@faultline/sim';
import { describe, expect, it } from 'vitest';
import { type TranslationCompletion, WHOLE_ADDRESS_SPACE } from '../src/index.ts';
import { iotlbDescriptor, RecordingEndpoint, requestFor, UnitSetup } from './unit-setup.ts';

const SOURCE = 0x18;
const device = new Agent('device');

function attached(accessedDirty: boolean) {
  const setup = new UnitSetup();
  const domain = setup.domain({ accessedDirty });
  domain.attach(SOURCE, new RecordingEndpoint());
  setup.run((agent) => domain.map(agent, { page: 1, frame: 0x80001, pages: 1, write: true }));
  return { setup, domain };
}

const untranslated = (setup: UnitSetup) => setup.unit.translateMiss(device, requestFor(SOURCE, 1, true));
const translation = (setup: UnitSetup) =>
  setup.unit.translationRequest(device, { ...requestFor(SOURCE, 1, true), noWrite: false });

const frameOf = (value: number | TranslationCompletion | undefined) =>
  typeof value === 'object' ? value.frame : value;

/** Runs `act` once, before the n-th step of a walk, for every n. @returns how many steps there are */
function atEveryStep(
  start: () => TaskRun<number | TranslationCompletion>,
  act: () => void,
  after: (n: number) => void,
): number {
  for (let before = 1; ; before++) {
    const walk = start();
    for (let steps = 0; steps < before && !walk.done; steps++) walk.advance();
    if (walk.done) return before;
    act();
    while (!walk.done) walk.advance();
    after(Number(frameOf(walk.value)));
  }
}

describe.each([
  ['an untranslated request', untranslated, -0x79],
  ['a translation request', translation, -1],
] as const)('%s in scalable mode that an invalidation overtakes, with A and D', (_, walkOf, absent) => {
  it('finds nothing of what was unmapped before it', () => {
    let current = attached(true);
    const steps = atEveryStep(
      () => {
        current = attached(true);
        return new TaskRun<number | TranslationCompletion>(device, walkOf(current.setup));
      },
      () => {
        const { setup, domain } = current;
        const gather = domain.gather();
        domain.table.unmap(1, 1, gather);
        setup.run((agent) => domain.flush(agent, gather));
      },
      (frame) => {
        expect(frame).toBe(absent);
        expect(current.setup.unit.iotlb.size).toBe(0);
        for (const { tablePfn } of current.setup.unit.pagingCache.entries())
          expect(current.setup.memory.isAllocated(tablePfn)).toBe(true);
      },
    );
    expect(steps).toBeGreaterThan(8);
  });

  it('finds the domain that the function was moved to', () => {
    let current = attached(false);
    const steps = atEveryStep(
      () => {
        current = attached(false);
        return new TaskRun<number | TranslationCompletion>(device, walkOf(current.setup));
      },
      () => {
        const { setup, domain } = current;
        const other = setup.domain({ domainId: 2 });
        setup.run((agent) => other.map(agent, { page: 1, frame: 0x90001, pages: 1, write: true }));
        setup.run((agent) => domain.detach(agent, SOURCE));
        other.attach(SOURCE, new RecordingEndpoint());
      },
      (frame) => {
        expect(frame).toBe(0x90001);
        expect([...current.setup.unit.iotlb.entries()].map(({ did }) => did)).toEqual([2]);
        expect([...current.setup.unit.pasidCache.entries()].map(({ did }) => did)).toEqual([2]);
      },
    );
    expect(steps).toBeGreaterThan(8);
  });

  it('starts over once for each invalidation, and ends after the last', () => {
    const { setup } = attached(true);
    const walk = new TaskRun<number | TranslationCompletion>(device, walkOf(setup));
    for (let storm = 0; storm < 50; storm++) {
      walk.advance();
      const pasid = { type: 'pasidCache', granularity: 3, domainId: 0, pasid: 0 } as const;
      const context = { type: 'contextCache', granularity: 1, domainId: 0, sourceId: 0, functionMask: 0 } as const;
      setup.submit(context, pasid, iotlbDescriptor(1), { type: 'deviceTlb', sourceId: SOURCE, ...WHOLE_ADDRESS_SPACE });
      expect(walk.done).toBe(false);
    }
    for (let steps = 0; !walk.done; steps++) {
      expect(steps).toBeLessThan(20);
      walk.advance();
    }
    expect(frameOf(walk.value)).toBe(0x80001);
  });
});
