import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  contextReason,
  contextReserved,
  DEFAULT_STRUCTURE_CAPABILITIES,
  decodeContext,
  decodePasidDirectoryEntry,
  decodePasidEntry,
  decodeRoot,
  decodeScalableContext,
  decodeScalableRoot,
  encodeContext,
  encodePasidDirectoryEntry,
  encodePasidEntry,
  encodeRoot,
  encodeScalableContext,
  encodeScalableRoot,
  FaultReason,
  isFaultProcessingDisabled,
  type PasidEntry,
  pasidDirectoryReason,
  pasidDirectoryReserved,
  pasidEntryReason,
  pasidEntryReserved,
  rootReason,
  rootReserved,
  type ScalableContextEntry,
  type StructureCapabilities,
  scalableContextReason,
  scalableContextReserved,
  scalableRootReason,
  scalableRootReserved,
} from '../src/index.ts';
import { structureUnits, words64 } from './arbitrary-unit.ts';
import {
  CONTEXT,
  PASID,
  PASID_DIRECTORY,
  type Positions,
  RESERVED,
  ROOT,
  SCALABLE_CONTEXT,
} from './naive-structure.ts';

type Words = readonly bigint[];

interface Codec {
  readonly name: string;
  readonly positions: Positions;
  readonly words: number;
  readonly encode: (entry: never) => Words;
  readonly decode: (words: Words) => object | null;
}

const CODECS: readonly Codec[] = [
  { name: 'root', positions: ROOT, words: 2, encode: encodeRoot, decode: decodeRoot },
  {
    name: 'context',
    positions: CONTEXT,
    words: 2,
    encode: (entry) => Object.values(encodeContext(entry)) as bigint[],
    decode: ([lo = 0n, hi = 0n]) => decodeContext(lo, hi),
  },
  {
    name: 'scalable context',
    positions: SCALABLE_CONTEXT,
    words: 4,
    encode: encodeScalableContext,
    decode: decodeScalableContext,
  },
  {
    name: 'PASID directory',
    positions: PASID_DIRECTORY,
    words: 1,
    encode: encodePasidDirectoryEntry,
    decode: decodePasidDirectoryEntry,
  },
  { name: 'PASID', positions: PASID, words: 8, encode: encodePasidEntry, decode: decodePasidEntry },
];

const width = ([high, low]: readonly [number, number]): number => high - low + 1;
/** All quadwords as one number. */
const whole = (words: Words): bigint => words.reduce((sum, word, index) => sum | (word << BigInt(index * 64)), 0n);
const split = (value: bigint, count: number): bigint[] =>
  Array.from({ length: count }, (_, index) => BigInt.asUintN(64, value >> BigInt(index * 64)));

/** Any values of the properties: booleans for bits. */
const entriesOf = (positions: Positions) =>
  fc.record(
    Object.fromEntries(
      Object.entries(positions).map(([key, position]) => [
        key,
        width(position) === 1 ? fc.boolean() : fc.integer({ min: 0, max: 2 ** width(position) - 1 }),
      ]),
    ) as Record<string, fc.Arbitrary<number | boolean>>,
  );

describe.each(CODECS)('$name entry', ({ positions, words, encode, decode }) => {
  it('puts each property where the specification says, sets P, and decodes to what was encoded', () => {
    fc.assert(
      fc.property(entriesOf(positions), (entry) => {
        const expected = Object.entries(positions).reduce(
          (sum, [key, [, low]]) => sum | (BigInt(entry[key] ?? 0) << BigInt(low)),
          1n,
        );
        const encoded = encode(entry as never);
        expect(encoded).toHaveLength(words);
        expect(whole(encoded)).toBe(expected);
        expect(decode(encoded)).toEqual(entry);
        expect(decode(split(expected & ~1n, words))).toBeNull();
      }),
    );
  });
  it('decodes any words to the bits at the positions', () => {
    fc.assert(
      fc.property(fc.array(words64, { minLength: words, maxLength: words }), (given) => {
        const value = whole(given) | 1n;
        const decoded = decode(split(value, words)) as Record<string, number | boolean>;
        expect(Object.keys(decoded).sort()).toEqual(Object.keys(positions).sort());
        for (const [key, position] of Object.entries(positions))
          expect(BigInt(decoded[key] ?? -1)).toBe(
            (value >> BigInt(position[1])) & (2n ** BigInt(width(position)) - 1n),
          );
      }),
    );
  });
  it('refuses each property one too large, negative, broken or of another type, by name', () => {
    const zero = Object.fromEntries(
      Object.entries(positions).map(([key, position]) => [key, width(position) === 1 ? false : 0]),
    );
    for (const [key, position] of Object.entries(positions)) {
      const wrong = width(position) === 1 ? [2, -1, 'yes'] : [2 ** width(position), -1, 0.5, Number.NaN, true, '1'];
      for (const value of wrong) {
        const encodeWrong = () => encode({ ...zero, [key]: value } as never);
        expect(encodeWrong, `${key}: ${value}`).toThrow(RangeError);
        expect(encodeWrong).toThrow(new RegExp(`^${key}: ${value} is not `));
      }
    }
  });
});

describe('a scalable-mode root entry', () => {
  const half = fc.option(fc.integer({ min: 0, max: 2 ** 40 - 1 }));
  it('has its halves in its quadwords, each with its own P', () => {
    fc.assert(
      fc.property(half, half, (lowerContextPfn, upperContextPfn) => {
        const words = encodeScalableRoot({ lowerContextPfn, upperContextPfn });
        expect(words).toEqual(
          [lowerContextPfn, upperContextPfn].map((pfn) => (pfn === null ? 0n : (BigInt(pfn) << 12n) | 1n)),
        );
        expect(decodeScalableRoot(words)).toEqual(
          lowerContextPfn === null && upperContextPfn === null ? null : { lowerContextPfn, upperContextPfn },
        );
      }),
    );
  });
  it('minds reserved bits in present halves only', () => {
    const unit = DEFAULT_STRUCTURE_CAPABILITIES;
    expect(scalableRootReserved([0x1003n, 0x802n], unit)).toEqual([2n, 0n]);
    expect([0, 1].map((which) => scalableRootReason([0x1003n, 0x802n], which as 0 | 1, unit))).toEqual([0x3a, 0x39]);
    expect([0, 1].map((which) => scalableRootReason([0x1001n, 0x803n], which as 0 | 1, unit))).toEqual([0, 0x3a]);
  });
});

const CHECKS: Readonly<Record<string, (words: Words, unit: StructureCapabilities) => Words>> = {
  root: rootReserved,
  'root-scalable': scalableRootReserved,
  context: contextReserved,
  'context-scalable': scalableContextReserved,
  'pasid-dir': pasidDirectoryReserved,
  pasid: pasidEntryReserved,
};

describe('reserved bits', () => {
  it.each(Object.keys(CHECKS))('of a %s are, bit by bit, those that chapter 9 says', (kind) => {
    const check = CHECKS[kind] as (typeof CHECKS)[string];
    const isReserved = RESERVED[kind] as (typeof RESERVED)[string];
    const count =
      { root: 2, 'root-scalable': 2, context: 2, 'context-scalable': 4, 'pasid-dir': 1, pasid: 8 }[kind] ?? 0;
    fc.assert(
      fc.property(structureUnits, fc.array(words64, { minLength: count, maxLength: count }), (unit, given) => {
        const words = given.map((word, index) => (index === 0 || kind === 'root-scalable' ? word | 1n : word));
        const value = whole(words);
        let expected = 0n;
        for (let bit = 0; bit < count * 64; bit++) if (isReserved(bit, unit)) expected |= 1n << BigInt(bit);
        expect(whole(check(words, unit))).toBe(value & expected);
        // Without P nothing is minded.
        const absent = words.map((word) => word & ~1n);
        expect(whole(check(absent, unit))).toBe(0n);
      }),
    );
  });
});

const unit: StructureCapabilities = { ...DEFAULT_STRUCTURE_CAPABILITIES, snoopControl: true };
const scalable: ScalableContextEntry = {
  faultProcessingDisabled: false,
  deviceTlbEnable: true,
  pasidEnable: true,
  pageRequestEnable: true,
  pasidDirectorySize: 0,
  pasidDirectoryPfn: 0x1234,
  ridPasid: 0,
  ridPrivilege: false,
};
const second: PasidEntry = {
  faultProcessingDisabled: false,
  addressWidth: 2,
  translationType: 2,
  secondStageAccessedDirty: true,
  secondStagePfn: 0x4567,
  domainId: 7,
  pageWalkSnoop: true,
  pageSnoop: true,
};

describe('the reason of a fault', () => {
  it.each<[string, number, number]>([
    ['sound', rootReason([0x1001n, 0n], unit), 0],
    ['P=0 before reserved bits', rootReason([0xffen, 1n], unit), FaultReason.rootNotPresent],
    ['reserved', rootReason([0x1003n, 0n], unit), FaultReason.rootReserved],
    ['beyond the host address width', rootReason([(1n << 46n) | 1n, 0n], unit), FaultReason.rootReserved],
    ['directory sound', pasidDirectoryReason([0x1003n], unit), 0],
    ['directory P=0', pasidDirectoryReason([0x1006n], unit), FaultReason.pasidDirectoryNotPresent],
    ['directory reserved', pasidDirectoryReason([0x1005n], unit), FaultReason.pasidDirectoryReserved],
  ])('%s', (_name, reason, expected) => expect(reason).toBe(expected));

  it.each<[string, Partial<StructureCapabilities>, number, number, number]>([
    ['second stage', {}, 0, 2, 0],
    ['AW that the unit does not walk', {}, 0, 3, FaultReason.contextInvalid],
    ['device TLB', {}, 1, 2, 0],
    ['device TLB on a unit without', { deviceTlb: false }, 1, 2, FaultReason.contextInvalid],
    ['pass-through', {}, 2, 2, 0],
    ['pass-through on a unit without', { passThrough: false }, 2, 2, FaultReason.contextInvalid],
    ['TT 3', {}, 3, 2, FaultReason.contextInvalid],
  ])('legacy context: %s', (_name, change, translationType, addressWidth, expected) => {
    const { lo, hi } = encodeContext({
      faultProcessingDisabled: false,
      translationType,
      tablePfn: 1,
      addressWidth,
      domainId: 1,
    });
    expect(contextReason([lo, hi], { ...unit, ...change })).toBe(expected);
    expect(contextReason([lo | 0x10n, hi], { ...unit, ...change })).toBe(FaultReason.contextReserved);
    expect(contextReason([lo & ~1n, hi], { ...unit, ...change })).toBe(FaultReason.contextNotPresent);
  });

  it.each<[string, Partial<ScalableContextEntry>, number]>([
    ['sound', {}, 0],
    ['PRE without DTE (SCT.4.1)', { deviceTlbEnable: false }, 0x43],
    ['neither', { deviceTlbEnable: false, pageRequestEnable: false }, 0],
    ['last PASID of the smallest directory', { ridPasid: 0x1fff }, 0],
    ['RID_PASID beyond it (SCT.4.2)', { ridPasid: 0x2000 }, 0x43],
    ['the same in a larger one', { ridPasid: 0x2000, pasidDirectorySize: 1 }, 0],
    ['the largest', { ridPasid: 0xfffff, pasidDirectorySize: 7 }, 0],
    ['EPTR on a unit without', { pasidInTranslatedEnable: true }, 0x42],
  ])('scalable context: %s', (_name, change, expected) => {
    const words = encodeScalableContext({ ...scalable, ...change });
    expect(scalableContextReason(words, unit)).toBe(expected);
    const [first = 0n, ...rest] = words;
    expect(scalableContextReason([first & ~1n, ...rest], unit)).toBe(0x41);
    expect(scalableContextReason([first | 0x80n, ...rest], unit)).toBe(0x42);
    expect(scalableContextReason([first, rest[0] ?? 0n, 1n, 0n], unit)).toBe(0x42);
  });

  const width48 = 2 ** 36;
  it.each<[string, Partial<StructureCapabilities>, Partial<PasidEntry>, number]>([
    ['second stage', {}, {}, 0],
    ['AW 3', {}, { addressWidth: 3 }, 0x5b],
    ['AW 3 on a unit with 5 levels', { addressWidths: [2, 3] }, { addressWidth: 3 }, 0],
    ['PGTT 0', {}, { translationType: 0 }, 0x5b],
    ['PGTT 5', {}, { translationType: 5 }, 0x5b],
    ['second stage on a unit without A and D', { secondStageAccessedDirty: false }, {}, 0x5a],
    ['pass-through, AW ignored', {}, { translationType: 4, addressWidth: 0 }, 0],
    ['pass-through on a unit without', { passThrough: false }, { translationType: 4 }, 0x5b],
    ['first stage, AW ignored', {}, { translationType: 1, addressWidth: 0 }, 0],
    ['first stage of 5 levels', {}, { translationType: 1, firstStagePagingMode: 1 }, 0x5b],
    ['the same on a unit with', { firstStage5Level: true }, { translationType: 1, firstStagePagingMode: 1 }, 0],
    ['FSPM 2 is reserved', { firstStage5Level: true }, { translationType: 1, firstStagePagingMode: 2 }, 0x5b],
    ['FSPM is ignored by second stage', {}, { firstStagePagingMode: 2 }, 0],
    ['nested', {}, { translationType: 3, firstStagePfn: 5 }, 0],
    ['nested on a unit without', { nested: false }, { translationType: 3 }, 0x5b],
    ['nested, FSPTPTR beyond AW', { hostAddressWidth: 52 }, { translationType: 3, firstStagePfn: width48 }, 0x5b],
    ['nested, FSPTPTR within', { hostAddressWidth: 52 }, { translationType: 3, firstStagePfn: width48 - 1 }, 0],
    ['ERE in Rev 5.10', { executeRequest: true }, { executeRequestEnable: true }, 0x5a],
    ['ERE in Rev 3.x', { executeRequest: true, specRevision: '3.x' }, { executeRequestEnable: true }, 0],
    ['PGSNP without snoop control', { snoopControl: false }, {}, 0x5a],
    ['domain-id beyond the width', { domainIdWidth: 8 }, { domainId: 0x100 }, 0x5a],
  ])('PASID entry: %s', (_name, capabilities, change, expected) => {
    const words = encodePasidEntry({ ...second, ...change });
    expect(pasidEntryReason(words, { ...unit, ...capabilities })).toBe(expected);
    expect(pasidEntryReason([(words[0] ?? 0n) & ~1n, ...words.slice(1)], unit)).toBe(0x59);
  });

  it('FPD is read without P', () => {
    expect([0n, 1n, 2n, 3n].map((word) => isFaultProcessingDisabled([word]))).toEqual([false, false, true, true]);
  });
});

describe('known values', () => {
  it('are those of a unit programmed by hand', () => {
    // Second stage, 4 levels, SSADE, DID 7, walks and requests snoop.
    expect(encodePasidEntry(second)).toEqual([0x4567289n, 0x1800007n, 0n, 0n, 0n, 0n, 0n, 0n]);
    expect(encodeScalableContext({ ...scalable, ridPasid: 3 })).toEqual([0x123401dn, 3n, 0n, 0n]);
    expect(encodePasidDirectoryEntry({ faultProcessingDisabled: false, pasidTablePfn: 0x99 })).toEqual([0x99001n]);
    expect(encodeRoot({ contextPfn: 0x102 })).toEqual([0x102001n, 0n]);
  });
});
