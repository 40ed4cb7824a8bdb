import type { Agent, Task } from '@faultline/sim';
import { expect, it } from 'vitest';
import type { DeviceReport, HwptPaging } from '../src/index.ts';
import { HostSetup, USER } from './host-setup.ts';

const NIC: DeviceReport = {
  name: 'nic',
  paths: [{ path: 'descriptor', canFault: false, whenMissing: 'fatal', ranges: [{ page: 8, pages: 2 }] }],
};

/** Everything that looks at the domain of a HWPT, or changes it. */
const OPERATIONS: Readonly<Record<string, (setup: HostSetup, hwpt: HwptPaging, agent: Agent) => Task<unknown>>> = {
  'a fault': (_, hwpt, agent) => hwpt.handleFault(agent, 20, true),
  'a swap-out': ({ mm }, _, agent) => mm.pageOut(agent, USER + 21),
  'memory given up': ({ mm }, _, agent) => mm.madviseDontNeed(agent, USER, 16),
  'a fork': ({ mm }, _, agent) => mm.fork(agent, 'child'),
  'a device that is attached': ({ ioas }, _, agent) => ioas.attach(agent, { ...NIC, name: 'another' }),
  'a device that is detached': ({ ioas }, _, agent) => ioas.detach(agent, 'nic'),
  'an area that comes': (setup, _, agent) => setup.mapTask(agent, 64, 64),
  'a pinned area that comes': (setup, _, agent) => setup.mapTask(agent, 64, 64, { unpinned: false }),
  'an area that goes': ({ ioas }, _, agent) => ioas.unmap(agent, 0n, 64n * 4096n),
  aging: (_, hwpt, agent) => hwpt.clearFlushYoung(agent, USER, 64),
  'the end of the process': ({ mm }, _, agent) => mm.exit(agent),
};

it.each(Object.keys(OPERATIONS))('at any step of %s: a HWPT that goes is not looked at any more', (name) => {
  for (let steps = 0; ; steps++) {
    const setup = new HostSetup({
      backing: '4K',
      pages: 128,
      frames: 512,
      domain: { accessedDirty: true },
    });
    const hwpt = setup.addDomain();
    setup.map(0, 64);
    setup.run((agent) => setup.ioas.attach(agent, NIC));
    setup.run((agent) => setup.mm.madviseDontNeed(agent, USER + 8, 1)); // only the pin keeps it
    setup.pageOut(20);
    const operation = OPERATIONS[name] as (typeof OPERATIONS)[string];
    const runs = setup.beside(
      (agent) => operation(setup, hwpt, agent),
      steps,
      function* (agent) {
        yield* setup.ioas.iopt.removeDomain(agent, hwpt);
        setup.domain.destroy();
      },
    );
    if (runs === null) return;
    expect([runs.first.done, runs.second.done]).toEqual([true, true]);
    for (const device of ['nic', 'another']) setup.run((agent) => setup.ioas.detach(agent, device));
    setup.run((agent) => setup.ioas.destroy(agent));
    expect(setup.mm.accountedPinBytes).toBe(0);
  }
});
