import { Agent, TaskRun } from '@faultline/sim';
import { encodeLeaf, TableMemory } from '@faultline/vtd-pagetable';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { RemappingUnit, type VtdDomain } from '../src/index.ts';
import { iotlbDescriptor, UnitSetup } from './unit-setup.ts';

const SOURCE = 0x18;
const FRAME = 0x80000;
const MODES = ['legacy', 'scalable'] as const;
type Mode = (typeof MODES)[number];

/** Memory that hardware does not snoop, with a CPU that can be made to forget flushes. */
class ForgetfulMemory extends TableMemory {
  /** Which flushes are left out. */
  forgets: (pfn: number, count: number) => boolean = () => false;
  forgotten = 0;

  override flush(pfn: number, index: number, count = 1): void {
    if (this.forgets(pfn, count)) this.forgotten++;
    else super.flush(pfn, index, count);
  }
}

function attached(mode: Mode): { setup: UnitSetup; domain: VtdDomain; memory: ForgetfulMemory } {
  const memory = new ForgetfulMemory({ pages: 192, coherent: false });
  const setup = new UnitSetup({ memory }, { mode });
  const domain = setup.domain();
  domain.attach(SOURCE, null);
  return { setup, domain, memory };
}

const map = (setup: UnitSetup, domain: VtdDomain, page: number, pages: number) =>
  setup.run((agent) => domain.map(agent, { page, frame: FRAME + page, pages, write: true }));

/** Does something with no flush, or without some of them; then invalidates everything. */
function forgetfully(setup: UnitSetup, memory: ForgetfulMemory, act: () => void, forgets = memory.forgets): void {
  memory.forgets = forgets === memory.forgets ? () => true : forgets;
  act();
  memory.forgets = () => false;
  expect(memory.forgotten).toBeGreaterThan(0);
  setup.submit(iotlbDescriptor(1));
}

describe.each(MODES)('without coherency, in %s mode', (mode) => {
  it('a domain maps, cuts, unmaps and collapses, and devices see just that', () => {
    const op = fc.record({
      what: fc.constantFrom('map', 'unmap', 'collapse', 'write-protect'),
      page: fc.nat(1535),
      pages: fc.constantFrom(1, 3, 512),
    });
    fc.assert(
      fc.property(fc.array(op, { minLength: 1, maxLength: 12 }), (ops) => {
        const { setup, domain } = attached(mode);
        const model = new Map<number, boolean>();
        for (const { what, page: drawn, pages } of ops) {
          const page = pages === 512 ? drawn - (drawn % 512) : drawn;
          const inside = Array.from({ length: pages }, (_, nth) => page + nth);
          if (what === 'map') {
            if (inside.some((each) => model.has(each))) continue;
            map(setup, domain, page, pages);
            for (const each of inside) model.set(each, true);
          } else if (what === 'collapse') setup.run((agent) => domain.collapse(agent, 0, 1536));
          else {
            const gather = domain.gather();
            setup.run((agent) => domain.cut(agent, page, pages, gather));
            const range = { page, pages, holes: 'skip' } as const;
            if (what === 'unmap') {
              setup.run((agent) => domain.unmap(agent, { ...range, partialLeaf: 'linux-7.3' }, gather));
              for (const each of inside) model.delete(each);
            } else {
              setup.run((agent) => domain.protect(agent, { ...range, rights: 1 }, gather));
              for (const each of inside) if (model.has(each)) model.set(each, false);
            }
            setup.run((agent) => domain.flush(agent, gather));
          }
          for (const probe of [page, page + pages - 1, page + pages, 0, 700])
            for (const write of [false, true]) {
              const allowed = model.get(probe) === true || (model.has(probe) && !write);
              const seen = setup.dma(SOURCE, probe, write);
              expect(seen < 0 ? 'fault' : seen).toBe(allowed ? FRAME + probe : 'fault');
            }
        }
      }),
      { numRuns: 60 },
    );
  });

  it('a forgotten flush of what was mapped hides it', () => {
    const { setup, domain, memory } = attached(mode);
    map(setup, domain, 1, 1);
    const rights = { read: true, write: true };
    forgetfully(setup, memory, () => domain.table.map({ page: 2, frame: FRAME + 2, pages: 1, rights }));
    expect([setup.dma(SOURCE, 1), setup.dma(SOURCE, 2) < 0]).toEqual([FRAME + 1, true]);
  });

  it('a forgotten flush of what was unmapped or write-protected leaves devices their access (I1)', () => {
    const { setup, domain, memory } = attached(mode);
    map(setup, domain, 0, 4);
    forgetfully(setup, memory, () => domain.table.unmap(1, 1, domain.gather()));
    expect([domain.frameAt(1), setup.dma(SOURCE, 1, true)]).toEqual([-1, FRAME + 1]);
    const range = { iova: 0x2000n, length: 0x1000n };
    forgetfully(setup, memory, () => {
      domain.table.protectRange(range.iova, range.length, { read: true, write: false }, domain.gather());
    });
    expect(setup.dma(SOURCE, 2, true)).toBe(FRAME + 2);
  });

  it('a cut that publishes its table before it has flushed it makes innocents fault, or go to old frames (D1)', () => {
    const isPrivate = (_: number, count: number) => count > 8;
    const { setup, domain, memory } = attached(mode);
    map(setup, domain, 512, 512);
    expect(setup.dma(SOURCE, 600)).toBe(FRAME + 600);
    forgetfully(setup, memory, () => domain.table.cut(519, 1, domain.gather()), isPrivate);
    expect([domain.frameAt(600), setup.dma(SOURCE, 600) < 0]).toEqual([FRAME + 600, true]);

    // The page served as a table before: memory still has what it held.
    const again = attached(mode);
    map(again.setup, again.domain, 512, 512);
    again.domain.table.reserve.release();
    const used = again.memory.allocate();
    for (let index = 0; index < 512; index++) again.memory.store(used, index, encodeLeaf(1, 0x4000 + index, 3));
    again.memory.flush(used, 0, 512);
    again.memory.free(used);
    forgetfully(again.setup, again.memory, () => again.domain.table.cut(519, 1, again.domain.gather()), isPrivate);
    expect([again.domain.frameAt(600), again.setup.dma(SOURCE, 600, true)]).toEqual([FRAME + 600, 0x4000 + 88]);
  });

  it('a forgotten flush of a collapse leaves walkers in a table that was freed', () => {
    const { setup, domain, memory } = attached(mode);
    map(setup, domain, 512, 512);
    const gather = domain.gather();
    domain.table.cut(519, 1, gather);
    setup.run((agent) => domain.flush(agent, gather));
    const collapsing = domain.gather();
    forgetfully(setup, memory, () => domain.table.collapse(512, 512, collapsing));
    const [freed = -1] = collapsing.freedTables;
    setup.run((agent) => domain.flush(agent, collapsing));
    expect(memory.isAllocated(freed)).toBe(false);
    setup.dma(SOURCE, 519);
    expect([...setup.unit.pagingCache.entries()].map((entry) => entry.tablePfn)).toContain(freed);
  });

  it('a forgotten flush of the structures hides an attached function, and leaves a detached one its access', () => {
    const { setup, domain, memory } = attached(mode);
    map(setup, domain, 1, 1);
    forgetfully(setup, memory, () => domain.attach(SOURCE + 8, null));
    const reason = -setup.dma(SOURCE + 8, 1);
    expect(mode === 'legacy' ? [1, 2] : [0x39, 0x41]).toContain(reason);

    const agent = new Agent('driver');
    const detaching = new TaskRun(agent, domain.detach(agent, SOURCE));
    detaching.advance();
    expect(detaching.pending?.label).toBe('clear context entry');
    forgetfully(setup, memory, () => detaching.advance());
    while (!detaching.done)
      if (detaching.enabled) detaching.advance();
      else setup.time.run();
    // In scalable mode the PASID entry is zeroed, and flushed, when its table is freed: the stale context still leads to it.
    expect(setup.dma(SOURCE, 1, true)).toBe(mode === 'legacy' ? FRAME + 1 : -0x59);
  });
});

describe('a unit', () => {
  it('cannot snoop memory that is not coherent, and then has no A and D bits', () => {
    const memory = () => new TableMemory({ pages: 64, coherent: false });
    expect(() => new RemappingUnit({ memory: memory(), capabilities: { pageWalkCoherent: true } })).toThrow(
      'pageWalkCoherent: true does not go with',
    );
    expect(() => new RemappingUnit({ memory: memory(), capabilities: { coherent: true } })).toThrow('coherent: true');
    expect(new RemappingUnit({ memory: memory() }).capabilities.accessedDirty).toBe(false);
    expect(() => new UnitSetup({ memory: memory() }).domain({ accessedDirty: true })).toThrow('accessedDirty: needs');
  });
});
