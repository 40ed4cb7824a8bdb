import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { SwapArea } from '../src/swap/swap-area.ts';
import { SwapClusters, type SwapOrder } from '../src/swap/swap-cluster.ts';

const block = { kind: 'block', queueDepth: 4 } as const;
const area = (slots: number, header = false) => new SwapArea({ name: 'sda', slots, header, model: block });
const run = (from: number, pages: number) => Array.from({ length: pages }, (_, i) => from + i);

/** What the area must agree with: a set of used slots, and each one's references and mark. */
class NaiveArea {
  readonly used = new Map<number, { references: number; cached: boolean }>();
  readonly #slots: number;
  readonly #bad: number;

  constructor(slots: number, bad: number) {
    this.#slots = slots;
    this.#bad = bad;
  }

  get freeSlots(): number {
    return this.#slots - this.#bad - this.used.size;
  }

  get freeClusters(): number {
    let clusters = 0;
    for (let first = 0; first + 512 <= this.#slots; first += 512)
      if (first >= this.#bad && !run(first, 512).some((slot) => this.used.has(slot))) clusters++;
    return clusters;
  }

  drop(slot: number): void {
    const state = this.used.get(slot);
    if (state && state.references === 0 && !state.cached) this.used.delete(slot);
  }
}

const orders = fc.oneof(
  { weight: 3, arbitrary: fc.constant(0 as SwapOrder) },
  fc.integer({ min: 0, max: 9 }).map((order) => order as SwapOrder),
);
const commands = fc.array(
  fc.oneof(
    fc.record({ op: fc.constant('allocate' as const), order: orders, pick: fc.nat() }),
    fc.record({ op: fc.constantFrom('duplicate' as const, 'unref' as const), order: orders, pick: fc.nat() }),
    fc.record({ op: fc.constantFrom('cache' as const, 'uncache' as const), order: orders, pick: fc.nat() }),
    fc.record({ op: fc.constant('free folio' as const), order: orders, pick: fc.nat() }),
  ),
  { maxLength: 120 },
);

function allocateInBoth(real: SwapArea, naive: NaiveArea, order: SwapOrder): void {
  const pages = 2 ** order;
  const clusters = naive.freeClusters;
  const slot = real.allocate(order);
  if (slot < 0) {
    // A failure is only right if no cluster is free, and for one slot if none is.
    expect(clusters).toBe(0);
    if (order === 0) expect(naive.freeSlots).toBe(0);
    return;
  }
  if (order === 9) expect(clusters).toBeGreaterThan(0);
  expect(slot % pages).toBe(0);
  expect(slot + pages).toBeLessThanOrEqual(real.slots);
  for (const one of run(slot, pages)) {
    expect(naive.used.has(one)).toBe(false);
    naive.used.set(one, { references: 0, cached: true });
  }
}

function apply(real: SwapArea, naive: NaiveArea, command: { op: string; order: SwapOrder; pick: number }): void {
  if (command.op === 'allocate') {
    allocateInBoth(real, naive, command.order);
    return;
  }
  const slots = [...naive.used.keys()];
  const slot = slots[command.pick % Math.max(1, slots.length)];
  const state = slot === undefined ? undefined : naive.used.get(slot);
  if (slot === undefined || !state) return;
  if (command.op === 'duplicate') {
    real.duplicate(slot);
    state.references++;
  } else if (command.op === 'unref' && state.references === 0) {
    expect(() => real.freeReference(slot)).toThrow('no reference');
  } else if (command.op === 'unref') {
    state.references--;
    naive.drop(slot);
    expect(real.freeReference(slot)).toBe(!naive.used.has(slot));
  } else if (command.op === 'free folio') {
    const pages = 2 ** command.order;
    for (const one of run(slot - (slot % pages), pages)) free(real, naive, one);
  } else {
    state.cached = command.op === 'cache';
    naive.drop(slot);
    expect(real.setCached(slot, command.op === 'cache')).toBe(!naive.used.has(slot));
  }
}

function free(real: SwapArea, naive: NaiveArea, slot: number): void {
  const state = naive.used.get(slot);
  if (!state) return;
  for (let i = 0; i < state.references; i++) real.freeReference(slot);
  if (state.cached) real.setCached(slot, false);
  naive.used.delete(slot);
}

describe('an area beside a set of used slots', () => {
  it('hands no slot out twice, aligns, counts, and finds every free cluster', () => {
    fc.assert(
      fc.property(fc.constantFrom(1, 100, 512, 1024, 1500, 4 * 512), fc.boolean(), commands, (slots, header, list) => {
        const real = area(slots, header);
        const naive = new NaiveArea(slots, header ? 1 : 0);
        const freed: number[] = [];
        real.freed = (slot) => freed.push(slot);
        for (const command of list) {
          apply(real, naive, command);
          expect(real.usedSlots).toBe(naive.used.size);
          expect(real.freeSlots).toBe(naive.freeSlots);
          expect(real.freeClusters).toBe(naive.freeClusters);
        }
        for (const [slot, state] of naive.used) {
          expect([real.isUsed(slot), real.references(slot), real.isCached(slot)]).toEqual([
            true,
            state.references,
            state.cached,
          ]);
        }
        for (const slot of [...naive.used.keys()]) {
          freed.length = 0;
          free(real, naive, slot);
          expect(freed).toEqual([slot]);
        }
        expect([real.usedSlots, real.freeSlots]).toEqual([0, slots - (header ? 1 : 0)]);
        expect(real.freeClusters).toBe(naive.freeClusters);
      }),
      { numRuns: 300 },
    );
  });
  it('gives single slots until none is left, whatever the orders before', () => {
    fc.assert(
      fc.property(fc.array(orders, { maxLength: 40 }), fc.array(fc.nat(), { maxLength: 40 }), (list, frees) => {
        const real = area(3 * 512);
        const used: number[] = [];
        for (const order of list) {
          const slot = real.allocate(order);
          if (slot >= 0) used.push(...run(slot, 2 ** order));
        }
        for (const pick of frees) {
          const [slot] = used.splice(pick % Math.max(1, used.length), 1);
          if (slot !== undefined) real.setCached(slot, false);
        }
        const seen = new Set(used);
        for (let left = real.freeSlots; left > 0; left--) {
          const slot = real.allocate(0);
          if (slot < 0 || seen.has(slot)) throw new Error(`slot ${slot} with ${left} left`);
          seen.add(slot);
        }
        expect(real.allocate(0)).toBe(-1);
        expect(seen.size).toBe(3 * 512);
      }),
    );
  });
});

describe("Linux's clusters", () => {
  it('keep orders apart, and let single slots steal when nothing else is left', () => {
    const real = area(2 * 512);
    expect([real.allocate(0), real.allocate(4), real.allocate(0), real.allocate(4)]).toEqual([0, 512, 1, 528]);
    expect(real.allocate(9)).toBe(-1);
    for (let i = 2; i < 512; i++) expect(real.allocate(0)).toBe(i);
    expect(real.allocate(0)).toBe(544);
    // What order 0 stole from is still order 4's, which goes on behind its last folio at the next aligned place.
    expect(real.allocate(4)).toBe(560);
    expect(real.allocate(5)).toBe(-1);
  });
  it('go on in the present cluster before they use what was freed, and use that before a new cluster', () => {
    const real = area(4 * 512);
    for (let i = 0; i < 512; i++) real.allocate(0);
    real.setCached(7, false);
    expect([real.allocate(0), real.allocate(0)]).toEqual([7, 512]);
    real.setCached(9, false);
    expect([real.allocate(0), real.allocate(0)]).toEqual([513, 514]);
  });
  it('use clusters never used first, then the one that has been free for longest', () => {
    const real = area(3 * 512);
    expect([real.allocate(9), real.allocate(9)]).toEqual([0, 512]);
    for (const slot of run(512, 512)) real.setCached(slot, false);
    for (const slot of run(0, 512)) real.setCached(slot, false);
    expect([real.allocate(9), real.allocate(9), real.allocate(9), real.allocate(9)]).toEqual([1024, 512, 0, -1]);
  });
  it('serve another order once they are empty, not the one that took from them before', () => {
    const real = area(2 * 512);
    expect(real.allocate(4)).toBe(0);
    for (const slot of run(0, 16)) real.setCached(slot, false);
    expect([real.allocate(9), real.allocate(0)]).toEqual([512, 0]);
    expect(real.allocate(4)).toBe(-1);
  });
  it('give a run only where all of its slots are free', () => {
    const real = area(512);
    for (let i = 0; i < 128; i++) expect(real.allocate(2)).toBe(4 * i);
    for (const slot of run(0, 512)) if (slot % 4 !== 1) real.setCached(slot, false);
    expect(real.allocate(2)).toBe(-1);
    real.setCached(401, false);
    expect([real.allocate(2), real.allocate(2), real.allocate(0)]).toEqual([400, -1, 0]);
  });
  it('that are full are not looked at', () => {
    const real = area(2 * 512);
    expect([real.allocate(9), real.allocate(9), real.allocate(0)]).toEqual([0, 512, -1]);
    real.setCached(700, false);
    expect([real.allocate(9), real.allocate(0), real.allocate(0)]).toEqual([-1, 700, -1]);
  });
  it('with a header begin at slot 1 and have one free cluster less', () => {
    const real = area(2 * 512, true);
    expect([real.freeSlots, real.freeClusters]).toEqual([1023, 1]);
    expect([real.allocate(0), real.allocate(9), real.allocate(9)]).toEqual([1, 512, -1]);
    expect(real.isUsed(0)).toBe(false);
  });
  it('are looked at three times for an allocation, and once for each slot that was given back', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(orders, fc.nat(), fc.nat({ max: 60 })), { maxLength: 100 }), (list) => {
        const clusters = new SwapClusters(32 * 512, false);
        const used: number[] = [];
        let allocations = 0;
        let frees = 0;
        const allocate = (order: SwapOrder): void => {
          allocations++;
          let slot = clusters.takeFromCurrent(order);
          if (slot < 0) slot = clusters.takeFromLists(order);
          if (slot >= 0) used.push(...run(slot, 2 ** order));
        };
        for (let i = 0; i < 20 * 512; i++) allocate(0);
        for (const [order, pick, holes] of list) {
          // Holes that are too small for the order, all over the place.
          for (let i = 0; i < holes; i++, frees++)
            clusters.give(...(used.splice((pick + i * 401) % used.length, 1) as [number]));
          allocate(order);
          expect(clusters.scans).toBeLessThanOrEqual(3 * allocations + frees);
        }
      }),
      { numRuns: 20 },
    );
  });
});

describe('a slot', () => {
  it('is forgotten when it becomes free', () => {
    const real = area(1024);
    const slot = real.allocate(1);
    real.content.setTag(slot, 5, 6);
    real.content.setTag(slot + 1, 7, 8);
    real.setZero(slot + 1, true);
    expect([real.isZero(slot + 1), real.content.tagLo(slot + 1)]).toEqual([true, 0]);
    real.setCached(slot, false);
    expect([real.content.tagLo(slot), real.isUsed(slot), real.isZero(slot)]).toEqual([0, false, false]);
    real.content.setTag(slot + 1, 9, 9);
    real.setCached(slot + 1, false);
    expect(real.content.tagLo(slot + 1)).toBe(0);
    expect([real.isZero(slot + 1), real.isUsed(slot + 1), real.freeClusters]).toEqual([false, false, 2]);
    expect(() => real.duplicate(slot)).toThrow('swap slot 0 of sda is not in use');
  });
  it('is not there below 1, above 2^30 or at another order', () => {
    expect(() => area(0)).toThrow('slots: 0x0');
    expect(() => area(2 ** 30)).toThrow('slots: 0x40000000');
    expect(() => area(512).allocate(10 as SwapOrder)).toThrow('order: 0xa');
    expect(() => new SwapArea({ name: 'x', slots: 8, priority: -2, model: block })).toThrow('priority: -2');
  });
});
