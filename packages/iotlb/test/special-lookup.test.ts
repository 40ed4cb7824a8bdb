import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Iotlb, type LeafLevel, NO_PASID } from '../src/index.ts';

/** Two sets of 4K and one of each other size, so full that every program evicts. */
const geometry = { '4K': { sets: 2, ways: 2 }, '2M': { sets: 1, ways: 2 }, '1G': { sets: 1, ways: 2 } } as const;
/** All sizes in one array. */
const shared = { shared: { sets: 1, ways: 5 } } as const;

interface Request {
  readonly fills: boolean;
  readonly sourceId: number;
  /** The address by its upper half and 4K page; the pages are in different entries of each size. */
  readonly hi: number;
  readonly page: number;
  readonly level: LeafLevel;
  readonly pasid: number;
  readonly ridPasid: number;
}

const requests: fc.Arbitrary<readonly Request[]> = fc.array(
  fc.record({
    fills: fc.boolean(),
    sourceId: fc.constantFrom(8, 9),
    hi: fc.constantFrom(0, 1),
    page: fc.constantFrom(0, 1, 2, 512),
    level: fc.constantFrom<LeafLevel>(1, 2, 3),
    pasid: fc.constantFrom(NO_PASID, NO_PASID, 5, 6),
    ridPasid: fc.constantFrom(5, 6),
  }),
  { maxLength: 60 },
);

/** What a request does to a cache: the slot that it fills, or that answers it. */
function act(cache: Iotlb, { fills, sourceId, hi, page, level, pasid, ridPasid }: Request): number {
  if (!fills) return cache.lookup(sourceId, hi, page << 12, pasid);
  return cache.fill(sourceId, 1, hi, page << 12, level, 0x4000_0083, 0, 3, pasid, ridPasid);
}

/** What is drawn for an entry that would answer says whether it gets lost: 0 is the loss. */
const mayLoseEntries = (drawn: () => number) => ({ random: { below: drawn }, oneIn: 2 });

describe('a look-up that may lose the entry', () => {
  test.each([
    ['arrays by size', geometry],
    ['one array', shared],
  ] as const)('is an ordinary one as long as nothing gets lost: slots, counts, what is evicted: %s', (_name, of) => {
    fc.assert(
      fc.property(requests, (program) => {
        const ordinary = new Iotlb({ geometry: of });
        const lucky = new Iotlb({ geometry: of, mayLoseEntries: mayLoseEntries(() => 1) });
        for (const request of program) expect(act(lucky, request)).toBe(act(ordinary, request));
        expect(lucky.counters.snapshot()).toEqual(ordinary.counters.snapshot());
        expect([...lucky.entries()]).toEqual([...ordinary.entries()]);
      }),
      { numRuns: 200 },
    );
  });

  test('finds nothing where everything gets lost, and asks for no random number where there is nothing to lose', () => {
    fc.assert(
      fc.property(requests, (program) => {
        let drawn = 0;
        const lose = () => {
          drawn++;
          return 0;
        };
        const cache = new Iotlb({ geometry, mayLoseEntries: mayLoseEntries(lose) });
        for (const request of program) {
          const held = [...cache.entries()];
          const serves = cache.peek(request.sourceId, request.hi, request.page << 12, request.pasid);
          const slot = act(cache, request);
          if (request.fills) continue;
          expect(slot).toBe(-1);
          expect([...cache.entries()]).toEqual(held.filter((entry) => entry.slot !== serves));
        }
        const { lost, hits, misses } = cache.counters;
        expect([lost, hits, misses]).toEqual([drawn, 0, program.filter(({ fills }) => !fills).length]);
      }),
      { numRuns: 200 },
    );
  });
});

describe('a look-up that entries of requests without PASID may answer', () => {
  test('gives the smallest size with an entry of its PASID, or of none with this RID_PASID', () => {
    fc.assert(
      fc.property(requests, (program) => {
        const roomy = { sets: 1, ways: 64 };
        const cache = new Iotlb({ geometry: { '4K': roomy, '2M': roomy, '1G': roomy }, pasidHitsRidEntries: true });
        for (const request of program) {
          const { sourceId, hi, page, pasid, fills } = request;
          const address = (BigInt(hi) << 32n) | BigInt(page << 12);
          const held = [...cache.entries()].filter(
            (entry) =>
              entry.sourceId === sourceId &&
              address >> BigInt(3 + 9 * entry.level) === entry.iova >> BigInt(3 + 9 * entry.level),
          );
          const answers = ([1, 2, 3] as const).map((level) => {
            const own = held.find(
              (entry) => entry.level === level && (entry.withPasid ? entry.pasid === pasid : pasid === NO_PASID),
            );
            return own ?? held.find((entry) => entry.level === level && !entry.withPasid && entry.pasid === pasid);
          });
          const slot = act(cache, request);
          if (!fills) expect(slot).toBe(answers.find((entry) => entry !== undefined)?.slot ?? -1);
        }
      }),
      { numRuns: 200 },
    );
  });
});
