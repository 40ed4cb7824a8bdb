import { describe, expect, it } from 'vitest';
import { cutAndCollapse, PATCH_2023_DEFECTS, patch2023, STRATEGIES } from '../src/index.ts';
import { HostSetup, type HostSetupOptions, USER } from './host-setup.ts';

function ready(options: HostSetupOptions) {
  const setup = new HostSetup(options);
  const hwpt = setup.addDomain();
  setup.map(0, setup.pages);
  const { strategy } = hwpt;
  if (strategy === null) throw new Error('no strategy');
  const pass = (): void => setup.run((agent) => strategy.backgroundPass?.(agent) ?? setup.mm.populate(agent, USER, 1));
  return { setup, hwpt, counters: strategy.counters, pass };
}

it('names say what they are', () => {
  for (const [name, strategy] of Object.entries(STRATEGIES)) expect(strategy.name).toBe(name);
  const hitless = Object.values(STRATEGIES).filter(({ claimsHitless }) => claimsHitless);
  expect(hitless.map(({ name }) => name)).toEqual(['patch-2023', 'cut', 'cut+collapse', 'shared-ept']);
  const unsafe = Object.values(STRATEGIES).filter(({ claimsSafe }) => !claimsSafe);
  expect(unsafe.map(({ name }) => name)).toEqual(['naive', 'patch-2023']);
});

describe('paired', () => {
  it('takes the whole unit of one map call, and a fault makes a unit of its own', () => {
    const { setup, counters } = ready({ strategy: STRATEGIES.paired });
    expect(setup.domain.table.mappedPages).toBe(1024); // two folios in a row: one run, one call
    setup.pageOut(7);
    expect([setup.domain.table.mappedPages, counters.unitInnocents]).toEqual([0, 1023]);
    setup.fault(600); // a 2M block
    setup.fault(7); // another, since it comes back to its frame
    expect(setup.domain.table.mappedPages).toBe(1024);
    setup.pageOut(7);
    expect([setup.domain.table.mappedPages, counters.unitInnocents]).toEqual([512, 1023 + 511]);
    expect(setup.stale()).toEqual([]);
  });

  it('takes what is mapped after a map that failed together with what that has on record', () => {
    const { setup, hwpt } = ready({ strategy: STRATEGIES.paired });
    setup.pageOut(7);
    hwpt.strategy?.mapped?.(4, 4); // a map that found no table page tells of all that it was to map
    setup.fault(7);
    expect(setup.domain.table.mappedPages).toBe(512);
    setup.pageOut(100);
    expect([setup.domain.table.mappedPages, setup.stale()]).toEqual([0, []]);
  });

  it('forgets the units of an area that is unmapped', () => {
    const { setup } = ready({ strategy: STRATEGIES.paired });
    setup.unmap(0, 1024);
    setup.map(0, 512);
    setup.map(512, 512);
    setup.pageOut(7);
    expect(setup.domain.table.leafCounts['2M']).toBe(1);
  });
});

describe('break-before-make', () => {
  it('maps the rest back, in the largest leaves that fit', () => {
    const { setup, counters } = ready({ strategy: STRATEGIES['break-before-make'], backing: 'pud-thp', pages: 262144 });
    setup.pageOut(0x12345);
    expect(setup.domain.table.leafCounts).toEqual({ '4K': 511, '2M': 511, '1G': 0 });
    expect([counters.mappedBack, counters.lostInnocents, setup.stale()]).toEqual([262143, 0, []]);
  });

  it('leaves innocents unmapped when there is no table page', () => {
    const { setup, counters } = ready({ strategy: STRATEGIES['break-before-make'], domain: { reservePages: 0 } });
    while (setup.tables.allocate() >= 0);
    setup.pageOut(7);
    expect([counters.lostInnocents, setup.domain.table.mappedPages, setup.stale()]).toEqual([511, 512, []]);
  });
});

describe('cut+collapse', () => {
  it('puts a leaf back once its block is whole, equal and quiet, and not before', () => {
    const { setup, counters, pass } = ready({ strategy: cutAndCollapse({ quietPasses: 2 }) });
    setup.run((agent) => setup.mm.pageOut(agent, USER + 9));
    setup.fault(9); // from the swap cache: the same frame
    expect([setup.domain.table.leafCounts['2M'], setup.domain.frameAt(9)]).toEqual([1, setup.domain.frameAt(8) + 1]);
    pass();
    expect(counters.collapses).toBe(0); // quiet for one pass only
    pass();
    expect([counters.collapses, setup.domain.table.leafCounts]).toEqual([1, { '4K': 0, '2M': 2, '1G': 0 }]);
    expect(setup.stale()).toEqual([]);
  });

  it('waits longer for a block that is cut again', () => {
    const { setup, counters, pass } = ready({ strategy: cutAndCollapse({ quietPasses: 1, mostQuietPasses: 3 }) });
    const passes: number[] = [];
    for (let round = 1; round <= 4; round++) {
      setup.pageOut(9);
      setup.fault(9);
      let count = 0;
      while (counters.collapses < round && count < 20) {
        pass();
        count++;
      }
      passes.push(count);
    }
    expect(passes).toEqual([1, 2, 3, 3]);
  });

  it('leaves a block alone that has a hole, and one beyond its area or above what its policy allows', () => {
    const { setup, counters, pass } = ready({ strategy: cutAndCollapse({ quietPasses: 1 }) });
    setup.pageOut(9);
    for (let n = 0; n < 3; n++) pass();
    expect([counters.collapses, setup.domain.frameAt(9)]).toEqual([0, -1]);
    setup.fault(9);
    pass();
    expect(counters.collapses).toBe(1);

    const small = new HostSetup({ strategy: cutAndCollapse({ quietPasses: 1 }) });
    const hwpt = small.addDomain();
    small.map(0, 512, { policy: { largest: '4K' } });
    small.map(512, 256);
    small.map(768, 256); // two areas in one 2M block
    for (const page of [9, 700]) {
      small.pageOut(page);
      small.fault(page);
    }
    small.run((agent) => hwpt.strategy?.backgroundPass?.(agent) ?? small.mm.populate(agent, USER, 1));
    expect([hwpt.strategy?.counters.collapses, small.domain.table.leafCounts['2M']]).toEqual([0, 0]);
  });

  it('as a daemon works by itself', () => {
    const { setup, hwpt, counters } = ready({ strategy: cutAndCollapse({ quietPasses: 2, intervalNs: 1000 }) });
    const background = hwpt.strategy?.background;
    if (!background) throw new Error('no background task');
    setup.pageOut(9);
    setup.fault(9);
    setup.spawn('collapser', (agent) => background.call(hwpt.strategy, agent), true);
    setup.time.run(setup.time.nowNs + 1500);
    expect(counters.collapses).toBe(0);
    setup.time.run(setup.time.nowNs + 10_000);
    expect(counters.collapses).toBe(1);
  });

  it('at any step of a pass: a hwpt that goes is not looked at any more', () => {
    for (let steps = 0; ; steps++) {
      const { setup, hwpt } = ready({ strategy: cutAndCollapse({ quietPasses: 1 }), pages: 512 });
      setup.pageOut(9);
      setup.fault(9);
      const runs = setup.beside(
        (agent) => hwpt.strategy?.backgroundPass?.(agent) ?? setup.mm.populate(agent, USER, 1),
        steps,
        function* (agent) {
          yield* setup.ioas.iopt.removeDomain(agent, hwpt);
          setup.domain.destroy();
        },
      );
      if (runs === null) {
        expect(steps).toBeGreaterThan(5);
        return;
      }
      expect([runs.first.done, runs.second.done]).toEqual([true, true]);
    }
  });

  it('refuses options that are none', () => {
    expect(() => cutAndCollapse({ quietPasses: 0 })).toThrow('quietPasses: 0 is not a positive integer');
  });
});

describe('shared-ept', () => {
  it('maps nothing with an area; CPU and device faults fill one table', () => {
    const { setup, hwpt } = ready({ strategy: STRATEGIES['shared-ept'] });
    expect(setup.domain.table.mappedPages).toBe(0);
    setup.run((agent) => hwpt.cpuFault(agent, 3, true));
    expect(setup.domain.table.leafCounts['2M']).toBe(1);
    setup.fault(600);
    expect(setup.domain.table.leafCounts['2M']).toBe(2);
    setup.pageOut(7);
    expect([setup.domain.frameAt(7), setup.domain.table.mappedPages]).toEqual([-1, 1023]);
    setup.run((agent) => hwpt.cpuFault(agent, 7, false));
    expect([setup.domain.table.mappedPages, setup.stale()]).toEqual([1024, []]);
  });

  it('is the only one that takes CPU faults', () => {
    const { setup, hwpt } = ready({ strategy: STRATEGIES.cut });
    expect(() => setup.run((agent) => hwpt.cpuFault(agent, 3, true))).toThrow('has a second-stage table of its own');
  });
});

describe('patch-2023', () => {
  it('refuses D2 and what is no defect', () => {
    expect(() => patch2023({ defects: ['D2' as never] })).toThrow('D2 concerns directory entries of the first stage');
    expect(() => patch2023({ defects: ['D12' as never] })).toThrow(
      `"D12" is not one of ${PATCH_2023_DEFECTS.join(', ')}`,
    );
  });

  it('leaves the page mapped when no table page is to be had (D6), and reports even that as success (D3)', () => {
    for (const strategy of [STRATEGIES['patch-2023'], patch2023({ defects: ['D6'] })]) {
      const { setup, counters } = ready({ strategy, domain: { reservePages: 0 } });
      const frame = setup.domain.frameAt(7);
      while (setup.tables.allocate() >= 0);
      setup.pageOut(7);
      const failed = strategy === STRATEGIES['patch-2023'] ? 0 : 1;
      expect([setup.domain.frameAt(7), counters.failedUnmaps, setup.stale()]).toEqual([frame, failed, [7]]);
    }
  });

  it('without defects takes the whole leaf when there is no table page', () => {
    const { setup, counters } = ready({ strategy: patch2023({ defects: [] }), domain: { reservePages: 0 } });
    while (setup.tables.allocate() >= 0);
    setup.pageOut(7);
    expect([setup.domain.table.mappedPages, counters.failedUnmaps, setup.stale()]).toEqual([512, 0, []]);
  });
});
