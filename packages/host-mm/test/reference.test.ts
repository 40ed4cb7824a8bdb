import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type HostSwapArea, linuxWatermarks, NO_WATERMARKS } from '../src/index.ts';
import { type Op, ReferenceWorld, type WorldOptions } from './reference-world.ts';

const space = fc.nat(2);
const place = fc.nat(5);
const at = fc.oneof(fc.nat(63), fc.nat(2000), fc.nat(2 ** 18));
const count = fc.oneof(fc.integer({ min: 1, max: 40 }), fc.constantFrom(511, 512, 513, 1024), fc.constant(2 ** 18));

const programs = (backings: readonly Extract<Op, { kind: 'mmap' }>['backing'][]): fc.Arbitrary<Op[]> => {
  const mmap = fc.record({ kind: fc.constant('mmap' as const), space, place, backing: fc.constantFrom(...backings) });
  const ranged = fc.constantFrom(
    'munmap' as const,
    'pin' as const,
    'populate' as const,
    'fill' as const,
    'fill' as const,
  );
  const advice = fc.constantFrom('DONTNEED' as const, 'PAGEOUT' as const, 'COLD' as const, 'WILLNEED' as const);
  const op: fc.Arbitrary<Op> = fc.oneof(
    { weight: 3, arbitrary: mmap },
    {
      weight: 10,
      arbitrary: fc.record({ kind: fc.constantFrom('read' as const, 'write' as const), space, place, at }),
    },
    { weight: 6, arbitrary: fc.record({ kind: ranged, space, place, at, count }) },
    { weight: 4, arbitrary: fc.record({ kind: fc.constant('advise' as const), advice, space, place, at, count }) },
    {
      weight: 2,
      arbitrary: fc.record({
        kind: fc.constant('reclaim' as const),
        pages: fc.integer({ min: 1, max: 300 }),
        cgroup: fc.constantFrom(null, 0, 1),
      }),
    },
    {
      weight: 2,
      arbitrary: fc.record({
        kind: fc.constant('limit' as const),
        pages: fc.constantFrom(0, 4, 40, 200, 1100, 9000, 2 ** 20),
        cgroup: fc.nat(1),
      }),
    },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant('unpin' as const) }) },
  );
  // Something to work on first.
  return fc
    .tuple(fc.array(mmap, { minLength: 2, maxLength: 5 }), fc.array(op, { minLength: 5, maxLength: 45 }))
    .map(([a, b]) => [...a, ...b]);
};

const swap: fc.Arbitrary<HostSwapArea[]> = fc.constantFrom<HostSwapArea[]>(
  [],
  [{ slots: 7 }],
  [{ slots: 600, header: true }],
  [{ slots: 8192, queueDepth: 2 }],
  [
    { slots: 30, priority: 5 },
    { slots: 8192, header: true },
  ],
  [{ slots: 4096, kind: 'zram' }],
  [{ slots: 100, kind: 'zram', priority: 10 }, { slots: 8192 }],
);

const setups = (frames: fc.Arbitrary<number>, hugePages: WorldOptions['hugePages']): fc.Arbitrary<WorldOptions> =>
  fc
    .record({
      frames,
      swap,
      zswap: fc.boolean(),
      lru: fc.constantFrom('classic' as const, 'mglru' as const),
      splitNotify: fc.constantFrom('none' as const, 'clear' as const),
      thpSwap: fc.boolean(),
      pageCluster: fc.nat(5),
      watermarks: fc.boolean(),
      workers: fc.boolean(),
      kswapd: fc.boolean(),
    })
    .map(({ zswap, watermarks, workers, kswapd, ...host }) => ({
      host: {
        ...host,
        ...(zswap ? { zswap: { maxPoolPercent: 30 } } : {}),
        watermarks: watermarks ? linuxWatermarks(host.frames) : NO_WATERMARKS,
      },
      hugePages,
      workers,
      kswapd: kswapd && watermarks,
    }));

function check(options: WorldOptions, program: readonly Op[], seen: Record<string, number>): void {
  const world = new ReferenceWorld(options);
  for (const op of program) {
    world.do(op);
    if (options.host.frames < 10_000) expect(world.host.audit()).toEqual([]);
  }
  world.checkEnd();
  const { counters } = world.host;
  for (const name of Object.keys(seen)) {
    const value = { ...counters, ...counters.swap }[name];
    if (typeof value === 'number') seen[name]! += value;
  }
}

describe('random programs beside the reference', () => {
  it('on a small host: same content, never more than the limits, all free at the end', { timeout: 90_000 }, () => {
    const seen = {
      pswpin: 0,
      pswpout: 0,
      zswpin: 0,
      swap_ra_hit: 0,
      pgsteal_kswapd: 0,
      pgmajfault: 0,
    };
    const backings = ['4K', 'thp-2M', 'hugetlb-2M', 'contiguous', 'contiguous-4K', 'shared', 'private'] as const;
    const frames = fc.oneof(fc.integer({ min: 1060, max: 1200 }), fc.integer({ min: 1600, max: 6000 }));
    fc.assert(
      fc.property(setups(frames, { '2M': 2, '1G': 0 }), programs(backings), (options, program) =>
        check(options, program, seen),
      ),
      { numRuns: 200, endOnFailure: true },
    );
    for (const [name, count] of Object.entries(seen)) expect(count, name).toBeGreaterThan(0);
  });

  it('on a tiny host', { timeout: 60_000 }, () => {
    const backings = ['4K', '4K', 'contiguous-4K', 'thp-2M', 'shared', 'private'] as const;
    fc.assert(
      fc.property(
        setups(fc.integer({ min: 1, max: 80 }), { '2M': 0, '1G': 0 }),
        programs(backings),
        (options, program) => check(options, program, {}),
      ),
      { numRuns: 60, endOnFailure: true },
    );
  });

  it('with 1G folios', { timeout: 240_000 }, () => {
    const backings = ['pud-thp', 'pud-thp', 'hugetlb-1G', 'contiguous', '4K'] as const;
    fc.assert(
      fc.property(setups(fc.constant(4 * 2 ** 18), { '2M': 0, '1G': 1 }), programs(backings), (options, program) =>
        check(options, program, {}),
      ),
      { numRuns: 4, endOnFailure: true },
    );
  });
});
