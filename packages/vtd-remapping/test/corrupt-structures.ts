import { TableMemory } from '@faultline/vtd-pagetable';
import fc from 'fast-check';
import type { UnitCapabilities } from '../src/index.ts';
import type { NaiveRequest } from './naive-unit.ts';

/** Requesters in the lower and the upper half of the bus, and one without a context entry. */
export const SOURCES = [0x18, 0x98, 0x20] as const;
export const RID_PASID = 3;
/** PASIDs with the second stage, on a table of 64 of their own, with pass-through, and without an entry. */
export const PASIDS = [5, 70, 7, 9] as const;

const BASE_PFN = 0x10;
const ENTRY_RW = 3n;
/** Not in memory, below any host address width. */
const OUTSIDE = 0x70_0000n;

/** How the structures are before something is broken. */
export interface StructureChoice {
  readonly isLegacy: boolean;
  readonly levels: 3 | 4 | 5;
  /** TT of the legacy context entry. */
  readonly translationType: 0 | 1 | 2;
  /** SSADE and PWSNP of PASID entries. */
  readonly dirty: boolean;
  readonly snoops: boolean;
  /** PDTS, and DTE, PASIDE and PRE as bits 4:2. */
  readonly directorySize: number;
  readonly enables: number;
}

/** Root, context and PASID structures and a second-stage table with leaves of every kind, written word by word. */
export class Structures {
  readonly memory = new TableMemory({ pages: 16, basePfn: BASE_PFN });
  readonly rootPfn: number;
  /** Words that a request may use: frame and index. */
  readonly words: (readonly [number, number])[] = [];
  readonly #choice: StructureChoice;

  constructor(choice: StructureChoice) {
    this.#choice = choice;
    const table = this.#secondStage();
    this.rootPfn = this.memory.allocate();
    if (choice.isLegacy) this.#legacy(table);
    else this.#scalable(table);
  }

  #put(pfn: number, index: number, word: bigint): void {
    this.memory.store(pfn, index, word);
    this.words.push([pfn, index]);
  }

  #pointer = (pfn: number, bits = 0n): bigint => (BigInt(pfn) << 12n) | bits;

  /** @returns the root: one way down to three leaf tables, with 4K, 2M and 1G leaves, some in the interrupt address range */
  #secondStage(): number {
    const pages = Array.from({ length: 5 }, () => this.memory.allocate());
    const [one = 0, two = 0, three = 0] = pages;
    for (const [index, frame, rights] of [
      [0, 0x900, 3n],
      [1, 0x901, 1n],
      [2, 0x902, 2n],
      [4, 0xfee01, 3n],
      [5, 0x905, 3n],
    ] as const)
      this.#put(one, index, this.#pointer(frame, rights));
    this.#put(one, 3, 0n);
    this.#put(two, 0, this.#pointer(one, ENTRY_RW));
    this.#put(two, 1, this.#pointer(0x20_0000, 0x83n));
    this.#put(two, 2, this.#pointer(0xfee00, 0x83n));
    this.#put(three, 0, this.#pointer(two, ENTRY_RW));
    this.#put(three, 1, this.#pointer(0x40_0000, 0x81n));
    this.#put(three, 2, this.#pointer(0xc_0000, 0x83n));
    for (let level = 4; level <= this.#choice.levels; level++)
      this.#put(pages[level - 1] as number, 0, this.#pointer(pages[level - 2] as number, ENTRY_RW));
    return pages[this.#choice.levels - 1] as number;
  }

  #legacy(table: number): void {
    const context = this.memory.allocate();
    this.#put(this.rootPfn, 0, this.#pointer(context, 1n));
    this.#put(this.rootPfn, 1, 0n);
    const { translationType, levels } = this.#choice;
    for (const source of SOURCES.slice(0, 2)) {
      this.#put(context, source * 2, this.#pointer(table, 1n | (BigInt(translationType) << 2n)));
      this.#put(context, source * 2 + 1, BigInt(levels - 2) | 0x700n);
    }
    this.#put(context, SOURCES[2] * 2, 0n);
  }

  #scalable(table: number): void {
    const { memory } = this;
    const { dirty, snoops, levels, directorySize, enables } = this.#choice;
    const [lower, upper, directory, first, second] = Array.from({ length: 5 }, () => memory.allocate()) as [
      number,
      number,
      number,
      number,
      number,
    ];
    this.#put(this.rootPfn, 0, this.#pointer(lower, 1n));
    this.#put(this.rootPfn, 1, this.#pointer(upper, 1n));
    const low = 1n | (BigInt(enables) << 2n) | (BigInt(directorySize) << 9n);
    for (const [context, source] of [
      [lower, SOURCES[0]],
      [upper, SOURCES[1] & 0x7f],
    ] as const)
      for (const [nth, word] of [this.#pointer(directory, low), BigInt(RID_PASID), 0n, 0n].entries())
        this.#put(context, source * 4 + nth, word);
    this.#put(lower, SOURCES[2] * 4, 0n);
    this.#put(directory, 0, this.#pointer(first, 1n));
    this.#put(directory, 1, this.#pointer(second, 1n));
    const entry = 1n | (BigInt(levels - 2) << 2n) | (2n << 6n) | (dirty ? 1n << 9n : 0n);
    const passThrough = 1n | (4n << 6n);
    for (const [at, pasid, word] of [
      [first, RID_PASID, this.#pointer(table, entry)],
      [first, PASIDS[0], this.#pointer(table, entry)],
      [second, PASIDS[1], this.#pointer(table, entry)],
      [first, PASIDS[2], passThrough],
      [first, PASIDS[3], 0n],
    ] as const)
      for (let nth = 0; nth < 8; nth++)
        this.#put(at, (pasid & 63) * 8 + nth, nth === 0 ? word : nth === 1 ? 7n | (snoops ? 1n << 23n : 0n) : 0n);
  }

  /** Breaks one word: for a pointer that leads astray, one that holds a pointer. */
  corrupt({ word, how, bit }: Corruption): void {
    const isAstray = how === 'outside' || how === 'cycle' || how === 'elsewhere';
    const words = this.words.filter(([pfn, index]) => !isAstray || this.memory.load(pfn, index) >= 0x1000n);
    const [pfn, index] = words[word % words.length] as readonly [number, number];
    const old = this.memory.load(pfn, index);
    const values = {
      flip: old ^ (1n << BigInt(bit)),
      zero: 0n,
      ones: 0xffff_ffff_ffff_ffffn,
      outside: (old & 0xfffn) | (OUTSIDE << 12n),
      cycle: (old & 0xfffn) | (BigInt(pfn) << 12n),
      elsewhere: (old & 0xfffn) | (BigInt(BASE_PFN + (bit % 16)) << 12n),
    };
    this.memory.store(pfn, index, values[how]);
  }
}

/** A word, and what is done to it. */
export interface Corruption {
  readonly word: number;
  readonly how: 'flip' | 'zero' | 'ones' | 'outside' | 'cycle' | 'elsewhere';
  readonly bit: number;
}

export const anyCorruption: fc.Arbitrary<Corruption> = fc.record({
  word: fc.nat(200),
  how: fc.constantFrom('flip', 'flip', 'flip', 'zero', 'ones', 'outside', 'cycle', 'elsewhere'),
  bit: fc.oneof(fc.nat(11), fc.nat(63)),
});

/** `isLegacy` is left to the unit's mode. */
export const anyChoice = fc.record({
  levels: fc.constantFrom<3 | 4 | 5>(3, 4, 5),
  translationType: fc.constantFrom<0 | 1 | 2>(0, 1, 1, 2),
  dirty: fc.boolean(),
  snoops: fc.constantFrom(true, true, false),
  directorySize: fc.constantFrom(0, 2),
  enables: fc.constantFrom(7, 7, 7, 5, 3, 2, 0),
});

export const anyCapabilities: fc.Arbitrary<Partial<UnitCapabilities>> = fc.record({
  specRevision: fc.constantFrom<'3.x' | '5.10'>('3.x', '5.10'),
  levels: fc.constantFrom<readonly (3 | 4 | 5)[]>([3, 4, 5], [3, 4, 5], [4], [3, 5]),
  guestAddressWidth: fc.constantFrom(57, 57, 48, 32),
  hostAddressWidth: fc.constantFrom(39, 46, 52),
  page2M: fc.constantFrom(true, true, false),
  page1G: fc.constantFrom(true, true, false),
  zeroLengthRead: fc.boolean(),
  snoopControl: fc.boolean(),
  passThrough: fc.constantFrom(true, true, true, false),
  deviceTlb: fc.constantFrom(true, true, true, false),
  scalableMode: fc.constantFrom(true, true, true, true, false),
  pageWalkCoherent: fc.constantFrom(true, true, false),
  pageRequests: fc.constantFrom(true, true, false),
  noWriteFlag: fc.boolean(),
  pasidBits: fc.constantFrom(20, 20, 6, 0),
  ridPasid: fc.constantFrom(true, true, true, false),
  abortDmaMode: fc.boolean(),
});

const anyPage = fc.oneof(
  { weight: 6, arbitrary: fc.nat(6) },
  { weight: 2, arbitrary: fc.integer({ min: 0x200, max: 0x5ff }) },
  { weight: 2, arbitrary: fc.integer({ min: 0x4_0000, max: 0xb_ffff }) },
  // To FEEx_xxxxh through the 1G leaf, and as it is.
  { weight: 1, arbitrary: fc.integer({ min: 0xa_edff, max: 0xa_ef00 }) },
  { weight: 2, arbitrary: fc.integer({ min: 0xf_edff, max: 0xf_ef00 }) },
  // Around every width.
  {
    weight: 2,
    arbitrary: fc
      .tuple(fc.constantFrom(20, 27, 34, 36, 40, 45, 51), fc.integer({ min: -1, max: 1 }))
      .map(([bits, near]) => 2 ** bits + near),
  },
);

/** Requests of every kind. Accesses weigh as much as translation requests; page requests are fewer. */
export const anyRequest: fc.Arbitrary<NaiveRequest> = fc
  .record({
    kind: fc.constantFrom<NaiveRequest['kind']>('untranslated', 'untranslated', 'translation', 'translation', 'page'),
    sourceId: fc.constantFrom<number>(SOURCES[0], SOURCES[0], SOURCES[0], SOURCES[1], SOURCES[2], 0x118),
    page: anyPage,
    pasid: fc.constantFrom<number | null>(
      null,
      null,
      null,
      ...PASIDS,
      PASIDS[0],
      PASIDS[2],
      RID_PASID,
      0x2001,
      0xf_ffff,
    ),
    access: fc.constantFrom<NaiveRequest['access']>('read', 'write', 'atomic', 'zeroLengthRead'),
    noWrite: fc.boolean(),
  })
  .map(({ page, ...request }) => ({ ...request, address: BigInt(page) << 12n }));
