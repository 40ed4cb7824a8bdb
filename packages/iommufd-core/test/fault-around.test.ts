import { Agent, TaskRun } from '@faultline/sim';
import { describe, expect, it } from 'vitest';
import { FaultOutcome } from '../src/index.ts';
import { FaultSetup, type FaultSetupOptions, IOVA, OWN } from './fault-setup.ts';

const { success } = FaultOutcome;
const range = (first: number, end: number): number[] => Array.from({ length: end - first }, (_, nth) => first + nth);

/** Windows of 16 pages around faults, in an area whose pages from 64 on nobody has touched. */
function ready(options: FaultSetupOptions = {}) {
  const { policy, ...others } = options;
  return new FaultSetup({
    backing: '4K',
    length: 128,
    ...others,
    policy: { around: 16, largest: '4K', ...policy },
  });
}

describe('around a fault is mapped', () => {
  it('each run of the owner’s at once, in its window and no further', () => {
    const setup = ready();
    expect([setup.fault(19), setup.present, setup.counters.around]).toEqual([success, range(16, 32), 15]);
    expect(setup.seen.filter((what) => what.startsWith('map '))).toEqual(['map 19+1', 'map 16+3', 'map 20+12']);
    for (const page of setup.present) expect(setup.frame(page)).toBe(setup.own(page));
  });
  it('nothing of another area that shares the window', () => {
    for (const [page, mapped] of [
      [38, range(32, 40)],
      [41, range(40, 48)],
    ] as const) {
      const setup = ready({ length: 40 });
      setup.area(40, 24, OWN + 400, { policy: { around: 16, largest: '4K' } });
      expect([setup.fault(page), setup.present]).toEqual([success, mapped]);
      for (const at of mapped) expect(setup.frame(at)).toBe(setup.own(at < 40 ? at : at + 360));
    }
  });
  it('not what the host is about to take, and what comes after that', () => {
    const setup = ready();
    setup.giveUp(24, 1, 'nothing'); // so that there are two runs
    setup.takingSoon(20);
    expect([setup.fault(17), setup.present]).toEqual([success, [16, 17, ...range(25, 32)]]);
    expect(setup.counters).toEqual({ spurious: 0, upgrades: 0, around: 8, retries: 0 });
  });
  it('nothing more where a leaf covers the window, which costs one look', () => {
    const setup = new FaultSetup({ policy: { around: 512 } });
    let looks = 0;
    const leafAt = setup.domain.leafAt.bind(setup.domain);
    setup.domain.leafAt = (page) => {
      looks++;
      return leafAt(page);
    };
    expect([setup.fault(7), setup.seen, setup.counters.around]).toEqual([success, ['map 0+512', 'mapped 0+512'], 0]);
    expect(looks).toBeLessThan(4);
  });
  it('nothing by default, when nobody looks at a neighbour either', () => {
    const setup = new FaultSetup({ backing: '4K', policy: { largest: '4K' } });
    const agent = new Agent('fault');
    const fault = new TaskRun(agent, setup.hwpt.handleFault(agent, IOVA + 17, true));
    const labels: string[] = [];
    for (; !fault.done; fault.advance()) if (fault.pending) labels.push(fault.pending.label);
    expect([fault.value, setup.present, setup.counters.around]).toEqual([success, [17], 0]);
    expect([labels.includes('look the page up'), labels.includes('look around')]).toEqual([true, false]);
  });
  it('what there are table pages for: the fault itself is answered with success', () => {
    const setup = ready();
    const map = setup.domain.map.bind(setup.domain);
    setup.domain.map = (agent, request) => {
      if (request.page !== IOVA + 19) throw Object.assign(new Error('no table page'), { code: 'ENOMEM' });
      return map(agent, request);
    };
    expect([setup.fault(19), setup.present, setup.counters.around]).toEqual([success, [19], 0]);
  });
  it('nothing where the domain fails otherwise, which is a bug that goes through', () => {
    const setup = ready();
    const map = setup.domain.map.bind(setup.domain);
    setup.domain.map = (agent, request) => {
      if (request.page !== IOVA + 19) throw new Error('a broken table');
      return map(agent, request);
    };
    expect(() => setup.fault(19)).toThrow('a broken table');
  });
});

describe('the neighbours of a fault are faulted in for the owner', () => {
  const populateAround = { policy: { populateAround: true } };
  const absent = (...pages: number[]): FaultSetup => {
    const setup = ready(populateAround);
    for (const page of pages) setup.giveUp(page, 1, 'nothing');
    setup.fixed.length = 0;
    return setup;
  };
  it('with the rights of the area, each that is missing and only those', () => {
    const setup = absent(15, 16, 19, 24, 31, 32);
    expect([setup.fault(19, false), setup.fixed]).toEqual([success, ['16W', '24W', '31W', '19']]);
    expect(setup.present).toEqual(range(16, 32));
  });
  it('also where the page itself is there', () => {
    const setup = absent(24);
    expect([setup.fault(19), setup.fixed, setup.present]).toEqual([success, ['24W'], range(16, 32)]);
  });
  it('without copying the page itself, if a device only reads it', () => {
    const setup = ready(populateAround);
    const child = setup.run((agent) => setup.mm.fork(agent, 'child'));
    expect([setup.fault(19, false), setup.rights(19), setup.rights(20)]).toEqual([success, 1, 3]);
    expect([child.lookup(OWN + 19), setup.frame(19)]).toEqual([setup.own(19), setup.own(19)]);
    expect(child.lookup(OWN + 20)).not.toBe(setup.own(20));
  });
  it('until one has an error, once for each fault; the page itself does not depend on them', () => {
    const setup = absent(16, 19, 24);
    setup.run((agent) => setup.host.memoryFailure(agent, setup.own(20)));
    expect([setup.fault(19), setup.fixed]).toEqual([success, ['16W', '20W', '19W']]);
    expect([setup.frame(19), setup.own(24)]).toEqual([setup.own(19), -1]);
  });
});

it('an area that is cut in two keeps its policy', () => {
  const setup = ready();
  setup.run((agent) => setup.ioas.iopt.cut(agent, [BigInt(IOVA + 64) * 4096n - 1n]));
  expect(setup.ioas.areas.size).toBe(2);
  for (const page of [19, 67]) expect(setup.fault(page)).toBe(success);
  expect(setup.present).toEqual([...range(16, 32), ...range(64, 80)]);
});
