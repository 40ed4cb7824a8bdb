import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import { FrameAllocator } from '../src/index.ts';

const GIG = 1 << 18;
const GIGS = 1024;

/** Arenas made, and operations on arenas, each of which is at most 9 splits or merges. */
const count = vi.hoisted(() => ({ arenas: 0, operations: 0 }));

vi.mock('../src/frame/buddy-arena.ts', async (importOriginal) => {
  const original = await importOriginal<typeof import('../src/frame/buddy-arena.ts')>();
  class CountedArena extends original.BuddyArena {
    constructor(firstPfn: number, free: boolean) {
      super(firstPfn, free);
      count.arenas++;
    }
    override allocate(order: number): number {
      count.operations++;
      return super.allocate(order);
    }
    override allocateAt(order: number, unit: number): boolean {
      count.operations++;
      return super.allocateAt(order, unit);
    }
    override free(order: number, unit: number): void {
      count.operations++;
      super.free(order, unit);
    }
    override hasFree(order: number, unit: number): boolean {
      count.operations++;
      return super.hasFree(order, unit);
    }
  }
  return { ...original, BuddyArena: CountedArena };
});

/** What an action costs. */
function costOf(action: () => void): { arenas: number; operations: number } {
  const before = { ...count };
  action();
  return { arenas: count.arenas - before.arenas, operations: count.operations - before.operations };
}

describe('a host of 1 TiB', () => {
  it('has no object below 1G while all is 1G', () => {
    const cost = costOf(() => {
      const allocator = new FrameAllocator({ firstPfn: 0, frames: GIGS * GIG });
      for (let i = 0; i < GIGS; i++) expect(allocator.allocate(18)).toBeGreaterThanOrEqual(0);
      expect(allocator.allocate(18)).toBe(-1);
      for (let i = 0; i < GIGS; i += 2) allocator.free(i * GIG, 18);
      for (let i = 0; i < GIGS; i += 4) expect(allocator.allocateAt(i * GIG, 18)).toBe(true);
      expect(allocator.buddyInfo()[18]).toBe(GIGS / 4);
    });
    expect(cost).toEqual({ arenas: 0, operations: 0 });
  });

  it('has two arenas per frame on its own at most, one per 2M that is full of small blocks', () => {
    const allocator = new FrameAllocator({ firstPfn: 0, frames: GIGS * GIG });
    expect(costOf(() => void allocator.allocate(0)).arenas).toBe(2);
    // 4 GiB of 4K: four regions, 512 blocks each.
    const rest = costOf(() => {
      for (let i = 1; i < 4 * GIG; i++) allocator.allocate(0);
    });
    expect(rest.arenas).toBe(4 * 513 - 2);
    // Each frame is one operation, and one for each 2M.
    expect(rest.operations).toBe(4 * GIG - 1 + 4 * 512 - 1);
    expect(costOf(() => void allocator.allocate(18))).toEqual({ arenas: 0, operations: 0 });
  });

  it('takes a bounded number of operations for any request, however it is filled', () => {
    const step = fc.record({ give: fc.boolean(), order: fc.integer({ min: 0, max: 18 }), pick: fc.nat() });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 300 }), (steps) => {
        const allocator = new FrameAllocator({ firstPfn: 12_345, frames: GIGS * GIG });
        const held: { pfn: number; order: number }[] = [];
        for (const { give, order, pick } of steps) {
          const cost = costOf(() => {
            const [block] = give && held.length > 0 ? held.splice(pick % held.length, 1) : [];
            if (block) allocator.free(block.pfn, block.order);
            else if (pick % 2 === 0) held.push({ pfn: allocator.allocate(order), order });
            else {
              const pfn = (1 + (pick % (GIGS - 2))) * GIG + 2 ** order * (pick % 2 ** (18 - order));
              if (allocator.allocateAt(pfn, order)) held.push({ pfn, order });
            }
          });
          // Check and change, of the frames and of the 2M blocks.
          expect(cost.operations).toBeLessThanOrEqual(4);
          expect(cost.arenas).toBeLessThanOrEqual(2);
        }
      }),
      { numRuns: 50 },
    );
  });
});
