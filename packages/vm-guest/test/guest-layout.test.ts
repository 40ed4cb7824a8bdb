import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { GuestLayout, GuestPageAllocator } from '../src/index.ts';

const GIB = 1n << 30n;
const GIB_PAGES = 262144;

describe('the layout of RAM', () => {
  it('has one region below 2.75 GiB, and from there 2 GiB below the hole, as q35', () => {
    for (const memory of [4096n, GIB, 2n * GIB, 0xb000_0000n - 4096n])
      expect(new GuestLayout(memory).regions).toEqual([{ page: 0, pages: Number(memory / 4096n), backingPage: 0 }]);
    for (const memory of [0xb000_0000n, 3n * GIB, 4n * GIB, 16n * GIB, 1024n * GIB])
      expect(new GuestLayout(memory).regions).toEqual([
        { page: 0, pages: 2 * GIB_PAGES, backingPage: 0 },
        { page: 4 * GIB_PAGES, pages: Number(memory / 4096n) - 2 * GIB_PAGES, backingPage: 2 * GIB_PAGES },
      ]);
  });

  it('numbers pages one to one: pageAt and backingOf are inverse, the hole is no RAM', () => {
    fc.assert(
      fc.property(fc.bigInt({ min: 1n, max: 1n << 24n }), fc.nat(), fc.nat(2 ** 25), (pages, pick, page) => {
        const layout = new GuestLayout(pages * 4096n);
        expect(layout.pages).toBe(Number(pages));
        const index = pick % layout.pages;
        expect(layout.backingOf(layout.pageAt(index))).toBe(index);
        const backing = layout.backingOf(page);
        if (backing >= 0) expect(layout.pageAt(backing)).toBe(page);
        if (page >= 2 * GIB_PAGES && page < 4 * GIB_PAGES && layout.regions.length === 2) expect(backing).toBe(-1);
      }),
    );
    const layout = new GuestLayout(4n * GIB);
    expect([layout.backingOf(2 * GIB_PAGES), layout.backingOf(6 * GIB_PAGES)]).toEqual([-1, -1]);
    expect(() => layout.pageAt(layout.pages)).toThrow('is beyond the guest');
    expect(() => layout.pageAt(-1)).toThrow(RangeError);
  });

  it('is of whole pages', () => {
    for (const memory of [0n, -4096n, 4097n])
      expect(() => new GuestLayout(memory)).toThrow('is not a multiple of 4 KiB');
  });
});

describe('the allocator', () => {
  it('hands every page out once, upwards, over the hole, and none that is reserved', () => {
    const layout = new GuestLayout(3n * GIB);
    const allocator = new GuestPageAllocator(layout, 2 * GIB_PAGES - 2);
    allocator.reserve(4 * GIB_PAGES);
    expect(allocator.allocate(4, 'ring')).toEqual([
      2 * GIB_PAGES - 2,
      2 * GIB_PAGES - 1,
      4 * GIB_PAGES + 1,
      4 * GIB_PAGES + 2,
    ]);
    expect(allocator.allocate(0, 'nothing')).toEqual([]);
    expect([4 * GIB_PAGES, 4 * GIB_PAGES + 2, 4 * GIB_PAGES + 3].map((page) => allocator.isTaken(page))).toEqual([
      true,
      true,
      false,
    ]);
  });

  it('says for whom there is no room', () => {
    const allocator = new GuestPageAllocator(new GuestLayout(16n * 4096n), 10);
    expect(allocator.allocate(6, 'ring')).toHaveLength(6);
    expect(() => allocator.allocate(2, 'disk buffers')).toThrow(
      'guest memory: no room for 2 pages of disk buffers; the VM is too small for its devices',
    );
  });
});
