import { Agent } from '@faultline/sim';
import { describe, expect, it } from 'vitest';
import { STRATEGIES, type TakeAwayOutcome } from '../src/index.ts';
import { HostSetup, type HostSetupOptions, USER } from './host-setup.ts';

/** CLEAR, and an event that takes only W (PROTECTION_PAGE), as the host numbers them. */
const CLEAR = 1;
const PROTECTION_PAGE = 3;

function ready(options: HostSetupOptions = {}) {
  const setup = new HostSetup(options);
  const outcomes: TakeAwayOutcome[] = [];
  let flushes = 0;
  const flush = setup.domain.flush.bind(setup.domain);
  setup.domain.flush = (agent, gather) => {
    flushes++;
    return flush(agent, gather);
  };
  setup.addDomain({
    takenAway: (_page, _pages, outcome) => outcomes.push(outcome),
    writeTaken: (_page, _pages, outcome) => outcomes.push(outcome),
  });
  setup.map(0, setup.pages);
  const notify = (page: number, pages: number, event: 1 | 3, blockable = true) => {
    const before = flushes;
    const range = { startPage: USER + page, pages, event, blockable } as const;
    const agent = new Agent('host');
    setup.run(() => setup.mm.invalidateRangeStart(agent, range));
    setup.run(() => setup.mm.invalidateRangeEnd(agent, range));
    return flushes - before;
  };
  return { setup, outcomes, notify };
}

describe('a range that is taken away', () => {
  it.each(['cut', 'whole-leaf'] as const)(
    'is flushed once; where nothing was mapped there is nothing to flush (%s)',
    (name) => {
      const { notify } = ready({ strategy: STRATEGIES[name] });
      expect([notify(0, 512, CLEAR), notify(0, 512, CLEAR), notify(3, 1, CLEAR)]).toEqual([1, 0, 0]);
      expect(notify(512, 512, CLEAR)).toBe(1);
    },
  );
  it.each([CLEAR, PROTECTION_PAGE] as const)(
    'event %d: the reserve is filled up after it where one may sleep, and not where not',
    (event) => {
      for (const blockable of [true, false]) {
        const { setup, notify } = ready();
        const { reserve } = setup.domain.table;
        const hoard: number[] = [];
        for (let page = setup.tables.allocate(); page >= 0; page = setup.tables.allocate()) hoard.push(page);
        notify(5, 1, event);
        expect(reserve.held).toBe(3);
        for (const page of hoard) setup.tables.free(page);
        notify(5, 1, event, blockable);
        expect(reserve.held).toBe(blockable ? 4 : 3);
      }
    },
  );
});

describe('naive', () => {
  it('is right where all leaves are small', () => {
    const { setup, outcomes, notify } = ready({ strategy: STRATEGIES.naive, backing: '4K', pages: 64 });
    expect(notify(5, 2, CLEAR)).toBe(1);
    expect(outcomes).toMatchObject([{ fellBack: false, unsplit: { mistaken: [], corrupted: [], badAddress: null } }]);
    expect([4, 5, 6, 7].map((page) => setup.domain.frameAt(page) >= 0)).toEqual([true, false, false, true]);
  });
  it('leaves a large leaf mapped, and takes the memory behind it for a table', () => {
    const { setup, outcomes, notify } = ready({ strategy: STRATEGIES.naive });
    const frame = setup.domain.frameAt(0);
    const word = 0x1234_5003n;
    setup.host.memory.storeWord(frame, 7, word);
    notify(7, 1, CLEAR);
    expect(setup.domain.frameAt(7)).toBe(frame + 7);
    expect(outcomes).toMatchObject([{ fellBack: false, unsplit: { corrupted: [{ pfn: frame, index: 7, word }] } }]);
    expect(setup.host.memory.loadWord(frame, 7)).toBe(0n);
  });
  it('where it follows data to where no memory is, the kernel is dead: nothing is flushed any more', () => {
    const { setup, outcomes, notify } = ready({ strategy: STRATEGIES.naive, backing: 'pud-thp', pages: 262144 });
    const frame = setup.domain.frameAt(0);
    setup.host.memory.storeWord(frame, 0, (1n << 45n) | 3n);
    expect(notify(7, 1, CLEAR)).toBe(0);
    expect(outcomes).toMatchObject([{ fellBack: false, unsplit: { badAddress: { pfn: 2 ** 33, level: 1 } } }]);
  });
});
