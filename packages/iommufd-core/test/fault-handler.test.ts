import type { Agent, Task } from '@faultline/sim';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { FaultOutcome, type FaultPolicy, STRATEGIES } from '../src/index.ts';
import { HostSetup, type HostSetupOptions, type MapFlags, USER } from './host-setup.ts';

function ready(options: HostSetupOptions = {}, flags: MapFlags = {}) {
  const setup = new HostSetup(options);
  const mapped: { page: number; pages: number }[] = [];
  const hwpt = setup.addDomain({ mapping: (page, pages) => mapped.push({ page, pages }) });
  setup.map(0, setup.pages, flags);
  return { setup, hwpt, mapped, hash: setup.ioas.areas.hash() };
}

const rightsAt = (setup: HostSetup, page: number) => setup.domain.leafAt(page)?.rights ?? 0;

/** A fork, whose child keeps every page shared until somebody writes. */
const fork = (setup: HostSetup) => setup.run((agent) => setup.mm.fork(agent, 'child'));

describe('rights', () => {
  it('reading a page that is shared copy-on-write maps it read-only, and copies nothing', () => {
    const { setup, hash } = ready({ backing: '4K', pages: 64, frames: 256 });
    const child = fork(setup);
    setup.run((agent) => setup.mm.madvise(agent, USER, 64, 'COLD')); // nothing of it
    expect(rightsAt(setup, 7) & 2).toBe(0);
    expect(setup.fault(7, false)).toBe(FaultOutcome.success);
    expect([setup.domain.frameAt(7), rightsAt(setup, 7)]).toEqual([setup.mm.lookup(USER + 7), 1]);
    expect(child.lookup(USER + 7)).toBe(setup.mm.lookup(USER + 7));
    // A write makes it the owner's own, and gives W.
    const shared = setup.domain.frameAt(7);
    expect(setup.fault(7, true)).toBe(FaultOutcome.success);
    expect([rightsAt(setup, 7), setup.domain.frameAt(7)]).toEqual([3, setup.mm.lookup(USER + 7)]);
    expect(setup.domain.frameAt(7)).not.toBe(shared);
    expect(child.lookup(USER + 7)).toBe(shared);
    expect([setup.stale(), setup.ioas.areas.hash()]).toEqual([[], hash]);
  });

  it('a leaf whose frame stays gets W in place once the owner may write again', () => {
    const { setup, hwpt } = ready({ backing: '4K', pages: 64, frames: 256 });
    const child = fork(setup);
    setup.fault(7, false);
    setup.run((agent) => child.exit(agent)); // nobody shares any more
    const frame = setup.domain.frameAt(7);
    expect(setup.fault(7, true)).toBe(FaultOutcome.success);
    expect([setup.domain.frameAt(7), rightsAt(setup, 7)]).toEqual([frame, 3]);
    const before = hwpt.spuriousFaults;
    expect(setup.fault(7, true)).toBe(FaultOutcome.success);
    expect([hwpt.upgradedFaults, hwpt.spuriousFaults]).toEqual([1, before + 1]);
  });

  it('a write through a large leaf that is read-only never makes writeable what the owner may not write to', () => {
    const { setup } = ready({ backing: 'thp-2M', pages: 512, frames: 2048 });
    const child = fork(setup);
    setup.fault(3, false);
    expect(setup.fault(5, true)).toBe(FaultOutcome.success);
    for (let page = 0; page < 512; page++)
      if ((rightsAt(setup, page) & 2) !== 0) expect(setup.mm.isWriteable(USER + page)).toBe(true);
    expect(rightsAt(setup, 5)).toBe(3);
    expect(setup.stale()).toEqual([]);
    setup.run((agent) => child.exit(agent));
  });

  it('memory that the owner may only read cannot be written to, and what it may not touch cannot be read', () => {
    const { setup } = ready({ backing: '4K', pages: 64 });
    setup.run((agent) => setup.mm.mprotect(agent, USER, 32, { readable: true, writeable: false }));
    setup.run((agent) => setup.mm.mprotect(agent, USER + 32, 32, { readable: false, writeable: false }));
    expect([setup.fault(7, false), setup.fault(7, true)]).toEqual([FaultOutcome.success, FaultOutcome.invalid]);
    expect(setup.fault(40, false)).toBe(FaultOutcome.invalid);
    expect([rightsAt(setup, 7), rightsAt(setup, 40)]).toEqual([1, 0]);
  });
});

describe('what handle_mm_fault answers', () => {
  it('RETRY: mmap_lock was given back, and is taken again', () => {
    const { setup, hwpt } = ready({ backing: '4K', pages: 64 });
    const uffd = setup.mm.userfaultfd();
    setup.run((agent) => setup.mm.madviseDontNeed(agent, USER, 64));
    setup.run((agent) => uffd.register(agent, USER, 64));
    const fault = setup.spawn('fault', (agent) => hwpt.handleFault(agent, 7, true), true);
    setup.time.run();
    expect([fault.done, setup.mm.mmapLock.held]).toEqual([false, false]);
    setup.run((agent) => uffd.zeropage(agent, USER + 7));
    setup.time.run();
    expect([fault.value, setup.domain.frameAt(7)]).toEqual([FaultOutcome.success, setup.mm.lookup(USER + 7)]);
    expect(setup.mm.mmapLock.held).toBe(false);
  });

  it('COMPLETED: done, and mmap_lock was given back', () => {
    const setup = new HostSetup({ backing: '4K', pages: 64, frames: 512 });
    const memfd = setup.host.createMemfd('shared', 64);
    setup.mm.mmap({ startPage: USER + 1024, pages: 64, backing: '4K', file: { memfd, offset: 0 } });
    const hwpt = setup.addDomain();
    setup.map(1024, 64);
    setup.run((agent) => setup.mm.cpuAccess(agent, USER + 1024 + 7, { write: false, tagLo: 0, tagHi: 0 }));
    const outcome = setup.run((agent) => hwpt.handleFault(agent, 1024 + 7, true));
    expect([outcome, setup.mm.mmapLock.held, setup.mm.isWriteable(USER + 1024 + 7)]).toEqual([0, false, true]);
  });

  it('HWPOISON is invalid, no memory is a failure', () => {
    const { setup } = ready({ backing: '4K', pages: 64 });
    setup.run((agent) => setup.host.memoryFailure(agent, setup.mm.lookup(USER + 7)));
    expect(setup.domain.frameAt(7)).toBe(-1);
    expect([setup.fault(7, false), setup.fault(7, true)]).toEqual([FaultOutcome.invalid, FaultOutcome.invalid]);
  });
});

describe('policies', () => {
  it('prefault none maps nothing at map, resident what is there, populate all', () => {
    for (const [prefault, pages] of [
      ['none', 0],
      ['resident', 512],
      ['populate', 1024],
    ] as const) {
      const setup = new HostSetup({ backing: '4K', populate: false });
      setup.run((agent) => setup.mm.populate(agent, USER, 512));
      setup.addDomain();
      setup.map(0, 1024, { policy: { prefault } });
      expect([setup.domain.table.mappedPages, setup.mm.accountedPinBytes]).toEqual([pages, 0]);
      expect(setup.stale()).toEqual([]);
      expect(setup.pageOut(7)).toBe(true); // whatever was done before, it is not pinned
    }
  });

  it('populate that runs out of memory fails the map, and leaves nothing', () => {
    const setup = new HostSetup({ backing: '4K', populate: false, frames: 512, host: { swapSlots: 4 } });
    setup.addDomain();
    expect(() => setup.map(0, 1024, { policy: { prefault: 'populate' } })).toThrow('ENOMEM: user_va: 0x');
    expect([setup.ioas.areas.size, setup.domain.table.mappedPages]).toEqual([0, 0]);
  });

  it('the largest leaf is as large as the policy says, at map and at faults', () => {
    for (const [largest, counts] of [
      ['4K', { '4K': 262144, '2M': 0, '1G': 0 }],
      ['2M', { '4K': 0, '2M': 512, '1G': 0 }],
      ['1G', { '4K': 0, '2M': 0, '1G': 1 }],
    ] as const) {
      for (const prefault of ['resident', 'none'] as const) {
        const { setup } = ready(
          { backing: 'pud-thp', pages: 262144, tablePages: 600 },
          { policy: { largest, prefault } },
        );
        if (prefault === 'resident') expect(setup.domain.table.leafCounts).toMatchObject(counts);
        else {
          setup.fault(7);
          const size = { '4K': 1, '2M': 512, '1G': 262144 }[largest];
          expect(setup.domain.table.mappedPages).toBe(size);
        }
      }
    }
  });

  it('fault-around maps what is resident in the aligned window, and faults in only what it is told to', () => {
    const ways = [0, 4096].flatMap((base) => [false, true].map((populateAround) => ({ base, populateAround })));
    for (const { base, populateAround } of ways) {
      const setup = new HostSetup({ backing: '4K', pages: 64, frames: 256, populate: false });
      for (const page of [17, 20, 31, 32]) setup.run((agent) => setup.mm.populate(agent, USER + page, 1));
      const hwpt = setup.addDomain();
      setup.map(base, 64, { user: USER, policy: { prefault: 'none', around: 16, populateAround } });
      expect(setup.fault(base + 19)).toBe(FaultOutcome.success);
      const pages = Array.from({ length: 64 }, (_, page) => page);
      const mapped = pages.filter((page) => setup.domain.frameAt(base + page) >= 0);
      const window = Array.from({ length: 16 }, (_, i) => 16 + i);
      expect(mapped).toEqual(populateAround ? window : [17, 19, 20, 31]);
      expect([hwpt.mappedAround, setup.stale()]).toEqual([populateAround ? 15 : 3, []]);
      expect(setup.mm.lookup(USER + 18) >= 0).toBe(populateAround);
    }
  });

  it('the neighbours of a fault are faulted in no further than its window, and no more than needed', () => {
    const setup = new HostSetup({ backing: '4K', pages: 64, frames: 256, populate: false });
    const hwpt = setup.addDomain();
    setup.map(0, 64, { policy: { prefault: 'none', around: 16, populateAround: true } });
    expect(setup.fault(19)).toBe(FaultOutcome.success);
    const resident = Array.from({ length: 64 }, (_, page) => page).filter((page) => setup.mm.lookup(USER + page) >= 0);
    expect(resident).toEqual(Array.from({ length: 16 }, (_, i) => 16 + i));
    expect([hwpt.faultRetries, hwpt.spuriousFaults, hwpt.upgradedFaults]).toEqual([0, 0, 0]);
  });

  it('a large block of an area that is elsewhere in the memory lies where the host has it', () => {
    const setup = new HostSetup({ pages: 1536 });
    const mapped: { page: number; pages: number; frame: number }[] = [];
    const hwpt = setup.addDomain({ mapping: (page, pages, frame) => mapped.push({ page, pages, frame }) });
    setup.map(5120, 1024, { user: USER + 512, policy: { prefault: 'none' } });
    for (const page of [5120 + 7, 5120 + 1023]) expect(setup.fault(page)).toBe(FaultOutcome.success);
    expect(mapped).toEqual([
      { page: 5120, pages: 512, frame: setup.mm.lookup(USER + 512) },
      { page: 5632, pages: 512, frame: setup.mm.lookup(USER + 1024) },
    ]);
    expect([setup.stale(), hwpt.mappedAround, hwpt.faultRetries]).toEqual([[], 0, 0]);
  });

  it('a policy that means nothing is refused by name, with no area left', () => {
    const setup = new HostSetup();
    const bad: [Partial<FaultPolicy>, string][] = [
      [{ around: 3 }, 'policy.around: 3 is not a power of two in 1..512 pages'],
      [{ around: 1024 }, 'policy.around: 1024'],
      [{ prefault: 'all' as 'none' }, 'policy.prefault: all is not one of none, resident, populate'],
      [{ largest: '8K' as '4K' }, 'policy.largest: 8K is not one of 4K, 2M, 1G'],
    ];
    for (const [policy, message] of bad) expect(() => setup.map(0, 512, { policy })).toThrow(`EINVAL: ${message}`);
    expect(() => setup.map(0, 512, { policy: {}, unpinned: false })).toThrow(
      'EINVAL: policy: of a range that is pinned',
    );
    expect(setup.ioas.areas.size).toBe(0);
  });
});

describe('at any step of a fault', () => {
  const DURING: Record<string, (setup: HostSetup, agent: Agent) => Task<unknown>> = {
    'page-out of the page': (setup, agent) => setup.mm.pageOut(agent, USER + 7),
    'page-out of a neighbour': (setup, agent) => setup.mm.pageOut(agent, USER + 9),
    MADV_DONTNEED: (setup, agent) => setup.mm.madviseDontNeed(agent, USER, 16),
    fork: (setup, agent) => setup.mm.fork(agent, 'child'),
    mprotect: (setup, agent) => setup.mm.mprotect(agent, USER, 16, { readable: true, writeable: false }),
    migration: (setup, agent) => setup.host.migratePage(agent, Math.max(setup.mm.lookup(USER + 9), 0x40000)),
    'memory failure': (setup, agent) => setup.host.memoryFailure(agent, Math.max(setup.mm.lookup(USER + 9), 0x40000)),
    'unmap of the area': (setup, agent) => setup.ioas.unmap(agent, 0n, 64n * 4096n),
    'munmap of the memory': (setup, agent) => setup.mm.munmap(agent, USER, 64),
    exit: (setup, agent) => setup.mm.exit(agent),
    'another fault': (setup, agent) =>
      (setup.ioas.hwpt as NonNullable<typeof setup.ioas.hwpt>).handleFault(agent, 7, true),
  };

  for (const [what, during] of Object.entries(DURING))
    it(`${what}: nothing stale is mapped, no right beyond the owner's, the areas stay, the fault ends`, () => {
      const strategies = what === 'page-out of the page' ? (['cut', 'whole-leaf'] as const) : (['cut'] as const);
      for (const strategy of strategies)
        for (let steps = 1; ; steps++) {
          const { setup, hwpt, hash } = ready(
            { backing: '4K', pages: 64, frames: 256, strategy: STRATEGIES[strategy] },
            { policy: { around: 16, populateAround: true } },
          );
          setup.run((agent) => setup.mm.pageOut(agent, USER + 7));
          const runs = setup.beside(
            (agent) => hwpt.handleFault(agent, 7, true),
            steps,
            (agent) => during(setup, agent),
          );
          if (runs === null) {
            expect(steps).toBeGreaterThan(15);
            break;
          }
          expect([runs.first.done, runs.second.done, setup.stale()]).toEqual([true, true, []]);
          for (const leaf of setup.domain.table.allLeaves())
            if ((leaf.rights & 2) !== 0) expect(setup.mm.isWriteable(USER + leaf.page)).toBe(true);
          if (what !== 'unmap of the area') expect(setup.ioas.areas.hash()).toBe(hash);
          expect(setup.mm.mmapLock.held).toBe(false);
        }
    });
});

it('at any step of what the host does to a neighbour, a fault maps nothing around it that is being taken away', () => {
  for (const what of ['pageOut', 'dontNeed', 'munmap', 'migrate'] as const)
    for (let steps = 1; ; steps++) {
      const { setup, hwpt } = ready({ backing: '4K', pages: 64, frames: 256 }, { policy: { around: 16 } });
      setup.pageOut(7);
      const runs = setup.beside(
        (agent): Task<unknown> => {
          if (what === 'pageOut') return setup.mm.pageOut(agent, USER + 9);
          if (what === 'dontNeed') return setup.mm.madviseDontNeed(agent, USER + 8, 4);
          if (what === 'munmap') return setup.mm.munmap(agent, USER + 8, 4);
          return setup.host.migratePage(agent, setup.mm.lookup(USER + 9));
        },
        steps,
        (agent) => hwpt.handleFault(agent, 7, true),
      );
      if (runs === null) {
        expect(steps).toBeGreaterThan(5);
        break;
      }
      expect([runs.first.done, runs.second.value, setup.stale()]).toEqual([true, FaultOutcome.success, []]);
    }
});

it('faults of many workers on few pages map each page once, whatever the host does meanwhile', () => {
  const action = fc.record({
    kind: fc.constantFrom('read', 'write', 'pageOut', 'dontNeed', 'fork', 'cpuWrite'),
    page: fc.nat(15),
    delay: fc.nat(40),
  });
  fc.assert(
    fc.property(fc.array(action, { minLength: 2, maxLength: 16 }), fc.constantFrom(1, 8), (actions, around) => {
      const { setup, hwpt, hash } = ready(
        { backing: '4K', pages: 16, frames: 256 },
        { policy: { around, prefault: 'none' } },
      );
      const faults = actions.map(({ kind, page, delay }, i) =>
        setup.spawn(`${i} ${kind}`, function* (agent): Task<number> {
          yield agent.spends('wait', 1, delay);
          if (kind === 'read' || kind === 'write') return yield* hwpt.handleFault(agent, page, kind === 'write');
          if (kind === 'pageOut') yield* setup.mm.pageOut(agent, USER + page);
          else if (kind === 'dontNeed') yield* setup.mm.madviseDontNeed(agent, USER + page, 2);
          else if (kind === 'fork') yield* (yield* setup.mm.fork(agent, `child ${i}`)).exit(agent);
          else yield* setup.mm.cpuAccess(agent, USER + page, { write: true, tagLo: i, tagHi: 0 });
          return 0;
        }),
      );
      setup.time.run();
      expect(faults.map((run) => run.value)).toEqual(faults.map(() => 0));
      expect([setup.stale(), setup.ioas.areas.hash()]).toEqual([[], hash]);
      for (const leaf of setup.domain.table.allLeaves())
        if ((leaf.rights & 2) !== 0) expect(setup.mm.isWriteable(USER + leaf.page)).toBe(true);
      expect(setup.host.audit()).toEqual([]);
    }),
    { numRuns: 60 },
  );
});
