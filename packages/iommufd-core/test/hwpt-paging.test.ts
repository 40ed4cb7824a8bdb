import { Agent, TaskRun } from '@faultline/sim';
import { describe, expect, it } from 'vitest';
import { FaultOutcome, STRATEGIES } from '../src/index.ts';
import { HostSetup, type HostSetupOptions, USER } from './host-setup.ts';

function ready(options: HostSetupOptions = {}, writeable = true) {
  const setup = new HostSetup(options);
  const mapped: { page: number; pages: number }[] = [];
  const taken: { page: number; pages: number; fellBack: boolean }[] = [];
  const hwpt = setup.addDomain({
    mapping: (page, pages) => mapped.push({ page, pages }),
    takenAway: (page, pages, { fellBack }) => taken.push({ page, pages, fellBack }),
  });
  setup.map(0, setup.pages, { writeable });
  const hash = setup.ioas.areas.hash();
  return { setup, hwpt, mapped, taken, hash };
}

describe('a fault', () => {
  it('brings the page back from swap and maps it, in the largest block that is vacant and contiguous', () => {
    const { setup, mapped, hash, hwpt } = ready();
    setup.pageOut(7);
    expect(setup.domain.frameAt(7)).toBe(-1);
    expect(setup.fault(7)).toBe(FaultOutcome.success);
    expect(mapped).toEqual([{ page: 7, pages: 1 }]);
    expect([setup.stale(), setup.domain.table.mappedPages, setup.ioas.areas.hash()]).toEqual([[], 1024, hash]);
    // Reading it in from swap is no retry: nothing changed under the fault.
    expect(hwpt.faultRetries).toBe(0);
  });

  it('maps a whole 2M block again after whole-leaf, and only so much of it as is contiguous', () => {
    const { setup, mapped } = ready({ strategy: STRATEGIES['whole-leaf'] });
    setup.run((agent) => setup.mm.madviseDontNeed(agent, USER, 512)); // all of the first leaf
    setup.fault(9);
    expect(mapped).toEqual([{ page: 0, pages: 512 }]);
    setup.pageOut(520); // its leaf goes as a whole, its neighbours stay resident
    setup.fault(600);
    expect(mapped[1]).toEqual({ page: 600, pages: 1 });
    expect(setup.stale()).toEqual([]);
  });

  it('stays within its area, and within the alignment of both sides', () => {
    const setup = new HostSetup({ populate: false });
    const mapped: number[] = [];
    setup.addDomain({ mapping: (_page, pages) => mapped.push(pages) });
    setup.map(0, 511); // one page short of the leaf
    setup.map(1024, 512, { user: USER + 511 }); // off by one against the IOVA
    setup.fault(5);
    setup.fault(1030);
    expect(mapped).toEqual([1, 1]);
    expect(setup.stale()).toEqual([]);
  });

  it('with a page that is there already is spurious and a success', () => {
    const { setup, hwpt } = ready();
    expect([setup.fault(5), setup.fault(5, false), hwpt.spuriousFaults]).toEqual([0, 0, 2]);
  });

  it('outside the areas, outside the memory, or a write to read-only: invalid', () => {
    const { setup } = ready({}, false);
    expect(setup.fault(5000)).toBe(FaultOutcome.invalid);
    expect(setup.fault(5, true)).toBe(FaultOutcome.invalid);
    expect(setup.fault(5, false)).toBe(FaultOutcome.success);
    setup.map(5000, 1, { user: 5 }); // no mapping of the process
    expect(setup.fault(5000)).toBe(FaultOutcome.invalid);
  });

  it('fails when the host has no frame, and when there is no table page', () => {
    const none = ready({ pages: 512, backing: '4K', frames: 512, host: { swapSlots: 1 } });
    none.setup.pageOut(7); // swap is full now
    const other = none.setup.host.createAddressSpace('other');
    other.mmap({ startPage: 0, pages: 1, backing: '4K' });
    none.setup.run((agent) => other.populate(agent, 0, 1));
    expect(none.setup.fault(7)).toBe(FaultOutcome.failure);

    const tables = new HostSetup({ populate: false, backing: '4K', tablePages: 8, domain: { reservePages: 0 } });
    tables.addDomain();
    tables.map(0, 1024);
    while (tables.tables.allocate() >= 0);
    expect(tables.fault(7)).toBe(FaultOutcome.failure);
    expect(tables.domain.table.mappedPages).toBe(0);
  });

  it('twice at once for one page maps once', () => {
    const { setup, mapped, hwpt } = ready({ backing: '4K' });
    setup.pageOut(7);
    const runs = ['a', 'b', 'c'].map((name) => setup.spawn(name, (agent) => hwpt.handleFault(agent, 7, true)));
    setup.time.run();
    expect(runs.map((run) => run.value)).toEqual([0, 0, 0]);
    expect([mapped.length, hwpt.spuriousFaults]).toEqual([1, 2]);
  });

  it('starts over when the host takes the page away meanwhile, at any of its steps', () => {
    let retried = 0;
    for (let before = 1; ; before++) {
      const { setup, hwpt, hash } = ready({ backing: '4K', strategy: STRATEGIES.cut });
      setup.pageOut(7);
      setup.run((agent) => setup.mm.cpuAccess(agent, USER + 7, { write: false, tagLo: 0, tagHi: 0 }));
      const agent = new Agent('fault');
      const fault = new TaskRun(agent, hwpt.handleFault(agent, 7, true));
      for (let steps = 0; steps < before && !fault.done; steps++) fault.advance();
      if (fault.done) break;
      const out = setup.spawn('host', (host) => setup.mm.pageOut(host, USER + 7));
      for (let turns = 0; turns < 1000 && !(fault.done && out.done); turns++) {
        try {
          setup.time.run();
        } catch {} // the host waits for the fault's lock
        expect(setup.stale()).toEqual([]);
        if (fault.enabled && !fault.done) fault.advance();
      }
      setup.time.run();
      expect([fault.value, out.done, setup.ioas.areas.hash()]).toEqual([0, true, hash]);
      expect(setup.stale()).toEqual([]);
      retried += hwpt.faultRetries;
    }
    expect(retried).toBeGreaterThan(0);
  });
});

describe('the notifier', () => {
  it('with cut takes the page alone and keeps every neighbour', () => {
    for (const backing of ['thp-2M', 'pud-thp'] as const) {
      const { setup, taken, hash } = ready(backing === 'pud-thp' ? { backing, pages: 262144 } : {});
      const before = setup.domain.table.mappedPages;
      setup.pageOut(0x123);
      expect(taken).toEqual([{ page: 0x123, pages: 1, fellBack: false }]);
      expect(setup.domain.table.mappedPages).toBe(before - 1);
      expect([setup.domain.frameAt(0x122), setup.domain.frameAt(0x123), setup.domain.frameAt(0x124)]).toEqual([
        setup.mm.lookup(USER + 0x122),
        -1,
        setup.mm.lookup(USER + 0x124),
      ]);
      expect(setup.ioas.areas.hash()).toBe(hash);
    }
  });

  it('with whole-leaf takes the leaf', () => {
    const { setup } = ready({ strategy: STRATEGIES['whole-leaf'] });
    setup.pageOut(7);
    expect([setup.domain.table.leafCounts['2M'], setup.domain.table.mappedPages]).toEqual([1, 512]);
  });

  it('falls back to the whole leaf when neither host nor reserve has a table page: it cannot fail', () => {
    const { setup, taken } = ready({ domain: { reservePages: 0 } });
    while (setup.tables.allocate() >= 0);
    setup.pageOut(7);
    expect(taken).toEqual([{ page: 7, pages: 1, fellBack: true }]);
    expect([setup.domain.frameAt(7), setup.domain.frameAt(8), setup.domain.frameAt(512)]).toEqual([
      -1,
      -1,
      setup.mm.lookup(USER + 512),
    ]);
  });

  it('lives on the reserve when the host has no table page, and fills it up when there are some', () => {
    const { setup, taken } = ready();
    const hoard: number[] = [];
    for (let page = setup.tables.allocate(); page >= 0; page = setup.tables.allocate()) hoard.push(page);
    setup.pageOut(7);
    expect([taken[0]?.fellBack, setup.domain.table.reserve.held]).toEqual([false, 3]);
    for (const page of hoard) setup.tables.free(page);
    setup.pageOut(520);
    expect(setup.domain.table.reserve.held).toBe(4);
  });

  it('takes every alias of the memory, and leaves what is not mapped alone', () => {
    const { setup, taken } = ready({ backing: '4K' });
    setup.map(4096, 16, { user: USER });
    setup.pageOut(7);
    expect(taken.map(({ page }) => page)).toEqual([7, 4096 + 7]);
    expect([setup.domain.frameAt(7), setup.domain.frameAt(4096 + 7)]).toEqual([-1, -1]);
    setup.unmap(0, 1024);
    setup.pageOut(600);
    expect(taken).toHaveLength(2);
  });

  it('an area or a domain that comes while a page is being taken away does not map it', () => {
    for (const what of ['area', 'domain'] as const)
      for (let before = 1; before < 40; before++) {
        const setup = new HostSetup({ backing: '4K', pages: 64 });
        if (what === 'area') setup.addDomain();
        else setup.map(0, 64);
        const host = new Agent('host');
        const out = new TaskRun(host, setup.mm.pageOut(host, USER + 7));
        for (let steps = 0; steps < before && out.enabled && !out.done; steps++) out.advance();
        const coming = setup.spawn('user', function* (agent) {
          if (what === 'area') yield* setup.mapTask(agent, 0, 64);
          else yield* setup.ioas.addDomain(agent, setup.domain);
        });
        for (let turns = 0; turns < 1000 && !(out.done && coming.done); turns++) {
          try {
            setup.time.run();
          } catch {} // waits for the range to end
          expect(setup.stale()).toEqual([]);
          if (out.enabled && !out.done) out.advance();
        }
        setup.time.run();
        expect([coming.done, setup.stale()]).toEqual([true, []]);
      }
  });
});
