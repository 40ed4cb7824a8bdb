import { Agent, Cost, runToEnd, type Task } from '@faultline/sim';
import { expect, it } from 'vitest';
import { bootGuest, GuestLayout, GuestPageAllocator } from '../src/index.ts';

it('the example of the README holds', () => {
  const layout = new GuestLayout(16n << 30n);
  const allocator = new GuestPageAllocator(layout, 4096); // the first 16 MiB are the kernel's
  const touched: number[] = [];
  const cpu = {
    *access(agent: Agent, page: number): Task<void> {
      yield agent.spends('touch', Cost.entryRead);
      touched.push(page);
    },
    writeWords: () => undefined,
  };
  runToEnd(bootGuest(new Agent('vcpu 0'), layout, cpu, allocator));
  expect(touched.length).toBe(16);
  expect(allocator.allocate(2, 'ring')).toEqual([4096, 4097]);
  expect([layout.pageAt(524288), layout.backingOf(524288)]).toEqual([1048576, -1]);
});
