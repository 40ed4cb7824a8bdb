import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { FrameAllocator, type FrameSpanOptions, PhysicalMemory } from '../src/index.ts';
import { type FreeFrames, FreeRuns, FreeSet } from './free-frames.ts';

const GIG = 1 << 18;

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

  it('asserts on a double free, a frame outside, and a block that is not allocated in full', () => {
    const allocator = new FrameAllocator({ firstPfn: GIG, frames: GIG });
    const pfn = allocator.allocate(0);
    expect(() => allocator.free(pfn, 9)).toThrow(/assertion failed.*0x40000/);
    allocator.free(pfn, 0);
    expect(() => allocator.free(pfn, 0)).toThrow(/double free/);
    expect(() => allocator.free(GIG - 1, 0)).toThrow(/outside/);
    expect(() => allocator.free(2 * GIG, 0)).toThrow(/outside/);
    expect(() => allocator.free(pfn, 18)).toThrow(/double free/);
    const big = allocator.allocate(9);
    expect(() => allocator.free(big + 1, 9)).toThrow(/not aligned/);
    allocator.free(big + 3, 0);
    expect(() => allocator.free(big, 9)).toThrow(/not all of it is allocated/);
  });

  it.each([
    [{ firstPfn: -1, frames: 1 }, /firstPfn/],
    [{ firstPfn: 0, frames: 0 }, /frames/],
    [{ firstPfn: 0, frames: 1.5 }, /frames/],
    [{ firstPfn: 2 ** 30, frames: 2 ** 30 }, /frames/],
  ])('refuses %o', (options, message) => {
    expect(() => new FrameAllocator(options)).toThrow(message);
  });

  it('splits the smallest block that suffices, where pieces are already', () => {
    const allocator = new FrameAllocator({ firstPfn: 0, frames: 2 * GIG });
    expect(allocator.allocate(3)).toBe(0);
    // Eight frames are gone; the rest of the first 1G is one block of each order from theirs on.
    const split = [0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1];
    expect(allocator.buddyInfo()).toEqual(split);
    expect([allocator.allocate(3), allocator.allocate(0), allocator.allocate(17)]).toEqual([8, 16, GIG / 2]);
    // What is left of the first 1G has order 16 at most, so order 17 comes out of the second.
    expect(allocator.largestFreeOrder).toBe(18);
    expect(allocator.allocate(17)).toBe(GIG);
    expect([allocator.allocate(18), allocator.largestFreeOrder]).toEqual([-1, 17]);
    for (const [pfn, order] of [
      [0, 4],
      [16, 0],
      [GIG / 2, 17],
      [GIG, 17],
    ] as const)
      allocator.free(pfn, order);
    expect(allocator.buddyInfo()).toEqual([...new Array(18).fill(0), 2]);
  });

  it('takes a given block out of whatever it is part of, and nothing else', () => {
    const allocator = new FrameAllocator({ firstPfn: GIG, frames: 2 * GIG - 3 });
    expect(allocator.allocateAt(GIG + 0x1234, 2)).toBe(true);
    expect(allocator.freeFrames).toBe(2 * GIG - 7);
    for (const [pfn, order] of [
      [GIG + 0x1234, 2],
      [GIG + 0x1236, 0],
      [GIG + 0x1230, 4],
      [GIG, 18],
    ] as const)
      expect(allocator.allocateAt(pfn, order)).toBe(false);
    // Partly or wholly outside.
    for (const [pfn, order] of [
      [GIG - 1, 0],
      [2 * GIG, 18],
      [3 * GIG - 4, 2],
      [3 * GIG - 3, 0],
      [0, 18],
    ] as const)
      expect(allocator.allocateAt(pfn, order)).toBe(false);
    expect(allocator.allocateAt(3 * GIG - 4, 0)).toBe(true);
    expect(allocator.freeFrames).toBe(2 * GIG - 8);
    expect(() => allocator.allocateAt(GIG + 2, 2)).toThrow('pfn: 0x40002 is not aligned to order 2');
    for (const order of [-1, 19, 0.5, Number.NaN])
      for (const call of [
        () => allocator.allocate(order),
        () => allocator.allocateAt(GIG, order),
        () => allocator.free(GIG, order),
      ])
        expect(call).toThrow(RangeError);
  });

  it('notices a double free of every order, whole or after pieces of the block', () => {
    for (let order = 0; order <= 18; order++) {
      const allocator = new FrameAllocator({ firstPfn: 0, frames: 2 * GIG });
      const pfn = allocator.allocate(order);
      const refuses = (at: number, of: number) => expect(() => allocator.free(at, of)).toThrow(/double free/);
      for (let piece = 0; piece < order; piece++) {
        // The last piece of that order comes back, the first is still out.
        const at = pfn + 2 ** order - 2 ** piece;
        allocator.free(at, piece);
        for (let larger = piece; larger <= order; larger++) refuses(Math.floor(at / 2 ** larger) * 2 ** larger, larger);
        if (piece > 0) refuses(at, 0);
        expect(allocator.allocateAt(at, piece)).toBe(true);
      }
      allocator.free(pfn, order);
      for (let any = 0; any <= 18; any++) refuses(0, any);
      expect(allocator.buddyInfo()).toEqual([...new Array(18).fill(0), 2]);
    }
  });

  it('agrees with a set of free frames under random programs on a small host', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 3000 }),
        fc.integer({ min: 1, max: 1500 }),
        programs(11),
        (skew, frames, program) => {
          const span = { firstPfn: GIG - skew, frames };
          runProgram(span, new FreeSet(span), program);
        },
      ),
      { numRuns: 100 },
    );
  });

  it('agrees with a list of free runs under random programs on a host of several 1G with a hole', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 2 * GIG }),
        fc.integer({ min: 1, max: 3 * GIG }),
        programs(18),
        (skew, frames, program) => {
          const span = { firstPfn: 3 * GIG - skew, frames, hole: { firstPfn: 3 * GIG, frames: GIG } };
          runProgram(span, new FreeRuns(span), program);
        },
      ),
      { numRuns: 300 },
    );
  });
});

interface Step {
  readonly act: 'allocate' | 'allocateAt' | 'free';
  readonly order: number;
  readonly pick: number;
}

const programs = (largest: number): fc.Arbitrary<Step[]> =>
  fc.array(
    fc.record<Step>({
      act: fc.constantFrom('allocate', 'allocateAt', 'free', 'free'),
      order: fc.integer({ min: 0, max: largest }),
      pick: fc.nat(),
    }),
    { minLength: 1, maxLength: 80 },
  );

/** Runs a program on an allocator and on the model, and compares all that can be seen after each step. */
function runProgram(span: FrameSpanOptions, model: FreeFrames, program: readonly Step[]): void {
  const allocator = new FrameAllocator(span);
  const whole = allocator.buddyInfo();
  const end = span.firstPfn + span.frames + (span.hole?.frames ?? 0);
  const touched: number[] = [];
  for (const { act, order, pick } of program) {
    const frames = 2 ** order;
    // A block near one that was used before, or anywhere, the surroundings of the host included.
    const near =
      pick % 4 > 0 && touched.length > 0
        ? touched[pick % touched.length]!
        : span.firstPfn - 100 + (pick % (end - span.firstPfn + 200));
    const start = Math.max(0, Math.floor(near / frames) * frames);
    if (act === 'allocate') {
      const pfn = allocator.allocate(order);
      expect(pfn >= 0, `order ${order}`).toBe(
        model
          .freeBlocks()
          .slice(order)
          .some((count) => count > 0),
      );
      if (pfn < 0) continue;
      expect(pfn % frames).toBe(0);
      expect(model.isFree(pfn, frames)).toBe(true);
      model.take(pfn, frames);
      touched.push(pfn);
    } else if (act === 'allocateAt') {
      const free = model.isFree(start, frames);
      expect(allocator.allocateAt(start, order)).toBe(free);
      if (free) model.take(start, frames);
      touched.push(start, start + frames - 1);
    } else if (model.isAllocated(start, frames)) {
      allocator.free(start, order);
      model.give(start, frames);
    } else {
      expect(() => allocator.free(start, order)).toThrow(/assertion failed/);
    }
    const blocks = model.freeBlocks();
    expect(allocator.buddyInfo()).toEqual(blocks);
    expect(allocator.largestFreeOrder).toBe(blocks.findLastIndex((count) => count > 0));
    expect(allocator.freeFrames).toBe(blocks.reduce((sum, count, k) => sum + count * 2 ** k, 0));
    for (const pfn of [start - 1, start, start + frames - 1, start + frames])
      expect(allocator.isAllocated(pfn)).toBe(model.isAllocated(pfn, 1));
  }
  // What is still out comes back in the largest pieces that fit, and all is as it was.
  for (let pfn = span.firstPfn; pfn < end; ) {
    let order = 18;
    while (order >= 0 && !(pfn % 2 ** order === 0 && model.isAllocated(pfn, 2 ** order))) order--;
    if (order >= 0) allocator.free(pfn, order);
    pfn = order >= 0 ? pfn + 2 ** order : model.nextChange(pfn);
  }
  expect(allocator.buddyInfo()).toEqual(whole);
  expect(allocator.freeFrames).toBe(span.frames);
}

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
