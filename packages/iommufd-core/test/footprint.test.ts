import { Access, Agent, type Footprint, Location, stepsConflict, TaskRun } from '@faultline/sim';
import { describe, expect, it } from 'vitest';
import { FaultSetup, type FaultSetupOptions, IOVA, OWN } from './fault-setup.ts';

/** The tables of the owner's entries that somebody looks at, as locations. */
function watch(setup: FaultSetup): number[] {
  const { mm } = setup;
  const looked: number[] = [];
  const look = (first: number, end: number): void => {
    for (let page = first; page < end; page++) looked.push(mm.entryLocation(page));
  };
  for (const name of ['lookup', 'isReadable', 'isWriteable'] as const) {
    const was = mm[name].bind(mm) as (page: number) => never;
    mm[name] = (page: number) => {
      look(page, page + 1);
      return was(page);
    };
  }
  const runOf = mm.contiguousRun.bind(mm);
  mm.contiguousRun = (page, first, last, run, write) => {
    const found = runOf(page, first, last, run, write);
    look(Math.min(page, run.startPage), Math.max(page + 1, run.startPage + run.pages));
    return found;
  };
  return looked;
}

/** A change of the owner's entry by somebody else. */
const changeOf = (location: number): Footprint => ({
  access: Access.write,
  kind: Location.cpuEntry,
  location,
  alsoAccess: Access.none,
  alsoKind: Location.nothing,
  alsoLocation: 0,
});

describe('whatever a fault looks at of its owner’s entries, its step has announced', () => {
  const AROUND = { around: 16, populateAround: true } as const;
  const cases: Record<string, [options: FaultSetupOptions, before: (setup: FaultSetup) => unknown]> = {
    'a large leaf': [{}, () => undefined],
    'a page that is missing': [{}, (setup) => setup.giveUp(7, 1, 'nothing')],
    'a window': [{ backing: '4K', policy: { around: 16, largest: '4K' } }, () => undefined],
    'a window with missing neighbours': [{ backing: '4K', policy: AROUND }, (setup) => setup.giveUp(0, 12, 'nothing')],
    'a leaf without W': [{}, (setup) => [setup.mapAll(), setup.notify(0, 512, 'SOFT_DIRTY')]],
    'a leaf without W, of which the host takes another page': [
      {},
      (setup) => [setup.mapAll(), setup.notify(0, 512, 'SOFT_DIRTY'), setup.takingSoon(9)],
    ],
    'a page that is mapped': [{}, (setup) => setup.mapAll()],
  };
  it.each(Object.entries(cases))('%s', (_name, [options, before]) => {
    for (const own of [7, 511, 512]) {
      const setup = new FaultSetup(options);
      before(setup);
      const looked = watch(setup);
      const agent = new Agent('fault');
      const fault = new TaskRun(agent, setup.hwpt.handleFault(agent, IOVA + own, true));
      let announced: Footprint | null = null;
      let looks = 0;
      while (!fault.done) {
        setup.time.run();
        looked.length = 0;
        announced = fault.pending === null ? null : { ...fault.pending };
        fault.advance();
        for (const location of new Set(looked))
          expect([announced, announced !== null && stepsConflict(announced, changeOf(location))]).toEqual([
            announced,
            true,
          ]);
        looks += looked.length;
      }
      expect([looks > 0, setup.frame(own)]).toEqual([true, setup.mm.lookup(OWN + own)]);
    }
  });
});

it('a neighbour that the CPU faults in meanwhile is mapped around the fault or not, by the order of steps that conflict', () => {
  /** Some steps of the fault and all of the CPU's before it maps the neighbour, then both next steps. @returns null if those conflict */
  const ending = (steps: number, order: readonly [0 | 1, 0 | 1]) => {
    const setup = new FaultSetup({ backing: '4K', policy: { around: 16, largest: '4K' } });
    setup.giveUp(9, 1, 'nothing');
    const [device, cpu] = [new Agent('device'), new Agent('CPU')];
    const runs = [
      new TaskRun(device, setup.hwpt.handleFault(device, IOVA + 7, true)),
      new TaskRun(cpu, setup.mm.cpuAccess(cpu, OWN + 9, { write: true, tagLo: 1, tagHi: 0 })),
    ] as const;
    const step = (nth: 0 | 1): void => {
      setup.time.run();
      runs[nth].advance();
    };
    for (let n = 0; n < steps; n++) step(0);
    while (runs[1].pending?.label !== 'fault: map folio') step(1);
    if (runs[0].done || stepsConflict(device.step, cpu.step)) return { ends: runs[0].done, mapped: null };
    for (const nth of order) step(nth);
    for (const run of runs) while (!run.done) step(runs[0] === run ? 0 : 1);
    return { ends: false, mapped: setup.present };
  };
  let compared = 0;
  for (let steps = 1; ; steps++) {
    const { ends, mapped } = ending(steps, [0, 1]);
    if (ends) break;
    if (mapped === null) continue;
    expect([steps, ending(steps, [1, 0]).mapped]).toEqual([steps, mapped]);
    compared++;
  }
  expect(compared).toBeGreaterThan(4);
});
