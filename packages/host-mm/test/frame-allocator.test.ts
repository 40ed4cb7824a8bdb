import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type FolioOrder, FrameAllocator, PhysicalMemory } from '../src/index.ts';

const GIG = 1 << 18;
const ORDERS: readonly FolioOrder[] = [0, 9, 18];

describe('FrameAllocator', () => {
  it('hands out aligned blocks and -1 when none is left', () => {
    const allocator = new FrameAllocator({ firstPfn: GIG, frames: 2 * GIG });
    expect(allocator.allocate(18)).toBe(GIG);
    expect(allocator.allocate(0)).toBe(2 * GIG);
    expect(allocator.allocate(18)).toBe(-1);
    expect(allocator.allocate(9)).toBe(2 * GIG + 512);
    expect(allocator.freeFrames).toBe(GIG - 513);
    expect(allocator.allocatedFrames).toBe(GIG + 513);
  });

  it('makes 1G out of pieces once all of them are free, in whatever order they came back', () => {
    const allocator = new FrameAllocator({ firstPfn: 0, frames: GIG });
    const pfn = allocator.allocate(18);
    for (let i = 1; i < 512; i++) allocator.free(pfn + ((i * 7) % 512) * 512, 9);
    for (let i = 0; i < 512; i++) allocator.free(pfn + ((i * 5) % 512), 0);
    expect(allocator.allocate(18)).toBe(0);
  });

  it('uses frames of a host that begins and ends between boundaries', () => {
    const allocator = new FrameAllocator({ firstPfn: 1000, frames: 3000 });
    expect(allocator.allocate(18)).toBe(-1);
    const large: number[] = [];
    for (let pfn = allocator.allocate(9); pfn >= 0; pfn = allocator.allocate(9)) large.push(pfn);
    expect(large.sort((a, b) => a - b)).toEqual([1024, 1536, 2048, 2560, 3072]);
    const small = new Set<number>();
    for (let pfn = allocator.allocate(0); pfn >= 0; pfn = allocator.allocate(0)) small.add(pfn);
    expect(small.size).toBe(3000 - 5 * 512);
    expect(Math.min(...small)).toBe(1000);
    expect(Math.max(...small)).toBe(3999);
    expect(allocator.freeFrames).toBe(0);
  });

  it('asserts on a double free, a frame outside, and a block that was not allocated as one', () => {
    const allocator = new FrameAllocator({ firstPfn: GIG, frames: GIG });
    const pfn = allocator.allocate(0);
    expect(() => allocator.free(pfn, 9)).toThrow(/assertion failed.*0x40000/);
    allocator.free(pfn, 0);
    expect(() => allocator.free(pfn, 0)).toThrow(/double free/);
    expect(() => allocator.free(GIG - 1, 0)).toThrow(/outside/);
    expect(() => allocator.free(2 * GIG, 0)).toThrow(/outside/);
    expect(() => allocator.free(pfn, 18)).toThrow(/not allocated as one/);
    const big = allocator.allocate(9);
    expect(() => allocator.free(big + 1, 9)).toThrow(/not aligned/);
    allocator.free(big + 3, 0);
    expect(() => allocator.free(big, 9)).toThrow(/not allocated as one/);
  });

  it.each([
    [{ firstPfn: -1, frames: 1 }, /firstPfn/],
    [{ firstPfn: 0, frames: 0 }, /frames/],
    [{ firstPfn: 0, frames: 1.5 }, /frames/],
    [{ firstPfn: 2 ** 30, frames: 2 ** 30 }, /frames/],
  ])('refuses %o', (options, message) => {
    expect(() => new FrameAllocator(options)).toThrow(message);
  });

  it('agrees with a set of frames under random programs', () => {
    const step = fc.record({ free: fc.boolean(), order: fc.constantFrom(...ORDERS), pick: fc.nat() });
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 700 }), fc.array(step, { maxLength: 60 }), (skew, steps) => {
        const frames = GIG + 2000;
        const allocator = new FrameAllocator({ firstPfn: GIG - skew, frames });
        // Blocks rather than frames, so that the model stays small: start -> order.
        const held = new Map<number, FolioOrder>();
        let allocated = 0;
        for (const { free, order, pick } of steps) {
          if (free && held.size > 0) {
            const [pfn, was] = [...held][pick % held.size] as [number, FolioOrder];
            held.delete(pfn);
            // A larger block may come back as pieces: all but the first stay.
            if (was !== 0 && order < was) {
              const child: FolioOrder = was === 18 ? 9 : 0;
              for (let i = 1; i < 512; i++) held.set(pfn + i * 2 ** child, child);
              allocator.free(pfn, child);
              allocated -= 2 ** child;
            } else {
              allocator.free(pfn, was);
              allocated -= 2 ** was;
            }
          } else {
            const pfn = allocator.allocate(order);
            if (pfn < 0) continue;
            expect(pfn % 2 ** order).toBe(0);
            expect(pfn).toBeGreaterThanOrEqual(GIG - skew);
            expect(pfn + 2 ** order).toBeLessThanOrEqual(GIG - skew + frames);
            for (const [other, its] of held)
              expect(other + 2 ** its <= pfn || pfn + 2 ** order <= other, 'overlap').toBe(true);
            held.set(pfn, order);
            allocated += 2 ** order;
          }
          expect(allocator.allocatedFrames).toBe(allocated);
          expect(allocator.freeFrames).toBe(frames - allocated);
        }
        for (const pfn of held.keys()) expect(allocator.isAllocated(pfn)).toBe(true);
        for (const [pfn, order] of held) allocator.free(pfn, order);
        expect(allocator.freeFrames).toBe(frames);
        // All is whole again: as many 1G blocks as fit are there.
        const first = Math.ceil((GIG - skew) / GIG) * GIG;
        expect(allocator.allocate(18)).toBe(first + GIG <= GIG - skew + frames ? first : -1);
      }),
      { numRuns: 100 },
    );
  });
});

describe('a hole', () => {
  const hole = { firstPfn: 0xc_0000, frames: 0x4_0000 };

  it('is no memory: what would lie there lies behind the end', () => {
    const allocator = new FrameAllocator({ firstPfn: GIG, frames: 4 * GIG, hole });
    const taken = [0, 1, 2, 3].map(() => allocator.allocate(18));
    expect(taken.sort((a, b) => a - b)).toEqual([GIG, 2 * GIG, 4 * GIG, 5 * GIG]);
    expect([allocator.allocate(0), allocator.freeFrames, allocator.frames]).toEqual([-1, 0, 4 * GIG]);
    expect(() => allocator.free(0xc_0000, 18)).toThrow('frame 0xc0000 of order 18 is outside the allocator');
    const memory = new PhysicalMemory({ firstPfn: GIG, frames: 4 * GIG, hole });
    expect([0xb_ffff, 0xc_0000, 0xf_ffff, 0x10_0000, 6 * GIG - 1, 6 * GIG].map((pfn) => memory.contains(pfn))).toEqual([
      true,
      false,
      false,
      true,
      true,
      false,
    ]);
  });

  it('does not concern memory that ends below or begins above it, and is whole GiBs', () => {
    for (const firstPfn of [GIG, 0x10_0000]) {
      const allocator = new FrameAllocator({ firstPfn, frames: GIG, hole });
      expect([allocator.allocate(18), allocator.allocate(0)]).toEqual([firstPfn, -1]);
    }
    expect(() => new FrameAllocator({ firstPfn: 0, frames: GIG, hole: { firstPfn: 512, frames: 512 } })).toThrow(
      'hole:',
    );
  });
});
