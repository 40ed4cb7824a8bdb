import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  AccessedDirtyMode,
  DEFAULT_ENTRY_CAPABILITIES,
  reservedMasks,
  TableMemory,
  WalkMode,
  WalkState,
  WalkStatus,
  walk,
} from '../src/index.ts';

const PAGES = 6;
/** Above 2^22, so that a frame can be as far below it as above it that its page number is the same in 22 bits. */
const BASE_PFN = 0x40_1000;
/** Where one entry of each table is; the rest is zero. */
const IOVA_HI = 0x0000_1234;
const IOVA_LO = 0x5678_9abc | 0;
const INDEX = { 4: 0x24, 3: 0xd1, 2: 0xb3, 1: 0x189 } as const;

/** The entry that leads from the table at a level, which is in page 4 - level, to the next; at level 1, the leaf. */
const downFrom = (level: number): bigint => (level === 1 ? 0x4567_8003n : (BigInt(BASE_PFN + 5 - level) << 12n) | 3n);

// Bits that some check looks at come up often: R, W, PS, SNP, A, D, address bits around 4 GiB, 16 and 32 GiB (2^22 and 2^23
// pages), 8 TiB and the host's width, bit 62.
const bit = fc.constantFrom(0, 1, 2, 7, 8, 9, 11, 12, 21, 30, 31, 32, 34, 35, 42, 43, 45, 46, 51, 52, 62, 63);
const frame = fc.oneof(
  { weight: 8, arbitrary: fc.integer({ min: 0, max: PAGES }).map((page) => BigInt(BASE_PFN + page)) },
  { weight: 1, arbitrary: fc.bigInt(0n, 2n ** 40n - 1n) },
  {
    weight: 1,
    arbitrary: fc.constantFrom(0n, BigInt(BASE_PFN - 1), 2n ** 22n + BigInt(BASE_PFN + 1), 2n ** 31n, 2n ** 32n),
  },
);
const largeLeaf = fc
  .tuple(fc.nat(0xffff), fc.constantFrom(9n, 18n))
  .map(([n, shift]) => (BigInt(n) << (12n + shift)) | 0x83n);
const anyEntry = fc
  .tuple(frame, fc.constantFrom(3n, 3n, 3n, 1n, 2n), fc.array(bit, { maxLength: 2 }))
  .map(([pfn, rights, flips]) => flips.reduce((value, flip) => value ^ (1n << BigInt(flip)), (pfn << 12n) | rights));
const entry = fc.oneof({ weight: 3, arbitrary: anyEntry }, { weight: 1, arbitrary: largeLeaf });
/** The entry on the way down with one or two bits changed, or any entry anywhere. */
const place = fc.oneof(
  fc.tuple(fc.constantFrom(1, 2, 3, 4), fc.array(bit, { minLength: 1, maxLength: 2 })).map(([level, flips]) => ({
    page: 4 - level,
    level,
    entry: flips.reduce((value, flip) => value ^ (1n << BigInt(flip)), downFrom(level)),
  })),
  fc.record({ page: fc.nat(PAGES - 1), level: fc.constantFrom(1, 2, 3, 4), entry }),
);
const world = fc.record({
  /** Entries at the places that a walk for the address may come by, once or twice. */
  entries: fc.array(place, { maxLength: 4 }),
  level: fc.constantFrom(3, 4, 5),
  access: fc.constantFrom(0, 1, 2, 3, 4),
  rights: fc.constantFrom(3, 3, 1, 2),
  mode: fc.constantFrom(WalkMode.legacy, WalkMode.scalable),
  page1G: fc.boolean(),
  snoopControl: fc.boolean(),
  /** Reads that the walk has made before, as after a level-5 entry. */
  reads: fc.constantFrom(0, 1),
  /** Where the walk begins, mostly in the first page; the last ones are its number but for bits that 32-bit operators lose. */
  rootPfn: fc.oneof(
    { weight: 12, arbitrary: fc.constant(BASE_PFN) },
    {
      weight: 1,
      arbitrary: fc.constantFrom(
        BASE_PFN + 1,
        BASE_PFN - 1,
        BASE_PFN + PAGES,
        BASE_PFN + 2 ** 22,
        BASE_PFN + 2 ** 32,
        BASE_PFN - 2 ** 22,
      ),
    },
  ),
});

type World = typeof world extends fc.Arbitrary<infer T> ? T : never;

function build({ entries, page1G, snoopControl }: World) {
  const memory = new TableMemory({ basePfn: BASE_PFN, pages: PAGES });
  // A way down through the pages, which the random entries then spoil here and there.
  for (const level of [4, 3, 2, 1] as const) memory.store(BASE_PFN + 4 - level, INDEX[level], downFrom(level));
  for (const { page, level, entry: value } of entries)
    memory.store(BASE_PFN + page, INDEX[level as 1 | 2 | 3 | 4], value);
  return { memory, masks: reservedMasks({ ...DEFAULT_ENTRY_CAPABILITIES, page1G, snoopControl }) };
}

function walked(memory: TableMemory, masks: ReturnType<typeof reservedMasks>, given: World): WalkState {
  const state = new WalkState();
  state.mode = given.mode;
  state.accessedDirty = AccessedDirtyMode.off;
  state.begin(given.rootPfn, given.level, IOVA_HI, IOVA_LO, given.access, given.rights);
  state.reads = given.reads;
  walk(memory, masks, state);
  return state;
}

/** Compares both walks in random worlds. @returns the statuses and levels that they ended with */
function compared(parameters: fc.Parameters<[World]>): Set<string> {
  const ends = new Set<string>();
  fc.assert(
    fc.property(world, (given) => {
      const { memory, masks } = build(given);
      // A view for another thread's tables reads each level with the guard against torn reads.
      const byLevel = TableMemory.attach({ basePfn: BASE_PFN, pages: PAGES }, memory.buffer);
      expect(byLevel.concurrent).toBe(true);
      const state = walked(memory, masks, given);
      expect(state).toEqual(walked(byLevel, masks, given));
      ends.add(`${state.status} ${state.level}`);
    }),
    parameters,
  );
  return ends;
}

describe('a walk at once', () => {
  test('ends as a walk level by level, in every register, whatever is in the tables', () => {
    compared({ numRuns: 1500 });
    // Rare ends may be missing in any one run; in this one leaves and faults at all levels come up.
    const ends = compared({ numRuns: 1500, seed: 1 });
    for (const level of [1, 2, 3]) expect(ends).toContain(`${WalkStatus.translated} ${level}`);
    for (const level of [1, 2, 3, 4]) expect(ends).toContain(`${WalkStatus.faulted} ${level}`);
  });
});
