import { describe, expect, it } from 'vitest';
import { DEFAULT_FAULT_POLICY, FaultOutcome, STRATEGIES } from '../src/index.ts';
import { HostSetup, USER } from './host-setup.ts';

/** Two 2M leaves whose IOVA is not the owner's address: pages 2048 and up are the memory from USER + 512 on. */
const IOVA = 2048;
const OWN = USER + 512;

function ready(rights: { readable?: boolean; writeable?: boolean } = {}, silent = false, strategy = STRATEGIES.cut) {
  const setup = new HostSetup({ pages: 2048, strategy });
  const seen: string[] = [];
  const dirty: [number, number][] = [];
  let flushes = 0;
  const markDirty = setup.mm.markDirty.bind(setup.mm);
  setup.mm.markDirty = (page, pages) => {
    dirty.push([page, pages]);
    markDirty(page, pages);
  };
  const flush = setup.domain.flush.bind(setup.domain);
  setup.domain.flush = (agent, gather) => {
    flushes++;
    return flush(agent, gather);
  };
  const observer = {
    takenAway: (page: number, pages: number) => seen.push(`gone ${page}+${pages}`),
    mapping: (page: number, pages: number, frame: number) => seen.push(`mapping ${page}+${pages} to ${frame}`),
    mapped: (page: number, pages: number) => seen.push(`mapped ${page}+${pages}`),
  };
  setup.addDomain(silent ? {} : observer);
  const [readable, writeable] = [rights.readable ?? true, rights.writeable ?? true];
  setup.run((agent) =>
    setup.ioas.map(agent, {
      iova: BigInt(IOVA) * 4096n,
      userVa: BigInt(OWN) * 4096n,
      length: 1024n * 4096n,
      readable,
      writeable,
      unpinned: true,
    }),
  );
  const rightsAt = (page: number): number => setup.domain.leafAt(IOVA + page)?.rights ?? 0;
  const softDirty = () => {
    setup.run((agent) => setup.mm.clearSoftDirty(agent));
    seen.length = 0;
    dirty.length = 0;
    flushes = 0;
  };
  return { setup, seen, dirty, rightsAt, softDirty, flushed: () => flushes };
}

describe('a write to a leaf that has lost W', () => {
  it('gives W back to all of it, at its own place in the owner, and says so to the host before the device may write', () => {
    const { setup, seen, dirty, rightsAt, softDirty, flushed } = ready();
    softDirty();
    expect([rightsAt(0), rightsAt(512)]).toEqual([1, 1]);
    const frame = setup.mm.lookup(OWN);
    expect(setup.fault(IOVA + 7)).toBe(FaultOutcome.success);
    expect([rightsAt(0), rightsAt(511), rightsAt(512)]).toEqual([3, 3, 1]);
    expect(seen).toEqual([`mapping ${IOVA}+512 to ${frame}`, `mapped ${IOVA}+512`]);
    // A valid copy in swap would lose the device's write.
    expect(dirty).toEqual([[OWN, 512]]);
    // Devices that cannot fault would go on with the stale translation.
    expect(flushed()).toBe(1);
    expect(setup.fault(IOVA + 600)).toBe(FaultOutcome.success);
    expect([rightsAt(512), dirty[1]]).toEqual([3, [OWN + 512, 512]]);
  });
  it('gives it to this leaf and not beyond, whatever the order', () => {
    const { setup, seen, rightsAt, softDirty } = ready();
    softDirty();
    setup.fault(IOVA + 600);
    expect([rightsAt(0), rightsAt(512)]).toEqual([1, 3]);
    setup.fault(IOVA + 7);
    expect([rightsAt(0), setup.domain.table.leafCounts['2M']]).toEqual([3, 2]);
    expect(seen.filter((what) => what.startsWith('gone'))).toEqual([]);
  });
  it('maps the page alone where the owner may not write to all of the leaf', () => {
    const { setup, rightsAt, softDirty } = ready();
    softDirty();
    const runOf = setup.mm.contiguousRun.bind(setup.mm);
    setup.mm.contiguousRun = (page, first, last, run, write) =>
      runOf(page, first, write && page < OWN + 9 ? Math.min(last, OWN + 8) : last, run, write);
    expect(setup.fault(IOVA + 7)).toBe(FaultOutcome.success);
    expect([6, 7, 8, 9].map(rightsAt)).toEqual([1, 3, 1, 1]);
  });
  it('needs nobody who looks on', () => {
    const { setup, rightsAt, softDirty } = ready({}, true);
    softDirty();
    setup.fault(IOVA + 7);
    expect([rightsAt(7), rightsAt(512)]).toEqual([3, 1]);
  });
  it('maps the page alone where the host is about to take another page of the leaf, and leaves that one alone', () => {
    const { setup, seen, rightsAt, softDirty } = ready();
    softDirty();
    const agent = { startPage: OWN + 9, pages: 1, event: 1, blockable: true } as const;
    // The notifier has begun and has not come to this domain yet: that it has been counted is all that can be seen of it.
    const retry = setup.mm.notifierReadRetry.bind(setup.mm);
    setup.mm.notifierReadRetry = (page, sequence, pages) =>
      (page <= agent.startPage && agent.startPage < page + (pages ?? 1)) || retry(page, sequence, pages);
    expect(setup.fault(IOVA + 7)).toBe(FaultOutcome.success);
    expect([6, 7, 8, 9].map(rightsAt)).toEqual([1, 3, 1, 1]);
    expect(seen[0]).toBe(`gone ${IOVA + 7}+1`);
    expect(setup.domain.frameAt(IOVA + 7)).toBe(setup.mm.lookup(OWN + 7));
  });
  it('a device that may not read is not let read: neither while W is taken nor when it comes back', () => {
    const { setup, rightsAt, softDirty } = ready({ readable: false });
    expect([rightsAt(0), rightsAt(512)]).toEqual([2, 2]);
    softDirty();
    expect([rightsAt(0), rightsAt(512)].map((rights) => rights & 1)).toEqual([0, 0]);
    expect(setup.fault(IOVA + 7, false)).toBe(FaultOutcome.invalid);
    expect(setup.fault(IOVA + 7)).toBe(FaultOutcome.success);
    expect([rightsAt(7), rightsAt(8) & 1, rightsAt(600) & 1]).toEqual([2, 0, 0]);
  });
  it('of memory that the owner may not write without a fault, an area that gives only W maps nothing', () => {
    const { setup } = ready();
    setup.run((agent) => setup.mm.fork(agent, 'child'));
    const at = (page: number) => BigInt(page) * 4096n;
    const request = { iova: at(8192), userVa: at(USER), length: at(512), readable: false, writeable: true };
    const policy = { ...DEFAULT_FAULT_POLICY, around: 16 };
    setup.run((agent) => setup.ioas.map(agent, { ...request, unpinned: true, policy }));
    expect(setup.domain.leafAt(8192)).toBeNull();
    expect(setup.fault(8192 + 7)).toBe(FaultOutcome.success);
    expect([6, 7, 8].map((page) => setup.domain.leafAt(8192 + page)?.rights ?? 0)).toEqual([0, 2, 0]);
  });
  it.each(Object.values(STRATEGIES).filter(({ claimsSafe }) => claimsSafe))(
    'no strategy gives a device R that may not read ($name)',
    (strategy) => {
      const { setup } = ready({ readable: false }, true, strategy);
      const rights = () => new Set([...setup.domain.table.allLeaves()].map((leaf) => leaf.rights));
      for (const page of [7, 8, 600]) expect(setup.fault(IOVA + page)).toBe(FaultOutcome.success);
      setup.pageOut(OWN + 9 - USER);
      expect([...rights()].filter((each) => each !== 2)).toEqual([]);
      setup.run((agent) => setup.mm.clearSoftDirty(agent));
      setup.fault(IOVA + 9);
      setup.run((agent) => setup.mm.fork(agent, 'child'));
      setup.fault(IOVA + 10);
      expect([...rights()]).toEqual([2]);
      expect(setup.stale()).toEqual([]);
    },
  );
});
