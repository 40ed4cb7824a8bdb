import { describe, expect, it } from 'vitest';
import { FaultOutcome } from '../src/index.ts';
import { FaultSetup, type FaultSetupOptions, IOVA, OWN } from './fault-setup.ts';

const { success } = FaultOutcome;

/** As a setup; `looked`: how far each search for a contiguous run of the owner's went, first page to last. */
function ready(options: FaultSetupOptions = {}) {
  const setup = new FaultSetup(options);
  const looked: [first: number, last: number][] = [];
  const runOf = setup.mm.contiguousRun.bind(setup.mm);
  setup.mm.contiguousRun = (page, first, last, run, write) => {
    looked.push([first - OWN, last - OWN]);
    return runOf(page, first, last, run, write);
  };
  return { setup, looked };
}

describe('the owner’s memory is searched for what one leaf may hold', () => {
  it('in all of the area where nothing is mapped yet, and no page beyond it', () => {
    const { setup, looked } = ready();
    setup.fault(700);
    expect([looked[0], setup.seen[0]]).toEqual([[0, 1023], 'map 512+512']);
  });
  it('no further than the vacant block', () => {
    const { setup, looked } = ready();
    setup.fault(600);
    looked.length = 0;
    setup.fault(7);
    expect([looked[0], setup.seen.at(-1)]).toEqual([[0, 511], 'mapped 0+512']);
  });
  it('no further than the largest leaf that the policy allows', () => {
    const { setup, looked } = ready({ policy: { largest: '4K' } });
    setup.fault(7);
    expect([looked[0], setup.present]).toEqual([[7, 7], [7]]);
    const two = ready({ policy: { largest: '2M' } });
    two.setup.fault(1000);
    expect([two.looked[0], two.setup.seen[0]]).toEqual([[512, 1023], 'map 512+512']);
  });
  it('within an area that begins and ends inside a block, which no leaf covers', () => {
    const { setup, looked } = ready({ offset: 100, length: 300, policy: { largest: '2M' } });
    expect([setup.fault(107), looked[0], setup.present]).toEqual([success, [100, 399], [107]]);
  });
});

describe('a page is mapped alone', () => {
  it.each([0, 511])('where page %d of the block is missing', (missing) => {
    const { setup } = ready();
    setup.giveUp(missing, 1, 'nothing');
    expect([setup.fault(7), setup.present, setup.frame(7)]).toEqual([success, [7], setup.own(7)]);
    expect([setup.fault(519), setup.present.length]).toEqual([success, 513]);
  });
  it('where the owner’s frames are contiguous, and lie otherwise in their block than the pages in theirs', () => {
    const { setup } = ready();
    setup.area(2048, 512, OWN + 1);
    expect(setup.own(512)).toBe(setup.own(1) + 511);
    expect([setup.fault(2048 + 7), setup.present, setup.frame(2048 + 7)]).toEqual([success, [2048 + 7], setup.own(8)]);
  });
  it('where the host is about to take another page of the block; that of another block is none of it', () => {
    const { setup } = ready();
    setup.takingSoon(9);
    expect([setup.fault(7), setup.present, setup.frame(7)]).toEqual([success, [7], setup.own(7)]);
    expect([setup.fault(700), setup.present.length, setup.hwpt.faultRetries]).toEqual([success, 513, 0]);
  });
});

it('the notifier’s sequence is checked once for the page, and once more for a block that is larger', () => {
  const checksOf = (options: FaultSetupOptions): number[] => {
    const { setup } = ready(options);
    const checks: number[] = [];
    const retry = setup.mm.notifierReadRetry.bind(setup.mm);
    setup.mm.notifierReadRetry = (page, sequence, pages = 1) => {
      checks.push(pages);
      return retry(page, sequence, pages);
    };
    setup.fault(7);
    return checks;
  };
  expect([checksOf({ policy: { largest: '4K' } }), checksOf({})]).toEqual([[1], [1, 512]]);
});

describe('a fault of a page that is mapped', () => {
  it('takes nothing out of a large leaf that fits, and maps nothing', () => {
    const { setup } = ready();
    setup.mapAll();
    expect([setup.fault(7), setup.fault(519, false), setup.seen]).toEqual([success, success, []]);
    expect(setup.counters).toEqual({ spurious: 2, upgrades: 0, around: 0, retries: 0 });
  });
});

describe('the host is told of each page that a device may write to, and of no other', () => {
  it('of the whole leaf, if only a read has brought it: its copy in swap would be older than what the device writes', () => {
    const { setup } = ready();
    expect([setup.fault(519, false), setup.rights(600), setup.dirty]).toEqual([success, 3, [[512, 512]]]);
    const inside = ready({ offset: 100, length: 300 });
    expect([inside.setup.fault(107), inside.setup.dirty]).toEqual([success, [[107, 1]]]);
  });
  it('of none where the device may only read', () => {
    const { setup } = ready({ writeable: false });
    expect([setup.fault(7, false), setup.rights(7), setup.dirty]).toEqual([success, 1, []]);
  });
  it('of those that are mapped around the fault', () => {
    const { setup } = ready({ backing: '4K', policy: { around: 8, largest: '4K' } });
    expect([setup.fault(17), setup.dirty]).toEqual([
      success,
      [
        [17, 1],
        [16, 1],
        [18, 6],
      ],
    ]);
  });
});

it('needs nobody who looks on', () => {
  const { setup } = ready({ silent: true, policy: { around: 16 } });
  setup.pin(7);
  expect([setup.fault(7), setup.fault(9), setup.fault(600), setup.domain.frameAt(IOVA + 600)]).toEqual([
    success,
    success,
    success,
    setup.own(600),
  ]);
});
