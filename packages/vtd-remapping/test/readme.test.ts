import { Agent, runToEnd, TaskRun } from '@faultline/sim';
import { TableMemory } from '@faultline/vtd-pagetable';
import { expect, it } from 'vitest';
import { MISS, RemappingUnit, VtdDomain, VtdDriver } from '../src/index.ts';

it('the example of the README holds', () => {
  const unit = new RemappingUnit({ memory: new TableMemory({ pages: 64 }) });
  const domain = new VtdDomain({ driver: new VtdDriver({ unit }), domainId: 1 });
  const [driver, device, queue] = [new Agent('driver'), new Agent('device'), new Agent('queue')];
  domain.attach(0x18, null); // 00:03.0
  runToEnd(domain.map(driver, { page: 0x40000, frame: 0x240000, pages: 262144, write: true })); // one 1G leaf
  const request = { sourceId: 0x18, iovaHi: 0, iovaLo: 0x4012_3000, access: 1 };
  expect(runToEnd(unit.translateMiss(device, request))).toBe(0x240123);
  expect(unit.translate(0x18, 0, 0x4045_6000, 1)).toBe(0x240456); // a hit: the same leaf

  const gather = domain.gather();
  runToEnd(domain.cut(driver, 0x40123, 1, gather));
  domain.table.unmap(0x40123, 1, gather);
  const runs = [new TaskRun(driver, domain.flush(driver, gather))];
  const hardware = new TaskRun(queue, unit.run(queue));
  while (!runs[0]?.done) for (const run of [...runs, hardware]) if (run.enabled) run.advance();
  expect(unit.translate(0x18, 0, 0x4012_3000, 1)).toBe(MISS);
  expect(runToEnd(unit.translateMiss(device, request))).toBe(-0x79); // no permission, and recorded:
  expect(unit.faults.takeAll()).toEqual([{ sourceId: 0x18, page: 0x40123, reason: 0x79, write: true }]);
});
