import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PinnedRanges } from '../src/ioas/pinned-ranges.ts';
import { HostSetup, USER } from './host-setup.ts';

const RING = { name: 'nic', paths: [{ path: 'descriptor', canFault: false, ranges: [{ page: 8, pages: 2 }] }] };

function withRing(): HostSetup {
  const setup = new HostSetup({ backing: 'thp-2M' });
  setup.addDomain();
  setup.map(0, 512);
  setup.run((agent) => setup.ioas.attach(agent, RING));
  return setup;
}

const dontNeed = (setup: HostSetup, page: number, pages: number) =>
  setup.run((agent) => setup.mm.madviseDontNeed(agent, USER + page, pages));

describe('PinnedRanges', () => {
  it('outside() gives the pages of a range that no pin covers', () => {
    const range = fc.record({ userPage: fc.nat(40), pages: fc.integer({ min: 1, max: 12 }) });
    fc.assert(
      fc.property(fc.array(range, { maxLength: 6 }), range, (pins, asked) => {
        const ranges = new PinnedRanges();
        for (const pin of pins) ranges.add({ ...pin, device: 'd', area: {}, runs: [] });
        const covered = new Set(
          pins.flatMap(({ userPage, pages }) => Array.from({ length: pages }, (_, i) => userPage + i)),
        );
        const expected = Array.from({ length: asked.pages }, (_, i) => asked.userPage + i).filter(
          (p) => !covered.has(p),
        );
        const parts = ranges.outside(asked.userPage, asked.pages);
        expect(parts.flatMap(({ userPage, pages }) => Array.from({ length: pages }, (_, i) => userPage + i))).toEqual(
          expected,
        );
        for (const part of parts) expect(part.pages).toBeGreaterThan(0);
      }),
    );
  });
});

describe('what is pinned for a device', () => {
  it('stays mapped when the host takes away memory around it, and its neighbours do not', () => {
    const setup = withRing();
    const frame = setup.domain.frameAt(8);
    dontNeed(setup, 0, 16);
    expect([8, 9].map((page) => setup.domain.frameAt(page))).toEqual([frame, frame + 1]);
    for (const page of [0, 7, 10, 15]) expect(setup.domain.frameAt(page)).toBe(-1);
    expect(setup.domain.frameAt(16)).toBe(setup.mm.lookup(USER + 16));
  });

  it('leaves the domain with the pin if the host has given it up in between', () => {
    const setup = withRing();
    dontNeed(setup, 8, 1);
    expect(setup.domain.frameAt(8)).toBeGreaterThan(0); // the pin keeps the frame
    setup.run((agent) => setup.ioas.detach(agent, 'nic'));
    expect(setup.domain.frameAt(8)).toBe(-1);
    expect(setup.domain.frameAt(9)).toBe(setup.mm.lookup(USER + 9));
    expect(setup.stale()).toEqual([]);
  });

  it('is kept for as long as any device has it pinned', () => {
    const setup = withRing();
    setup.run((agent) => setup.ioas.attach(agent, { ...RING, name: 'other' }));
    dontNeed(setup, 8, 2);
    setup.run((agent) => setup.ioas.detach(agent, 'nic'));
    expect(setup.domain.frameAt(8)).toBeGreaterThan(0);
    setup.run((agent) => setup.ioas.detach(agent, 'other'));
    expect(setup.stale()).toEqual([]);
    expect(setup.mm.accountedPinBytes).toBe(0);
  });
});
