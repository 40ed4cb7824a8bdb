import { Agent, type Task, TaskRun } from '@faultline/sim';
import { describe, expect, it } from 'vitest';
import { FaultOutcome, HwptPaging, STRATEGIES } from '../src/index.ts';
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

describe('the end of a HWPT', () => {
  /** Two areas: 64 pages that are not pinned, and 64 that are, at 4096. */
  function both() {
    const setup = new HostSetup({ backing: '4K', pages: 128, domain: { accessedDirty: true } });
    const hwpt = setup.addDomain();
    setup.map(0, 64);
    setup.map(4096, 64, { user: USER + 64, unpinned: false });
    return { setup, hwpt };
  }

  it('released: what is not pinned has gone, what is pinned stays, and faults are invalid from then on', () => {
    const { setup, hwpt } = both();
    for (let times = 0; times < 2; times++) {
      setup.run((agent) => hwpt.release(agent));
      expect([setup.domain.table.mappedPages, setup.domain.frameAt(7)]).toEqual([64, -1]);
      expect(setup.fault(7)).toBe(FaultOutcome.invalid);
      expect(setup.domain.table.mappedPages).toBe(64);
    }
  });

  it('retired: no fault maps anything from its start on, the notifier works until it is empty', () => {
    const { setup, hwpt } = both();
    const during: unknown[] = [];
    setup.run((agent) =>
      hwpt.retire(agent, function* (): Task<void> {
        during.push(yield* hwpt.handleFault(agent, 7, true));
        during.push(yield* setup.mm.pageOut(agent, USER + 9), setup.domain.frameAt(9), setup.domain.frameAt(8) >= 0);
      }),
    );
    expect(during).toEqual([FaultOutcome.invalid, true, -1, true]);
    const left = setup.domain.table.mappedPages;
    // Nobody looks at the domain any more, whatever the host does.
    expect(setup.run((agent) => hwpt.clearFlushYoung(agent, USER, 64))).toBe(false);
    setup.run((agent) => hwpt.release(agent));
    setup.pageOut(11);
    expect([setup.domain.table.mappedPages, setup.fault(7)]).toEqual([left, FaultOutcome.invalid]);
  });

  it('retired while accessed bits are harvested: it returns when nobody is at the tables, at any step of the harvest', () => {
    for (let steps = 1; ; steps++) {
      const { setup, hwpt } = both();
      const agent = new Agent('harvest');
      const harvest = new TaskRun(agent, hwpt.clearFlushYoung(agent, USER, 64));
      for (let nth = 0; nth < steps && !harvest.done; nth++) {
        if (!harvest.enabled) setup.time.run();
        harvest.advance();
      }
      if (harvest.done) {
        expect(steps).toBeGreaterThan(1);
        return;
      }
      const retired = setup.spawn('retire', (of) => hwpt.retire(of, function* () {}), true);
      setup.time.run();
      expect(retired.done).toBe(false);
      while (!harvest.done) {
        if (!harvest.enabled) setup.time.run();
        harvest.advance();
      }
      setup.time.run();
      expect(retired.done).toBe(true);
    }
  });

  it('areas that cannot be removed from the io_pagetable leave the domain all the same, and the lock is free', () => {
    const { setup, hwpt } = both();
    const [area] = [...hwpt.areas.areas()];
    if (!area) throw new Error('no area');
    const refuse = () => {
      throw new Error('refused');
    };
    expect(() => setup.run((agent) => hwpt.unmapAreas(agent, [area], refuse))).toThrow('refused');
    expect(setup.domain.table.mappedPages).toBe(64);
    expect(setup.fault(7)).toBe(FaultOutcome.success);
    setup.run((agent) => hwpt.unmapArea(agent, area));
    expect([setup.domain.table.mappedPages, setup.domain.frameAt(7)]).toEqual([64, -1]);
  });
});

describe('a HWPT', () => {
  it('whose table the CPU walks maps nothing of unpinned areas by itself, and pinned ones whole; faults of the CPU fill it', () => {
    const setup = new HostSetup({ backing: '4K', pages: 128, strategy: STRATEGIES['shared-ept'] });
    const hwpt = setup.addDomain();
    setup.map(0, 64);
    expect([hwpt.sharesCpuTable, setup.domain.table.mappedPages]).toEqual([true, 0]);
    expect(setup.run((agent) => hwpt.cpuFault(agent, 7, true))).toBe(FaultOutcome.success);
    expect(setup.domain.frameAt(7)).toBe(setup.mm.lookup(USER + 7));
    setup.map(4096, 64, { user: USER + 64, unpinned: false });
    expect(setup.domain.table.mappedPages).toBe(65);
  });

  it('with a table of its own is told of no fault of the CPU', () => {
    const { setup, hwpt } = ready({ backing: '4K', pages: 64 });
    expect([hwpt.sharesCpuTable, hwpt.strategy === null]).toEqual([false, false]);
    expect(() => setup.run((agent) => hwpt.cpuFault(agent, 7, true))).toThrow(
      'cpuFault: the CPU has a second-stage table',
    );
  });

  it('that follows nothing unmaps its areas as well', () => {
    const setup = new HostSetup({ backing: '4K', pages: 64, strategy: null });
    const hwpt = setup.addDomain();
    setup.map(0, 64, { unpinned: false });
    expect([hwpt.strategy, setup.domain.table.mappedPages]).toEqual([null, 64]);
    expect([setup.unmap(0, 64), setup.domain.table.mappedPages]).toEqual([64n * 4096n, 0]);
  });

  it('by itself, with nobody who looks on and nothing pinned, maps large leaves, and none with a strategy of none', () => {
    const setup = new HostSetup({ pages: 512 });
    setup.map(0, 512);
    const { domain, mm } = setup;
    const hwpt = new HwptPaging({ domain, areas: setup.ioas.areas, mm, strategy: STRATEGIES.cut });
    expect(setup.run((agent) => hwpt.handleFault(agent, 7, true))).toBe(FaultOutcome.success);
    expect(domain.table.leafCounts).toEqual({ '4K': 0, '2M': 1, '1G': 0 });
    expect([hwpt.lostPins, hwpt.mappedAround, hwpt.faultRetries, hwpt.upgradedFaults]).toEqual([0, 0, 0, 0]);
    const pinned = new HwptPaging({ domain: setup.secondDomain(), areas: setup.ioas.areas, mm, strategy: null });
    expect([pinned.strategy, pinned.sharesCpuTable]).toEqual([null, false]);
    expect(
      setup.run((agent) =>
        pinned.invalidateRangeStart(agent, { startPage: USER, pages: 1, event: 0, blockable: true }),
      ),
    ).toBe(true);
  });
});
