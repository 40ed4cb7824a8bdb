import { Agent, runToEnd } from '@faultline/sim';
import { expect, it } from 'vitest';
import { HostMemory } from '../src/index.ts';

it('the example of the README holds', () => {
  const host = new HostMemory({ frames: 1 << 18, swapSlots: 1024 });
  const vmm = host.createAddressSpace('vmm');
  const cpu = new Agent('vcpu 0');
  vmm.mmap({ startPage: 1 << 18, pages: 1024, backing: 'thp-2M' });
  runToEnd(vmm.populate(cpu, 1 << 18, 1024));
  runToEnd(vmm.cpuAccess(cpu, (1 << 18) + 7, { write: true, tagLo: 42, tagHi: 0 }));
  runToEnd(vmm.pageOut(cpu, (1 << 18) + 7));
  expect([vmm.cpuRead((1 << 18) + 7).tagLo, host.counters.thp_split_page, vmm.swappedBytes]).toEqual([42, 1, 4096]);
});
