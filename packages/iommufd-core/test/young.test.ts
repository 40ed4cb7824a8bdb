import type { Agent } from '@faultline/sim';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { YoungPages } from '../src/stage2/young-pages.ts';
import { HostSetup, type HostSetupOptions, USER } from './host-setup.ts';

const SOURCE_ID = 0x18;

function ready(options: HostSetupOptions = {}) {
  const setup = new HostSetup({ ...options, domain: { accessedDirty: true } });
  setup.addDomain();
  setup.map(0, setup.pages);
  setup.domain.attach(SOURCE_ID, null);
  const use = (page: number): void => {
    const iovaLo = (page << 12) | 0;
    if (setup.unit.translate(SOURCE_ID, 0, iovaLo, 0) >= 0) return;
    setup.run((agent) => setup.unit.translateMiss(agent, { sourceId: SOURCE_ID, iovaHi: 0, iovaLo, access: 0 }));
  };
  const asked = (page: number, pages = 1): boolean =>
    setup.run((agent: Agent) => setup.ioas.clearFlushYoung(agent, USER + page, pages));
  return { setup, use, asked };
}

describe('memory that a device uses is young', () => {
  it('each page of a small leaf for itself', () => {
    const { use, asked } = ready({ backing: '4K', pages: 64 });
    use(3);
    expect([asked(2), asked(3), asked(3), asked(4)]).toEqual([false, true, false, false]);
  });

  it('a use of a large leaf counts once for each page below it, whoever asks first', () => {
    const { setup, use, asked } = ready();
    use(3);
    expect(setup.ioas.testYoung(setup.time as never, USER + 400)).toBe(true);
    expect([asked(100), asked(100), asked(3), asked(3)]).toEqual([true, false, true, false]);
    expect([asked(0, 512), asked(0, 512), asked(512, 512)]).toEqual([true, false, false]);
  });

  it('again after the flush, though the translation was cached; without the flush it is not seen', () => {
    const { setup, use, asked } = ready({ backing: '4K', pages: 64 });
    use(3);
    expect(asked(3)).toBe(true);
    use(3);
    expect(asked(3)).toBe(true);
    use(3);
    const agent = {} as Agent; // part of the caller's step: it asks nothing of its agent
    expect(setup.ioas.clearYoung(agent, USER + 3, 1)).toBe(true);
    use(3); // answered by the IOTLB, which sets nothing
    expect(setup.ioas.clearYoung(agent, USER + 3, 1)).toBe(false);
  });

  it('no more once it was taken away', () => {
    const { setup, use, asked } = ready();
    use(3);
    expect(asked(9)).toBe(true);
    setup.pageOut(100);
    setup.fault(100);
    expect([asked(100), asked(101)]).toEqual([false, true]);
  });

  it('so that reclaim takes what no device uses', () => {
    const { setup, use } = ready({ backing: '4K', pages: 64, host: { lru: 'classic' } });
    setup.run((agent) => setup.host.reclaim(agent, 1)); // forget that the CPU has touched everything
    for (let page = 0; page < 64; page += 2) use(page);
    setup.run((agent) => setup.host.reclaim(agent, 16));
    const gone = Array.from({ length: 64 }, (_, page) => page).filter((page) => setup.mm.lookup(USER + page) < 0);
    expect(gone.length).toBeGreaterThanOrEqual(16);
    const used = gone.filter((page) => page % 2 === 0);
    expect(used.length).toBeLessThan(gone.length / 4);
  });
});

it('YoungPages is a set of pages', () => {
  const range = fc.record({ page: fc.nat(3000), pages: fc.constantFrom(1, 2, 40, 512, 1500) });
  const op = fc.record({ what: fc.constantFrom('add' as const, 'take' as const, 'has' as const), range });
  fc.assert(
    fc.property(fc.array(op, { maxLength: 40 }), (list) => {
      const young = new YoungPages();
      const model = new Set<number>();
      for (const { what, range: at } of list) {
        const inside = Array.from({ length: at.pages }, (_, nth) => at.page + nth);
        const isKept = inside.some((page) => model.has(page));
        if (what === 'has') expect(young.has(at.page, at.pages)).toBe(isKept);
        else if (what === 'take') {
          expect(young.take(at.page, at.pages)).toBe(isKept);
          for (const page of inside) model.delete(page);
        } else {
          young.add(at);
          for (const page of inside) model.add(page);
        }
        expect(young.count).toBe(model.size);
      }
    }),
    { numRuns: 100 },
  );
});
