import type { Agent } from '@faultline/sim';
import { describe, expect, it } from 'vitest';
import { type HwptPaging, STRATEGIES, type Strategy } from '../src/index.ts';
import { HostSetup, USER } from './host-setup.ts';

const EVENTS = { UNMAP: 0, CLEAR: 1, PROTECTION_VMA: 2, PROTECTION_PAGE: 3, SOFT_DIRTY: 4 } as const;

function ready(strategy: Strategy | null = STRATEGIES.cut, observed = true) {
  const setup = new HostSetup({ strategy, domain: { accessedDirty: true } });
  const seen: string[] = [];
  const note = (what: string) => (page: number, pages: number) => seen.push(`${what} ${page}+${pages}`);
  const observer = {
    takingAway: note('taking'),
    takenAway: note('taken'),
    takingWrite: note('taking W'),
    writeTaken: note('W taken'),
  };
  const hwpt = setup.addDomain(observed ? observer : {});
  setup.map(0, setup.pages, { unpinned: strategy !== null });
  const notify = (page: number, pages: number, event: keyof typeof EVENTS, to: HwptPaging = hwpt): boolean =>
    setup.run((agent) =>
      to.invalidateRangeStart(agent, { startPage: USER + page, pages, event: EVENTS[event], blockable: true }),
    );
  /** As hardware: a device has used the leaf of a page. */
  const use = (page: number) => {
    const { table } = setup.domain;
    for (let pfn = table.rootPfn, level = table.levels as number; ; level--) {
      const index = Math.floor(page / 512 ** (level - 1)) % 512;
      const entry = setup.tables.load(pfn, index);
      if (level === (table.leafAt(page)?.level ?? 0)) return setup.tables.store(pfn, index, entry | 0x100n);
      pfn = Number((entry & 0xf_ffff_ffff_f000n) >> 12n);
    }
  };
  const rights = (page: number): number => setup.domain.leafAt(page)?.rights ?? 0;
  return { setup, hwpt, seen, notify, use, rights };
}

describe('a hwpt is told of a change of the host', () => {
  it.each([
    ['UNMAP', 0],
    ['CLEAR', 0],
    ['PROTECTION_VMA', 0],
    ['PROTECTION_PAGE', 1],
    ['SOFT_DIRTY', 1],
  ] as const)('%s leaves rights %d, and whoever looks on hears of it before and after', (event, left) => {
    const { seen, notify, rights } = ready();
    expect(notify(7, 2, event)).toBe(true);
    expect([6, 7, 8, 9].map(rights)).toEqual([3, left, left, 3]);
    expect(seen).toEqual(left === 0 ? ['taking 7+2', 'taken 7+2'] : ['taking W 7+2', 'W taken 7+2']);
  });
  it.each(['CLEAR', 'SOFT_DIRTY'] as const)('and acts the same if nobody looks on (%s)', (event) => {
    const { notify, rights } = ready(STRATEGIES.cut, false);
    expect([notify(7, 1, event), rights(7), rights(8)]).toEqual([true, event === 'CLEAR' ? 0 : 1, 3]);
  });
  it('gives its lock back, so that the next change and the next fault go through', () => {
    const { setup, notify } = ready();
    for (const page of [7, 7, 8]) expect(notify(page, 1, 'CLEAR')).toBe(true);
    expect([setup.fault(7), setup.domain.frameAt(7)]).toEqual([0, setup.mm.lookup(USER + 7)]);
  });
  it('with everything pinned it has nothing to do', () => {
    const { hwpt, seen, notify, rights } = ready(null);
    expect([notify(7, 1, 'CLEAR'), rights(7), seen]).toEqual([true, 3, []]);
    expect(hwpt.strategy).toBeNull();
  });
  it('after its end it looks at nothing and harvests nothing', () => {
    const { setup, hwpt, seen, notify, use } = ready();
    use(7);
    setup.run(function* (agent) {
      yield* hwpt.retire(agent, function* () {
        yield agent.spends('nothing is taken out', 0);
      });
    });
    expect([notify(7, 1, 'CLEAR'), seen]).toEqual([true, []]);
    expect([hwpt.youngNow(USER + 7, 1, false), hwpt.youngNow(USER + 7, 1, true)]).toEqual([false, false]);
    expect(setup.run((agent) => hwpt.clearFlushYoung(agent, USER + 7, 1))).toBe(false);
  });
});

describe('a hwpt is asked whether memory is young', () => {
  it('in any of its areas; the bit is cleared in all of them', () => {
    const { setup, hwpt, use } = ready();
    setup.map(4096, 512, { user: USER });
    use(4096 + 9);
    for (const [clear, young] of [
      [false, true],
      [true, true],
      [true, false],
      [false, false],
    ] as const)
      expect(hwpt.youngNow(USER + 9, 1, clear)).toBe(young);
    use(9);
    expect(setup.run((agent) => hwpt.clearFlushYoung(agent, USER + 9, 1))).toBe(true);
    expect(setup.run((agent) => hwpt.clearFlushYoung(agent, USER + 9, 1))).toBe(false);
  });
  it('a large leaf that was used counts for each of its pages, also by a look that clears nothing', () => {
    const { hwpt, use } = ready();
    use(9);
    expect(hwpt.youngNow(USER + 100, 1, true)).toBe(true);
    expect([hwpt.youngNow(USER + 100, 1, false), hwpt.youngNow(USER + 101, 1, false)]).toEqual([false, true]);
    expect(hwpt.youngNow(USER + 600, 1, false)).toBe(false);
  });
  it('what is taken away is young no more; what only loses W is', () => {
    const { hwpt, use, notify } = ready();
    use(9);
    expect(hwpt.youngNow(USER + 100, 1, true)).toBe(true);
    notify(101, 1, 'CLEAR');
    notify(102, 1, 'SOFT_DIRTY');
    expect([101, 102, 103].map((page) => hwpt.youngNow(USER + page, 1, false))).toEqual([false, true, true]);
  });
  it('is no, where hardware sets no A', () => {
    const setup = new HostSetup();
    const hwpt = setup.addDomain();
    setup.map(0, setup.pages);
    const asked = setup.run((agent: Agent) => hwpt.clearFlushYoung(agent, USER + 9, 1));
    expect([asked, hwpt.youngNow(USER + 9, 1, true), hwpt.youngNow(USER + 9, 1, false)]).toEqual([false, false, false]);
  });
});
