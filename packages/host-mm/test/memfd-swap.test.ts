import { Agent, runToEnd, TaskRun, VirtualTime } from '@faultline/sim';
import { describe, expect, it } from 'vitest';
import { HostMemory } from '../src/index.ts';
import { testProfile } from './run.ts';

const agent = new Agent('agent');

function machine() {
  const host = new HostMemory({ frames: 64, swapSlots: 64, pageCluster: 0 });
  const memfd = host.createMemfd('guest', 4);
  const [a, b] = ['a', 'b'].map((name) => {
    const mm = host.createAddressSpace(name);
    mm.mmap({ startPage: 16, pages: 4, backing: '4K', file: { memfd, offset: 0 } });
    return mm;
  });
  if (!a || !b) throw new Error('two address spaces');
  runToEnd(a.cpuAccess(agent, 17, { write: true, tagLo: 5, tagHi: 0 }));
  return { host, memfd, a, b };
}

const read = { write: false, tagLo: 0, tagHi: 0 };

describe('a page of a memfd in swap', () => {
  it('is read once for two who fault on it at the same time, whoever is how far', () => {
    for (let steps = 0; ; steps++) {
      const { host, memfd, a, b } = machine();
      for (let round = 0; round < 2; round++) runToEnd(host.reclaim(agent, 1));
      expect(memfd.swappedBytes).toBe(4096);
      const first = new TaskRun(new Agent('a'), a.cpuAccess(new Agent('a'), 17, read));
      for (let i = 0; i < steps && !first.done; i++) first.advance();
      if (first.done) break;
      const second = new TaskRun(new Agent('b'), b.cpuAccess(new Agent('b'), 17, read));
      while (second.enabled) second.advance();
      while (!first.done) first.advance();
      while (!second.done) second.advance();
      expect(a.lookup(17)).toBe(b.lookup(17));
      expect([a.cpuRead(17).tagLo, host.counters.swap.pswpin]).toEqual([5, 1]);
      expect(host.audit()).toEqual([]);
    }
  });

  it('is waited for while it is written, in virtual time too', () => {
    const { host, memfd, a } = machine();
    // It gets its second chance.
    runToEnd(host.reclaim(agent, 1));
    const time = new VirtualTime(testProfile({ swapWrite: 100_000 }));
    const device = new Agent('device');
    time.spawn(device, host.swapIo.worker(device, host.swap.areas[0]!), { daemon: true });
    const reclaimer = new Agent('reclaimer');
    time.spawn(reclaimer, host.reclaim(reclaimer, 1));
    time.run(50_000);
    expect(memfd.swappedBytes).toBe(4096);
    const cpu = new Agent('cpu');
    time.spawn(cpu, a.cpuAccess(cpu, 17, read));
    expect(time.run(1e9)).toBe(true);
    expect(a.cpuRead(17).tagLo).toBe(5);
    expect(a.lookup(17)).toBeGreaterThan(0);
    expect(host.audit()).toEqual([]);
  });
});
