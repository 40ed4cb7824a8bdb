import { Agent } from '@faultline/sim';
import { describe, expect, it } from 'vitest';
import { FaultOutcome, STRATEGIES } from '../src/index.ts';
import { HostSetup, type HostSetupOptions, USER } from './host-setup.ts';

function ready(options: HostSetupOptions = {}, writeable = true) {
  const setup = new HostSetup(options);
  const taken: string[] = [];
  const hwpt = setup.addDomain({
    takenAway: (page, pages) => taken.push(`all ${page}+${pages}`),
    writeTaken: (page, pages) => taken.push(`write ${page}+${pages}`),
  });
  setup.map(0, setup.pages, { writeable });
  const rights = (page: number): number => setup.domain.leafAt(page)?.rights ?? 0;
  return { setup, hwpt, taken, rights };
}

const fork = (setup: HostSetup) => setup.run((agent) => setup.mm.fork(agent, 'child'));
const cpuWrite = (setup: HostSetup, page: number) =>
  setup.run((agent) => setup.mm.cpuAccess(agent, USER + page, { write: true, tagLo: 1, tagHi: 0 }));

describe('an event that takes only the right to write', () => {
  it('fork: the leaf stays whole and readable; a write copies its page, and only that', () => {
    const { setup, hwpt, taken, rights } = ready();
    const before = setup.domain.frameAt(7);
    fork(setup);
    expect([taken, rights(7), setup.domain.table.leafCounts['2M']]).toEqual([['write 0+1024'], 1, 2]);
    expect(setup.fault(7, false)).toBe(FaultOutcome.success);
    expect([hwpt.spuriousFaults, setup.domain.frameAt(7)]).toEqual([1, before]);
    expect(setup.fault(7, true)).toBe(FaultOutcome.success);
    expect(setup.domain.frameAt(7)).not.toBe(before);
    expect([rights(7), rights(8), setup.domain.frameAt(8)]).toEqual([3, 1, before + 1]);
    expect(setup.stale()).toEqual([]);
  });

  it('soft-dirty: the first write brings W back to all that the host lets be written, with no cut', () => {
    const { setup, taken, rights, hwpt } = ready();
    setup.run((agent) => setup.mm.clearSoftDirty(agent));
    expect([taken, rights(0), rights(600)]).toEqual([['write 0+1024'], 1, 1]);
    expect(setup.mm.softDirty(USER + 7)).toBe(false);
    expect(setup.fault(7, true)).toBe(FaultOutcome.success);
    // The host's own leaf is 2M, so that it marks 2M as written.
    expect([rights(0), rights(511), rights(512), setup.mm.softDirty(USER + 7)]).toEqual([3, 3, 1, true]);
    expect([setup.domain.table.leafCounts, hwpt.upgradedFaults]).toEqual([{ '4K': 0, '2M': 2, '1G': 0 }, 1]);
  });

  it('W comes back to one 4K page where the host gives no more', () => {
    const { setup, rights } = ready();
    setup.run((agent) => setup.mm.pageOut(agent, USER + 9)); // the CPU's leaf is split
    setup.fault(9);
    setup.run((agent) => setup.mm.clearSoftDirty(agent));
    setup.fault(7, true);
    expect([rights(6), rights(7), rights(8)]).toEqual([1, 3, 1]);
    expect(setup.stale()).toEqual([]);
  });

  it('does not concern an area that gives devices no W', () => {
    const { setup, taken, rights } = ready({}, false);
    fork(setup);
    setup.run((agent) => setup.mm.clearSoftDirty(agent));
    expect([taken, rights(0)]).toEqual([[], 1]);
  });

  it('takes the whole range where the strategy knows no change of rights, and without a table page', () => {
    const whole = ready({ strategy: STRATEGIES['whole-leaf'] });
    fork(whole.setup);
    expect([whole.taken, whole.rights(0)]).toEqual([['all 0+1024'], 0]);

    const short = ready({ domain: { reservePages: 0 }, pages: 1024 });
    while (short.setup.tables.allocate() >= 0);
    const agent = new Agent('host');
    const range = { startPage: USER + 5, pages: 1, event: 3, blockable: true } as const;
    short.setup.run(() => short.setup.mm.invalidateRangeStart(agent, range));
    expect([short.rights(5), short.rights(4), short.rights(512)]).toEqual([0, 0, 3]);
    short.setup.run(() => short.setup.mm.invalidateRangeEnd(agent, range));
  });
});

describe('an event that may take everything', () => {
  it('mprotect(PROT_NONE), mprotect(PROT_READ) and a NUMA hint look alike, so the range goes', () => {
    const { setup, taken } = ready({ backing: '4K', pages: 64 });
    for (const [page, readable] of [
      [3, false],
      [5, true],
    ] as const)
      setup.run((agent) => setup.mm.mprotect(agent, USER + page, 1, { readable, writeable: false }));
    setup.run((agent) => setup.mm.changeProtNuma(agent, USER + 9, 1));
    expect(taken).toEqual(['all 3+1', 'all 5+1', 'all 9+1']);
    expect([setup.fault(3, false), setup.fault(5, true), setup.fault(9, true)]).toEqual([
      FaultOutcome.invalid,
      FaultOutcome.invalid,
      FaultOutcome.success,
    ]);
    expect([setup.domain.frameAt(3), setup.stale()]).toEqual([-1, []]);
  });

  it('copy on write by the CPU takes the old frame away', () => {
    const { setup } = ready({ backing: '4K', pages: 64 });
    fork(setup);
    const before = setup.domain.frameAt(7);
    cpuWrite(setup, 7);
    expect(setup.domain.frameAt(7)).toBe(-1);
    setup.fault(7);
    expect(setup.domain.frameAt(7)).not.toBe(before);
    expect(setup.stale()).toEqual([]);
  });
});

describe('a range that is not blockable', () => {
  it('is taken away without a wait where nobody holds the update lock', () => {
    const { setup } = ready({ backing: '4K', pages: 64 });
    expect(setup.run((agent) => setup.mm.oomReap(agent))).toBe(true);
    expect([setup.domain.table.mappedPages, setup.mm.residentBytes]).toEqual([0, 0]);
  });

  it('is EAGAIN while somebody holds it, at any of his steps, and nothing is done then', () => {
    let refused = 0;
    for (let steps = 1; ; steps++) {
      const { setup } = ready({ backing: '4K', pages: 64 });
      const reaps: boolean[] = [];
      const both = setup.beside(
        (agent) => setup.mm.pageOut(agent, USER + 7),
        steps,
        function* (agent) {
          const mapped = setup.domain.table.mappedPages;
          const done = yield* setup.mm.oomReap(agent);
          reaps.push(done);
          if (!done) expect(setup.domain.table.mappedPages).toBe(mapped);
        },
        () => expect(setup.stale()).toEqual([]),
      );
      if (both === null) break;
      expect([both.first.done, both.second.done]).toEqual([true, true]);
      if (reaps[0] === false) refused++;
    }
    expect(refused).toBeGreaterThan(3);
  });

  it('does not fill the reserve up, as that may wait; the next range does', () => {
    const { setup } = ready({ pages: 1024 });
    const hoard: number[] = [];
    for (let page = setup.tables.allocate(); page >= 0; page = setup.tables.allocate()) hoard.push(page);
    const range = { startPage: USER + 5, pages: 1, event: 1, blockable: false } as const;
    const agent = new Agent('reaper');
    const invalidate = () => {
      setup.run(() => setup.mm.invalidateRangeStart(agent, range));
      setup.run(() => setup.mm.invalidateRangeEnd(agent, range));
    };
    invalidate();
    for (const page of hoard) setup.tables.free(page);
    invalidate();
    expect([setup.domain.frameAt(5), setup.domain.table.reserve.held]).toEqual([-1, 3]);
    setup.pageOut(600);
    expect(setup.domain.table.reserve.held).toBe(4);
  });
});
