import { Cost, RandomStream } from '@faultline/sim';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { cutAndCollapse, patch2023, STRATEGIES, type Strategy, statelessStrategy } from '../src/index.ts';
import { FollowingWorld, type Op, ops } from './following-world.ts';

/** Every strategy that claims to be safe. */
const SAFE: readonly Strategy[] = [
  ...Object.values(STRATEGIES).filter(({ claimsSafe, name }) => claimsSafe && name !== 'cut+collapse'),
  cutAndCollapse({ quietPasses: 1 }),
  patch2023({ defects: [] }),
];

const setup = fc.record({
  seed: fc.nat(),
  accessedDirty: fc.boolean(),
  splitNotify: fc.constantFrom('none' as const, 'clear' as const),
  lru: fc.constantFrom('classic' as const, 'mglru' as const),
  exits: fc.boolean(),
});
type Setup = typeof setup extends fc.Arbitrary<infer T> ? T : never;
const programs = fc.array(fc.array(ops, { minLength: 10, maxLength: 40 }), { minLength: 1, maxLength: 4 });

function run(strategy: Strategy, given: Setup, program: readonly (readonly Op[])[]): FollowingWorld {
  const { seed, accessedDirty, splitNotify, lru } = given;
  const random = new RandomStream(seed, 'order');
  const world = new FollowingWorld({ strategy, random, accessedDirty, host: { splitNotify, lru } });
  world.run(
    program.map(
      (each) =>
        function* (agent) {
          for (const op of each) yield* world.do(agent, op);
        },
    ),
  );
  return world;
}

describe.each(SAFE.map((strategy) => [strategy.name, strategy] as const))('%s follows the host', (_name, strategy) => {
  it('through random programs of host, CPU and device whose steps are shuffled', { timeout: 60_000 }, () => {
    const seen: Record<string, number> = {};
    fc.assert(
      fc.property(setup, programs, (given, program) => {
        const world = run(strategy, given, program);
        expect(world.check()).toEqual([]);
        if (given.exits) world.run([(agent) => world.do(agent, { kind: 'exit' })]);
        expect(world.check()).toEqual([]);
        for (const [name, count] of Object.entries(world.seen)) seen[name] = (seen[name] ?? 0) + count;
        expect(world.tearDown()).toEqual([]);
      }),
      { numRuns: 10, endOnFailure: true },
    );
    // The programs are no idle ones.
    for (const what of ['completed', 'taken', 'migrated']) expect(seen[what], what).toBeGreaterThan(0);
    const { writeTaken = 0 } = seen;
    expect(writeTaken > 0).toBe(['cut', 'cut+collapse', 'shared-ept'].includes(strategy.name));
  });
});

describe('the same programs find', () => {
  /** Whether any of a hundred programs ends badly. */
  const isFound = (strategy: Strategy): boolean =>
    fc.check(
      fc.property(setup, programs, (given, program) => {
        expect(run(strategy, given, program).check()).toEqual([]);
      }),
      { numRuns: 100, endOnFailure: true, seed: 1 },
    ).failed;

  it('a strategy that forgets to flush', () => {
    const forgetful = statelessStrategy('no flush', false, function* (agent, domain, page, pages) {
      yield* domain.unmap(agent, { page, pages, partialLeaf: 'whole-leaf', holes: 'skip' }, domain.gather());
      return { fellBack: false, unsplit: null };
    });
    expect(isFound(forgetful)).toBe(true);
  });

  it('the posted patch, with the range as all that is flushed (D9) and with leaves taken for tables (D4)', () => {
    expect(isFound(patch2023({ defects: ['D9'] }))).toBe(true);
    expect(isFound(patch2023({ defects: ['D4'] }))).toBe(true);
  });

  it('a strategy that leaves W where the host takes it', () => {
    const generous: Strategy = {
      ...STRATEGIES.cut,
      start: (seat) => ({
        ...STRATEGIES.cut.start(seat),
        *dropWrite(agent) {
          yield agent.spends('nothing', Cost.free);
          return { fellBack: false, unsplit: null };
        },
      }),
    };
    expect(isFound(generous)).toBe(true);
  });
});
