import { Agent, type Task, TaskRun } from '@faultline/sim';
import { describe, expect, it } from 'vitest';
import { FaultOutcome, type HwptPaging } from '../src/index.ts';
import { HostSetup, USER } from './host-setup.ts';

const nobody = { name: 'accelerator', paths: [{ path: 'read', canFault: true }] };
const ring = (page: number, pages: number) => ({
  name: 'nic',
  paths: [{ path: 'descriptor', canFault: false, ranges: [{ page, pages }] }],
});

describe('map', () => {
  it('refuses by errno, naming the argument in hex', () => {
    const setup = new HostSetup();
    setup.addDomain();
    const map = (iova: bigint, userVa: bigint, length: bigint) => () =>
      setup.run((agent) => setup.ioas.map(agent, { iova, userVa, length, writeable: true, unpinned: true }));
    const top = (1n << 64n) - 4096n;
    // Without a domain any byte would do.
    expect(map(0n, 0n, 0n)).toThrow('EINVAL: length: 0x0 is not positive');
    expect(map(0x123n, 0n, 4096n)).toThrow('EINVAL: iova: 0x123 is not a multiple of 0x1000');
    expect(map(0n, 0x10n, 4096n)).toThrow('EINVAL: user_va: 0x10 is not a multiple of 0x1000');
    expect(map(0n, 0n, 4097n)).toThrow('EINVAL: length: 0x1001 is not a multiple of 0x1000');
    expect(map(top, 0n, 8192n)).toThrow('EOVERFLOW: iova: 0xfffffffffffff000 + 0x2000 wraps');
    expect(map(0n, top, 8192n)).toThrow('EOVERFLOW: user_va: 0xfffffffffffff000 + 0x2000 wraps');
    setup.map(0, 16);
    expect(() => setup.map(8, 1)).toThrow('EEXIST: iova: [0x8000-0x8fff] overlaps the area [0x0-0xffff]');
  });

  it('unpinned needs a strategy that follows the host; pinned does not, and pins once there is a domain', () => {
    const setup = new HostSetup({ strategy: null });
    expect(() => setup.map(0, 16)).toThrow('EOPNOTSUPP: flags: an unpinned map');
    setup.map(0, 512, { unpinned: false });
    expect(setup.mm.accountedPinBytes).toBe(0);
    setup.addDomain();
    expect(setup.mm.accountedPinBytes).toBe(512 * 4096);
    expect(setup.pageOut(5)).toBe(false);
    setup.unmap(0, 512);
    expect([setup.mm.accountedPinBytes, setup.pageOut(5)]).toEqual([0, true]);
  });

  it('unpinned maps what is resident and nothing else, with the largest leaves', () => {
    const setup = new HostSetup({ populate: false });
    setup.run((agent) => setup.mm.populate(agent, USER, 512));
    setup.addDomain();
    setup.map(0, 1024);
    expect(setup.domain.table.leafCounts).toEqual({ '4K': 0, '2M': 1, '1G': 0 });
    expect([setup.mm.accountedPinBytes, setup.domain.frameAt(512), setup.stale()]).toEqual([0, -1, []]);
  });

  it('that fails leaves nothing behind: a hole in the memory', () => {
    const setup = new HostSetup();
    setup.addDomain();
    expect(() => setup.map(1000, 100, { unpinned: false })).toThrow('EFAULT');
    expect([setup.ioas.areas.size, setup.mm.accountedPinBytes]).toEqual([0, 0]);
    setup.map(1000, 24, { unpinned: false });
  });

  it('that fails leaves nothing behind: no table page', () => {
    const setup = new HostSetup({ tablePages: 8, backing: '4K', domain: { reservePages: 0 } });
    setup.addDomain();
    while (setup.tables.used < 6) setup.tables.allocate();
    for (const unpinned of [true, false]) expect(() => setup.map(500, 100, { unpinned })).toThrow('ENOMEM');
    expect([setup.ioas.areas.size, setup.mm.accountedPinBytes, setup.domain.table.mappedPages]).toEqual([0, 0, 0]);
  });

  it('pinned maps the frames of the pin, whatever the CPU maps by the time a second domain comes', () => {
    const setup = new HostSetup({ backing: '4K' });
    setup.addDomain();
    setup.map(0, 16, { unpinned: false });
    const pinned = setup.mm.lookup(USER + 3);
    setup.run((agent) => setup.mm.madviseDontNeed(agent, USER, 16));
    setup.run((agent) => setup.mm.cpuAccess(agent, USER + 3, { write: true, tagLo: 1, tagHi: 1 }));
    expect(setup.mm.lookup(USER + 3)).not.toBe(pinned);
    const second = setup.secondDomain();
    const hwpt = setup.run((agent) => setup.ioas.addDomain(agent, second));
    expect(second.frameAt(3)).toBe(pinned);
    expect(setup.fault(3)).toBe(FaultOutcome.success); // spurious: its pin holds
    expect(setup.domain.frameAt(3)).toBe(pinned);
    setup.map(600, 1, { unpinned: false });
    setup.run((agent) => setup.ioas.iopt.removeDomain(agent, setup.ioas.hwpt ?? hwpt)); // the storage domain
    expect([setup.domain.table.mappedPages, second.frameAt(3), setup.ioas.iopt.hwpts]).toEqual([0, pinned, [hwpt]]);
    setup.run((agent) => setup.ioas.iopt.removeDomain(agent, hwpt));
    expect([second.table.mappedPages, setup.mm.accountedPinBytes, setup.ioas.areas.size]).toEqual([0, 0, 2]);
  });

  it('without large pages pinned memory is mapped page by page, each by a call of its own', () => {
    const setup = new HostSetup();
    const calls: number[] = [];
    const { domain } = setup;
    const map = domain.map.bind(domain);
    domain.map = (agent, request) => {
      calls.push(request.pages);
      return map(agent, request);
    };
    setup.run((agent) => setup.ioas.iopt.setLargePages(agent, false));
    setup.addDomain();
    setup.map(0, 512, { unpinned: false });
    expect([calls, domain.table.leafCounts]).toEqual([Array(512).fill(1), { '4K': 512, '2M': 0, '1G': 0 }]);
  });

  it('pinned stays mapped when the host drops the range', () => {
    const setup = new HostSetup({ backing: '4K' });
    setup.addDomain();
    setup.map(0, 16, { unpinned: false });
    const frame = setup.domain.frameAt(3);
    setup.run((agent) => setup.mm.madviseDontNeed(agent, USER, 16));
    expect(setup.domain.frameAt(3)).toBe(frame);
  });
});

describe('unmap', () => {
  it('takes whole areas out of table and domain, and says how much', () => {
    const setup = new HostSetup();
    setup.addDomain();
    setup.map(0, 512);
    setup.map(600, 8);
    expect(setup.unmap(0, 1024)).toBe(520n * 4096n);
    expect([setup.ioas.areas.size, setup.domain.table.mappedPages]).toEqual([0, 0]);
    expect(() => setup.unmap(0, 1024)).toThrow('ENOENT: iova: nothing is mapped in [0x0-0x3fffff]');
    expect(() => setup.unmap(0, 0)).toThrow('EINVAL: length: 0x0 is not positive');
    expect(() => setup.unmap(2 ** 52 - 1, 2)).toThrow('EOVERFLOW: iova: 0xfffffffffffff000 + 0x2000 wraps');
  });

  it('of a part is ENOENT; areas before it are gone from the domain too', () => {
    const setup = new HostSetup();
    setup.addDomain();
    setup.map(0, 512);
    setup.map(512, 16);
    expect(() => setup.unmap(0, 520)).toThrow('ENOENT');
    expect([setup.domain.frameAt(0), setup.domain.frameAt(512)]).toEqual([-1, setup.mm.lookup(USER + 512)]);
    expect(() => setup.unmap(512, 8)).toThrow('only in part; what was mapped as one is unmapped as one');
  });

  it('of 0 with length 2^64-1 is everything, and nothing is fine', () => {
    const setup = new HostSetup();
    setup.map(0, 16);
    setup.map(100, 16);
    const all = () => setup.run((agent) => setup.ioas.unmap(agent, 0n, (1n << 64n) - 1n));
    expect([all(), all()]).toEqual([32n * 4096n, 0n]);
  });

  it('at any of its steps: the host takes a page away, and the device has it no longer', () => {
    for (let before = 1; ; before++) {
      const setup = new HostSetup();
      setup.addDomain();
      setup.map(0, 512);
      const agent = new Agent('unmap');
      const unmap = new TaskRun(agent, setup.ioas.unmap(agent, 0n, 512n * 4096n));
      for (let steps = 0; steps < before && unmap.enabled && !unmap.done; steps++) unmap.advance();
      if (unmap.done || !unmap.enabled) {
        expect(before).toBeGreaterThan(5);
        return;
      }
      const host = new Agent('host');
      const out = new TaskRun(host, setup.mm.pageOut(host, USER + 7));
      for (let turns = 0; turns < 1000 && !out.done; turns++) {
        while (out.enabled && !out.done) out.advance();
        // Frame freed while the domain still maps it?
        if (out.done) expect(setup.domain.frameAt(7)).toBe(-1);
        else if (unmap.enabled) unmap.advance();
        setup.time.run();
      }
      expect(out.done).toBe(true);
      while (!unmap.done) {
        if (unmap.enabled) unmap.advance();
        setup.time.run();
      }
      expect(setup.domain.table.mappedPages).toBe(0);
    }
  });

  it('at any of its steps: a fault maps nothing into an area that is going', () => {
    for (let before = 1; before < 60; before++) {
      const setup = new HostSetup({ backing: '4K' });
      const hwpt = setup.addDomain();
      setup.map(0, 16);
      setup.pageOut(7);
      const agent = new Agent('fault');
      const fault = new TaskRun(agent, hwpt.handleFault(agent, 7, true));
      for (let steps = 0; steps < before && fault.enabled && !fault.done; steps++) fault.advance();
      const unmap = setup.spawn('unmap', (driver) => setup.ioas.unmap(driver, 0n, 16n * 4096n));
      for (let turns = 0; turns < 1000 && !(unmap.done && fault.done); turns++) {
        try {
          setup.time.run();
        } catch {} // the unmap waits for the fault's lock
        if (fault.enabled && !fault.done) fault.advance();
      }
      expect([unmap.done, fault.done]).toEqual([true, true]);
      expect(setup.domain.table.mappedPages).toBe(0);
    }
  });
});

describe('domains and devices', () => {
  it('one that fails leaves none', () => {
    const setup = new HostSetup({ tablePages: 8, backing: '4K', domain: { reservePages: 0 } });
    setup.map(500, 100);
    setup.map(700, 100, { unpinned: false });
    while (setup.tables.used < 6) setup.tables.allocate();
    expect(() => setup.addDomain()).toThrow('ENOMEM');
    expect([setup.ioas.hwpt, setup.domain.table.mappedPages, setup.mm.accountedPinBytes]).toEqual([null, 0, 0]);
    setup.unmap(500, 300);
    setup.addDomain();
  });

  it('two at once both map all, and memory is pinned once', () => {
    const setup = new HostSetup();
    setup.map(0, 512);
    setup.map(512, 512, { unpinned: false });
    const second = setup.secondDomain();
    setup.spawn('a', (agent) => setup.ioas.addDomain(agent, setup.domain));
    setup.spawn('b', (agent) => setup.ioas.addDomain(agent, second));
    setup.time.run();
    expect([setup.domain.table.mappedPages, second.table.mappedPages]).toEqual([1024, 1024]);
    expect(setup.mm.accountedPinBytes).toBe(512 * 4096);
    setup.pageOut(7);
    expect([setup.domain.frameAt(7), second.frameAt(7), second.frameAt(8)]).toEqual([
      -1,
      -1,
      setup.mm.lookup(USER + 8),
    ]);
  });

  it('attach pins what paths that cannot fault use, maps it, and detach gives it back', () => {
    const setup = new HostSetup({ backing: '4K' });
    setup.addDomain();
    setup.map(0, 512);
    setup.pageOut(8);
    setup.run((agent) => setup.ioas.attach(agent, ring(8, 2)));
    expect([setup.mm.accountedPinBytes, setup.domain.frameAt(8)]).toEqual([8192, setup.mm.lookup(USER + 8)]);
    expect(setup.pageOut(8)).toBe(false);
    expect(() => setup.run((agent) => setup.ioas.attach(agent, ring(8, 2)))).toThrow('EEXIST: nic is attached already');
    expect(() => setup.run((agent) => setup.ioas.destroy(agent))).toThrow('EBUSY: devices are attached: nic');
    setup.run((agent) => setup.ioas.detach(agent, 'nic'));
    expect([setup.mm.accountedPinBytes, setup.pageOut(8)]).toEqual([0, true]);
  });

  it('attach that fails gives back what it had pinned', () => {
    const setup = new HostSetup();
    setup.map(0, 512);
    const report = {
      name: 'nic',
      paths: [
        { path: 'descriptor', canFault: false, ranges: [{ page: 1, pages: 1 }] },
        { path: 'write', canFault: false, ranges: [{ page: 511, pages: 2 }] },
      ],
    };
    expect(() => setup.run((agent) => setup.ioas.attach(agent, report))).toThrow(
      'ENOENT: nic: the declared range [0x1ff000-0x200fff] is not within one area',
    );
    expect(setup.mm.accountedPinBytes).toBe(0);
    setup.run((agent) => setup.ioas.attach(agent, ring(1, 1)));
  });

  it('with all areas pinned nothing more is asked of a device', () => {
    const setup = new HostSetup();
    setup.map(0, 512, { unpinned: false });
    setup.run((agent) => setup.ioas.attach(agent, { name: 'x', paths: [{ path: 'read', canFault: false }] }));
    expect(() => setup.map(512, 512)).toThrow('EOPNOTSUPP: x: no DMA of it can fault (read); map the IOAS pinned');
    setup.run((agent) => setup.ioas.detach(agent, 'x'));
    setup.map(512, 512);
    const half = {
      name: 'y',
      paths: [
        { path: 'read', canFault: true },
        { path: 'write', canFault: false },
      ],
    };
    expect(() => setup.run((agent) => setup.ioas.attach(agent, half))).toThrow(
      'EOPNOTSUPP: y: its write DMA cannot fault and the ranges it uses are not declared',
    );
  });

  it('destroy gives all back, and until it is over the domain follows the host', () => {
    const setup = new HostSetup();
    setup.addDomain();
    setup.map(0, 512);
    setup.map(512, 512, { unpinned: false });
    setup.run((agent) => setup.ioas.attach(agent, nobody));
    setup.run((agent) => setup.ioas.detach(agent, 'accelerator'));
    const agent = new Agent('destroy');
    const destroy = new TaskRun(agent, setup.ioas.destroy(agent));
    destroy.advance();
    expect(setup.pageOut(7)).toBe(true);
    expect(setup.domain.frameAt(7)).toBe(-1);
    while (!destroy.done) {
      if (destroy.enabled) destroy.advance();
      setup.time.run();
    }
    expect([setup.domain.table.mappedPages, setup.mm.accountedPinBytes]).toEqual([0, 0]);
    setup.domain.destroy();
    setup.run((other) => setup.mm.exit(other));
    expect(setup.host.allocator.allocatedFrames).toBe(0);
  });

  it('when the process dies first, the domain maps nothing of it any more', () => {
    const setup = new HostSetup();
    setup.addDomain();
    setup.map(0, 512);
    setup.run((agent) => setup.mm.exit(agent));
    expect(setup.domain.table.mappedPages).toBe(0);
    expect(setup.fault(5)).toBe(FaultOutcome.invalid);
    setup.run((agent) => setup.ioas.destroy(agent));
    expect(setup.host.allocator.allocatedFrames).toBe(0);
  });

  it('a domain that goes at any step of a notifier, a fault or a harvest is not looked at again, and its table is gone', () => {
    const actions = {
      notifier: (setup: HostSetup, agent: Agent) => setup.mm.pageOut(agent, USER + 7),
      fault: (setup: HostSetup, agent: Agent) => setup.ioas.hwpt?.handleFault(agent, 9, true) as Task<unknown>,
      harvest: (setup: HostSetup, agent: Agent) => setup.ioas.clearFlushYoung(agent, USER, 512),
      exit: (setup: HostSetup, agent: Agent) => setup.mm.exit(agent),
    };
    for (const [name, action] of Object.entries(actions))
      for (const first of [0, 1])
        for (let before = 1; ; before++) {
          const setup = new HostSetup({ domain: { accessedDirty: true } });
          const second = setup.secondDomain();
          const hwpts = [setup.addDomain(), setup.run((agent) => setup.ioas.addDomain(agent, second))];
          setup.map(0, 512);
          setup.pageOut(9);
          const domains = [setup.domain, second];
          const { used } = setup.tables;
          const other = new Agent(name);
          const run = new TaskRun(other, action(setup, other));
          for (let steps = 0; steps < before && run.enabled && !run.done; steps++) run.advance();
          if (run.done || !run.enabled) {
            expect(before).toBeGreaterThan(1);
            break;
          }
          const going = domains[first] as typeof second;
          const remove = setup.spawn('remove', function* (agent) {
            yield* setup.ioas.iopt.removeDomain(agent, hwpts[first] as HwptPaging);
            going.destroy();
          });
          for (let turns = 0; turns < 2000 && !(run.done && remove.done); turns++) {
            try {
              setup.time.run();
            } catch {} // it waits for the other's lock
            if (run.enabled && !run.done) run.advance();
          }
          setup.time.run();
          expect([run.done, remove.done, going.table.mappedPages, setup.ioas.iopt.hwpts]).toEqual([
            true,
            true,
            0,
            [hwpts[1 - first]],
          ]);
          expect(setup.tables.used).toBeLessThan(used);
          if (name === 'notifier') expect((domains[1 - first] as typeof second).frameAt(7)).toBe(-1);
        }
  });
});
