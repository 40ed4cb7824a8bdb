import { describe, expect, it } from 'vitest';
import { type DeviceReport, RangeLearner, STRATEGIES } from '../src/index.ts';
import { HostSetup, USER } from './host-setup.ts';

const ring = (page: number, pages: number, name = 'nic'): DeviceReport => ({
  name,
  paths: [
    { path: 'descriptor', canFault: false, whenMissing: 'fatal', ranges: [{ page, pages }] },
    { path: 'read', canFault: true, whenMissing: 'stall' },
  ],
});
const OLD: DeviceReport = { name: 'old', paths: [{ path: 'read', canFault: false }], unfaultable: 'pin-all' };

function withDomain(options: ConstructorParameters<typeof HostSetup>[0] = {}) {
  const setup = new HostSetup(options);
  const hwpt = setup.addDomain();
  return { setup, hwpt };
}

const attach = (setup: HostSetup, report: DeviceReport) => setup.run((agent) => setup.ioas.attach(agent, report));
const detach = (setup: HostSetup, name: string) => setup.run((agent) => setup.ioas.detach(agent, name));
const dontNeed = (setup: HostSetup, page: number, pages: number) =>
  setup.run((agent) => setup.mm.madviseDontNeed(agent, USER + page, pages));
const touch = (setup: HostSetup, page: number) =>
  setup.run((agent) => setup.mm.cpuAccess(agent, USER + page, { write: true, tagLo: 1, tagHi: 0 }));
const pinned = (setup: HostSetup) => setup.mm.accountedPinBytes / 4096;

describe('an unpinned area that comes after a device', () => {
  it('has what the device declared pinned', () => {
    const { setup } = withDomain({ backing: '4K' });
    attach(setup, ring(8, 2)); // no unpinned area yet: nothing is asked of it
    setup.map(0, 512);
    expect([pinned(setup), setup.pageOut(8), setup.pageOut(10)]).toEqual([2, false, true]);
    setup.unmap(0, 512);
    expect([pinned(setup), setup.domain.table.mappedPages]).toEqual([0, 0]);
    setup.map(0, 512); // what was declared holds on
    expect(pinned(setup)).toBe(2);
    detach(setup, 'nic');
    expect(pinned(setup)).toBe(0);
  });

  it('is refused for one that declares nothing, and there is no area then', () => {
    const { setup } = withDomain();
    attach(setup, { name: 'nic', paths: [{ path: 'write', canFault: false }] });
    expect(() => setup.map(0, 512)).toThrow('EOPNOTSUPP: nic');
    expect([setup.ioas.areas.size, setup.domain.table.mappedPages]).toEqual([0, 0]);
    setup.map(0, 512, { unpinned: false });
  });

  it('goes again if its pin fails', () => {
    const { setup } = withDomain({ backing: '4K', pages: 16 });
    attach(setup, ring(8, 32));
    expect(() => setup.map(0, 512)).toThrow('EFAULT');
    expect([setup.ioas.areas.size, pinned(setup), setup.domain.table.mappedPages]).toEqual([0, 0, 0]);
  });

  it('is pinned whole for a device that asked for it, as are those that were there', () => {
    const { setup } = withDomain({ backing: '4K' });
    setup.map(0, 512);
    attach(setup, OLD);
    expect([pinned(setup), setup.pageOut(7)]).toEqual([512, false]);
    setup.map(512, 256);
    expect(pinned(setup)).toBe(768);
    expect(setup.domain.table.mappedPages).toBe(768);
    detach(setup, 'old');
    expect([pinned(setup), setup.pageOut(7)]).toEqual([0, true]);
  });
});

describe('the frames of a pin', () => {
  it('stay mapped through everything that the host does to the memory, also to faults', () => {
    for (const name of ['cut', 'whole-leaf', 'break-before-make', 'paired', 'cut+collapse'] as const) {
      const { setup, hwpt } = withDomain({ strategy: STRATEGIES[name] });
      setup.map(0, 512);
      attach(setup, ring(8, 2));
      const frame = setup.domain.frameAt(8);
      const still = () => expect([8, 9].map((page) => setup.domain.frameAt(page))).toEqual([frame, frame + 1]);
      dontNeed(setup, 0, 512); // more than the pin, and its memory too
      still();
      touch(setup, 8); // now the owner has another page there
      expect(setup.mm.lookup(USER + 8)).not.toBe(frame);
      expect([setup.fault(8), setup.fault(9)]).toEqual([0, 0]);
      still();
      setup.fault(7);
      setup.fault(10);
      dontNeed(setup, 7, 1); // beside it
      still();
      setup.run((agent) => setup.mm.fork(agent, 'child'));
      still();
      expect([setup.domain.leafAt(8)?.rights, hwpt.lostPins]).toEqual([3, 0]);
      detach(setup, 'nic');
      expect(setup.stale()).toEqual([]);
      for (const leaf of setup.domain.table.allLeaves())
        if ((leaf.rights & 2) !== 0) expect(setup.mm.isWriteable(USER + leaf.page)).toBe(true);
    }
  });

  it.each(['cut', 'shared-ept'] as const)('come into a domain that is added later: %s', (name) => {
    const setup = new HostSetup({ backing: '4K', strategy: STRATEGIES[name] });
    setup.map(0, 64);
    attach(setup, ring(8, 2));
    const frame = setup.mm.lookup(USER + 8);
    dontNeed(setup, 8, 1);
    touch(setup, 8);
    setup.addDomain();
    expect([setup.domain.frameAt(8), setup.mm.lookup(USER + 8) === frame]).toEqual([frame, false]);
  });

  it('of two devices: the older pin counts until it is gone, then the other', () => {
    const { setup } = withDomain({ backing: '4K' });
    setup.map(0, 64);
    attach(setup, ring(8, 2, 'first'));
    const first = setup.domain.frameAt(8);
    dontNeed(setup, 8, 1);
    touch(setup, 8);
    attach(setup, ring(7, 2, 'second'));
    const second = setup.mm.lookup(USER + 8);
    expect([setup.domain.frameAt(8), second === first]).toEqual([first, false]);
    detach(setup, 'first');
    expect(setup.domain.frameAt(8)).toBe(second);
    dontNeed(setup, 8, 1);
    expect(setup.domain.frameAt(8)).toBe(second);
    detach(setup, 'second');
    expect([setup.stale(), pinned(setup)]).toEqual([[], 0]);
  });

  it('that cannot be mapped again beside a leaf that went are counted: the notifier cannot fail', () => {
    const { setup, hwpt } = withDomain({ strategy: STRATEGIES['whole-leaf'], domain: { reservePages: 0 } });
    setup.map(0, 512);
    attach(setup, ring(8, 2));
    while (setup.tables.allocate() >= 0);
    dontNeed(setup, 0, 4);
    expect([hwpt.lostPins, setup.domain.frameAt(8)]).toEqual([1, -1]);
    detach(setup, 'nic');
  });

  it('that cannot be mapped again when another pin of them goes are counted, too: a detach cannot fail', () => {
    const { setup, hwpt } = withDomain({ strategy: STRATEGIES['whole-leaf'], domain: { reservePages: 0 } });
    setup.map(0, 512);
    attach(setup, ring(8, 2));
    attach(setup, ring(9, 2, 'another'));
    while (setup.tables.allocate() >= 0);
    dontNeed(setup, 0, 4);
    detach(setup, 'nic');
    expect([hwpt.lostPins, pinned(setup)]).toEqual([2, 2]);
    detach(setup, 'another');
    expect(pinned(setup)).toBe(0);
  });

  it('at any step of an attach: the host, a fault or an unmap of the area leave nothing stale and no pin', () => {
    const during = ['dontNeed', 'pageOut', 'fault', 'unmap', 'exit'] as const;
    for (const what of during)
      for (let steps = 0; ; steps++) {
        const { setup, hwpt } = withDomain({ backing: '4K', pages: 64, frames: 256 });
        setup.map(0, 64);
        setup.pageOut(8);
        const errors: unknown[] = [];
        const runs = setup.beside(
          function* (agent) {
            try {
              yield* setup.ioas.attach(agent, ring(8, 2));
            } catch (error) {
              errors.push((error as { code?: string }).code);
            }
          },
          steps,
          function* (agent) {
            if (what === 'dontNeed') yield* setup.mm.madviseDontNeed(agent, USER, 16);
            else if (what === 'pageOut') yield* setup.mm.pageOut(agent, USER + 9);
            else if (what === 'fault') yield* hwpt.handleFault(agent, 8, true);
            else if (what === 'unmap') yield* setup.ioas.unmap(agent, 0n, 64n * 4096n);
            else yield* setup.mm.exit(agent);
          },
        );
        if (runs === null) {
          expect(steps).toBeGreaterThan(5);
          break;
        }
        expect([runs.first.done, runs.second.done]).toEqual([true, true]);
        if (what === 'unmap' || what === 'exit')
          expect(errors.filter((code) => code !== 'ENOENT' && code !== 'EFAULT')).toEqual([]);
        else expect(errors).toEqual([]);
        detach(setup, 'nic');
        expect([setup.stale(), pinned(setup)]).toEqual([[], 0]);
        if (what !== 'unmap') setup.unmap(0, 64);
        setup.run((agent) => setup.ioas.destroy(agent));
        if (what !== 'exit') setup.run((agent) => setup.mm.exit(agent));
        expect([setup.domain.table.mappedPages, setup.host.allocator.allocatedFrames]).toEqual([0, 0]);
      }
  });
});

it('learned on a pinned IOAS, a device’s rings are enough to unpin the rest', () => {
  const setup = new HostSetup({ backing: '4K' });
  const learner = new RangeLearner();
  setup.addDomain();
  const open: DeviceReport = { name: 'nic', paths: [{ path: 'descriptor', canFault: false }] };
  setup.map(0, 512, { unpinned: false });
  attach(setup, open);
  for (const page of [8, 9, 8, 40]) learner.saw('descriptor', page);
  detach(setup, 'nic');
  setup.unmap(0, 512);
  setup.map(0, 512);
  expect(() => attach(setup, open)).toThrow('EOPNOTSUPP');
  attach(setup, learner.declare(open));
  expect([pinned(setup), setup.pageOut(8), setup.pageOut(40), setup.pageOut(41)]).toEqual([3, false, false, true]);
});
