import { Agent, RandomStream, runToEnd, type Task, TaskRun } from '@faultline/sim';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type AddressSpace, type Backing, HostMemory } from '../src/index.ts';
import { type FamilyOp, type FamilyOptions, FamilyWorld } from './family-world.ts';
import { finish, runShuffled, runUntil } from './run.ts';

const cpu = new Agent('cpu');

function write(mm: AddressSpace, page: number, tagLo: number): void {
  expect(runToEnd(mm.cpuAccess(cpu, page, { write: true, tagLo, tagHi: 0 })) & 0x43).toBe(0);
}

function family(options: { backing?: Backing; frames?: number; swapSlots?: number; pages?: number } = {}) {
  const { backing = '4K', frames = 4096, swapSlots = 1024, pages = 512 } = options;
  const host = new HostMemory({ frames, swapSlots, pageCluster: 0 });
  host.setHugePages('2M', backing === 'hugetlb-2M' ? 4 : 0);
  const parent = host.createAddressSpace('parent');
  parent.mmap({ startPage: 512, pages, backing });
  return { host, parent };
}

const forked = (parent: AddressSpace): AddressSpace => runToEnd(parent.fork(cpu, 'child'));
const tag = (mm: AddressSpace, page: number): number => mm.cpuRead(page).tagLo;

describe('fork', () => {
  it('shares frames, write-protected on both sides, and copies for who writes; the last one writes in place', () => {
    const { host, parent } = family();
    write(parent, 512, 1);
    const frame = parent.lookup(512);
    const child = forked(parent);
    expect([child.lookup(512), parent.isWriteable(512), child.isWriteable(512)]).toEqual([frame, false, false]);
    expect([child.residentBytes, parent.residentBytes, host.allocator.allocatedFrames]).toEqual([4096, 4096, 1]);
    write(child, 512, 2);
    expect([tag(parent, 512), tag(child, 512)]).toEqual([1, 2]);
    expect([parent.lookup(512), child.lookup(512) === frame]).toEqual([frame, false]);
    write(parent, 512, 3);
    expect([parent.lookup(512), tag(parent, 512), tag(child, 512)]).toEqual([frame, 3, 2]);
    expect(host.audit()).toEqual([]);
  });

  it('gives the child the same mappings, without what only the parent has', () => {
    const { host, parent } = family();
    const memfd = host.createMemfd('memfd', 8);
    parent.mmap({ startPage: 2048, pages: 8, backing: '4K', file: { memfd, offset: 0 } });
    write(parent, 2048, 7);
    const child = forked(parent);
    expect(child.vmas).toEqual(parent.vmas);
    expect([child.lookup(2048), child.memcg]).toEqual([-1, parent.memcg]);
    write(child, 2048, 8);
    expect([tag(parent, 2048), child.lookup(2048)]).toEqual([8, parent.lookup(2048)]);
    expect(host.audit()).toEqual([]);
  });

  it('shares 2M leaves; a write splits the leaf of the writer and copies 4K', () => {
    const { host, parent } = family({ backing: 'thp-2M' });
    write(parent, 512, 1);
    const child = forked(parent);
    expect([child.leafPages(512), child.lookup(512), host.allocator.allocatedFrames]).toEqual([
      512,
      parent.lookup(512),
      512,
    ]);
    write(child, 515, 2);
    expect([child.leafPages(512), parent.leafPages(512), host.allocator.allocatedFrames]).toEqual([1, 512, 513]);
    expect([tag(child, 512), tag(child, 515), tag(parent, 515)]).toEqual([1, 2, 0]);
    expect(host.audit()).toEqual([]);
    runToEnd(child.exit(cpu));
    write(parent, 515, 3);
    expect([parent.leafPages(515), host.allocator.allocatedFrames]).toEqual([512, 512]);
    expect(host.audit()).toEqual([]);
  });

  it('duplicates swap entries, which come back to one frame for both and are copied by who writes', () => {
    const { host, parent } = family();
    write(parent, 512, 1);
    runToEnd(parent.pageOut(cpu, 512));
    const child = forked(parent);
    expect([child.swappedBytes, parent.swappedBytes, host.swap.usedSlots, parent.memcg.swappedPages]).toEqual([
      4096, 4096, 1, 2,
    ]);
    expect(tag(child, 512)).toBe(1);
    runToEnd(parent.cpuAccess(cpu, 512, { write: false, tagLo: 0, tagHi: 0 }));
    runToEnd(child.cpuAccess(cpu, 512, { write: false, tagLo: 0, tagHi: 0 }));
    expect(child.lookup(512)).toBe(parent.lookup(512));
    write(parent, 512, 2);
    expect([tag(parent, 512), tag(child, 512)]).toEqual([2, 1]);
    expect(host.audit()).toEqual([]);
  });

  it('swaps out what both share, by the entries of both', () => {
    const { host, parent } = family();
    write(parent, 512, 1);
    const child = forked(parent);
    expect(runToEnd(host.reclaim(cpu, 1))).toBe(1);
    expect([parent.isSwapped(512), child.isSwapped(512), host.swap.usedSlots]).toEqual([true, true, 1]);
    expect(host.audit()).toEqual([]);
    runToEnd(parent.exit(cpu));
    write(child, 512, 2);
    runToEnd(child.exit(cpu));
    expect([host.audit(), host.allocator.allocatedFrames, host.swap.usedSlots]).toEqual([[], 0, 0]);
  });

  it('copies a pinned page at once: device and parent go on to share it', () => {
    const { host, parent } = family();
    write(parent, 512, 1);
    runToEnd(parent.pin(cpu, 512, 1));
    const frame = parent.lookup(512);
    const child = forked(parent);
    expect([child.lookup(512) === frame, parent.isWriteable(512), tag(child, 512)]).toEqual([false, true, 1]);
    host.memory.writeTag(frame, 2, 0);
    write(parent, 513, 5);
    expect([parent.lookup(512), tag(parent, 512), tag(child, 512)]).toEqual([frame, 2, 1]);
    write(parent, 512, 3);
    expect(parent.lookup(512)).toBe(frame);
    runToEnd(parent.unpin(cpu, 512, 1));
    expect(host.audit()).toEqual([]);
  });

  it('a pin after the fork gets the pinner a page of its own first', () => {
    const { host, parent } = family();
    write(parent, 512, 1);
    const child = forked(parent);
    runToEnd(parent.pin(cpu, 512, 1, false));
    const [run] = parent.pinnedRuns(512, 1);
    expect([run?.pfn, run?.pfn === child.lookup(512), tag(parent, 512)]).toEqual([parent.lookup(512), false, 1]);
    expect(parent.isWriteable(512)).toBe(false);
    write(parent, 512, 2);
    expect(parent.lookup(512)).toBe(run?.pfn);
    runToEnd(parent.unpin(cpu, 512, 1));
    expect(host.audit()).toEqual([]);
  });

  it('splits the leaf of a 2M folio that is pinned, and copies its pages', () => {
    const { host, parent } = family({ backing: 'thp-2M' });
    write(parent, 515, 1);
    runToEnd(parent.pin(cpu, 515, 1));
    const child = forked(parent);
    expect([parent.leafPages(512), child.leafPages(512), host.allocator.allocatedFrames]).toEqual([1, 1, 1024]);
    expect([tag(child, 515), child.isWriteable(515), parent.isWriteable(515)]).toEqual([1, true, true]);
    runToEnd(parent.unpin(cpu, 515, 1));
    expect(host.audit()).toEqual([]);
  });

  it('without frames for such a copy there is no child, and all is as it was', () => {
    const { host, parent } = family({ frames: 8, swapSlots: 0, pages: 8 });
    for (let page = 512; page < 520; page++) write(parent, page, page);
    runToEnd(parent.pin(cpu, 512, 8));
    expect(() => runToEnd(parent.fork(cpu, 'child'))).toThrow(expect.objectContaining({ code: 'ENOMEM' }));
    runToEnd(parent.unpin(cpu, 512, 8));
    for (let page = 512; page < 520; page++) expect(tag(parent, page)).toBe(page);
    expect([host.audit(), host.allocator.allocatedFrames]).toEqual([[], 8]);
  });

  it('copies huge pages whole, from what nobody was promised; the child has no promise', () => {
    const { host, parent } = family({ backing: 'hugetlb-2M', pages: 1024 });
    write(parent, 512, 1);
    const child = forked(parent);
    expect(child.lookup(512)).toBe(parent.lookup(512));
    write(child, 512, 2);
    expect([child.leafPages(512), tag(parent, 512), tag(child, 512)]).toEqual([512, 1, 2]);
    write(child, 1024, 3);
    // Three in use, and one promised to the parent.
    expect(host.state.hugePages.counts(9)).toEqual({ total: 4, free: 1, reserved: 1 });
    write(parent, 1024, 4);
    expect(host.state.hugePages.counts(9)).toEqual({ total: 4, free: 0, reserved: 0 });
    expect(host.audit()).toEqual([]);
    runToEnd(child.exit(cpu));
    runToEnd(parent.exit(cpu));
    expect(host.state.hugePages.counts(9)).toEqual({ total: 4, free: 4, reserved: 0 });
    expect(host.audit()).toEqual([]);
  });

  it('a huge page that cannot be copied is SIGBUS', () => {
    const { host, parent } = family({ backing: 'hugetlb-2M', pages: 2048 });
    for (const page of [512, 1024, 1536, 2048]) write(parent, page, page);
    const child = forked(parent);
    expect(runToEnd(child.cpuAccess(cpu, 512, { write: true, tagLo: 2, tagHi: 0 })) & 2).toBe(2);
    expect([tag(child, 512), host.audit()]).toEqual([512, []]);
  });

  it('a grandchild shares with both; the middle one goes first', () => {
    const { host, parent } = family();
    write(parent, 512, 1);
    const child = forked(parent);
    write(child, 513, 2);
    const grandchild = runToEnd(child.fork(cpu, 'grandchild'));
    runToEnd(child.exit(cpu));
    expect([tag(grandchild, 512), tag(grandchild, 513), tag(parent, 513)]).toEqual([1, 2, 0]);
    runToEnd(host.reclaim(cpu, 2));
    expect([grandchild.isSwapped(512), grandchild.isSwapped(513), parent.isSwapped(512)]).toEqual([true, true, true]);
    write(grandchild, 512, 3);
    expect([tag(grandchild, 512), tag(grandchild, 513), tag(parent, 512), host.audit()]).toEqual([3, 2, 1, []]);
  });

  it('two that copy a page at the same time leave nothing of it behind, not even its slot', () => {
    const { host, parent } = family();
    write(parent, 512, 1);
    const child = forked(parent);
    expect(runToEnd(host.reclaim(cpu, 1))).toBe(1);
    for (const mm of [parent, child]) runToEnd(mm.cpuAccess(cpu, 512, { write: false, tagLo: 0, tagHi: 0 }));
    expect([host.swap.usedSlots, host.allocator.allocatedFrames]).toEqual([1, 1]);
    const runs = [parent, child].map((mm, i) => {
      const agent = new Agent(`vcpu ${i}`);
      return new TaskRun<unknown>(agent, mm.cpuAccess(agent, 512, { write: true, tagLo: 2 + i, tagHi: 0 }));
    });
    for (const run of runs) runUntil(run, 'fault: map copy');
    for (const run of runs) finish(run);
    expect([tag(parent, 512), tag(child, 512)]).toEqual([2, 3]);
    expect([host.swap.usedSlots, host.allocator.allocatedFrames, host.audit()]).toEqual([0, 2, []]);
  });

  it('a folio that is split in the swap cache leaves nothing of what was dropped', () => {
    const { host, parent } = family({ backing: 'thp-2M' });
    write(parent, 512, 1);
    const reclaimer = new Agent('pageout');
    const run = new TaskRun<unknown>(reclaimer, parent.madvise(reclaimer, 512, 512, 'PAGEOUT'));
    while (host.swapIo.inFlight === 0) run.advance();
    runToEnd(parent.cpuAccess(cpu, 512, { write: false, tagLo: 0, tagHi: 0 }));
    runToEnd(parent.madvise(cpu, 513, 511, 'DONTNEED'));
    finish(run);
    expect([host.swap.usedSlots, host.allocator.allocatedFrames]).toEqual([512, 512]);
    expect(runToEnd(parent.pageOut(cpu, 512))).toBe(true);
    expect([host.swap.usedSlots, host.allocator.allocatedFrames, host.audit()]).toEqual([1, 0, []]);
  });

  it('a page that is copied while its folio is split is taken off the right piece', () => {
    const { host, parent } = family({ backing: 'thp-2M' });
    write(parent, 515, 1);
    const child = forked(parent);
    write(child, 512, 2);
    const run = new TaskRun<unknown>(cpu, child.cpuAccess(cpu, 515, { write: true, tagLo: 3, tagHi: 0 }));
    runUntil(run, 'fault: write-protected');
    runToEnd(parent.madvise(new Agent('cold'), 600, 1, 'COLD'));
    expect(host.counters.folioSplits['2M->4K']).toBe(1);
    finish(run);
    expect([tag(parent, 515), tag(child, 515), host.audit()]).toEqual([1, 3, []]);
  });

  it('a copy that loses its page while it waits looks again', () => {
    const { host, parent } = family();
    write(parent, 512, 1);
    const child = forked(parent);
    const run = new TaskRun(cpu, parent.cpuAccess(cpu, 512, { write: true, tagLo: 2, tagHi: 0 }));
    runUntil(run, 'fault: map copy');
    runToEnd(child.exit(new Agent('exit')));
    runToEnd(host.reclaim(new Agent('reclaim'), 1));
    finish(run);
    expect([tag(parent, 512), host.audit()]).toEqual([2, []]);
  });
});

const kinds = [
  ...['write', 'write', 'write', 'read', 'read', 'fork', 'exit', 'merge', 'merge', 'pageOut', 'reclaim', 'reclaim'],
  ...['protect', 'numa', 'softDirty', 'pin', 'collapse', 'migrate'],
] as FamilyOp['kind'][];
const op: fc.Arbitrary<FamilyOp> = fc.record({
  kind: fc.constantFrom(...kinds),
  space: fc.nat(11),
  page: fc.oneof(fc.nat(3), fc.constantFrom(511, 512, 513)),
  other: fc.nat(8),
});
const programs = fc.array(fc.array(op, { maxLength: 24 }), { minLength: 2, maxLength: 4 });
const options: fc.Arbitrary<FamilyOptions> = fc.record({
  frames: fc.oneof(fc.integer({ min: 6, max: 40 }), fc.integer({ min: 520, max: 560 }), fc.constant(8192)),
  swapSlots: fc.oneof(fc.integer({ min: 0, max: 12 }), fc.constant(4096)),
  lru: fc.constantFrom('classic' as const, 'mglru' as const),
  splitNotify: fc.constantFrom('none' as const, 'clear' as const),
  backing: fc.constantFrom<Backing>('4K', '4K', 'thp-2M'),
});

function runFamily(world: FamilyWorld, lists: readonly (readonly FamilyOp[])[], seed: number): void {
  const runs = lists.map((list, index): TaskRun<unknown> => {
    const agent = new Agent(`agent ${index}`);
    const task: Task<void> = world.run(agent, list);
    return new TaskRun<unknown>(agent, task);
  });
  runShuffled(new RandomStream(seed, 'order'), runs);
  world.checkEnd();
}

describe('random programs of a family of address spaces', () => {
  it('each sees what it wrote itself, and all is free at the end', { timeout: 60_000 }, () => {
    const seen = {
      forks: 0,
      merges: 0,
      pinsAcrossForks: 0,
      cow_ksm: 0,
      numa_hint_faults: 0,
      pswpin: 0,
    };
    fc.assert(
      fc.property(options, programs, fc.nat(), (setup, lists, seed) => {
        const world = new FamilyWorld(setup);
        runFamily(world, lists, seed);
        const { counters } = world.host;
        for (const name of ['forks', 'merges', 'pinsAcrossForks'] as const) seen[name] += world.done[name];
        for (const name of ['cow_ksm', 'numa_hint_faults'] as const) seen[name] += counters[name];
        seen.pswpin += counters.swap.pswpin;
      }),
      { numRuns: 1200 },
    );
    for (const [name, count] of Object.entries(seen)) expect(count, name).toBeGreaterThan(0);
  });

  it('also when merged pages go to swap all the time', { timeout: 60_000 }, () => {
    const few = fc.constantFrom<FamilyOp['kind']>(
      'write',
      'read',
      'read',
      'merge',
      'merge',
      'reclaim',
      'reclaim',
      'fork',
    );
    const crowded = fc.array(
      fc.array(fc.record({ kind: few, space: fc.nat(3), page: fc.nat(3), other: fc.nat(5) }), { maxLength: 30 }),
      {
        minLength: 1,
        maxLength: 3,
      },
    );
    let copies = 0;
    fc.assert(
      fc.property(crowded, fc.nat(), (lists, seed) => {
        const world = new FamilyWorld({
          frames: 40,
          swapSlots: 200,
          lru: 'classic',
          splitNotify: 'clear',
          backing: '4K',
        });
        runToEnd(world.mergeAndSwap(new Agent('first')));
        runFamily(world, lists, seed);
        copies += world.host.counters.ksm_swpin_copy;
      }),
      { numRuns: 160 },
    );
    expect(copies).toBeGreaterThan(0);
  });

  it('also of huge pages', { timeout: 60_000 }, () => {
    fc.assert(
      fc.property(programs, fc.nat(), (lists, seed) => {
        const world = new FamilyWorld({
          frames: 8192,
          swapSlots: 0,
          lru: 'classic',
          splitNotify: 'clear',
          backing: 'hugetlb-2M',
        });
        const edges = lists.map((list) =>
          list.map((each) => (each.kind === 'protect' ? { ...each, page: 512, other: 511 } : each)),
        );
        runFamily(world, edges, seed);
      }),
      { numRuns: 80 },
    );
  });
});
