import { Cost } from '@faultline/sim';
import { describe, expect, it } from 'vitest';
import { FaultOutcome } from '../src/index.ts';
import { FaultSetup, type FaultSetupOptions, IOVA, OWN } from './fault-setup.ts';

const { success } = FaultOutcome;
const NONE = { spurious: 0, upgrades: 0, around: 0, retries: 0 };

/** All is mapped, in leaves of 2M, before anything is pinned. */
function mapped(options: FaultSetupOptions = {}): FaultSetup {
  const setup = new FaultSetup(options);
  setup.mapAll();
  setup.dirty.length = 0;
  return setup;
}

describe('a fault of a page that is pinned for a device', () => {
  it('maps the frame of the pin and no page beside it, whatever the owner has there now', () => {
    const setup = new FaultSetup();
    setup.pin(7);
    const frame = setup.own(7);
    setup.giveUp(7, 1);
    expect(setup.own(7)).not.toBe(frame);
    expect(setup.fault(7, false)).toBe(success);
    expect([setup.frame(7), setup.rights(7), setup.present]).toEqual([frame, 3, [7]]);
    // Whoever looks on hears that it is a pin's: it is mapped in spite of what the host does to the owner's page.
    expect([setup.seen, setup.dirty, setup.counters]).toEqual([
      ['pin 7+1', 'mapped 7+1'],
      [],
      { ...NONE, upgrades: 1 },
    ]);
  });
  it('faults nothing in for the owner, who has given the page up', () => {
    const setup = new FaultSetup();
    setup.pin(7);
    const frame = setup.own(7);
    setup.giveUp(7, 1, 'nothing');
    setup.fixed.length = 0;
    expect([setup.fault(7), setup.frame(7), setup.own(7), setup.fixed]).toEqual([success, frame, -1, []]);
  });
  it('takes nothing out where a leaf, however large, maps that frame with the rights of the area', () => {
    for (const writeable of [true, false]) {
      const setup = mapped({ writeable });
      setup.pin(519);
      const before = setup.present.length;
      expect([setup.fault(519, writeable), setup.fault(519, false)]).toEqual([success, success]);
      expect([setup.seen, setup.dirty, setup.present.length]).toEqual([[], [], before]);
      expect([setup.counters, setup.domain.table.leafCounts['2M']]).toEqual([{ ...NONE, spurious: 2 }, 2]);
    }
  });
  it('gives the device W again, also when it only reads: its pin was asked for with W', () => {
    const setup = mapped();
    setup.notify(7, 1, 'SOFT_DIRTY');
    expect([setup.rights(7), setup.rights(8)]).toEqual([1, 3]);
    setup.pin(7);
    expect([setup.fault(7, false), setup.rights(7), setup.frame(7)]).toEqual([success, 3, setup.own(7)]);
    expect([setup.counters, setup.seen]).toEqual([{ ...NONE, upgrades: 1 }, ['take 7+1', 'pin 7+1', 'mapped 7+1']]);
  });
  it('replaces another frame, alone, and leaves the rest of the leaf', () => {
    const setup = new FaultSetup();
    const pin = setup.pin(7);
    const frame = setup.own(7);
    setup.giveUp(0, 512);
    setup.pins.take(() => true);
    setup.mapAll();
    setup.pins.add(pin); // as between a pin and its map
    setup.seen.length = 0;
    expect(setup.frame(7)).toBe(setup.own(7));
    expect([setup.fault(7), setup.frame(7)]).toEqual([success, frame]);
    for (const page of [6, 8, 511, 600]) expect(setup.frame(page)).toBe(setup.own(page));
    expect([setup.counters, setup.seen]).toEqual([{ ...NONE, upgrades: 1 }, ['take 7+1', 'pin 7+1', 'mapped 7+1']]);
  });
  it('maps frame 0 as any other', () => {
    const setup = new FaultSetup({ backing: '4K', frames: 1600, host: { firstPfn: 0 } });
    const page = Array.from({ length: 1024 }, (_, at) => at).find((at) => setup.own(at) === 0) as number;
    setup.pin(page);
    setup.giveUp(page, 1, 'nothing');
    setup.fixed.length = 0;
    expect([setup.fault(page), setup.frame(page), setup.own(page), setup.fixed]).toEqual([success, 0, -1, []]);
  });
  it('that is given back at any step of it: maps what the owner has, as for anybody', () => {
    let late = 0;
    for (let steps = 1; ; steps++) {
      const setup = new FaultSetup({ backing: '4K' });
      setup.pin(7);
      setup.giveUp(7, 1, 'nothing');
      const runs = setup.beside(
        (agent) => setup.hwpt.handleFault(agent, IOVA + 7, true),
        steps,
        function* (agent) {
          yield agent.spends('give the pin back', Cost.free);
          setup.pins.take(() => true);
        },
      );
      if (runs === null) break;
      expect([runs.first.value, runs.second.done]).toEqual([success, true]);
      if (setup.own(7) < 0) continue; // it had the frame of the pin already, which whoever gives it back takes out
      expect(setup.frame(7)).toBe(setup.own(7));
      late += setup.counters.retries;
    }
    expect(late).toBeGreaterThan(0);
  });
});

it('a page that a device pins at any step of a fault has the frame of the pin, once', () => {
  for (let steps = 1; ; steps++) {
    const setup = mapped();
    setup.notify(0, 1024, 'SOFT_DIRTY');
    const pin = setup.pin(7);
    setup.pins.take(() => true);
    setup.takingSoon(9); // so that the page leaves its leaf, and comes back alone
    const runs = setup.beside(
      (agent) => setup.hwpt.handleFault(agent, IOVA + 7, true),
      steps,
      function* (agent) {
        yield agent.spends('pin', Cost.free);
        setup.pins.add(pin);
        yield* setup.hwpt.mapPins(agent, OWN + 7, 1);
      },
    );
    if (runs === null) {
      expect(steps).toBeGreaterThan(9);
      break;
    }
    expect([runs.first.value, runs.second.done, setup.frame(7), setup.rights(7)]).toEqual([
      success,
      true,
      setup.own(7),
      3,
    ]);
  }
});

describe('a fault of a page beside one that is pinned', () => {
  it('maps a large leaf where the pin has the frame that the leaf gives it', () => {
    const setup = new FaultSetup();
    setup.pin(100);
    expect([setup.fault(7), setup.seen]).toEqual([success, ['map 0+512', 'mapped 0+512']]);
    expect(setup.frame(100)).toBe(setup.own(100));
  });
  it('maps its page alone where it has another, so that the device goes on with what it has pinned', () => {
    const setup = new FaultSetup();
    setup.pin(100);
    const frame = setup.own(100);
    setup.giveUp(0, 512);
    expect([setup.fault(7), setup.present]).toEqual([success, [7]]);
    expect([setup.fault(100), setup.frame(100)]).toEqual([success, frame]);
    expect([setup.fault(600), setup.seen.at(-1)]).toEqual([success, 'mapped 512+512']);
  });
  it('leaves a pinned page out of what it maps around, where the owner has another', () => {
    const setup = new FaultSetup({ backing: '4K', policy: { around: 16, largest: '4K' } });
    setup.pin(20);
    const frame = setup.own(20);
    setup.giveUp(20, 1);
    expect([setup.fault(17), setup.present]).toEqual([
      success,
      [16, 17, 18, 19, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31],
    ]);
    expect([setup.fault(20), setup.frame(20)]).toEqual([success, frame]);
  });
  it('maps a pinned page around it where the owner has the pin’s frame', () => {
    const setup = new FaultSetup({ backing: '4K', policy: { around: 16, largest: '4K' } });
    setup.pin(20);
    expect([setup.fault(17), setup.frame(20), setup.counters.around]).toEqual([success, setup.own(20), 15]);
  });
});

it('what a pin has left behind is replaced, by the page that the owner has, when a device asks', () => {
  const setup = mapped();
  setup.pin(519);
  const left = setup.frame(519);
  setup.giveUp(519, 1);
  setup.pins.take(() => true); // and before the domain follows, a device comes
  expect([setup.fault(519, false), setup.frame(519)]).toEqual([success, setup.own(519)]);
  expect(setup.frame(519)).not.toBe(left);
  expect([setup.frame(518), setup.frame(520)]).toEqual([setup.own(518), setup.own(520)]);
  expect([setup.counters, setup.seen]).toEqual([{ ...NONE, upgrades: 1 }, ['take 519+1', 'map 519+1', 'mapped 519+1']]);
  expect(setup.mm.isWriteable(OWN + 519)).toBe(true);
});
