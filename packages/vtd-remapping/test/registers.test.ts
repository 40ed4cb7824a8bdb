import { TableMemory } from '@faultline/vtd-pagetable';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { GlobalCommand, IOTLB_REGISTERS, Register, RemappingUnit, type UnitCapabilities } from '../src/index.ts';
import { DEVICE } from './raw-unit.ts';
import { UnitSetup } from './unit-setup.ts';

const ALL = 0xffff_ffff_ffff_ffffn;
const bits = (high: number, low: number): bigint => ((1n << BigInt(high - low + 1)) - 1n) << BigInt(low);

interface Field {
  readonly bits: 32 | 64;
  /** Value after reset. */
  readonly reset: bigint;
  /** Bits that keep what is written (RW). What is in neither mask is RO, RW1C at 0, WO or reserved: it reads as at reset. */
  readonly writable: bigint;
}

const at = (value: bigint, low: number): bigint => value << BigInt(low);
/** ND, SAGAW, MGAW, ZLR, FRO, SSLPS, PSI, NFR, MAMV, DWD, DRD, ESRTPS of the default unit; more in capability.test.ts. */
const CAP =
  6n |
  at(0xcn, 8) |
  at(56n, 16) |
  at(1n, 22) |
  at(0x60n, 24) |
  at(3n, 34) |
  at(1n, 39) |
  at(7n, 40) |
  at(18n, 48) |
  at(3n, 54) |
  at(1n, 63);
/** C, QI, DT, PT, IRO, PRS, NWFS, PSS, PASID, PDS, SMTS, SSADS, SSTS, SMPWCS, RPS, ADMS, SMS. */
const ECAP =
  7n |
  at(1n, 6) |
  at(0x50n, 8) |
  at(1n, 29) |
  at(1n, 33) |
  at(19n, 35) |
  at(1n, 40) |
  at(3n, 42) |
  at(3n, 45) |
  at(3n, 48) |
  at(1n, 52) |
  at(1n, 58);

/** Chapter 11's tables, by offset: what a unit with everything that is modelled has. */
const MAP: Readonly<Record<number, Field>> = {
  0: { bits: 32, reset: 0x70n, writable: 0n }, // VER
  8: { bits: 64, reset: CAP, writable: 0n },
  16: { bits: 64, reset: ECAP, writable: 0n }, // ECAP
  24: { bits: 32, reset: 0n, writable: 0n }, // GCMD: write-only
  28: { bits: 32, reset: 0n, writable: 0n }, // GSTS
  32: { bits: 64, reset: 0n, writable: bits(63, 10) }, // RTADDR: SSIRWE is reserved without ECAP.SSIRWS
  40: { bits: 64, reset: 0n, writable: bits(62, 61) | bits(33, 0) }, // CCMD without ICC, which clears itself
  52: { bits: 32, reset: 0n, writable: 0n }, // FSTS: RW1C
  56: { bits: 32, reset: bits(31, 31), writable: bits(31, 31) }, // FECTL
  60: { bits: 32, reset: 0n, writable: bits(15, 0) },
  64: { bits: 32, reset: 0n, writable: bits(31, 2) },
  68: { bits: 32, reset: 0n, writable: bits(31, 0) },
  100: { bits: 32, reset: 0n, writable: 0n }, // PMEN: RO without PLMR and PHMR
  128: { bits: 64, reset: 0n, writable: 0n }, // IQH
  136: { bits: 64, reset: 0n, writable: bits(18, 4) }, // IQT
  144: { bits: 64, reset: 0n, writable: bits(63, 11) | bits(2, 0) }, // IQA
  156: { bits: 32, reset: 0n, writable: 0n }, // ICS
  160: { bits: 32, reset: bits(31, 31), writable: bits(31, 31) }, // IECTL
  164: { bits: 32, reset: 0n, writable: bits(15, 0) },
  168: { bits: 32, reset: 0n, writable: bits(31, 2) },
  172: { bits: 32, reset: 0n, writable: bits(31, 0) },
  176: { bits: 64, reset: 0n, writable: 0n }, // IQERCD
  184: { bits: 64, reset: 0n, writable: 0n }, // IRTA: reserved without ECAP.IR
  192: { bits: 64, reset: 0n, writable: bits(18, 5) }, // PQH
  200: { bits: 64, reset: 0n, writable: bits(18, 5) }, // PQT
  208: { bits: 64, reset: 0n, writable: bits(63, 12) | bits(2, 0) }, // PQA
  220: { bits: 32, reset: 0n, writable: 0n }, // PRS
  224: { bits: 32, reset: bits(31, 31), writable: bits(31, 31) }, // PECTL
  228: { bits: 32, reset: 0n, writable: bits(15, 0) },
  232: { bits: 32, reset: 0n, writable: bits(31, 2) },
  236: { bits: 32, reset: 0n, writable: bits(31, 0) },
  [IOTLB_REGISTERS]: { bits: 64, reset: 0n, writable: bits(63, 12) | bits(6, 0) }, // IVA: a read is undefined
  [IOTLB_REGISTERS + 8]: { bits: 64, reset: 0n, writable: bits(61, 60) | bits(49, 32) }, // IOTLB_REG
};

/** A unit as it comes out of reset. */
const fresh = (capabilities: Partial<UnitCapabilities> = {}) => {
  const unit = new RemappingUnit({ memory: MEMORY, capabilities });
  return { unit, registers: unit.registers };
};
const MEMORY = new TableMemory({ pages: 1 });

/** Every 32-bit word of the map, as [offset, reset value, writable bits]. */
const WORDS: readonly (readonly [number, number, number])[] = Object.entries(MAP).flatMap(([key, field]) => {
  const offset = Number(key);
  const low = (value: bigint): number => Number(value & 0xffff_ffffn);
  const high = (value: bigint): number => Number(value >> 32n);
  const first = [offset, low(field.reset), low(field.writable)] as const;
  return field.bits === 32 ? [first] : [first, [offset + 4, high(field.reset), high(field.writable)] as const];
});

describe('the register map', () => {
  it('names the offsets of chapter 11', () => {
    const named = Object.values(Register);
    const mapped = Object.keys(MAP).map(Number);
    expect(named).toEqual(mapped.filter((offset) => offset < IOTLB_REGISTERS));
  });

  it('reads as after reset everywhere, and as zero where nothing is', () => {
    const { registers } = fresh();
    const values = new Map(WORDS.map(([offset, reset]) => [offset, reset]));
    for (let offset = 0; offset < 0x1000; offset += 4)
      expect(registers.read32(offset), offset.toString(16)).toBe(values.get(offset) ?? 0);
  });

  it.each([0xffff_ffff, 0x7fff_ffff, 0x5555_5555, 0xaaaa_aaaa])(
    'written with %i keeps what is RW and nothing else',
    (value) => {
      const values = new Map(WORDS.map(([offset, reset, writable]) => [offset, { reset, writable }]));
      for (let offset = 0; offset < 0x1000; offset += 4) {
        const { registers } = fresh();
        registers.write32(offset, value);
        const { reset = 0, writable = 0 } = values.get(offset) ?? {};
        const expected = ((reset & ~writable) | (value & writable)) >>> 0;
        expect(registers.read32(offset), offset.toString(16)).toBe(expected);
      }
    },
  );

  it('gives the same by one 64-bit write as by two of 32 bits, except that a command needs its upper half', () => {
    const offsets = Object.keys(MAP)
      .map(Number)
      .filter((offset) => MAP[offset]?.bits === 64);
    fc.assert(
      fc.property(fc.constantFrom(...offsets), fc.bigInt({ min: 0n, max: ALL }), (offset, value) => {
        const [whole, halves] = [fresh().registers, fresh().registers];
        whole.write64(offset, value);
        halves.write32(offset, Number(value & 0xffff_ffffn));
        halves.write32(offset + 4, Number(value >> 32n));
        expect(halves.read64(offset)).toBe(whole.read64(offset));
        expect(whole.read64(offset)).toBe(BigInt(whole.read32(offset)) | (BigInt(whole.read32(offset + 4)) << 32n));
      }),
    );
  });

  it('joins two 32-bit registers in a 64-bit access', () => {
    const { registers } = fresh();
    registers.write64(Register.FECTL, 0x1234_0000_0000n);
    expect([registers.read32(Register.FECTL), registers.read32(Register.FEDATA)]).toEqual([0, 0x1234]);
    expect(registers.read64(Register.FECTL)).toBe(0x1234_0000_0000n);
  });

  it('has no page request registers without ECAP.PRS', () => {
    const { registers } = fresh({ pageRequests: false });
    for (let offset = 0xc0; offset < 0xf0; offset += 4) {
      registers.write32(offset, -1);
      expect(registers.read32(offset)).toBe(0);
    }
  });

  it('refuses an access that is not aligned, or outside, and says where', () => {
    const { registers } = fresh();
    const message = (offset: string, bytes: number) =>
      `offset: ${offset} is not a multiple of ${bytes} in 0x0..0x${(0x1000 - bytes).toString(16)}`;
    for (const [offset, shown] of [
      [0x3, '0x3'],
      [0x22, '0x22'],
      [0x1000, '0x1000'],
      [0x7fff_fffc, '0x7ffffffc'],
    ] as const) {
      expect(() => registers.read32(offset)).toThrow(new RangeError(message(shown, 4)));
      expect(() => registers.write32(offset, 0)).toThrow(new RangeError(message(shown, 4)));
    }
    for (const [offset, shown] of [
      [0x4, '0x4'],
      [0x1c, '0x1c'],
      [0xffc, '0xffc'],
      [0x1000, '0x1000'],
    ] as const) {
      expect(() => registers.read64(offset)).toThrow(new RangeError(message(shown, 8)));
      expect(() => registers.write64(offset, 0n)).toThrow(new RangeError(message(shown, 8)));
    }
    for (const offset of [-4, 0.5, Number.NaN]) expect(() => registers.read32(offset)).toThrow(RangeError);
  });
});

describe('the global command register', () => {
  const { translationEnable, setRootTable, queuedInvalidationEnable } = GlobalCommand;
  const status = (unit: RemappingUnit): number => unit.registers.read32(Register.GSTS) | 0;

  it('has TE and QIE as levels and SRTP as a one-shot, and no other bit does anything', () => {
    const { unit } = fresh();
    unit.registers.write32(Register.GCMD, ~(translationEnable | setRootTable | queuedInvalidationEnable));
    expect(status(unit)).toBe(0);
    unit.registers.write32(Register.GCMD, setRootTable);
    expect(status(unit)).toBe(setRootTable);
    unit.registers.write32(Register.GCMD, queuedInvalidationEnable);
    expect(status(unit)).toBe(setRootTable | queuedInvalidationEnable);
    expect([unit.enabled, unit.invalidationQueue.enabled]).toEqual([false, true]);
    unit.registers.write32(Register.GCMD, translationEnable);
    expect(status(unit)).toBe(setRootTable | translationEnable);
    expect([unit.enabled, unit.invalidationQueue.enabled]).toEqual([true, false]);
    unit.registers.write32(Register.GCMD, 0);
    expect([status(unit), unit.enabled]).toEqual([setRootTable, false]);
  });

  it('latches RTADDR with SRTP; RTADDR alone changes nothing', () => {
    const { unit } = fresh();
    unit.registers.write64(Register.RTADDR, 0x1234_5400n);
    expect([unit.rootPfn, unit.mode]).toEqual([0, 0]);
    unit.registers.write32(Register.GCMD, setRootTable);
    expect([unit.rootPfn, unit.mode]).toEqual([0x12345, 1]);
    unit.registers.write64(Register.RTADDR, 0x5432_1c00n);
    expect([unit.rootPfn, unit.mode, unit.registers.read64(Register.RTADDR)]).toEqual([0x12345, 1, 0x5432_1c00n]);
    unit.registers.write32(Register.GCMD, setRootTable);
    expect([unit.rootPfn, unit.mode]).toEqual([0x54321, 3]);
  });

  it('drops all caches with SRTP only if CAP.ESRTPS, and when TE is cleared only if ECAP.SMTS', () => {
    for (const [capabilities, bySrtp, byTe] of [
      [{ enhancedSetRootTable: true, scalableMode: true }, true, true],
      [{ enhancedSetRootTable: false, scalableMode: true }, false, true],
      [{ enhancedSetRootTable: true, scalableMode: false }, true, false],
      [{ enhancedSetRootTable: false, scalableMode: false }, false, false],
    ] as const) {
      const cached = () => {
        const setup = new UnitSetup({ capabilities });
        const domain = setup.domain();
        domain.attach(DEVICE, null);
        setup.run((agent) => domain.map(agent, { page: 1, frame: 0x80001, pages: 1, write: false }));
        setup.dma(DEVICE, 1);
        expect(setup.unit.iotlb.size).toBe(1);
        return setup.unit;
      };
      const enabled = translationEnable | queuedInvalidationEnable;
      const first = cached();
      first.registers.write32(Register.GCMD, enabled | setRootTable);
      expect(first.iotlb.size).toBe(bySrtp ? 0 : 1);
      expect(first.pagingCache.size === 0).toBe(bySrtp);
      const second = cached();
      second.registers.write32(Register.GCMD, enabled);
      expect(second.iotlb.size).toBe(1);
      second.registers.write32(Register.GCMD, queuedInvalidationEnable);
      expect(second.iotlb.size).toBe(byTe ? 0 : 1);
    }
  });
});
