import { describe, expect, it } from 'vitest';
import { FaultOutcome } from '../src/index.ts';
import { FaultSetup, IOVA } from './fault-setup.ts';
import { HostSetup } from './host-setup.ts';

const { success, invalid, failure } = FaultOutcome;

describe('a fault', () => {
  it('that the host outruns for ever is answered after 100 attempts, so that the device asks again', () => {
    const setup = new FaultSetup();
    let asked = 0;
    setup.mm.notifierReadRetry = () => {
      if (++asked > 1000) throw new Error('it does not end');
      return true;
    };
    expect([setup.fault(7), setup.present]).toEqual([success, []]);
    expect([setup.counters, asked]).toEqual([{ spurious: 0, upgrades: 0, around: 0, retries: 100 }, 100]);
  });
  it('of what did not fit starts over if the host begins to take the page while that is flushed', () => {
    const setup = new FaultSetup();
    setup.pin(7);
    setup.mapAll();
    setup.giveUp(7, 1);
    setup.pins.take(() => true);
    setup.seen.length = 0;
    const retry = setup.mm.notifierReadRetry.bind(setup.mm);
    let pending = true;
    setup.mm.notifierReadRetry = (page, sequence, pages) => {
      const taking = pending && setup.seen.includes('take 7+1');
      if (taking) pending = false;
      return taking || retry(page, sequence, pages);
    };
    expect([setup.fault(7), setup.frame(7)]).toEqual([success, setup.own(7)]);
    expect(setup.counters).toEqual({ spurious: 0, upgrades: 1, around: 0, retries: 1 });
  });
  it('fails where there is no memory, for the page or for a table, and gives the lock back', () => {
    const setup = new FaultSetup();
    const map = setup.domain.map.bind(setup.domain);
    setup.domain.map = () => {
      throw Object.assign(new Error('no table page'), { code: 'ENOMEM' });
    };
    expect([setup.fault(7), setup.present]).toEqual([failure, []]);
    setup.domain.map = map;
    setup.giveUp(7, 1, 'nothing');
    const handle = setup.mm.handleMmFault;
    // biome-ignore lint/correctness/useYield: it does not wait
    setup.mm.handleMmFault = function* () {
      return 1; // VM_FAULT_OOM
    };
    expect(setup.fault(7)).toBe(failure);
    // biome-ignore lint/correctness/useYield: it does not wait
    setup.mm.handleMmFault = function* () {
      return 2; // VM_FAULT_SIGBUS
    };
    expect(setup.fault(7)).toBe(invalid);
    setup.mm.handleMmFault = handle;
    expect([setup.fault(7), setup.frame(7)]).toEqual([success, setup.own(7)]);
  });
  it('hides no other error of the domain, and gives the lock back', () => {
    const setup = new FaultSetup();
    const map = setup.domain.map.bind(setup.domain);
    setup.domain.map = () => {
      throw new Error('a broken table');
    };
    expect(() => setup.fault(7)).toThrow('a broken table');
    setup.domain.map = map;
    expect([setup.fault(7), setup.frame(7)]).toEqual([success, setup.own(7)]);
  });
  it('maps nothing into a domain that is going, at any of its steps', () => {
    for (let steps = 1; ; steps++) {
      const setup = new FaultSetup();
      const runs = setup.beside(
        (agent) => setup.hwpt.handleFault(agent, IOVA + 7, true),
        steps,
        (agent) =>
          setup.hwpt.retire(agent, function* () {
            for (const area of setup.ioas.areas.areas()) yield* setup.hwpt.unmapArea(agent, area);
          }),
      );
      if (runs === null) {
        expect(steps).toBeGreaterThan(5);
        break;
      }
      expect([runs.second.done, setup.present, setup.counters.retries < 2]).toEqual([true, [], true]);
      expect(setup.fault(7)).toBe(invalid);
    }
  });
});

describe('a fault in an area that is pinned as a whole', () => {
  const PINNED = { unpinned: false };
  it('has nothing to do but to wait until it is mapped', () => {
    const setup = new HostSetup();
    const hwpt = setup.addDomain();
    setup.map(0, 512, PINNED);
    expect([setup.fault(7), setup.fault(8), setup.fault(9, false)]).toEqual([success, success, success]);
    expect([hwpt.spuriousFaults, hwpt.faultRetries, setup.domain.table.mappedPages]).toEqual([3, 0, 512]);
  });
  it('is invalid if the area goes meanwhile', () => {
    const outcomes = new Set<unknown>();
    for (let steps = 1; ; steps++) {
      const setup = new HostSetup({ pages: 512 });
      const hwpt = setup.addDomain();
      setup.map(0, 512, PINNED);
      const runs = setup.beside(
        (agent) => setup.ioas.unmap(agent, 0n, 512n * 4096n),
        steps,
        (agent) => hwpt.handleFault(agent, 7, true),
      );
      if (runs === null) break;
      expect([runs.first.value, setup.domain.table.mappedPages]).toEqual([512n * 4096n, 0]);
      outcomes.add(runs.second.value);
    }
    expect(outcomes).toEqual(new Set([success, invalid]));
  });
  it('is invalid if the area goes while it waits for the lock', () => {
    const setup = new HostSetup({ pages: 512 });
    const hwpt = setup.addDomain();
    setup.map(0, 512, PINNED);
    const runs = setup.beside(
      (agent) => hwpt.handleFault(agent, 7, true),
      1,
      (agent) => setup.ioas.unmap(agent, 0n, 512n * 4096n),
    );
    expect([runs?.first.value, runs?.second.value, hwpt.faultRetries]).toEqual([invalid, 512n * 4096n, 0]);
  });
});
