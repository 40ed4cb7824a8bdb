import { TableMemory } from '@faultline/vtd-pagetable';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  DEFAULT_CAPABILITIES,
  FAULT_REGISTERS,
  GlobalCommand,
  IOTLB_REGISTERS,
  Register,
  RemappingUnit,
  type UnitCapabilities,
} from '../src/index.ts';
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

describe('invalidation by register', () => {
  const DOMAIN = 5;
  const legacy = (capabilities: Partial<UnitCapabilities> = {}, queue = false) => {
    const setup = new UnitSetup({ capabilities: { majorVersion: 5, ...capabilities } }, { mode: 'legacy' });
    const domain = setup.domain({ domainId: DOMAIN });
    domain.attach(DEVICE, null);
    setup.run((agent) => domain.map(agent, { page: 0, frame: 0x80000, pages: 16, write: false }));
    for (const page of [1, 2]) setup.dma(DEVICE, page);
    const { registers } = setup.unit;
    const enabled = GlobalCommand.translationEnable | (queue ? GlobalCommand.queuedInvalidationEnable : 0);
    registers.write32(Register.GCMD, enabled);
    expect([setup.unit.iotlb.size, setup.unit.contextCache.size]).toEqual([2, 1]);
    return { unit: setup.unit, registers };
  };
  const ccmd = (granularity: bigint, domainId = DOMAIN, sourceId = DEVICE, functionMask = 0n) =>
    (1n << 63n) | (granularity << 61n) | (functionMask << 32n) | (BigInt(sourceId) << 16n) | BigInt(domainId);
  const iotlb = (granularity: bigint, domainId = DOMAIN) =>
    (1n << 63n) | (granularity << 60n) | (BigInt(domainId) << 32n);

  it('drops contexts at the granularity that CAIG then reports, with ICC clear', () => {
    for (const [command, left] of [
      [ccmd(1n, 99), 0],
      [ccmd(2n), 0],
      [ccmd(2n, 99), 1],
      [ccmd(3n), 0],
      [ccmd(3n, DOMAIN, DEVICE + 1), 1],
      [ccmd(3n, DOMAIN, DEVICE + 4, 1n), 0],
    ] as const) {
      const { unit, registers } = legacy();
      registers.write64(Register.CCMD, command);
      const value = registers.read64(Register.CCMD);
      expect([value >> 63n, (value >> 59n) & 3n]).toEqual([0n, (command >> 61n) & 3n]);
      expect(unit.contextCache.size).toBe(left);
    }
  });

  it('drops IOTLB entries at the granularity that IAIG then reports, with the address in IVA', () => {
    for (const [command, address, left] of [
      [iotlb(1n, 99), 0n, 0],
      [iotlb(2n), 0n, 0],
      [iotlb(2n, 99), 0n, 2],
      [iotlb(3n), 0x1000n, 1],
      [iotlb(3n), 0x1001n, 1],
      [iotlb(3n), 0x1002n, 0],
      [iotlb(3n, 99), 0x1002n, 2],
    ] as const) {
      for (const inHalves of [false, true]) {
        const { unit, registers } = legacy();
        if (inHalves) {
          registers.write32(IOTLB_REGISTERS, Number(address));
          registers.write32(IOTLB_REGISTERS + 4, 0);
          registers.write32(IOTLB_REGISTERS + 8, 0);
          expect(unit.iotlb.size).toBe(2);
          registers.write32(IOTLB_REGISTERS + 12, Number(command >> 32n));
        } else {
          registers.write64(IOTLB_REGISTERS, address);
          registers.write64(IOTLB_REGISTERS + 8, command);
        }
        const value = registers.read64(IOTLB_REGISTERS + 8);
        expect([value >> 63n, (value >> 57n) & 3n]).toEqual([0n, (command >> 60n) & 3n]);
        expect(unit.iotlb.size, `${command.toString(16)} ${address.toString(16)}`).toBe(left);
      }
    }
  });

  it('keeps the paging-structure caches with IH', () => {
    for (const [address, left] of [
      [0x1040n, true],
      [0x1000n, false],
    ] as const) {
      const { unit, registers } = legacy();
      expect(unit.pagingCache.size).toBeGreaterThan(0);
      registers.write64(IOTLB_REGISTERS, address);
      registers.write64(IOTLB_REGISTERS + 8, iotlb(3n));
      expect(unit.pagingCache.size > 0).toBe(left);
    }
  });

  it('is refused with 00b, and drops nothing, from version 6 on, with the queue on, and for reserved values', () => {
    const refuse = (made: ReturnType<typeof legacy>, context: bigint, entries: bigint, address = 0n) => {
      const { unit, registers } = made;
      registers.write64(Register.CCMD, context);
      registers.write64(IOTLB_REGISTERS, address);
      registers.write64(IOTLB_REGISTERS + 8, entries);
      expect(registers.read64(Register.CCMD) >> 63n).toBe(0n);
      expect((registers.read64(Register.CCMD) >> 59n) & 3n).toBe(0n);
      expect((registers.read64(IOTLB_REGISTERS + 8) >> 57n) & 3n).toBe(0n);
      expect([unit.contextCache.size, unit.iotlb.size]).toEqual([1, 2]);
    };
    refuse(legacy({ majorVersion: 6 }), ccmd(1n), iotlb(1n));
    refuse(legacy({}, true), ccmd(1n), iotlb(1n));
    refuse(legacy(), ccmd(0n), iotlb(0n));
    refuse(legacy({ maximumAddressMask: 9 }), ccmd(0n), iotlb(3n), 10n);
    refuse(legacy({ pageSelective: false }), ccmd(0n), iotlb(3n));
    // In another mode than legacy.
    const { unit, registers } = legacy({ enhancedSetRootTable: false });
    registers.write64(Register.RTADDR, 0x400n);
    registers.write32(Register.GCMD, GlobalCommand.setRootTable | GlobalCommand.translationEnable);
    refuse({ unit, registers }, ccmd(1n), iotlb(1n));
  });

  it('reports what was refused although an earlier one was done, and its upper half alone is not CAIG', () => {
    const { registers } = legacy();
    registers.write64(Register.CCMD, ccmd(2n));
    registers.write32(Register.CCMD + 4, 0x1800_0000); // CAIG is read-only
    expect((registers.read64(Register.CCMD) >> 59n) & 3n).toBe(2n);
    registers.write64(Register.CCMD, ccmd(0n));
    expect((registers.read64(Register.CCMD) >> 59n) & 3n).toBe(0n);
  });
});

describe('the fault recording registers', () => {
  const fault = (sourceId: number, page = 0x40123) => ({ sourceId, page, reason: 0x79, write: false });
  const recorded = (index: number) => FAULT_REGISTERS + index * 16;

  it('are where CAP says, NFR+1 of them, and can be read whole and in parts', () => {
    for (const faultRegisters of [1, 8, 160]) {
      const { unit, registers } = fresh({ faultRegisters });
      const cap = registers.read64(Register.CAP);
      const [offset, count] = [Number((cap >> 24n) & 0x3ffn) * 16, Number((cap >> 40n) & 0xffn) + 1];
      expect([offset, count]).toEqual([FAULT_REGISTERS, faultRegisters]);
      for (let i = 0; i < count; i++) unit.faults.record(fault(i, 0x1000 + i));
      for (let i = 0; i < count; i++) {
        const high = (3n << 62n) | (0x79n << 32n) | BigInt(i); // F, T1: a read
        expect([registers.read64(recorded(i)), registers.read64(recorded(i) + 8)]).toEqual([
          BigInt(0x1000 + i) << 12n,
          high,
        ]);
        expect(registers.read32(recorded(i) + 12)).toBe(0xc000_0079);
      }
    }
  });

  it('show no address bits above the largest AGAW', () => {
    for (const [levels, shown] of [
      [[3], 0x7f_ffff_f000n],
      [[4], 0xffff_ffff_f000n],
      [[4, 5], 0x1ff_ffff_ffff_f000n],
    ] as const) {
      const { unit, registers } = fresh({ levels });
      unit.faults.record(fault(1, 2 ** 52 - 1));
      expect(registers.read64(recorded(0))).toBe(shown);
    }
  });

  it('are freed by F alone, written with 1 in the highest word', () => {
    const { unit, registers } = fresh();
    unit.faults.record(fault(1));
    registers.write64(recorded(0), ALL);
    registers.write32(recorded(0) + 8, -1);
    registers.write32(recorded(0) + 12, 0x7fff_ffff);
    expect(registers.read32(Register.FSTS)).toBe(2);
    registers.write64(recorded(0) + 8, 1n << 63n);
    expect([registers.read64(recorded(0)), registers.read64(recorded(0) + 8), registers.read32(Register.FSTS)]).toEqual(
      [0n, 0n, 0],
    );
  });

  it('wrap, keep FRI at the first pending one, and PPF as the OR of F', () => {
    const { unit, registers } = fresh({ faultRegisters: 4 });
    const status = () => registers.read32(Register.FSTS);
    for (let i = 0; i < 3; i++) unit.faults.record(fault(i));
    expect(status()).toBe(0x002);
    for (const i of [0, 2]) registers.write32(recorded(i) + 12, -1);
    expect(status()).toBe(0x002);
    registers.write32(recorded(1) + 12, -1);
    expect(status() & 2).toBe(0);
    unit.faults.record(fault(3));
    unit.faults.record(fault(4)); // wraps to 0
    expect(status()).toBe(0x302);
    expect(registers.read64(recorded(0) + 8) & 0xffffn).toBe(4n);
    for (let i = 5; i < 9; i++) unit.faults.record(fault(i)); // fills, and overflows
    expect(status()).toBe(0x303);
    // PFO alone is cleared by its bit, and then the index goes on where it was.
    registers.write32(Register.FSTS, 1);
    expect(status()).toBe(0x302);
    registers.write32(recorded(3) + 12, -1);
    unit.faults.record(fault(9));
    expect(registers.read64(recorded(3) + 8) & 0xffffn).toBe(9n);
  });

  it('start again at 0 when translation is turned off', () => {
    const { unit, registers } = fresh();
    for (let i = 0; i < 3; i++) unit.faults.record(fault(i));
    unit.faults.takeAll();
    registers.write32(Register.GCMD, GlobalCommand.translationEnable);
    unit.faults.record(fault(1));
    expect(registers.read32(Register.FSTS)).toBe(0x302);
    unit.faults.takeAll();
    registers.write32(Register.GCMD, 0);
    unit.faults.record(fault(1));
    expect(registers.read32(Register.FSTS)).toBe(0x002);
  });

  it('are as many as fit', () => {
    for (const faultRegisters of [0, 161, 1.5])
      expect(() => fresh({ faultRegisters })).toThrow(`faultRegisters: ${faultRegisters} is not an integer in 1..160`);
    expect(DEFAULT_CAPABILITIES.faultRegisters).toBe(8);
  });
});
