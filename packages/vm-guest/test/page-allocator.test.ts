import { RandomStream } from '@faultline/sim';
import { expect, it } from 'vitest';
import { GuestLayout, GuestPageAllocator } from '../src/index.ts';

it('pickFree gives pages that nobody took, each of them in time, and says when there is none', () => {
  const allocator = new GuestPageAllocator(new GuestLayout(1n << 20n), 0);
  const random = new RandomStream(1, 'pick');
  for (let page = 0; page < 256; page++) if (page % 100 !== 7) allocator.reserve(page);
  const seen = new Set<number>();
  for (let i = 0; i < 2000; i++) seen.add(allocator.pickFree(random, 0, 256));
  expect([...seen].sort((a, b) => a - b)).toEqual([7, 107, 207]);
  expect(allocator.pickFree(random, 200, 56)).toBe(207);
  expect(allocator.pickFree(random, 0, 7)).toBe(-1);
});
