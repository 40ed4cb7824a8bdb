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

it('the balloon takes only what nobody has or uses, and pickFree nothing of it', () => {
  const allocator = new GuestPageAllocator(new GuestLayout(1n << 20n), 0);
  const random = new RandomStream(1, 'pick');
  const [ring] = allocator.allocate(1, 'ring');
  allocator.use(7);
  allocator.use(7);
  expect([ring, 7, 8, 8].map((page) => allocator.inflate(page as number))).toEqual([false, false, true, false]);
  allocator.release(7);
  expect(allocator.inflate(7)).toBe(false);
  allocator.release(7);
  expect([allocator.inflate(7), allocator.ballooned, allocator.inBalloon(8)]).toEqual([true, 2, true]);
  for (let page = 9; page < 256; page++) allocator.reserve(page);
  for (let i = 0; i < 200; i++) expect(allocator.pickFree(random, 0, 9)).not.toBeOneOf([0, 7, 8]);
  allocator.deflate(8);
  expect([allocator.inBalloon(8), allocator.pickFree(random, 8, 1)]).toEqual([false, 8]);
});
