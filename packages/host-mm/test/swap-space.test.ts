import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { SwapArea } from '../src/swap/swap-area.ts';
import type { SwapOrder } from '../src/swap/swap-cluster.ts';
import { SwapSpace } from '../src/swap/swap-space.ts';

const area = (name: string, slots: number, priority?: number) =>
  new SwapArea({
    ...{ name, slots, model: { kind: 'block', queueDepth: 1 } as const },
    ...(priority === undefined ? {} : { priority }),
  });

function spaceOf(...areas: SwapArea[]): SwapSpace {
  const space = new SwapSpace();
  for (const one of areas) space.swapon(one);
  return space;
}

describe('entries', () => {
  it('are above 0, below 2^30, unique, and find their area', () => {
    fc.assert(
      fc.property(
        fc.array(fc.record({ slots: fc.integer({ min: 1, max: 1200 }), priority: fc.integer({ min: -1, max: 2 }) }), {
          minLength: 1,
          maxLength: 4,
        }),
        fc.array(fc.integer({ min: 0, max: 9 }), { maxLength: 40 }),
        (options, orders) => {
          const areas = options.map(({ slots, priority }, i) => area(`sd${i}`, slots, priority));
          const space = spaceOf(...areas);
          const seen = new Set<number>();
          const used = new Map(areas.map((one) => [one, 0]));
          for (const order of orders) {
            const entry = space.allocate(order as SwapOrder);
            if (entry < 0) {
              expect(areas.every((one) => one.freeClusters === 0)).toBe(true);
              if (order === 0) expect(space.freeSlots).toBe(0);
              continue;
            }
            expect(entry).toBeGreaterThan(0);
            expect(entry % 2 ** order).toBe(0);
            const at = space.areaOf(entry);
            expect(space.slotOf(entry) + 2 ** order).toBeLessThanOrEqual(at.slots);
            used.set(at, (used.get(at) ?? 0) + 2 ** order);
            for (let i = 0; i < 2 ** order; i++) {
              expect(seen.has(entry + i)).toBe(false);
              expect(space.isUsed(entry + i)).toBe(true);
              seen.add(entry + i);
            }
          }
          for (const [one, slots] of used) expect(one.usedSlots).toBe(slots);
          expect(space.usedSlots).toBe(seen.size);
          expect(space.slots).toBe(options.reduce((sum, { slots }) => sum + slots, 0));
          expect(space.full).toBe(seen.size * 2 > space.slots);
          for (const entry of seen) space.setCached(entry, 1, false);
          expect([space.usedSlots, space.freeSlots]).toEqual([0, space.slots]);
        },
      ),
    );
  });
  it('must fit below 2^30, and an area is in one space', () => {
    const first = area('a', 2 ** 30 - 1024);
    const space = spaceOf(first);
    expect(() => space.swapon(area('b', 1024))).toThrow('do not fit below entry 0x40000000');
    expect(() => new SwapSpace().swapon(first)).toThrow('a is in use already');
    space.swapon(area('c', 512));
    expect(space.isUsed(0)).toBe(false);
    expect(() => space.areaOf(511)).toThrow('0x1ff is no swap entry');
  });
});

describe('priorities', () => {
  it('use the higher area until it is full, also for what does not fit there', () => {
    const low = area('low', 1024, 1);
    const high = area('high', 600, 5);
    const space = spaceOf(low, high);
    const names = [9, 9, 0].map((order) => space.areaOf(space.allocate(order as SwapOrder)).name);
    expect(names).toEqual(['high', 'low', 'high']);
    for (let i = 1; i < 88; i++) expect(space.areaOf(space.allocate(0)).name).toBe('high');
    expect(space.areaOf(space.allocate(0)).name).toBe('low');
    expect(high.freeSlots).toBe(0);
    // What becomes free there is used once low's present cluster is used up: Linux too stays with the cluster it has.
    space.setCached(512 * 4, 1, false);
    expect(high.freeSlots).toBe(1);
    let name = 'low';
    let slots = 0;
    for (; name === 'low'; slots++) name = space.areaOf(space.allocate(0)).name;
    expect([name, slots]).toEqual(['high', 512]);
  });
  it('of the same height take turns by cluster', () => {
    const space = spaceOf(area('a', 2048), area('b', 2048), area('c', 2048, 0));
    const clusters: string[] = [];
    for (let i = 0; i < 12 * 512; i++) {
      const name = space.areaOf(space.allocate(0)).name;
      if (i % 512 === 0) clusters.push(name);
      else expect(name).toBe(clusters.at(-1));
    }
    expect(clusters.join('')).toBe('ccccabababab');
    expect(space.allocate(0)).toBe(-1);
    expect(space.areas.map((one) => one.name)).toEqual(['a', 'b', 'c']);
  });
});

describe('references', () => {
  it('and the cache mark keep a slot, and who listens hears of its end', () => {
    const space = spaceOf(area('a', 512));
    const freed: number[] = [];
    space.freed = (entry) => freed.push(entry);
    const entry = space.allocate(0);
    space.duplicate(entry);
    space.duplicate(entry);
    expect([space.references(entry), space.isCached(entry)]).toEqual([2, true]);
    space.setCached(entry, 1, false);
    expect([space.freeReference(entry), space.isUsed(entry), freed]).toEqual([false, true, []]);
    // A read-ahead takes it into the cache again; then the last reference may go.
    space.setCached(entry, 1, true);
    expect([space.freeReference(entry), space.isUsed(entry)]).toEqual([false, true]);
    space.setCached(entry, 1, false);
    expect([space.isUsed(entry), freed]).toEqual([false, [entry]]);
  });
});
