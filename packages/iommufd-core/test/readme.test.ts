import { HostMemory } from '@faultline/host-mm';
import { Agent, runToEnd } from '@faultline/sim';
import { TableMemory } from '@faultline/vtd-pagetable';
import { RemappingUnit, VtdDomain, VtdDriver, VtdFunction } from '@faultline/vtd-remapping';
import { expect, it } from 'vitest';
import { Ioas, Iommufd, Process, STRATEGIES } from '../src/index.ts';

it('the example of the typed API holds', () => {
  const agent = new Agent('vmm');
  const mm = new HostMemory({ frames: 1 << 12, swapSlots: 64 }).createAddressSpace('vmm');
  mm.mmap({ startPage: 0x40000, pages: 1024, backing: 'thp-2M' });
  const unit = new RemappingUnit({ memory: new TableMemory({ pages: 64 }) });
  const device = new VtdFunction({ driver: new VtdDriver({ unit }), sourceId: 0x28 });
  const iommufd = new Iommufd({ process: new Process({ mm }), version: '7.3' });
  const devId = runToEnd(iommufd.bind(agent, device));
  const { outIoasId: ioasId } = runToEnd(iommufd.ioasAlloc(agent, { flags: 0 }));
  expect([devId, ioasId, runToEnd(iommufd.attach(agent, devId, ioasId))]).toEqual([1, 2, 3]);
  const map = { flags: 6, ioasId, userVa: 0x4000_0000n, length: 0x20_0000n, iova: 0n };
  expect(runToEnd(iommufd.ioasMap(agent, map))).toEqual({ iova: 0x20_0000n });
  expect(device.domain?.table.leafCounts['2M']).toBe(1);
  const part = { ioasId, iova: 0x20_0000n, length: 4096n };
  expect(() => runToEnd(iommufd.ioasUnmap(agent, part))).toThrow('ENOENT');
});

it('the example of an IOAS that follows the host holds', () => {
  const agent = new Agent('vmm');
  const mm = new HostMemory({ frames: 1 << 12, swapSlots: 64 }).createAddressSpace('vmm');
  mm.mmap({ startPage: 0x40000, pages: 1024, backing: 'thp-2M' });
  runToEnd(mm.populate(agent, 0x40000, 512)); // the first half
  const ioas = new Ioas({ mm, strategy: STRATEGIES.cut });
  const unit = new RemappingUnit({ memory: new TableMemory({ pages: 64 }) });
  const domain = new VtdDomain({ driver: new VtdDriver({ unit }), domainId: 1 });
  const hwpt = runToEnd(ioas.addDomain(agent, domain));
  const flags = { writeable: true, unpinned: true };
  runToEnd(ioas.map(agent, { iova: 0n, userVa: 0x4000_0000n, length: 0x40_0000n, ...flags }));
  expect(domain.table.leafCounts['2M']).toBe(1); // what is resident
  expect(runToEnd(hwpt.handleFault(agent, 600, true))).toBe(0); // success
  expect(domain.table.leafCounts['2M']).toBe(2); // the largest block that fits
  expect(() => runToEnd(ioas.unmap(agent, 0n, 4096n))).toThrow('ENOENT');
});
