import { Agent, runToEnd } from '@faultline/sim';
import { TableMemory } from '@faultline/vtd-pagetable';
import { RemappingUnit, VtdDomain, VtdDriver } from '@faultline/vtd-remapping';
import { expect, it } from 'vitest';
import { DEFAULT_DEVICE_TLB, Endpoint, NIC_FAULTS, WorkQueue } from '../src/index.ts';

it('the example of the README holds', () => {
  const unit = new RemappingUnit({ memory: new TableMemory({ pages: 64 }) });
  const domain = new VtdDomain({ driver: new VtdDriver({ unit }), domainId: 1 });
  const frames: number[] = [];
  const target = {
    access: (_e: Endpoint, _page: number, frame: number) => frames.push(frame),
    missing() {},
    answered() {},
  };
  const nic = new Endpoint({
    name: 'nic',
    sourceId: 0x18,
    unit,
    target,
    faults: NIC_FAULTS,
    deviceTlb: DEFAULT_DEVICE_TLB,
  });
  domain.attach(0x18, nic);
  runToEnd(domain.map(new Agent('driver'), { page: 0, frame: 0x80000, pages: 8, write: true }));
  const ring = new WorkQueue({ endpoint: nic, descriptorPage: 0, completionPage: 1 });
  const result = { completed: 0, dropped: 0, aborted: 0 };
  runToEnd(ring.request(new Agent('receive'), 'write', [7, 8], true, 0, 0, result)); // page 8 is missing
  expect(result).toEqual({ completed: 3, dropped: 1, aborted: 0 });
  expect(frames).toEqual([0x80000, 0x80007, 0x80001]);
});
